"""Low-rank sparse attention: loops in NumPy, a model's own attention, frozen patterns, documents, gradients."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import from_model, lorsa, normalise, sparse
from jaxinterp.dictionaries.attention import Attention, Places, whole
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, check, kind_of
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from jaxinterp.models.decoder import forward
from jaxinterp.models.rotary import RopeScaling
from jaxinterp.parallel.weights import is_weight
from jaxinterp.training.objective import ObjectiveConfig, objective
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate
from tests.support import normal, tiny_config, tiny_model

L, B, T, N, D, OUT, Q, E = 2, 2, 6, 12, 5, 4, 3, 4
ATTENTIONS = {
    "rotary": Attention(Q, E),
    "adjacent": Attention(Q, E, rope_pairs="adjacent", rope_width=2, window=(0, 3), softcap=2.0, scale=0.3),
    "normed": Attention(Q, E, rope_base=None, qk_norm="rms", qk_gain_offset=1.0, eps=1e-3),
}


def make(attention: str = "rotary", **changes: Any) -> Dictionary:
    fields = {
        "n_layers": L,
        "n_features": N,
        "d_model": D,
        "d_write": OUT,
        "activation": "topk",
        "k": 3,
        "ranked": True,
    }
    config = DictionaryConfig("lorsa", attention=ATTENTIONS[attention], **{**fields, **changes})
    rng = np.random.default_rng(1)
    declared = kind_of(config).declare(config)
    draw = lambda weight: jnp.asarray(0.5 * rng.normal(size=weight.shape))  # noqa: E731
    return check(Dictionary(jax.tree.map(draw, declared, is_leaf=is_weight), config))


def inputs() -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=(L, B, T, D)))


def places() -> Places:
    """Two documents in the first sequence, one that goes on from before in the second."""
    return Places(
        jnp.asarray([[0, 1, 0, 1, 2, 3], [4, 5, 6, 7, 8, 9]], jnp.int32),
        jnp.asarray([[7, 7, 8, 8, 8, 8], [3, 3, 3, 3, 3, 3]], jnp.int32),
    )


def turned(v: np.ndarray, position: int, at: Attention) -> np.ndarray:
    if at.rope_base is None:
        return v
    width, out = at.rope_width or E, v.copy()
    for i in range(width // 2):
        a, b = (2 * i, 2 * i + 1) if at.rope_pairs == "adjacent" else (i, i + width // 2)
        angle = position * at.rope_base ** (-2 * i / width)
        out[a] = v[a] * np.cos(angle) - v[b] * np.sin(angle)
        out[b] = v[b] * np.cos(angle) + v[a] * np.sin(angle)
    return out


def by_hand(d: Dictionary, x: Any, where: Places) -> tuple[np.ndarray, np.ndarray]:
    """Patterns [L, B, Q, T, S] and pre-activations [L, B, T, N], token by token."""
    at, p, x = lorsa.attention_of(d.config), jax.tree.map(np.asarray, d.params), np.asarray(x)
    position, segment = np.asarray(where.positions), np.asarray(where.segments)
    pattern, h = np.zeros((L, B, Q, T, T)), np.zeros((L, B, T, N))
    for l, b, q in np.ndindex(L, B, Q):
        vectors = {}
        for side in ("q", "k"):
            for t in range(T):
                v = x[l, b, t] @ p[f"W_{side}"][l, q] + p[f"b_{side}"][l, q]
                if at.qk_norm == "rms":
                    v = v / np.sqrt((v**2).mean() + at.eps) * (p[f"{side}_norm"][l, q] + at.qk_gain_offset)
                vectors[side, t] = turned(v, position[b, t], at)
        window = at.window[l if len(at.window) > 1 else 0]
        for t in range(T):
            seen = [
                s for s in range(t + 1)
                if segment[b, s] == segment[b, t] and (not window or position[b, t] - position[b, s] < window)
            ]  # fmt: skip
            scores = np.array([vectors["q", t] @ vectors["k", s] for s in seen])
            scores = scores * (E**-0.5 if at.scale is None else at.scale)
            if at.softcap:
                scores = at.softcap * np.tanh(scores / at.softcap)
            pattern[l, b, q, t, seen] = np.exp(scores) / np.exp(scores).sum()
        for i in range(q * N // Q, (q + 1) * N // Q):
            h[l, b, :, i] = pattern[l, b, q] @ (x[l, b] @ p["W_enc"][l, i] + p["b_enc"][l, i])
    return pattern, h


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_lorsa_is_what_it_says(x64: None, attention: str) -> None:
    d, x, where = make(attention), inputs(), places()
    pattern, h = by_hand(d, x, where)
    found = jax.jit(partial(lorsa.pattern, config=d.config))(d.params, x=x, places=where)
    np.testing.assert_allclose(found, pattern, atol=1e-12)
    pre = jax.jit(partial(lorsa.pre_activations, config=d.config))(d.params, x=x, places=where)
    np.testing.assert_allclose(pre, h, atol=1e-12)
    size = np.linalg.norm(d.params["W_dec"], axis=-1)[:, None, None]
    kept = (h * size >= np.sort(h * size, axis=-1)[..., -3:-2]) & (h > 0)
    z = jax.jit(partial(lorsa.encode, config=d.config))(d.params, x=x, places=where)
    np.testing.assert_allclose(z, np.where(kept, h, 0), atol=1e-12)
    y = np.einsum("lbtn,lnd->lbtd", z, d.params["W_dec"]) + np.asarray(d.params["b_dec"])[:, None, None]
    np.testing.assert_allclose(jax.jit(d.decode)(z), y, atol=1e-12)
    for layer in range(L):
        one = lorsa.encode_layer(d.params, d.config, layer, x[layer], where)
        np.testing.assert_allclose(one, z[layer], atol=1e-12)


def test_with_a_frozen_pattern_it_is_linear_before_the_threshold(x64: None) -> None:
    d, where = make(), places()
    one, other = inputs(), 3.0 * inputs()[:, ::-1]
    pattern = lorsa.pattern(d.params, d.config, one, where)
    bias = jnp.zeros_like(one)

    @jax.jit
    def h(x: jax.Array) -> jax.Array:
        return lorsa.pre_activations(d.params, d.config, x, pattern=pattern)

    np.testing.assert_allclose(h(one), lorsa.pre_activations(d.params, d.config, one, where), atol=1e-12)
    np.testing.assert_allclose(h(one + 2 * other) - h(bias), h(one) + 2 * h(other) - 3 * h(bias), atol=1e-11)
    # Key by key it adds up to the pre-activation.
    features = jnp.asarray([1, 5, 11])
    parts = lorsa.contributions(d.params, d.config, one[:, 0], features, pattern[:, :1])
    np.testing.assert_allclose(parts.sum(-1), jnp.moveaxis(h(one)[:, 0][..., features], -1, 1), atol=1e-12)


def test_rows_in_one_axis_are_the_same_sequences(x64: None) -> None:
    d, x, where = make(), inputs(), places()
    rows = jnp.asarray([11, 0, 3])
    kind = lorsa.on_rows(where, rows)
    flat = kind.encode(d.params, d.config, x.reshape(L, B * T, D))
    z = lorsa.encode(d.params, d.config, x, where).reshape(L, B * T, N)
    np.testing.assert_array_equal(flat, z[:, rows])
    # Without places every sequence is one document.
    np.testing.assert_array_equal(d.encode(x), lorsa.encode(d.params, d.config, x, whole(B, T)))
    np.testing.assert_array_equal(d.encode(x[:, 1]), d.encode(x)[:, 1])


def test_scales_and_lengths_fold(x64: None) -> None:
    d, x = make(activation="jumprelu", k=0, ranked=False), inputs()
    read, write = jnp.asarray([0.5, 2.0]), jnp.asarray([4.0, 0.3])
    folded = check(normalise.fold(d, normalise.Scales(read, write)))
    raw, scaled = folded.reconstruct(x), d.reconstruct(x * read[:, None, None, None])
    np.testing.assert_allclose(raw, scaled / write[:, None, None, None], atol=1e-12)
    unit = normalise.unit_decoders(d)
    np.testing.assert_allclose(unit.reconstruct(x), d.reconstruct(x), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(unit.params["W_dec"], axis=-1), 1.0, rtol=1e-12)


def test_losses_and_gradients_agree_with_finite_differences(x64: None) -> None:
    d, x, where = make("normed", activation="relu", k=0, ranked=False), inputs(), places()
    y = normal(9, (L, B * T, OUT))
    gate = make_gate(SparsityConfig("l1", coefficient=0.3, ramp=0.0, pre_activation=0.01))
    rows = jnp.arange(B * T)

    @jax.jit
    @jax.value_and_grad
    def loss(params: Any) -> Any:
        control, flat = {"coefficient": jnp.full(L, 0.3)}, x.reshape(L, B * T, D)
        return objective(
            ObjectiveConfig("sum"), gate, d.config, params, control, flat, y,
            dead=jnp.zeros((L, N), bool), progress=jnp.float64(1.0), kind=lorsa.on_rows(where, rows),
        )[0]  # fmt: skip

    gradient, step = loss(d.params)[1], 1e-6
    for number, (name, leaf) in enumerate(sorted(d.params.items())):
        direction = normal(number, leaf.shape)
        moved = [loss({**d.params, name: leaf + s * direction})[0] for s in (step, -step)]
        exact = jnp.vdot(gradient[name], direction)
        np.testing.assert_allclose(
            exact, (moved[0] - moved[1]) / (2 * step), rtol=3e-6, atol=1e-7, err_msg=name
        )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("site", ["attn_in", "attn_normalized"])
def test_a_models_own_attention_is_a_lorsa(x64: None, family: str, site: str) -> None:
    if site == "attn_normalized" and family == "llama":
        pytest.skip("as gemma2")
    model = tiny_model(family, dtype="float64")
    tokens = jnp.asarray([[3, 5, 7, 2, 9, 11], [1, 4, 4, 8, 0, 2]])
    segments = jnp.asarray([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]], jnp.int32)
    positions = jnp.asarray([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5]], jnp.int32)
    run = jax.jit(partial(forward, config=model.config, sites=(site, "pattern", "attn_out_raw")))
    _, found = run(model.params, tokens=tokens, segments=segments, positions=positions)
    d = check(from_model.attention_as_lorsa(model, site))
    x, where = getattr(found, site), Places(positions, segments)
    pattern = jax.jit(partial(lorsa.pattern, config=d.config))(d.params, x=x, places=where)
    np.testing.assert_allclose(pattern, found.pattern, atol=1e-12)
    z = jax.jit(partial(lorsa.encode, config=d.config))(d.params, x=x, places=where)
    np.testing.assert_allclose(d.decode(z), found.attn_out_raw, atol=1e-12)
    # A start from it looks where the model looks, with each head several times, and reads its outputs' components.
    config = dataclasses.replace(
        d.config, n_features=24, attention=from_model.attention_like(model.config, 2 * model.config.n_heads)
    )
    params = from_model.from_attention(config, model, jax.random.key(0))
    start = check(Dictionary(params, config))
    pattern = lorsa.pattern(params, config, x, where)
    np.testing.assert_allclose(pattern, jnp.repeat(found.pattern, 2, axis=2), atol=1e-12)
    h = lorsa.pre_activations(params, config, x, pattern=pattern)
    values, biases, outputs = from_model._heads(config, model)
    heads = jnp.einsum(
        "lbhts,lbshe,lhed->lbthd",
        found.pattern,
        jnp.einsum("lbsd,lhde->lbshe", x, values) + biases[:, None, None],
        outputs,
    )
    heads = jnp.repeat(heads, 24 // model.config.n_heads, axis=3)
    np.testing.assert_allclose(h, jnp.einsum("lbtnd,lnd->lbtn", heads, start.params["W_dec"]), atol=1e-12)


def test_it_comes_back_from_disk(tmp_path: Path, x64: None) -> None:
    d, x = make("adjacent"), inputs()
    save_dictionary(d, tmp_path / "d")
    found = load_dictionary(tmp_path / "d", dtype="float64")
    assert found.config == d.config and found.digest() == d.digest()
    np.testing.assert_array_equal(found.encode(x), d.encode(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": None}, "a lorsa needs attention"),
        ({"attention": Attention(5, E)}, "12 features cannot share 5 query-key heads"),
        ({"attention": Attention(3, E, window=(1, 2, 3))}, "3 windows for 2 layers"),
        ({"skip": True}, "a lorsa has no skip"),
        ({"kind": "plt"}, "attention is of the kind lorsa"),
    ],
)
def test_attention_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    fields = {
        "kind": "lorsa",
        "n_layers": L,
        "n_features": N,
        "d_model": D,
        "attention": Attention(Q, E),
        **changes,
    }
    with pytest.raises(InputError, match=message):
        DictionaryConfig(**fields)
    with pytest.raises(InputError, match=r"2 entries turn|3 entries turn"):
        Attention(2, 4, rope_width=3)


def test_models_whose_attention_cannot_be_copied_say_so() -> None:
    for family, message in (
        ("sinks", "sinks"),
        ("latent", "latent"),
        ("olmo2", "norm of queries over all heads"),
    ):
        with pytest.raises(InputError, match=message):
            from_model.attention_like(tiny_config(family))
    gemma = tiny_config("gemma3")
    with pytest.raises(InputError, match="turn at two rates"):
        from_model.attention_like(gemma)
    assert from_model.attention_like(gemma, layers=(0, 1)).rope_base == gemma.rope_local_base
    scaled = from_model.attention_like(gemma, layers=(2,))
    assert scaled.rope_scaling == RopeScaling("linear", 8.0) and scaled.window == (0,)


def test_sparse_code_is_decoded_as_dense(x64: None) -> None:
    d, x, where = make(), inputs(), places()
    kind = kind_of(d.config)
    slope = jnp.cos(jnp.arange(L * B * T * OUT, dtype=x.dtype)).reshape(L, B, T, OUT)

    def value(params: Any, sparsely: bool) -> jax.Array:
        z = lorsa.encode(params, d.config, x, where)
        if not sparsely:
            return jnp.sum(slope * kind.decode(params, d.config, z))
        code = sparse.from_dense(z, z.shape[-1])
        return jnp.sum(slope * sparse.decode(params, d.config, code))

    dense, found = (
        jax.jit(jax.value_and_grad(partial(value, sparsely=way)))(d.params) for way in (False, True)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, dense)
    with pytest.raises(InputError, match="no such sparse code of the kind lorsa"):
        sparse.encode(d.params, d.config, x, 4)
