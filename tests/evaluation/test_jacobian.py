"""Jacobian cosines: linear dictionaries whose Jacobian is known, MLPs that are their own dictionary, estimates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations.text import plain
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.initialise import random
from jaxinterp.evaluation import text
from jaxinterp.evaluation.jacobian import jacobian_cosine, mlp_function, own_function
from jaxinterp.evaluation.reconstruction import Rows
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model
from jaxinterp.models.weights import of_layer
from tests.support import tiny_model


def given(model: Model, d: Dictionary) -> list[Rows]:
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 5))
    return list(text.rows(model, d, tuple(range(model.config.n_layers)), [plain(tokens)], 2))


def cosines(a: Any, b: Any) -> np.ndarray:
    """Of Jacobians [R, D', D], one by one."""
    a, b = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (a, b))
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(
    "sites", [("mlp_in", "mlp_out_raw"), ("resid_mid", "mlp_out"), ("mlp_normalized", "mlp_out")]
)
def test_the_mlp_function_is_the_model_s(x64: None, sites: tuple[str, str]) -> None:
    model = tiny_model("gemma2", dtype="float64")
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 40, (2, 5)))
    _, found = forward(model.params, model.config, tokens, sites=sites)
    x, y = (getattr(found, site)[1].reshape(10, -1) for site in sites)
    function = mlp_function(model.config, of_layer(model.params, model.config, 1), *sites)
    np.testing.assert_allclose(function(x), y, rtol=0, atol=1e-12)


def test_a_linear_dictionary_has_the_jacobian_it_is_made_of(x64: None) -> None:
    model = tiny_model("llama", dtype="float64", n_layers=2)
    config = DictionaryConfig("plt", 2, 6, 16, activation="relu", skip=True, read_site="mlp_in")
    params = random(config, jax.random.key(0), jnp.float64)
    dead = {**params, "b_enc": params["b_enc"] - 1e3}
    dead["W_skip"] = jax.random.normal(jax.random.key(1), (2, 16, 16))
    d = Dictionary(dead, config)
    (rows,) = given(model, d)
    found = jacobian_cosine(model, d, [rows], tokens=7)
    assert found.tokens == 7 and found.probes == 16 and found.probe_error == (0.0, 0.0)
    for layer in range(2):
        weights = of_layer(model.params, model.config, layer)
        x = rows.x[layer].reshape(10, -1)[:7]
        function = mlp_function(model.config, weights, "mlp_in", "mlp_out")
        true = jnp.stack([jax.jacrev(lambda v, f=function: f(v[None])[0])(row) for row in x])
        known = jnp.broadcast_to(dead["W_skip"][layer], true.shape)
        each = cosines(known, true)
        assert found.cosine[layer] == pytest.approx(each.mean(), abs=1e-12)
        assert found.error[layer] == pytest.approx(each.std(ddof=1) / 7**0.5, abs=1e-12)


def test_neurons_have_a_cosine_of_one(x64: None) -> None:
    model = tiny_model("gpt2", dtype="float64", n_layers=2, activation="relu")
    layers = model.params["layers"]
    config = DictionaryConfig("plt", 2, 24, 16, activation="relu", read_site="mlp_in")
    params = {
        "W_enc": jnp.swapaxes(layers["up"], 1, 2), "b_enc": layers["up_bias"], "W_dec": layers["down"],
        "b_dec": layers["down_bias"],
    }  # fmt: skip
    d = Dictionary(params, config)
    assert jacobian_cosine(model, d, given(model, d)).cosine == pytest.approx((1.0, 1.0), abs=1e-12)
    few = jacobian_cosine(model, d, given(model, d), probes=3)
    assert few.cosine == pytest.approx((1.0, 1.0), abs=1e-6) and max(few.probe_error) < 1e-6


@pytest.mark.parametrize("kind", ["clt", "crosscoder", "molt"])
def test_own_blocks_are_those_of_the_whole_dictionary(x64: None, kind: str) -> None:
    ranks = {"ranks": ((2, 5), (1, 4))} if kind == "molt" else {}
    config = DictionaryConfig(kind, 2, 9, 4, activation="relu", skip=True, **ranks)  # type: ignore[arg-type]
    d = Dictionary(random(config, jax.random.key(0), jnp.float64), config)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)))
    for own in range(2):
        whole = jax.jit(jax.jacrev(lambda v, o=own: d.reconstruct(x.at[o].set(v))[o]))(x[own])
        block = jax.jit(jax.jacrev(own_function(d, own, x)))(x[own])
        np.testing.assert_allclose(block, whole, atol=1e-12)
        assert abs(block).max() > 0.1


def test_probes_estimate_what_is_exact_within_their_error() -> None:
    model = tiny_model("llama", d_model=48, n_layers=1)
    config = DictionaryConfig("plt", 1, 64, 48, activation="relu", read_site="mlp_in")
    d = Dictionary(random(config, jax.random.key(0)), config)
    weights = of_layer(model.params, model.config, 0)
    # In part the MLP's own Jacobian at one token, so that cosines are neither 0 nor 1.
    rows = given(model, d)
    at = rows[0].x[0, 0, 2]
    own = jax.jacrev(lambda v: mlp_function(model.config, weights, "mlp_in", "mlp_out")(v[None])[0])(at)
    d = Dictionary({**d.params, "W_skip": own[None]}, DictionaryConfig(**{**config.__dict__, "skip": True}))
    exact = jacobian_cosine(model, d, rows)
    assert 0.1 < exact.cosine[0] < 0.95
    errors = []
    for seed in range(12):
        few = jacobian_cosine(model, d, rows, probes=8, seed=seed)
        assert few.probes == 8 and 0 < few.probe_error[0] < 0.1
        errors.append((few.cosine[0] - exact.cosine[0]) / few.probe_error[0])
    # Twelve independent estimates: their mean deviation is that of a standard normal, within three of its own.
    assert 0.4 < np.std(errors) < 2.2 and abs(np.mean(errors)) < 3 / 12**0.5 * max(1.0, np.std(errors))


def test_what_has_no_mlp_to_compare_with_is_refused() -> None:
    model = tiny_model("llama", n_layers=1)
    config = DictionaryConfig("plt", 1, 4, 16, read_site="resid_post", write_site="resid_post")
    with pytest.raises(InputError, match="it reads resid_post and writes resid_post, not the two sides"):
        jacobian_cosine(model, Dictionary(random(config, jax.random.key(0)), config, "it"), [])
    config = DictionaryConfig("plt", 1, 4, 16, read_site="mlp_in")
    with pytest.raises(InputError, match="no tokens"):
        jacobian_cosine(model, Dictionary(random(config, jax.random.key(0)), config), [])
