"""Jacobian matching: the right number, its gradient, and what MLPs are as functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.dictionaries.initialise import random
from jaxinterp.models.decoder import forward
from jaxinterp.training import jacobian
from jaxinterp.training.objective import ObjectiveConfig, objective
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate
from tests.support import normal, tiny_model

pytestmark = pytest.mark.usefixtures("x64")
L, N, D, R = 2, 9, 4, 5


def made(**changes: Any) -> tuple[Dictionary, jax.Array]:
    """A dictionary none of whose parameters is zero, and rows."""
    config = DictionaryConfig("plt", L, N, D, **{"skip": True, "activation": "relu", **changes})
    params = random(config, jax.random.key(0), jnp.float64)
    for i, name in enumerate(sorted(params)):
        params[name] = params[name] + 0.3 * normal(i + 1, params[name].shape)
    return Dictionary(params, config), normal(50, (L, R, D))


def target(x: jax.Array) -> jax.Array:
    """Something smooth that mixes entries, another one for each layer."""
    turned = jnp.roll(x, 1, axis=-1) * jnp.arange(1.0, L + 1)[:, None, None]
    return jnp.sin(x) * turned + 0.5 * x


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation": "jumprelu"}, {"activation": "topk", "k": 3}, {"activation": "gated"},
     {"skip": False, "centre": True, "read_site": "resid_post", "write_site": "resid_post"}],
    ids=["relu", "jumprelu", "topk", "gated", "centred"],
)  # fmt: skip
def test_over_all_directions_it_is_the_squared_distance_of_jacobians(changes: dict[str, Any]) -> None:
    dictionary, x = made(**changes)
    axes = jnp.sqrt(float(D)) * jnp.eye(D)[:, None, None, :] * jnp.ones((D, L, R, 1))
    effect = jax.jit(jax.vmap(lambda v: jax.jvp(target, (x,), (v,))[1]))(axes)
    found = jacobian.mismatch(
        dictionary.params, dictionary.config, dictionary.encode(x), jacobian.Change(axes, effect)
    )
    ours, theirs = (jax.jit(jax.jacfwd(of))(x) for of in (dictionary.reconstruct, target))
    own = np.einsum("lrdlre->lrde", np.asarray(ours - theirs))
    np.testing.assert_allclose(found, (own**2).sum((2, 3)).mean(1), rtol=1e-12)


def test_random_directions_give_it_on_average() -> None:
    dictionary, x = made()
    a = dictionary.encode(x)
    basis = jnp.sqrt(float(D)) * jnp.eye(D)[:, None, None, :] * jnp.ones((D, L, R, 1))
    effect = jax.jit(jax.vmap(lambda v: jax.jvp(target, (x,), (v,))[1]))(basis)
    exact = jacobian.Change(basis, effect)
    many = jacobian.probe(target, jax.random.key(3), x, 2000)
    found, expected = (jacobian.mismatch(dictionary.params, dictionary.config, a, c) for c in (many, exact))
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_its_gradient_agrees_with_finite_differences_and_the_loss_has_it_once() -> None:
    gate = make_gate(SparsityConfig("l1", coefficient=0.1, ramp=0.0, pre_activation=0.0))
    dictionary, x = made()
    params, config, y = dictionary.params, dictionary.config, target(x)
    control = gate.init(params, jnp.ones((L, N)))[1]
    changes = jacobian.probe(target, jax.random.key(3), x, 2)

    def total(params: Any, weight: float) -> jax.Array:
        return objective(
            ObjectiveConfig(jacobian=weight), gate, config, params, control, x, y, dead=jnp.zeros((L, N), bool),
            progress=jnp.asarray(1.0), probe=lambda _: changes,
        )[0]  # fmt: skip

    without, with_it = total(params, 0.0), total(params, 0.7)
    term = jacobian.mismatch(params, config, dictionary.encode(x), changes)
    assert float(with_it - without) == pytest.approx(0.7 * float(jnp.mean(term)) / D, rel=1e-12)
    value = jax.jit(jax.value_and_grad(lambda p: total(p, 0.7)))
    gradient = value(params)[1]
    for i, name in enumerate(sorted(params)):
        way = normal(70 + i, params[name].shape)
        step = 1e-6
        up, down = (value({**params, name: params[name] + s * step * way})[0] for s in (1, -1))
        assert float(up - down) / (2 * step) == pytest.approx(
            float(jnp.vdot(gradient[name], way)), rel=1e-6
        ), name


def test_the_blur_is_the_straight_through_estimate_of_what_a_bias_does_to_the_mean() -> None:
    """Over many rows the derivative to biases is that of the mean of the term, which jumps row by row."""
    rows, width = 20_000, 0.2
    x = normal(0, (1, rows, 2))
    config = DictionaryConfig("plt", 1, 3, 2, activation="relu")
    params = random(config, jax.random.key(1), jnp.float64)
    changes = jacobian.probe(jnp.abs, jax.random.key(2), x)

    def term(bias: jax.Array, blur: bool) -> jax.Array:
        h = kind_of(config).pre_activations({**params, "b_enc": bias}, config, x)
        extra = jacobian.blurred(h, width) if blur else None
        return jacobian.mismatch(params, config, jnp.maximum(h, 0.0), changes, extra)[0]

    bias = jnp.asarray([[0.1, -0.2, 0.05]])
    assert float(term(bias, True)) == pytest.approx(float(term(bias, False)), rel=1e-12)
    assert not np.asarray(jax.grad(term)(bias, False)).any()
    found = np.asarray(jax.grad(term)(bias, True))[0]
    for i in range(3):
        move = 0.1 * jnp.eye(3)[i][None]
        wide = float(term(bias + move, False) - term(bias - move, False)) / 0.2
        assert found[i] == pytest.approx(wide, rel=0.1, abs=0.02)


def test_scaled_sites_have_the_scaled_jacobian() -> None:
    _, x = made()
    read, write = jnp.asarray([2.0, 0.5]), jnp.asarray([3.0, 0.25])
    between = jacobian.scaled(target, read, write)
    np.testing.assert_allclose(between(x * read[:, None, None]), target(x) * write[:, None, None], rtol=1e-12)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "experts"])
def test_mlps_are_those_of_the_forward_pass(family: str) -> None:
    model = tiny_model(family, dtype="float64")
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 40, (1, 6)))
    reads = (
        ("mlp_normalized", "mlp_in") if model.config.parallel else ("resid_mid", "mlp_normalized", "mlp_in")
    )
    writes = ("mlp_out", "mlp_out_raw")

    @jax.jit
    def everything() -> Any:
        _, sites = forward(model.params, model.config, tokens, sites=(*reads, *writes))
        found = {
            (read, write): jacobian.mlps(model, read, write)(getattr(sites, read)[:, 0])
            for read in reads
            for write in writes
        }
        some = jacobian.mlps(model, "mlp_in", "mlp_out", (2, 0))(sites.mlp_in[jnp.asarray([2, 0]), 0])
        return sites, found, some

    sites, found, some = everything()
    for (_, write), values in found.items():
        np.testing.assert_allclose(values, getattr(sites, write)[:, 0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(some, sites.mlp_out[jnp.asarray([2, 0]), 0], rtol=1e-9, atol=1e-9)


def test_what_it_cannot_be_used_for_is_refused() -> None:
    with pytest.raises(InputError, match="for the kind plt, not clt"):
        jacobian.check(DictionaryConfig("clt", L, N, D))
    with pytest.raises(InputError, match="for features with a threshold, not topk"):
        jacobian.check(DictionaryConfig("plt", L, N, D, activation="topk", k=2), 0.1)
    model = tiny_model("llama")
    with pytest.raises(InputError, match="not resid_post of resid_pre"):
        jacobian.mlps(model, "resid_pre", "resid_post")
    with pytest.raises(InputError, match="jacobian_probes at least 1"):
        ObjectiveConfig(jacobian=0.1, jacobian_probes=0)
