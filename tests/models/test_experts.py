"""Mixtures of experts: two ways of computing them agree, routers do what they say, settings are checked."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.models import forward
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts, apply, route
from jaxinterp.models.mlp import product
from jaxinterp.models.weights import declare, runs
from jaxinterp.parallel import weights
from tests.support import tiny_config, tiny_model

KINDS = {
    "mixtral": Experts(5, 2, 8),
    "not normalised": Experts(5, 3, 8, normalise=False),
    "best group": Experts(6, 2, 8, normalise=False, scale=2.0, groups=3, active_groups=1),
    "deepseek-v3": Experts(
        8,
        3,
        8,
        score="sigmoid",
        groups=4,
        active_groups=2,
        group_score="two_best",
        correction=True,
        d_shared=4,
    ),
    "biases": Experts(4, 1, 8, router_bias=True, bias=True),
    "all of them": Experts(3, 3, 8),
}


def layer(experts: Experts, d: int = 12, seed: int = 0) -> dict[str, Any]:
    """Random weights of one mixture."""
    config = ModelConfig(20, d, 1, 2, 2, 4, 8, 16, experts=experts)
    rng = np.random.default_rng(seed)
    leaves = weights.leaves(declare(config)["experts"])
    return {name: jnp.asarray(rng.normal(size=leaf.shape[1:])) for name, leaf in leaves.items()}


@pytest.mark.parametrize(
    ("name", "activation"), [*((name, "silu") for name in KINDS), ("biases", "clipped_swish")]
)
def test_sparse_and_dense_agree(x64: None, name: str, activation: str) -> None:
    experts = KINDS[name]
    w = layer(experts)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 12)))
    highest = jax.lax.Precision.HIGHEST

    def out(dispatch: str, w: Any, x: Any) -> Any:
        y = apply(w, experts, x, partial(product, activation), dispatch, highest)
        return y, jnp.sum(jnp.sin(y))

    def both(dispatch: str) -> Any:
        @jax.jit
        @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
        def run(w: Any, x: Any) -> Any:
            return out(dispatch, w, x)[::-1]

        (_, y), gradient = run(w, x)
        return y, gradient

    values, grads = zip(both("dense"), both("sparse"), strict=True)
    np.testing.assert_allclose(values[1], values[0], rtol=1e-12, atol=1e-12)
    for dense, sparse in zip(jax.tree.leaves(grads[0]), jax.tree.leaves(grads[1]), strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_tokens_go_to_so_many_experts_of_allowed_groups(x64: None, name: str) -> None:
    experts = KINDS[name]
    x = jnp.asarray(np.random.default_rng(2).normal(size=(3, 9, 12)))
    shares, numbers = (np.asarray(part) for part in route(layer(experts), experts, x, None))
    assert shares.shape == numbers.shape == (3, 9, experts.active)
    assert (shares > 0).all()
    for row in numbers.reshape(-1, experts.active):
        assert len(set(row.tolist())) == experts.active
        assert len(set((row // (experts.n // experts.groups)).tolist())) <= experts.active_groups
    if experts.normalise:
        np.testing.assert_allclose(shares.sum(-1), experts.scale, rtol=1e-12)


def test_a_correction_changes_who_is_chosen_but_not_the_weights(x64: None) -> None:
    experts = Experts(4, 2, 8, score="sigmoid", normalise=False, correction=True)
    w = layer(experts)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(1, 5, 12)))
    pushed = {**w, "correction": jnp.array([50.0, 0.0, 0.0, 49.0])}
    shares, numbers = route(pushed, experts, x, None)
    np.testing.assert_array_equal(np.sort(np.asarray(numbers)), np.broadcast_to([0, 3], (1, 5, 2)))
    affinity = jax.nn.sigmoid(jnp.einsum("btd,dx->btx", x, w["router"]))
    np.testing.assert_allclose(shares, np.take_along_axis(np.asarray(affinity), np.asarray(numbers), -1))


def test_the_decoder_takes_both_ways(x64: None) -> None:
    model = tiny_model("experts", dtype="float64")
    tokens = jnp.asarray(np.random.default_rng(0).integers(40, size=(2, 9)))
    run = partial(forward, config=model.config, sites=("mlp_out",))
    found = [
        jax.jit(partial(run, dispatch=dispatch, unroll=unroll))(model.params, tokens=tokens)
        for dispatch in ("sparse", "dense")
        for unroll in (False, True)
    ]
    for logits, sites in found[1:]:
        np.testing.assert_allclose(logits, found[0][0], rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(sites.mlp_out, found[0][1].mlp_out, rtol=1e-11, atol=1e-11)
    with pytest.raises(InputError, match="dispatch is 'spares'"):
        forward(model.params, model.config, tokens, dispatch="spares")


def test_layers_are_divided_into_runs() -> None:
    config = tiny_config("experts", n_layers=6, experts=Experts(4, 2, 8, dense_layers=(3, 0)))
    assert [tuple(run) for run in runs(config)] == [
        ("dense", 0, 1, 0), ("experts", 1, 3, 0), ("dense", 3, 4, 1), ("experts", 4, 6, 2),
    ]  # fmt: skip
    tree = weights.leaves(declare(config))
    assert tree["dense.up"].shape[0] == 2 and tree["experts.up"].shape[:2] == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n is 0"),
        ({"active": 9}, "9 are to be chosen among fewer"),
        ({"groups": 4}, "6 experts in 4 groups"),
        ({"groups": 3, "active_groups": 4}, "4 of them active"),
        ({"score": "relu"}, "score is 'relu'"),
        ({"d_shared": -1}, "d_shared is -1"),
    ],
)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Experts(6, 2, 8), **changes)


def test_bad_fields_are_named() -> None:
    values = tiny_config("experts").to_dict()
    assert ModelConfig.from_dict(values) == tiny_config("experts")
    with pytest.raises(InputError, match="unknown field 'actve'"):
        ModelConfig.from_dict({**values, "experts": {"n": 4, "actve": 2, "d_expert": 8}})
    with pytest.raises(InputError, match="7 is among the dense layers of a model of 3 layers"):
        tiny_config("experts", experts=Experts(4, 2, 8, dense_layers=(7,)))
    with pytest.raises(InputError, match="gated"):
        tiny_config("experts", gated=False)
