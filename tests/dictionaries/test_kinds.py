"""What every kind promises, and how the kinds relate."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import initialise, normalise
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, check, fits, kind_of
from jaxinterp.models.config import ModelConfig
from tests.support import normal


def make(
    kind: str, *, skip: bool = False, activation: str = "jumprelu", dtype: Any = jnp.float64
) -> Dictionary:
    config = DictionaryConfig(kind, 3, 10, 4, activation=activation, skip=skip)
    params = initialise.random(config, jax.random.key(1), dtype)
    keys = iter(jax.random.split(jax.random.key(2), 20))
    noisy = {
        name: value + 0.3 * jax.random.uniform(next(keys), value.shape, dtype)
        for name, value in params.items()
        if name in ("b_enc", "b_dec", "threshold", "W_skip")
    }
    return Dictionary({**params, **noisy}, config, kind)


def inputs(*batch: int) -> jax.Array:
    return normal(5, (3, *batch, 4))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_decode_is_the_sum_over_features_of_their_rows(x64: None, kind: str, skip: bool) -> None:
    d = make(kind, skip=skip)
    functions, config, x = kind_of(d.config), d.config, inputs(2)
    a = d.encode(x)
    expected = np.zeros(x.shape) + np.asarray(d.params["b_dec"])[:, None]
    for source, target in functions.writes(config):
        rows = functions.decoder_rows(d.params, config, source, target, jnp.arange(10))
        expected[target] += np.asarray(a[source]) @ np.asarray(rows)
    if skip:
        for layer in range(3):
            expected[layer] += np.asarray(x[layer]) @ np.asarray(d.params["W_skip"][layer]).T
    np.testing.assert_allclose(d.decode(a, x), expected, atol=1e-13)
    parts = [functions.decode_into(d.params, config, layer, a[layer]) for layer in range(3)]
    without = d.decode(a, x) - d.decode(jnp.zeros_like(a), x)
    np.testing.assert_allclose(sum(parts), without, atol=1e-13)


@pytest.mark.parametrize("activation", ["relu", "jumprelu"])
@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_encoding_layer_by_layer_and_by_rows_gives_the_same(x64: None, kind: str, activation: str) -> None:
    d = make(kind, activation=activation)
    functions, x = kind_of(d.config), inputs(2, 5)
    a, h = d.encode(x), functions.pre_activations(d.params, d.config, x)
    for layer in range(3):
        one = functions.encode_layer(d.params, d.config, layer, x[layer])
        np.testing.assert_allclose(one, a[layer], atol=1e-14)
        rows = functions.encoder_rows(d.params, d.config, layer, jnp.arange(10))
        by_hand = np.asarray(x[layer]) @ np.asarray(rows).T + np.asarray(d.params["b_enc"][layer])
        np.testing.assert_allclose(h[layer], by_hand, atol=1e-14)
    cut = d.params["threshold"][:, None, None, :] if activation == "jumprelu" else 0.0
    np.testing.assert_array_equal(a != 0, np.asarray(h) > np.asarray(cut))


def test_a_cross_layer_transcoder_with_diagonal_decoders_is_a_per_layer_one(x64: None) -> None:
    plt = make("plt", skip=True)
    zeros = jnp.zeros((10, 4))
    decoders = tuple(
        jnp.stack([plt.params["W_dec"][t] if s == t else zeros for s in range(t + 1)]) for t in range(3)
    )
    config = dataclasses.replace(plt.config, kind="clt")
    clt = Dictionary({**plt.params, "W_dec": decoders}, config)
    x = inputs(6)
    np.testing.assert_allclose(clt.reconstruct(x), plt.reconstruct(x), atol=1e-14)
    np.testing.assert_allclose(
        kind_of(config).decoder_norms(clt.params, config),
        kind_of(plt.config).decoder_norms(plt.params, plt.config),
        atol=1e-14,
    )


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_norms_are_those_of_the_joined_decoders(x64: None, kind: str) -> None:
    d = make(kind)
    functions = kind_of(d.config)
    joined: list[list[Any]] = [[] for _ in range(3)]
    for s, t in functions.writes(d.config):
        joined[s].append(functions.decoder_rows(d.params, d.config, s, t, jnp.arange(10)))
    expected = [np.linalg.norm(np.concatenate(rows, axis=1), axis=1) for rows in joined]
    np.testing.assert_allclose(functions.decoder_norms(d.params, d.config), expected, atol=1e-14)


@settings(max_examples=10, deadline=None)
@given(
    kind=st.sampled_from(["plt", "clt"]),
    skip=st.booleans(),
    factor=st.floats(0.01, 100.0),
    seed=st.integers(0, 9),
)
def test_folding_scales_and_decoder_lengths_changes_no_output(
    kind: str, skip: bool, factor: float, seed: int
) -> None:
    with jax.enable_x64(True):
        d, x = make(kind, skip=skip), inputs(7)
        keys = jax.random.split(jax.random.key(seed), 2)
        scales = normalise.Scales(*(factor * jax.random.uniform(k, (3,), jnp.float64, 0.5, 2) for k in keys))
        folded = normalise.fold(d, scales)
        read, write = (s[:, None, None] for s in scales)
        np.testing.assert_allclose(folded.encode(x), d.encode(x * read), rtol=1e-9, atol=1e-9)
        expected = d.reconstruct(x * read) / write
        np.testing.assert_allclose(folded.reconstruct(x), expected, rtol=1e-9, atol=1e-9 / factor)
        unit = normalise.unit_decoders(d)
        np.testing.assert_allclose(unit.reconstruct(x), d.reconstruct(x), atol=1e-12)
        np.testing.assert_allclose(kind_of(d.config).decoder_norms(unit.params, d.config), 1.0, atol=1e-12)
        np.testing.assert_array_equal(unit.encode(x) != 0, d.encode(x) != 0)


def test_measured_scales_do_what_they_say(x64: None) -> None:
    x, y = 3.0 * inputs(500) + 1.0, 0.2 * inputs(500)[:, ::-1] - 5.0
    scales = normalise.measure(x, y)
    x, y = x * scales.read[:, None, None], y * scales.write[:, None, None]
    np.testing.assert_allclose((x**2).sum(-1).mean(1), 4.0, rtol=1e-12)
    np.testing.assert_allclose(y.var(axis=1).sum(-1), 4.0, rtol=1e-12)


@pytest.mark.parametrize("kind", ["plt", "clt"])
def test_start_from_data(x64: None, kind: str) -> None:
    config = DictionaryConfig(kind, 3, 10, 4)
    x, y = inputs(400), inputs(400)[:, ::-1]
    params = initialise.from_data(config, jax.random.key(0), x, y, noise=0.0, decoder=0.7)
    params = initialise.set_firing_rate(params, config, x, 0.05)
    d = check(Dictionary(params, config))
    np.testing.assert_allclose((d.encode(x) != 0).mean(axis=1), 0.05, atol=0.005)
    np.testing.assert_allclose(kind_of(config).decoder_norms(params, config), 0.7, rtol=1e-12)
    np.testing.assert_allclose(params["b_dec"], y.mean(axis=1), atol=1e-12)
    centred = np.asarray(x - x.mean(axis=1, keepdims=True))
    units = centred / np.linalg.norm(centred, axis=-1, keepdims=True)
    closest = np.einsum("lnd,lrd->lnr", params["W_enc"], units).max(axis=-1)
    np.testing.assert_allclose(closest, 1.0, atol=1e-9)


def test_a_dictionary_is_a_pytree_with_a_digest_of_its_numbers() -> None:
    d = make("clt", dtype=jnp.float32)
    same = jax.tree.map(lambda leaf: leaf, d)
    assert same.config == d.config and same.digest() == d.digest()
    other = jax.tree.map(lambda leaf: leaf + 1, d)
    assert other.digest() != d.digest()
    assert dataclasses.replace(d, name="else").digest() == d.digest()


MODEL = ModelConfig(
    vocab_size=9, d_model=4, n_layers=3, n_heads=1, n_kv_heads=1, d_head=4, d_mlp=8, context=8
)


def test_a_dictionary_that_does_not_fit_says_why() -> None:
    d = make("plt", dtype=jnp.float32)
    fits(d, MODEL)
    with pytest.raises(InputError, match="width 4, the model has 6"):
        fits(d, dataclasses.replace(MODEL, d_model=6))
    with pytest.raises(InputError, match="layers: 3, the model has 5"):
        fits(d, dataclasses.replace(MODEL, n_layers=5))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "clts", "did you mean clt"),
        ("activation", "top", "expected one of relu, jumprelu, topk.*did you mean topk"),
        ("read_site", "resid_mib", "did you mean resid_mid"),
        ("n_layers", 0, "at least 1"),
    ],
)
def test_a_wrong_config_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DictionaryConfig(**{"kind": "plt", "n_layers": 1, "n_features": 2, "d_model": 3, field: value})


def test_a_skip_needs_its_input() -> None:
    d = make("plt", skip=True, dtype=jnp.float32)
    with pytest.raises(ValueError, match="needs its input"):
        d.decode(jnp.zeros((3, 2, 10)))
