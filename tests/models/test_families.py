"""Every family against `transformers` in float32 and against the plain NumPy pass in float64."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxinterp.checkpoints import load_model
from jaxinterp.checkpoints.families import FAMILIES
from jaxinterp.checkpoints.huggingface import read_config
from jaxinterp.core.errors import InputError
from jaxinterp.models.decoder import forward
from tests.references import numpy_decoder, stored

KNOWN = tuple(name for name in stored.names() if stored.case(name).family in FAMILIES)
EVERY = (*KNOWN, *stored.names(dynamic_tanh=True))
NOT_YET = tuple(name for name in stored.names() if stored.case(name).family not in FAMILIES)


def residuals(folder: Path, tokens: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits [B, T, V] and the residual stream before each layer and after the last, [L + 1, B, T, D]."""
    model = load_model(folder, dtype=dtype)
    run = jax.jit(partial(forward, config=model.config, sites=("resid_pre", "resid_post")))
    logits, found = run(model.params, tokens=tokens)
    return np.asarray(logits), np.concatenate([found.resid_pre, found.resid_post[-1:]])


def difference(ours: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference in units of the largest entry of the reference."""
    assert ours.shape == reference.shape
    return float(np.max(np.abs(ours - reference)) / np.max(np.abs(reference)))


@pytest.mark.parametrize("name", EVERY)
def test_logits_and_residuals(name: str, tmp_path: Path, x64: None) -> None:
    case = stored.case(name)
    folder, reference = stored.write_folder(case, tmp_path / name), case.reference()
    logits, streams = residuals(folder, reference["tokens"], "float64")
    exact = numpy_decoder.forward(case.config, case.tensors(), reference["tokens"])
    assert difference(logits, exact.logits) < 1e-10
    assert difference(streams, exact.residuals) < 1e-10
    against_pytorch(reference, logits, streams)


@pytest.mark.parametrize(
    "name", [name if name in EVERY[::8] else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
)
def test_logits_and_residuals_in_float32(name: str, tmp_path: Path) -> None:
    case = stored.case(name)
    folder, reference = stored.write_folder(case, tmp_path / name), case.reference()
    against_pytorch(reference, *residuals(folder, reference["tokens"], "float32"))


def against_pytorch(reference: dict[str, np.ndarray], logits: np.ndarray, streams: np.ndarray) -> None:
    """The reference is float32, with what it lost to rounding."""
    assert difference(logits, reference["logits"]) < 1e-5
    for layer, stream in enumerate(reference["residuals"]):
        assert difference(streams[layer], stream) < 1e-5, layer


@pytest.mark.parametrize("name", NOT_YET)
def test_a_family_that_is_not_supported_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"'{stored.case(name).family}' is not supported"):
        load_model(stored.write_folder(name, tmp_path / name))


def test_deepseek_scores_are_sharpened_under_either_name_of_the_scaling() -> None:
    config = stored.case("deepseek_v3_yarn_long").config
    plain = read_config(config, "config.json")[1]
    scaling = config.pop("rope_scaling")
    renamed = {**config, "rope_parameters": {**scaling, "rope_theta": config["rope_theta"]}}
    assert read_config(renamed, "config.json")[1] == plain
    assert plain.query_scale is not None and plain.query_scale > plain.d_head**-0.5
    broken = {**config, "rope_scaling": {**scaling, "mscale_all_dim": "much"}}
    with pytest.raises(InputError, match="mscale_all_dim is 'much'"):
        read_config(broken, "config.json")
