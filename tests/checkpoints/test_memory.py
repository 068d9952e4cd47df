"""Loading onto a mesh: a host holds its own part of the model and one stored tensor, whatever the storage."""

from __future__ import annotations

import math
import tracemalloc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.checkpoints import huggingface, load_model, placing
from jaxinterp.checkpoints.tensors import TensorFile
from jaxinterp.parallel import mesh as meshes
from tests.checkpoints import quantised_folders as folders
from tests.references import quantised_cases, seeded, stored
from tests.references.quantised_cases import Stored

BLOCK = (128, 128)
# What looking codes up takes, however large the tensor.
SLACK = 500_000
SIZES = {
    "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 8, "head_dim": 16, "num_local_experts": 8, "vocab_size": 512,
}  # fmt: skip


def numbers(name: str, shape: tuple[int, ...]) -> tuple[str, np.ndarray]:
    return quantised_cases.bfloat16(seeded.tensor(0, name, shape))


def mixtral(folder: Path, fp8: bool) -> Path:
    """Experts in tensors of their own, bfloat16 or fp8."""
    config = {**stored.case("mixtral_gqa").config, **SIZES, "tie_word_embeddings": False}
    d, heads = 256, 8 * 16
    shapes = {"model.embed_tokens.weight": (512, d), "model.norm.weight": (d,), "lm_head.weight": (512, d)}
    for layer in range(3):
        block = f"model.layers.{layer}."
        shapes |= {f"{block}self_attn.{part}_proj.weight": (heads, d) for part in "qkv"}
        shapes |= {f"{block}self_attn.o_proj.weight": (d, heads)}
        shapes |= {f"{block}{norm}_layernorm.weight": (d,) for norm in ("input", "post_attention")}
        shapes |= {f"{block}block_sparse_moe.gate.weight": (8, d)}
        for expert in range(8):
            shapes |= {f"{block}block_sparse_moe.experts.{expert}.w{i}.weight": (d, d) for i in (1, 2, 3)}
    tensors: Stored = {}
    for name, shape in shapes.items():
        if fp8 and ("experts." in name or "_proj" in name):
            codes, factors = quantised_cases.fp8(0, name, (shape[0], shape[1]), BLOCK)
            tensors |= {name: ("F8_E4M3", codes), f"{name}_scale_inv": ("F32", factors)}
        else:
            tensors[name] = numbers(name, shape)
    if fp8:
        config["quantization_config"] = {**folders.FP8, "weight_block_size": list(BLOCK)}
    return folders.write(folder, config, tensors)


def gpt_oss(folder: Path) -> Path:
    """All experts of a layer in one tensor, MXFP4."""
    layers = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    config = {**quantised_cases.GPT_OSS, **SIZES, **layers}
    return folders.write(folder, config, quantised_cases.gpt_oss_tensors(config))


FOLDERS = {
    "bfloat16": lambda folder: mixtral(folder, False),
    "fp8": lambda folder: mixtral(folder, True),
    "mxfp4": gpt_oss,
}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def tracing() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_one_tensor_besides_its_own_part(folder: Path, tracing: None) -> None:
    """What one device of eight, alone on its host, holds while its part of each array is read."""
    config, arrays = huggingface.leaves(folder, "float32")
    mesh = meshes.make(data=1, model=8)
    model = sum(4 * math.prod(leaf.shape) for leaf in arrays.values())
    shardings = placing.shardings(config, mesh, None)
    excess = {}
    for name, leaf in arrays.items():
        sharding = shardings[name]
        assert sharding is not None
        index = sharding.addressable_devices_indices_map(leaf.shape)[mesh.devices.flat[3]]
        assert index is not None
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        (own,) = placing.own_parts(leaf.shape, np.dtype(np.float32), leaf.places, leaf.read, [index]).values()
        peak = tracemalloc.get_traced_memory()[1] - before
        excess[name] = peak - own.nbytes
        tensor = 4 * math.prod(leaf.shape[len(leaf.places[0]) :])
        # The tensor as it is stored, and its numbers.
        assert excess[name] <= 2 * tensor + SLACK, name
        assert own.nbytes <= 4 * math.prod(leaf.shape) / 8 + 4 or name in (
            "experts.router", "experts.router_bias", "layers.attn_norm.scale", "layers.mlp_norm.scale",
            "final_norm.scale", "experts.down_bias", "layers.o_bias",
        ), name  # fmt: skip
        del own
    # So the bound says something: reading all experts of an array, or of a layer of it, would pass it.
    assert max(excess.values()) < model / 10
    assert 2 * 4 * 256 * 256 + SLACK < 4 * 8 * 256 * 256


def test_one_stored_tensor_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes read from files that are alive at once, while the whole model is divided over eight devices."""
    alive = most = largest = 0
    names: list[str] = []
    read = TensorFile._read

    def watched(self: TensorFile, name: str, dtype: np.dtype, index: Any) -> np.ndarray:
        nonlocal alive, most, largest
        array = read(self, name, dtype, index)
        alive += array.nbytes
        most, largest = max(most, alive), max(largest, array.nbytes)
        names.append(name)

        def gone(size: int = array.nbytes) -> None:
            nonlocal alive
            alive -= size

        weakref.finalize(array, gone)
        return array

    monkeypatch.setattr(TensorFile, "_read", watched)
    load_model(folder, mesh=meshes.make(data=1, model=8))
    assert len(names) > 50
    # The factors of a tensor's blocks come with it: one for 32 numbers at least.
    assert most <= largest * 33 / 32
    assert alive == 0
