"""Straight-through gradients against their formulas, true gradients against finite differences."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.dictionaries import losses
from jaxinterp.dictionaries.activations import activate, jumprelu
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.dictionaries.initialise import random
from tests.support import normal


def _points() -> tuple[jax.Array, jax.Array, jax.Array]:
    h = normal(0, (4, 5, 7))
    threshold = jnp.abs(normal(1, (4, 1, 7)))
    return h, threshold, normal(2, h.shape)


@pytest.mark.parametrize("variant", ["threshold", "all"])
def test_straight_through_gradients_are_the_published_formulas(x64: None, variant: str) -> None:
    h, threshold, cotangent = _points()
    width = 0.8
    value, pull = jax.vjp(lambda h, t: jumprelu(h, t, width, variant), h, threshold)
    to_h, to_threshold = (np.asarray(g) for g in pull(cotangent))
    h, threshold, cotangent = np.asarray(h), np.asarray(threshold), np.asarray(cotangent)
    full = np.broadcast_to(threshold, h.shape)
    np.testing.assert_array_equal(value, h * (h > full))
    kernel = (np.abs((h - full) / width) < 0.5).astype(float)
    expected_h = (h > full) + (full / width * kernel if variant == "all" else 0.0)
    np.testing.assert_allclose(to_h, cotangent * expected_h, atol=1e-14)
    expected_threshold = (-full / width * kernel * cotangent).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(to_threshold, expected_threshold, atol=1e-14)


def test_after_training_the_threshold_gets_no_gradient_and_is_strict(x64: None) -> None:
    h, threshold, _ = _points()
    gradient = jax.grad(lambda t: activate(h, jnp.broadcast_to(t, h.shape)).sum())(threshold)
    assert not np.asarray(gradient).any()
    assert activate(jnp.array([0.5, 0.6]), jnp.array([0.5, 0.5])).tolist() == [0.0, 0.6]


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown straight-through variant"):
        jumprelu(jnp.ones(2), jnp.ones(2), 1.0, "some")


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_gradients_of_every_loss_agree_with_finite_differences(x64: None, kind: str) -> None:
    config = DictionaryConfig(kind, 3, 6, 4, skip=True)
    params = random(config, jax.random.key(3), jnp.float64)
    params["W_skip"] = 0.3 * normal(7, params["W_skip"].shape)
    params["threshold"] = params["threshold"] + 0.1
    x, y = (normal(i, (3, 9, 4)) for i in (4, 5))

    @jax.jit
    @jax.value_and_grad
    def total(params: dict) -> jax.Array:
        functions = kind_of(config)
        h, norms = functions.pre_activations(params, config, x), functions.decoder_norms(params, config)
        a = functions.encode(params, config, x)
        terms = (
            losses.reconstruction(y, functions.decode(params, config, a, x)),
            losses.tanh_sparsity(a, norms, 2.0),
            losses.pre_activation(h, params["threshold"], norms),
        )
        return sum((i + 1.0) * jnp.sum(term) for i, term in enumerate(terms))

    # Thresholds have jumps, so their finite difference is left out: only the pre-activation loss reaches them.
    gradient = total(params)[1]
    for name in ("W_enc", "b_enc", "b_dec", "W_skip", "W_dec"):
        direction = jax.tree.map(lambda leaf: normal(6, leaf.shape), params[name])

        def moved(step: float, name: str = name, direction: Any = direction) -> float:
            leaf = jax.tree.map(lambda p, q: p + step * q, params[name], direction)
            return float(total({**params, name: leaf})[0])

        step = 1e-6
        numeric = (moved(step) - moved(-step)) / (2 * step)
        exact = sum(
            jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient[name], direction)), strict=True)
        )
        assert numeric == pytest.approx(float(exact), rel=1e-6), name


def test_losses_agree_with_plain_numpy(x64: None) -> None:
    rng = np.random.default_rng(0)
    y, predicted = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3))
    h, threshold, norms = rng.normal(size=(2, 5, 4)), rng.random((2, 4)), rng.random((2, 4))
    a = h * (h > threshold[:, None])
    expected = [[((y[l] - predicted[l]) ** 2).sum() / 5] for l in range(2)]
    np.testing.assert_allclose(
        losses.reconstruction(jnp.asarray(y), jnp.asarray(predicted)), np.ravel(expected)
    )
    for l in range(2):
        sparsity = sum(np.tanh(1.5 * norms[l, i] * a[l, r, i]) for r in range(5) for i in range(4)) / 5
        short = (
            sum(max(threshold[l, i] - h[l, r, i], 0) * norms[l, i] for r in range(5) for i in range(4)) / 5
        )
        assert losses.tanh_sparsity(jnp.asarray(a), jnp.asarray(norms), 1.5)[l] == pytest.approx(sparsity)
        pre = losses.pre_activation(jnp.asarray(h), jnp.asarray(threshold), jnp.asarray(norms))
        assert pre[l] == pytest.approx(short)
        assert losses.l0(jnp.asarray(a))[l] == pytest.approx((a[l] != 0).sum() / 5)


def test_the_gradient_of_a_zero_decoder_is_finite() -> None:
    config = DictionaryConfig("clt", 2, 3, 4)
    params = random(config, jax.random.key(0))
    zero = {**params, "W_dec": jax.tree.map(jnp.zeros_like, params["W_dec"])}
    norms = partial(kind_of(config).decoder_norms, config=config)
    gradient = jax.grad(lambda p: jnp.sum(norms(p)))(zero)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
