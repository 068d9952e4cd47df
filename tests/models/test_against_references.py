"""Our decoder gives what other programs give on the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.checkpoints import load_model
from jaxinterp.models import forward
from tests.support import ROOT, shared

DATA = ROOT / "tests" / "references" / "data"
MODELS = sorted(json.loads((DATA / "provenance.json").read_text())["models"])
CASES = ("gemma2_plt_jumprelu", "llama_clt_relu", "llama_plt_relu_skip")
SITES = ("resid_pre", "resid_mid", "pattern", "mlp_out", "resid_post", "final_norm")


def difference(ours: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference in units of the largest entry of the reference."""
    assert ours.shape == reference.shape
    return float(np.max(np.abs(np.asarray(ours, np.float64) - reference)) / np.max(np.abs(reference)))


def run(folder: Path, tokens: np.ndarray) -> dict[str, np.ndarray]:
    model = load_model(folder)
    logits, activations = forward(model.params, model.config, jnp.asarray(tokens, jnp.int32), sites=SITES)
    return {"logits": np.asarray(logits), **{name: np.asarray(getattr(activations, name)) for name in SITES}}


@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_transformers(name: str) -> None:
    reference = np.load(DATA / name / "reference.npz")
    ours = run(DATA / name, reference["tokens"])
    for site in ("logits", "resid_pre", "resid_post", "pattern", "mlp_out", "final_norm"):
        assert difference(ours[site], reference[site]) < 1e-5, site


def test_windows_and_caps_matter_in_the_references() -> None:
    """The Gemma reference is longer than its window and reaches its caps, so agreement means something."""
    reference = np.load(DATA / "gemma2" / "reference.npz")
    model = load_model(DATA / "gemma2")
    tokens = jnp.asarray(reference["tokens"], jnp.int32)
    assert difference(np.asarray(forward(model.params, model.config, tokens)[0]), reference["logits"]) < 1e-5
    for change in ({"windows": ()}, {"attn_softcap": None}, {"final_softcap": None}, {"query_scale": None}):
        config = type(model.config).from_dict({**model.config.to_dict(), **change})
        logits = np.asarray(forward(model.params, config, tokens)[0])
        assert difference(logits, reference["logits"]) > 1e-3, change


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_cases(name: str) -> None:
    folder = shared("cases") / name
    reference = np.load(folder / "reference.npz")
    ours = run(folder, reference["tokens"][None])
    assert np.max(np.abs(ours["logits"][0] - reference["logits"])) < 1e-4
    for site, theirs in {
        "resid_pre": "resid_pre",
        "resid_mid": "resid_mid",
        "pattern": "attn_pattern",
        "mlp_out": "mlp_out",
    }.items():
        assert difference(ours[site][:, 0], reference[theirs]) < 1e-5, site


def test_float64_is_closer_to_the_reference_than_its_own_rounding() -> None:
    """In float64 the difference that is left is the rounding of the float32 reference."""
    reference = np.load(DATA / "llama_gqa" / "reference.npz")
    with jax.enable_x64(True):
        model = load_model(DATA / "llama_gqa", dtype="float64")
        logits = forward(model.params, model.config, jnp.asarray(reference["tokens"], jnp.int32))[0]
        assert logits.dtype == jnp.float64
        assert difference(np.asarray(logits), reference["logits"]) < 2e-6
