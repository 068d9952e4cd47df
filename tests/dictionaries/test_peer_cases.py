"""Activations, every loss term and every gradient of other programs' dictionaries, by our objective.

SAELens' and sparsify's numbers lie in the optional test material. sparsify's encoder gradients of aux-k are not taken
for truth: they are zero outside the top k.
"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.training.objective import Found, ObjectiveConfig, objective
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate
from tests.support import shared

TOLERANCE = 1e-5
Arrays = dict[str, np.ndarray]


def case(name: str) -> tuple[Arrays, dict[str, Any]]:
    with np.load(shared(f"cases/dictionaries/{name}.npz")) as file:
        found = dict(file)
    return found, json.loads(str(found.pop("cfg")))


def params_of(found: Arrays, prefix: str = "param/") -> dict[str, jax.Array]:
    """The parameters of one layer in our layout."""
    p = {name.removeprefix(prefix): jnp.asarray(v) for name, v in found.items() if name.startswith(prefix)}
    if "encoder.weight" in p:  # sparsify
        names = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
        names |= {"W_skip": "W_skip"} if "W_skip" in p else {}
        return {ours: p[theirs][None] for ours, theirs in names.items()}
    ours = {"W_enc": p["W_enc"].T[None], **{n: p[n][None] for n in ("b_enc", "W_dec", "b_dec")}}
    return {**ours, "threshold": jnp.log(p["threshold"])[None]} if "threshold" in p else ours


def agree(ours: Any, theirs: np.ndarray, what: str) -> None:
    ours = np.asarray(ours, np.float64).reshape(theirs.shape)
    largest = max(np.abs(theirs).max(), 1e-30)
    assert np.abs(ours - theirs).max() <= TOLERANCE * largest, what


def run(
    found: Arrays, spec: dict[str, Any], sparsity: SparsityConfig, terms: ObjectiveConfig
) -> tuple[jax.Array, Found, dict[str, jax.Array], DictionaryConfig]:
    params = params_of(found)
    gate = make_gate(sparsity)
    _, n, d = params["W_enc"].shape
    config = gate.config(DictionaryConfig("plt", 1, n, d, activation="relu", **spec))
    norms = kind_of(config).decoder_norms(params, config)
    start = {**params, **({"threshold": jnp.zeros((1, n))} if config.activation == "jumprelu" else {})}
    _, control = gate.init(start, norms)
    x = jnp.asarray(found["x"])[None]
    y = jnp.asarray(found["y"] if "W_skip" in params else found["x"])[None]
    dead = jnp.asarray(found.get("dead", np.zeros(n, bool)))[None]

    def loss(params: dict[str, jax.Array]) -> tuple[jax.Array, Found]:
        return objective(terms, gate, config, params, control, x, y, dead=dead, progress=jnp.float32(1.0))

    (total, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return total, out, gradient, config


SAE = {"centre": True, "read_site": "resid_post", "write_site": "resid_post"}
SAELENS: dict[str, tuple[SparsityConfig, ObjectiveConfig, dict[str, str]]] = {
    "saelens_standard_l1": (
        SparsityConfig("l1", coefficient=0.5, ramp=0.0, pre_activation=0.0),
        ObjectiveConfig("sum"),
        {"l1_loss": "sparsity"},
    ),
    "saelens_topk_auxk": (
        SparsityConfig("top-k", l0=6, pre_activation=0.0),
        ObjectiveConfig("sum", auxiliary=1.0),
        {"auxiliary_reconstruction_loss": "auxiliary"},
    ),
    "saelens_batchtopk_auxk": (
        SparsityConfig("batch-top-k", l0=6, pre_activation=0.0, rate=0.01),
        ObjectiveConfig("sum", auxiliary=1.0),
        {"auxiliary_reconstruction_loss": "auxiliary"},
    ),
    "saelens_jumprelu_tanh_preact": (
        SparsityConfig(
            "straight-through", coefficient=0.7, ramp=0.0, scale=4.0, bandwidth=2.0, variant="all",
            pre_activation=0.03, pre_activation_of="dead",
        ),
        ObjectiveConfig("sum"),
        {"l0_loss": "sparsity", "pre_act_loss": "pre_activation"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAELENS)
def test_saelens(name: str) -> None:
    found, _ = case(name)
    sparsity, terms, names = SAELENS[name]
    total, out, gradient, config = run(found, SAE, sparsity, terms)
    params = params_of(found)
    norms = np.asarray(kind_of(config).decoder_norms(params, config))[0]
    # SAELens gives the activations of features that compete by decoder length times that length.
    lengths = norms[None] if "topk" in name else 1.0
    agree(out.a[0] * lengths, found["acts"], "activations")
    h = kind_of(config).pre_activations(params, config, jnp.asarray(found["x"])[None])
    agree(h[0] * lengths, found["hidden_pre"], "pre-activations")
    agree(found["x"] - out.residual[0], found["out"], "output")
    agree(total, found["loss/total"], "loss")
    agree(out.terms["error"], found["loss/mse_loss"], "squared error")
    for theirs, ours in names.items():
        agree(out.terms[ours], found[f"loss/{theirs}"], theirs)
    agree(gradient["W_enc"][0].T, found["grad/W_enc"], "W_enc")
    for weight in ("b_enc", "W_dec", "b_dec"):
        agree(gradient[weight], found[f"grad/{weight}"], weight)
    if "threshold" in gradient:  # ours is of its logarithm
        agree(
            np.asarray(gradient["threshold"])[0] / found["param/threshold"],
            found["grad/threshold"],
            "threshold",
        )
    if "topk_threshold_after" in found:
        control = {"threshold": jnp.zeros(1)}
        moved = make_gate(sparsity).update(control, jnp.ones(1), out.seen, jnp.float32(1.0))
        agree(moved["threshold"], found["topk_threshold_after"], "threshold after")


@pytest.mark.parametrize("name", ["sparsify_topk", "sparsify_skip_transcoder"])
def test_sparsify(name: str) -> None:
    found, settings = case(name)
    spec = {"skip": True} if "skip" in name else SAE
    sparsity = SparsityConfig("top-k", l0=settings["k"], ranked=False, pre_activation=0.0)
    _, out, gradient, _ = run(found, spec, sparsity, ObjectiveConfig("variance"))
    a = np.zeros((32, 64))
    np.put_along_axis(a, found["latent_indices"], found["latent_acts"], axis=1)
    agree(out.a, a, "activations")
    agree(found["y" if "skip" in name else "x"] - out.residual[0], found["out"], "output")
    agree(out.terms["error"], found["loss/fvu"], "fvu")
    for ours, theirs in (
        ("W_enc", "encoder.weight"), ("b_enc", "encoder.bias"), ("W_dec", "W_dec"), ("b_dec", "b_dec"),
        ("W_skip", "W_skip"),
    ):  # fmt: skip
        if ours in gradient:
            agree(gradient[ours], found[f"grad/{theirs}"], ours)


def test_twenty_steps_of_saelens() -> None:
    found, settings = case("traj_saelens_topk")
    gate = make_gate(SparsityConfig("top-k", l0=settings["k"], pre_activation=0.0))
    terms = ObjectiveConfig("sum", auxiliary=settings["aux_loss_coefficient"])
    params = params_of(found, "param0/")
    _, n, d = params["W_enc"].shape
    config = gate.config(DictionaryConfig("plt", 1, n, d, activation="relu", **SAE))
    adam = optax.chain(optax.clip_by_global_norm(settings["clip"]), optax.scale_by_adam())
    state, silent = adam.init(params), jnp.zeros((1, n), jnp.int32)

    @jax.jit
    def step(params: Any, state: Any, silent: jax.Array, x: jax.Array, rate: jax.Array) -> tuple[Any, ...]:
        dead = silent > settings["dead_feature_window"]

        def loss(params: dict[str, jax.Array]) -> tuple[jax.Array, Found]:
            return objective(terms, gate, config, params, {}, x, x, dead=dead, progress=jnp.float32(1.0))

        (value, out), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = adam.update(gradient, state, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        silent = jnp.where((out.a > 0).any(axis=1), 0, silent + 1)
        return params, state, silent, value

    losses = []
    for batch, rate in zip(found["xs"], found["lr"].astype(np.float32), strict=True):
        params, state, silent, value = step(params, state, silent, jnp.asarray(batch)[None], rate)
        losses.append(float(value))
    np.testing.assert_allclose(losses, found["loss"], rtol=1e-4)
    np.testing.assert_array_equal(silent[0], found["n_forward_passes_since_fired"])
    for name, theirs in params_of(found, "param1/").items():
        difference = np.abs(np.asarray(params[name]) - np.asarray(theirs)).max()
        assert difference <= 1e-4 * np.abs(theirs).max(), name
