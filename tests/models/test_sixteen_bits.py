"""Models in bfloat16: what is summed and normed is so in float32, and the rest is as exact as its storage."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.models import SITES, attention, decoder, experts, forward, latent, mlp, norms, rotary
from tests.support import EVERY, tiny_model

TOKENS = np.random.default_rng(0).integers(0, 40, size=(4, 24))
LOW = jnp.bfloat16


def logits_of(params: Any, config: Any, **options: Any) -> np.ndarray:
    tokens = jnp.asarray(TOKENS)
    run = jax.jit(lambda p: forward(p, config, tokens, **options)[0])
    return np.asarray(run(params), np.float32)


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Of the middle token: the root of the mean squared difference, relative to how much its logits differ."""
    spread = want - want.mean(axis=-1, keepdims=True)
    return float(np.median(np.sqrt(np.mean((got - want) ** 2, -1) / np.mean(spread**2, -1))))


def naive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything in the dtype of the weights."""

    def plain(spec: str, *operands: Any, precision: Any) -> Any:
        return jnp.einsum(spec, *operands, precision=precision)

    for module in (attention, decoder, experts, latent, mlp, norms, rotary):
        monkeypatch.setattr(module, "wide", lambda x: x, raising=False)
        monkeypatch.setattr(module, "wide_dtype", jnp.dtype, raising=False)
        monkeypatch.setattr(module, "wide_einsum", plain, raising=False)


@pytest.mark.parametrize("family", ["llama", "gemma2", "latent", "experts"])
def test_rounding_errors_are_small_and_smaller_than_without_wide_sums(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family)
    low = jax.tree.map(lambda leaf: leaf.astype(LOW), model.params)
    want = logits_of(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), low), model.config)
    ours = error(logits_of(low, model.config), want)
    assert ours < 0.02
    naive(monkeypatch)
    assert ours < 0.9 * error(logits_of(low, model.config), want)


@pytest.mark.slow
@pytest.mark.parametrize("family", EVERY)
def test_every_family(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    test_rounding_errors_are_small_and_smaller_than_without_wide_sums(family, monkeypatch)


def test_far_positions_are_as_good_as_near_ones() -> None:
    """Eight bits hold no position above 256 exactly; rotations are computed in more."""
    model = tiny_model("llama", context=4096)
    low = jax.tree.map(lambda leaf: leaf.astype(LOW), model.params)
    tokens, places = jnp.asarray(TOKENS), jnp.broadcast_to(jnp.arange(24), TOKENS.shape)
    run = jax.jit(lambda p, places: forward(p, model.config, tokens, positions=places)[0])
    near, far = (np.asarray(run(low, places + shift)) for shift in (0, 3001))
    assert error(far, near) < 0.02


def test_sites_have_the_dtype_of_the_weights() -> None:
    model = tiny_model("gemma2")
    low = jax.tree.map(lambda leaf: leaf.astype(LOW), model.params)
    logits, found = jax.eval_shape(lambda p: forward(p, model.config, jnp.asarray(TOKENS), sites=SITES), low)
    assert logits.dtype == jnp.float32
    for site, value in found._asdict().items():
        if value is not None:
            kept = site.endswith(("scale", "normalized"))  # not rounded on the way
            assert value.dtype == (jnp.float32 if kept else LOW), site
