"""The figures of a dictionary, against plain numpy and against a dictionary that is exact."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations.text import Source, plain
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.initialise import random
from jaxinterp.evaluation import evaluate, language, reconstruction
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model
from jaxinterp.models.weights import declare
from jaxinterp.parallel.weights import initialise

CONFIG = ModelConfig(
    vocab_size=17, d_model=6, n_layers=2, n_heads=2, n_kv_heads=2, d_head=4, d_mlp=10, context=16,
    activation="relu", gated=False, mlp_bias=True,
)  # fmt: skip


def model() -> Model:
    params = initialise(declare(CONFIG), key=jax.random.key(0), dtype=jnp.float32)
    layers = params["layers"]
    layers["up_bias"] = 0.3 * jax.random.normal(jax.random.key(1), layers["up_bias"].shape)
    layers["down"] = 2.0 * layers["down"]
    return Model(params, CONFIG, None, "tiny")


def neurons(m: Model) -> Dictionary:
    """The neurons of a ReLU MLP are an exact per-layer transcoder (methods.md §2.4, I9)."""
    layers = m.params["layers"]
    config = DictionaryConfig("plt", 2, 10, 6, activation="relu", read_site="mlp_in")
    params = {
        "W_enc": jnp.swapaxes(layers["up"], 1, 2), "b_enc": layers["up_bias"], "W_dec": layers["down"],
        "b_dec": layers["down_bias"],
    }  # fmt: skip
    return Dictionary(params, config, "neurons")


def source() -> Source:
    def batch(index: int) -> object:
        tokens = np.random.default_rng(index).integers(0, 17, (3, 16))
        return plain(tokens, np.arange(16)[None] + 0 * tokens < 13)

    return Source(batch, 48)


def test_an_exact_dictionary_has_no_error_and_no_gap() -> None:
    m = model()
    figures = evaluate(m, neurons(m), source(), tokens=200)
    assert figures["rows"] == 200
    assert figures["mean_nmse"] < 1e-10 and figures["pooled_nmse"] < 1e-10
    assert abs(figures["ce_gap"]) < 1e-5
    assert figures["top1_agreement"] == 1.0


def test_figures_are_their_definitions() -> None:
    m = model()
    config = DictionaryConfig("clt", 2, 12, 6, read_site="mlp_normalized")
    d = Dictionary(random(config, jax.random.key(3)), config)
    d = dataclasses.replace(d, params={**d.params, "b_enc": d.params["b_enc"].at[0, 5].set(-99.0)})
    tokens = np.concatenate([source().batch(i).tokens for i in range(3)])
    logits, found = forward(m.params, CONFIG, jnp.asarray(tokens), sites=("mlp_normalized", "mlp_out"))
    keep = (np.arange(16)[None] + 0 * tokens < 13).reshape(-1)
    x, y = (
        np.asarray(v, np.float64).reshape(2, -1, 6)[:, keep] for v in (found.mlp_normalized, found.mlp_out)
    )
    a = np.asarray(d.encode(jnp.asarray(x, jnp.float32)))
    predicted = np.asarray(d.decode(jnp.asarray(a)), np.float64)
    error, variance = ((y - predicted) ** 2).sum((1, 2)), ((y - y.mean(1, keepdims=True)) ** 2).sum((1, 2))
    figures = evaluate(m, d, source(), tokens=int(keep.sum()))
    np.testing.assert_allclose(figures["nmse"], error / variance, rtol=1e-5)
    assert figures["mean_nmse"] == pytest.approx((error / variance).mean(), rel=1e-5)
    assert figures["pooled_nmse"] == pytest.approx(error.sum() / variance.sum(), rel=1e-5)
    np.testing.assert_allclose(figures["l0"], (a != 0).sum(-1).mean(1))
    assert figures["dead"] == pytest.approx((a == 0).all(axis=1).mean())
    assert figures["dead"] > 0
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    nll = [-log_p[b, t, tokens[b, t + 1]] for b in range(9) for t in range(12)]
    assert figures["predictions"] == len(nll)
    assert figures["ce_clean"] == pytest.approx(np.mean(nll), rel=1e-5)


def test_figures_do_not_depend_on_how_rows_are_cut() -> None:
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(3.0, 1.0, (2, 60, 6)), jnp.float32) for _ in range(2))
    config = DictionaryConfig("plt", 2, 12, 6)
    d = Dictionary(random(config, jax.random.key(3)), config)
    whole = reconstruction(d, [(x, y)])
    cut = reconstruction(d, [(x[:, a:b], y[:, a:b]) for a, b in ((0, 7), (7, 8), (8, 60))])
    assert cut.rows == whole.rows == 60
    np.testing.assert_allclose(cut.nmse, whole.nmse, rtol=1e-6)
    np.testing.assert_array_equal(cut.density, whole.density)


def test_the_mean_alone_has_an_error_of_one() -> None:
    rng = np.random.default_rng(0)
    y = jnp.asarray(rng.normal(3.0, 1.0, (2, 60, 6)), jnp.float32)
    config = DictionaryConfig("plt", 2, 12, 6)
    params = jax.tree.map(jnp.zeros_like, random(config, jax.random.key(0)))
    d = Dictionary({**params, "b_dec": y.mean(axis=1)}, config)
    found = reconstruction(d, [(y, y)])
    np.testing.assert_allclose(found.nmse, 1.0, rtol=1e-6)
    assert found.dead == 1.0 and found.mean_l0 == 0.0


def test_documents_are_not_predicted_across() -> None:
    m = model()
    tokens = np.random.default_rng(0).integers(0, 17, (2, 16)).astype(np.int32)
    segments = np.repeat([[0, 1]], 8, axis=1).reshape(1, 16).repeat(2, 0).astype(np.int32)
    packed = plain(tokens)._replace(
        segments=segments, positions=np.arange(16, dtype=np.int32)[None].repeat(2, 0) % 8
    )
    apart = plain(tokens.reshape(4, 8))
    d = neurons(m)
    one, two = language(m, d, [packed]), language(m, d, [apart])
    assert one.tokens == two.tokens == 28
    assert one.clean == pytest.approx(two.clean, rel=1e-5)


def test_a_dictionary_of_another_model_is_refused() -> None:
    m = model()
    config = DictionaryConfig("plt", 3, 4, 6)
    with pytest.raises(InputError, match="layers: 3, the model has 2"):
        evaluate(m, Dictionary(random(config, jax.random.key(0)), config), source(), tokens=10)
