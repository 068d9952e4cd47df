"""Toy models of superposition: the published phases, and an autoencoder that finds the features of such a model.

(Elhage et al. 2022: five features of falling importance in two dimensions, ``x̂ = relu(Wᵀ W x + b)``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinterp.evaluation.synthetic import SyntheticFeatures, decoders, recovery
from jaxinterp.training.synthetic import train_synthetic
from tests.benchmarks.bench_recovery import recipe

FEATURES, WIDTH, INSTANCES, ROWS, STEPS = 5, 2, 6, 256, 5000
DENSITIES = (1.0, 0.3, 0.1)
IMPORTANCE = 0.9 ** np.arange(FEATURES)


@dataclass(frozen=True)
class Learned(SyntheticFeatures):
    """Rows of a model whose features and directions are known because it was trained to have them."""

    weights: tuple[tuple[float, ...], ...] = ()

    def directions(self) -> jax.Array:
        return jnp.asarray(self.weights)


@pytest.fixture(scope="module")
def models() -> tuple[np.ndarray, np.ndarray]:
    """Weights ``[densities, instances, 2, 5]`` after training, all at once, and the losses."""
    optimiser = optax.adam(optax.linear_schedule(1e-2, 0.0, STEPS))
    density = jnp.repeat(jnp.asarray(DENSITIES), INSTANCES)
    keys = jax.random.split(jax.random.key(0), len(density))
    params = jax.vmap(
        lambda key: {"W": 0.7 * jax.random.normal(key, (WIDTH, FEATURES)), "b": jnp.zeros(FEATURES)}
    )(keys)

    def loss(params: Any, density: jax.Array, key: jax.Array, rows: int = ROWS) -> jax.Array:
        share = jax.random.uniform(key, (rows, FEATURES)) / density
        x = jnp.where(share < 1, share, jnp.zeros_like(share))
        predicted = jax.nn.relu(x @ params["W"].T @ params["W"] + params["b"][None])
        return jnp.mean((predicted - x) ** 2 @ jnp.asarray(IMPORTANCE, x.dtype))

    def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
        params, state = carry
        fresh = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        gradient = jax.vmap(jax.grad(loss))(params, density, fresh)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params: Any) -> tuple[jax.Array, jax.Array]:
        (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), jnp.arange(STEPS))
        ends = jax.vmap(lambda p, d, key: loss(p, d, jax.random.fold_in(key, STEPS), 20_000))(
            params, density, keys
        )
        return params["W"], ends

    weights, losses = (np.asarray(v).reshape(3, INSTANCES, *v.shape[1:]) for v in train(params))
    return weights, losses


def dimensionality(weights: np.ndarray) -> np.ndarray:
    """``‖W_i‖² / Σ_j (Ŵ_i · W_j)²`` of each feature of ``W [2, 5]``."""
    lengths = np.linalg.norm(weights, axis=0)
    return lengths**2 / (((weights / lengths).T @ weights) ** 2).sum(1)


@pytest.mark.parametrize(("density", "features", "share"), [(1.0, 2, 1.0), (0.3, 4, 0.5), (0.1, 5, 0.4)])
def test_the_phases_are_the_published_ones(models: Any, density: float, features: int, share: float) -> None:
    """Dense: two features, a dimension each. Sparser: two pairs of opposites. Sparse: a pentagon. Of six, the best."""
    place = DENSITIES.index(density)
    weights = models[0][place][models[1][place].argmin()]
    there = np.linalg.norm(weights, axis=0) > 0.5
    assert there.sum() == features
    assert there[:features].all()  # the most important ones
    np.testing.assert_allclose(dimensionality(weights)[there], share, atol=0.05)
    alike = sum((np.linalg.norm(w, axis=0) > 0.5).sum() == features for w in models[0][place])
    assert alike >= INSTANCES // 2


def test_an_autoencoder_finds_the_five_directions_of_the_pentagon(models: Any) -> None:
    weights = models[0][2][models[1][2].argmin()]
    data = Learned(FEATURES, WIDTH, 0.1, weights=tuple(map(tuple, weights.T.tolist())))
    run = recipe(
        "straight-through", 12, 1500, penalty="step", coefficient=0.05, bandwidth=0.5, threshold=0.3, ramp=0.5
    )
    found = recovery(data.directions(), decoders(train_synthetic(run, data)[0]))
    assert found.matched == 1.0
    assert found.best.mean() > 0.98
