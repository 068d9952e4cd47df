"""Every kind with every activation function: encoders by hand in NumPy, decoders row by row, folding, gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import initialise, normalise
from jaxinterp.dictionaries.activations import batch_top_k, group_max, top_k
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, check, fits, kind_of
from jaxinterp.dictionaries.crosscoder import decoders
from jaxinterp.dictionaries.crosslayer import untie
from tests.support import normal, tiny_config

pytestmark = pytest.mark.usefixtures("x64")

L, N, D, OUT = 3, 12, 5, 4
STRUCTURES: dict[str, dict[str, Any]] = {
    "plt": {"kind": "plt", "d_write": OUT},
    "skip-plt": {"kind": "plt", "skip": True, "d_write": OUT},
    "sae": {"kind": "plt", "centre": True, "read_site": "resid_post", "write_site": "resid_post"},
    "clt": {"kind": "clt", "d_write": OUT},
    "tied-clt": {"kind": "clt", "tied": True, "d_write": OUT},
    "crosscoder": {"kind": "crosscoder", "d_write": OUT},
    "shared-crosscoder": {"kind": "crosscoder", "shared": 4, "d_write": OUT},
}
ACTIVATIONS: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu"},
    "jumprelu": {"activation": "jumprelu"},
    "topk": {"activation": "topk", "k": 3},
    "topk-ranked": {"activation": "topk", "k": 3, "ranked": True},
    "groupmax": {"activation": "groupmax", "k": 4},
    "gated": {"activation": "gated"},
}


def make(structure: str, activation: str) -> Dictionary:
    config = DictionaryConfig(
        n_layers=L, n_features=N, d_model=D, **{**STRUCTURES[structure], **ACTIVATIONS[activation]}
    )
    params = initialise.random(config, jax.random.key(1), jnp.float64)
    leaves, tree = jax.tree.flatten(params)
    noisy = [leaf + 0.4 * normal(number, leaf.shape) for number, leaf in enumerate(leaves)]
    return check(Dictionary(jax.tree.unflatten(tree, noisy), config))


def inputs(*batch: int) -> jax.Array:
    return normal(105, (L, *batch, D))


def by_hand(d: Dictionary, x: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Pre-activations and activations of ``x [L, R, D]``, written out."""
    config, p = d.config, {name: np.asarray(v) for name, v in d.params.items() if not isinstance(v, tuple)}
    x = np.asarray(x)
    if config.centre:
        x = x - p["b_dec"][:, None]
    parts = np.stack([x[layer] @ p["W_enc"][layer].T for layer in range(L)])
    h = parts.sum(0, keepdims=True) if config.kind == "crosscoder" else parts
    h = h + p["b_enc"][:, None]
    positive = np.maximum(h, 0)
    norms = np.asarray(kind_of(config).decoder_norms(d.params, config))[:, None]
    a = np.zeros_like(h)
    if config.activation == "relu":
        a = positive
    elif config.activation == "jumprelu":
        a = np.where(h > p["threshold"][:, None], h, 0)
    elif config.activation == "topk":
        rank = h * norms if config.ranked else h
        for place in np.ndindex(h.shape[:2]):
            best = np.argsort(-rank[place])[: config.k]
            a[place][best] = positive[place][best]
    elif config.activation == "groupmax":
        size = N // config.k
        for place in np.ndindex(h.shape[:2]):
            for start in range(0, N, size):
                best = start + h[place][start : start + size].argmax()
                a[place][best] = positive[place][best]
    else:
        magnitude = np.exp(p["r_mag"])[:, None] * (h - p["b_enc"][:, None]) + p["b_mag"][:, None]
        a = np.where(h > 0, np.maximum(magnitude, 0), 0)
    return h, a


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_encoders_are_what_they_say(structure: str, activation: str) -> None:
    d, x = make(structure, activation), inputs(7)
    functions, config = kind_of(d.config), d.config
    h, a = by_hand(d, x)
    np.testing.assert_allclose(functions.pre_activations(d.params, config, x), h, atol=1e-12)
    np.testing.assert_allclose(d.encode(x), a, atol=1e-12)
    assert 0 < (a > 0).mean() < 1
    assert functions.groups(config) == a.shape[0]
    if config.kind != "crosscoder":
        for layer in range(L):
            one = functions.encode_layer(d.params, config, layer, x[layer])
            np.testing.assert_allclose(one, a[layer], atol=1e-12)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_decoders_add_up_row_by_row(structure: str) -> None:
    d, x = make(structure, "relu"), inputs(2, 3)
    functions, config = kind_of(d.config), d.config
    a = d.encode(x)
    expected = np.zeros((L, 2, 3, config.d_out)) + np.asarray(d.params["b_dec"])[:, None, None]
    squares = np.zeros((functions.groups(config), N))
    for source, target in functions.writes(config):
        rows = np.asarray(functions.decoder_rows(d.params, config, source, target, jnp.arange(N)))
        expected[target] += np.asarray(a[source]) @ rows
        squares[source] += (rows**2).sum(-1)
    if config.skip:
        expected += np.einsum("l...d,led->l...e", x, d.params["W_skip"])
    np.testing.assert_allclose(d.decode(a, x), expected, atol=1e-12)
    np.testing.assert_allclose(functions.decoder_norms(d.params, config), np.sqrt(squares), atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_decoder_lengths_fold_into_activations(structure: str, activation: str) -> None:
    d, x = make(structure, activation), inputs(9)
    unit = check(normalise.unit_decoders(d))
    np.testing.assert_allclose(unit.reconstruct(x), d.reconstruct(x), atol=1e-12)
    assert not unit.config.ranked
    if activation in ("topk", "groupmax"):
        assert unit is d
    else:
        np.testing.assert_allclose(kind_of(d.config).decoder_norms(unit.params, unit.config), 1.0, atol=1e-12)


def test_a_ranked_feature_without_decoder_still_comes_last() -> None:
    d, x = make("plt", "topk-ranked"), inputs(9)
    strongest = int(np.asarray(d.encode(x)).sum(axis=(0, 1)).argmax())
    d = dataclasses.replace(d, params={**d.params, "W_dec": d.params["W_dec"].at[:, strongest].set(0)})
    np.testing.assert_allclose(normalise.unit_decoders(d).reconstruct(x), d.reconstruct(x), atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk", "groupmax", "gated"])
@pytest.mark.parametrize("structure", [s for s in STRUCTURES if s != "shared-crosscoder"])
def test_scales_fold_into_weights(structure: str, activation: str) -> None:
    d, x = make(structure, activation), inputs(9)
    read, write = jnp.asarray([0.5, 2.0, 3.0]), jnp.asarray([4.0, 0.3, 1.5])
    write = read if d.config.centre else write
    folded = check(normalise.fold(d, normalise.Scales(read, write)))
    np.testing.assert_allclose(folded.encode(x), d.encode(x * read[:, None, None]), atol=1e-11)
    expected = d.reconstruct(x * read[:, None, None]) / write[:, None, None]
    np.testing.assert_allclose(folded.reconstruct(x), expected, atol=1e-11)


def test_what_cannot_be_folded_says_so() -> None:
    scales = normalise.Scales(jnp.asarray([0.5, 2.0, 3.0]), jnp.asarray([4.0, 0.3, 1.5]))
    for structure, activation, message in (
        ("plt", "topk-ranked", "unit_decoders comes first"),
        ("sae", "relu", "factor of the output"),
        ("shared-crosscoder", "relu", "one factor for all layers"),
    ):
        with pytest.raises(ValueError, match=message):
            normalise.fold(make(structure, activation), scales)


def test_untied_decoders_do_the_same() -> None:
    d, x = make("tied-clt", "relu"), inputs(4)
    other = check(Dictionary(*untie(d.params, d.config)))
    np.testing.assert_allclose(other.reconstruct(x), d.reconstruct(x), atol=1e-13)
    assert len(other.params["W_dec"]) == L


def test_shared_features_write_the_same_into_every_layer() -> None:
    d = make("shared-crosscoder", "relu")
    rows = np.asarray(decoders(d.params, d.config))
    assert (rows[:, :4] == rows[:1, :4]).all() and (rows[0, 4:] != rows[1, 4:]).any()


@pytest.mark.parametrize(
    "structure",
    ["sae", "tied-clt", "crosscoder"]
    + [
        pytest.param(name, marks=pytest.mark.slow) for name in ("plt", "skip-plt", "clt", "shared-crosscoder")
    ],
)
def test_start_from_data(structure: str) -> None:
    config = make(structure, "jumprelu").config
    x = inputs(300)
    y = x if config.centre else normal(108, (L, 300, config.d_out))
    params = jax.jit(lambda: initialise.from_data(config, jax.random.key(0), x, y, decoder=0.7))()
    params = initialise.set_firing_rate(params, config, x, 0.05)
    d = check(Dictionary(params, config))
    np.testing.assert_allclose((d.encode(x) != 0).mean(axis=1), 0.05, atol=0.006)
    np.testing.assert_allclose(kind_of(config).decoder_norms(params, config), 0.7, rtol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("structure", ["sae", "tied-clt", "shared-crosscoder"])
def test_gradients_agree_with_finite_differences(structure: str, activation: str) -> None:
    d, x = make(structure, activation), inputs(4)

    @jax.jit
    @jax.value_and_grad
    def loss(params: Any) -> jax.Array:
        return jnp.sum(dataclasses.replace(d, params=params).reconstruct(x) ** 2)

    gradient, step = loss(d.params)[1], 1e-6
    leaves, tree = jax.tree.flatten(d.params)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(d.params)[0]]
    for number, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
        direction = normal(200 + number, leaf.shape)
        moved = [
            loss(jax.tree.unflatten(tree, [*leaves[:number], leaf + s * direction, *leaves[number + 1 :]]))[0]
            for s in (step, -step)
        ]
        found = jnp.vdot(jax.tree.leaves(gradient)[number], direction)
        np.testing.assert_allclose(
            found, (moved[0] - moved[1]) / (2 * step), rtol=2e-5, atol=2e-6, err_msg=name
        )


def test_competition_over_a_whole_batch() -> None:
    h = normal(0, (2, 5, 8))
    a = np.asarray(batch_top_k(h, 10))
    for group in range(2):
        kept = np.sort(np.asarray(h[group]).ravel())[-10:]
        np.testing.assert_array_equal(np.sort(a[group][a[group] != 0]), kept[kept > 0])
    norms = jnp.abs(normal(1, (2, 1, 8)))
    ranked = np.asarray(batch_top_k(h, 10, norms)) != 0
    expected = np.asarray(h * norms) >= np.sort(np.asarray(h * norms).reshape(2, -1))[:, [-10], None]
    np.testing.assert_array_equal(ranked, expected & (np.asarray(h) > 0))


def test_ties_go_to_the_first_feature() -> None:
    h = jnp.asarray([[1.0, 1.0, 1.0, 0.5]])
    assert top_k(h, 2).tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert group_max(h, 2).tolist() == [[1.0, 0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation": "topk"}, "k is 0 with the activation topk"),
        ({"activation": "relu", "k": 3}, "k is 3 with the activation relu"),
        ({"activation": "topk", "k": 13}, "13 active among 12"),
        ({"activation": "groupmax", "k": 5}, "5 active among 12"),
        ({"ranked": True}, "ranked under topk and groupmax only"),
        ({"tied": True}, "tied is of the kind clt"),
        ({"shared": 2}, "shared is of the kind crosscoder"),
        ({"centre": True, "skip": True}, "centre is of the kind plt, without a skip"),
        ({"layers": (1, 1, 2)}, "expected 3 different ones"),
        ({"d_write": 0}, "d_write is 0"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DictionaryConfig(**{"kind": "plt", "n_layers": L, "n_features": N, "d_model": D, **changes})


@pytest.mark.parametrize("structure", ["sae", "crosscoder", "plt"])
def test_only_transcoders_of_every_layer_stand_for_mlps(structure: str) -> None:
    config = dataclasses.replace(make(structure, "relu").config, d_model=16)
    with pytest.raises(InputError, match="does not stand for MLPs"):
        fits(Dictionary({}, config), tiny_config("llama"))


def test_a_config_comes_back_from_json() -> None:
    config = DictionaryConfig("plt", 2, N, D, layers=(4, 7), activation="topk", k=3)
    assert DictionaryConfig.from_dict(config.to_dict()) == config
    with pytest.raises(InputError, match=r"unknown field 'kinds' .did you mean kind"):
        DictionaryConfig.from_dict({**config.to_dict(), "kinds": 1})
