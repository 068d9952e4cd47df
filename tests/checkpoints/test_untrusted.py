"""Files are untrusted: whatever stands in them, the answer is a model or one InputError, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import load_model
from jaxinterp.checkpoints.huggingface import read_config
from jaxinterp.checkpoints.llama2c_tokenizer import read_tokenizer
from jaxinterp.checkpoints.tensors import TensorFile
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from tests.checkpoints.folders import DATA
from tests.checkpoints.test_llama2c import small_tokenizer
from tests.support import tiny_config

JUNK: list[Any] = [
    None, True, False, 0, -1, 7, 2**70, 2.5, -0.5, float("inf"), float("nan"), "", "x", [], [1], ["x"], [None], {},
    {"a": 1}, {"rope_type": "default"}, {"rope_type": "default", "rope_theta": "x"}, [["sliding_attention"]],
]  # fmt: skip


_LIKE: dict[type, Any] = {list: tuple, float: float | int, type(None): float | int}


def attempt(action: Any) -> Any:
    """The result, or None for an InputError of one line; any other exception fails the test."""
    message = ""
    try:
        return action()
    except InputError as error:
        message = str(error)
    assert message and "\n" not in message
    return None


@pytest.mark.parametrize("name", ["gpt2", "llama_gqa", "gemma2"])
def test_junk_in_every_field(name: str) -> None:
    content = json.loads((DATA / name / "config.json").read_text())
    fields = [
        *content,
        "rope_scaling",
        "rope_parameters",
        "quantization_config",
        "n_inner",
        "layer_types",
        "extra",
    ]
    accepted = 0
    for field in fields:
        for value in JUNK:
            changed = {**content, field: value}
            found = attempt(lambda changed=changed: read_config(changed, "config.json"))
            assert found is None or isinstance(found[1], ModelConfig)
            accepted += found is not None
    assert accepted > len(fields), "harmless fields take anything"
    for value in JUNK:
        if not isinstance(value, dict):
            assert attempt(lambda value=value: read_config(value, "config.json")) is None


# A function-scoped folder is written anew by every example, which is what the health check warns about.
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def change(data: bytes, edits: list[tuple[float, int]], keep: float) -> bytes:
    changed = bytearray(data)
    for place, value in edits:
        changed[int(place * (len(changed) - 1))] = value
    return bytes(changed[: int(keep * len(changed))])


EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6)
KEEP = st.one_of(st.just(1.0), st.floats(0, 1))


@FUZZ
@given(EDITS, KEEP)
def test_damaged_safetensors_headers(tmp_path: Path, edits: list[tuple[float, int]], keep: float) -> None:
    data = (DATA / "gpt2_untied_gelu" / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(data[:8], "little")
    file = tmp_path / "model.safetensors"
    file.write_bytes(change(data[:length], edits, keep) + data[length:])
    found = attempt(lambda: TensorFile(file))
    for name, entry in found.entries.items() if found else ():
        array = attempt(lambda name=name: found.read(name))
        assert array is None or array.shape == entry.shape


@FUZZ
@given(EDITS, KEEP)
def test_damaged_tokenizers(tmp_path: Path, edits: list[tuple[float, int]], keep: float) -> None:
    file = tmp_path / "tokenizer.bin"
    file.write_bytes(change(small_tokenizer().to_bytes(), edits, keep))
    found = attempt(lambda: read_tokenizer(file))
    if found is not None:
        ids = attempt(lambda: found.encode("ab c"))
        assert ids is None or isinstance(found.decode(ids), str)


@FUZZ
@given(st.binary(max_size=400))
def test_any_bytes_as_a_model_file(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "m.bin"
    file.write_bytes(data)
    assert attempt(lambda: load_model(file)) is None


def test_junk_in_every_field_of_our_own_config() -> None:
    content = tiny_config("gemma2").to_dict()
    for field, good in content.items():
        for value in JUNK:
            found = attempt(lambda field=field, value=value: ModelConfig.from_dict({**content, field: value}))
            if found is not None:
                kept = getattr(found, field)
                assert kept is None or isinstance(kept, _LIKE.get(type(good), type(good)))
