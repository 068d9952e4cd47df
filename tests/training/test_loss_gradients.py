"""Gradients of the whole loss in float64.

True ones against finite differences of a second implementation, straight-through ones against the formulas by hand.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.dictionaries.initialise import random
from jaxinterp.training.objective import ObjectiveConfig, objective
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate
from tests.support import normal
from tests.training.numpy_objective import Penalised, Setting, loss, straight_through

pytestmark = pytest.mark.usefixtures("x64")

L, N, D, R = 3, 12, 5, 7
DEAD = np.arange(N) % 3 == 1
PENALTY = {"l1": 0.3, "gated": 0.4, "tanh": 0.2}
METHODS = ("l1", "gated", "tanh", "layer-threshold", "top-k", "batch-top-k", "group-max")


def prepared(
    kind: str, sparsity: SparsityConfig
) -> tuple[Any, DictionaryConfig, Any, Any, jax.Array, jax.Array]:
    """Gate, config, parameters and control as the gate keeps them, and rows; no parameter is zero."""
    gate = make_gate(sparsity)
    config = gate.config(DictionaryConfig(kind, L, N, D, activation="relu"))
    params = random(config, jax.random.key(0), jnp.float64)
    if "threshold" in params:
        params["threshold"] = jnp.full_like(params["threshold"], 0.25)
    params, control = gate.init(params, kind_of(config).decoder_norms(params, config))
    leaves, structure = jax.tree.flatten(params)
    kicks = [0.2 * normal(i + 1, v.shape) for i, v in enumerate(leaves)]
    params = jax.tree.unflatten(structure, [v + kick for v, kick in zip(leaves, kicks, strict=True)])
    x, y = (normal(i, (L, R, D)) for i in (90, 91))
    return gate, config, params, control, x, y


def along(leaves: Any, step: float, direction: Any) -> Any:
    return jax.tree.map(lambda value, way: value + step * way, leaves, direction)


def numbers(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("plt", method) for method in METHODS]
    + [("clt", method) for method in ("gated", "tanh", "top-k")]
    + [("crosscoder", method) for method in ("l1", "gated", "group-max")],
)
def test_the_loss_and_its_gradient_are_those_of_a_second_implementation(kind: str, method: str) -> None:
    """With nested prefixes, aux-k and the pre-activation loss at once.

    Where the loss holds something fixed (the residual that aux-k predicts, the decoder by which a gate reconstructs
    alone, a layer's threshold) so does the second one, and the gradient is true of what is left.
    """
    numeric = {"l1": None, "gated": None, "tanh": None}.get(method, 3)
    sparsity = SparsityConfig(
        "straight-through" if method == "tanh" else method, l0=numeric, coefficient=PENALTY.get(method, 0.1), ramp=1.0,
        scale=2.0, threshold=0.25, bandwidth=0.5, pre_activation=0.05,
    )  # fmt: skip
    gate, config, params, control, x, y = prepared(kind, sparsity)
    groups = kind_of(config).groups(config)
    dead = np.broadcast_to(DEAD, (groups, N))
    extra = ObjectiveConfig(nesting=(4, 9), auxiliary=0.3, auxiliary_k=3)

    def total(params: Any) -> jax.Array:
        return objective(
            extra, gate, config, params, control, x, y, dead=jnp.asarray(dead), progress=jnp.asarray(0.5)
        )[0]

    value, gradient = jax.jit(jax.value_and_grad(total))(params)
    cut = np.asarray(control["threshold"]) if method == "layer-threshold" else None
    second = Setting(
        kind, method, 0.5 * PENALTY.get(method, 0.0), 3, cut, 2.0, 0.05, extra.nesting, 0.3, 3, dead,
    )  # fmt: skip
    params, gradient, x, y = numbers((params, gradient, x, y))
    assert float(value) == pytest.approx(loss(second, params, params, x, y), rel=1e-12)

    rng = np.random.default_rng(0)
    for name in params:
        if name == "threshold":  # where the loss jumps: straight-through, below
            continue
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params[name])
        step = 1e-5
        moved = [
            loss(second, {**params, name: along(params[name], times * step, direction)}, params, x, y)
            for times in (-2, -1, 1, 2)
        ]
        near, far = (moved[2] - moved[1]) / (2 * step), (moved[3] - moved[0]) / (4 * step)
        slope = (4 * near - far) / 3
        pairs = zip(jax.tree.leaves(gradient[name]), jax.tree.leaves(direction), strict=True)
        assert slope == pytest.approx(sum(np.vdot(g, d) for g, d in pairs), rel=1e-7, abs=1e-10), name


@pytest.mark.parametrize("variant", ["threshold", "all"])
@pytest.mark.parametrize("penalty", ["tanh", "step", "quadratic", "quadratic-rows"])
def test_straight_through_gradients_of_the_whole_loss_are_those_by_hand(penalty: str, variant: str) -> None:
    """Every parameter's, for both reaches of the estimator."""
    target = 2.0 if penalty.startswith("quadratic") else None
    sparsity = SparsityConfig(
        penalty=penalty, variant=variant, l0=target, coefficient=0.3, ramp=1.0, scale=2.0, threshold=0.25,
        bandwidth=0.7, pre_activation=0.05,
    )  # fmt: skip
    gate, config, params, control, x, y = prepared("plt", sparsity)

    def total(params: Any) -> jax.Array:
        none = jnp.zeros((L, N), bool)
        return objective(
            ObjectiveConfig(), gate, config, params, control, x, y, dead=none, progress=jnp.asarray(0.5)
        )[0]

    found = numbers(jax.jit(jax.grad(total))(params))
    given = Penalised(penalty, variant, 0.15, 0.7, 2.0, 2.0, 0.05)
    expected = straight_through(given, *numbers((params, x, y)))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(values).max() > 1e-4, name
        np.testing.assert_allclose(found[name], values, rtol=1e-10, atol=1e-13, err_msg=name)
