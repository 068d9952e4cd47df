"""Sparse mixtures of linear transforms (MOLT): features are linear maps of low rank, each with a gate.

``y(x) = Σ_i φ(e_i·x + b_i) U_i V_i x + b_dec`` (*Sparse Mixtures of Linear Transforms*, Transformer Circuits, July
2025). A feature's size, by which penalties weigh it and features are ranked, is the Frobenius norm of ``U_i V_i``.
Ranks may differ: the features of one rank stand together, and a dictionary has one pair of arrays for each rank.

Letters: L layers, N features, C features of one rank, K that rank, D width read, D' width written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import encoder, transcoder
from jaxinterp.dictionaries.base import Kind
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.parallel.weights import Weight, uniform

OUT, IN = "W_dec_U", "W_dec_V"
"""Names of U, a tuple of ``(L, C, D', K)``, and of V, a tuple of ``(L, C, K, D)``."""


def declare(config: DictionaryConfig) -> dict[str, Any]:
    """Encoder parameters, U uniform in ±1/sqrt(D') and V uniform in ±1/sqrt(D), a pair for each of ``config.ranks``."""
    layers, d, out = config.n_layers, config.d_model, config.d_out
    axes = ("layers", "features")
    return {
        **encoder.declare(config),
        OUT: tuple(
            Weight((layers, count, out, rank), (*axes, "width", "replicated"), uniform(out**-0.5))
            for rank, count in config.ranks
        ),
        IN: tuple(
            Weight((layers, count, rank, d), (*axes, "replicated", "width"), uniform(d**-0.5))
            for rank, count in config.ranks
        ),
    }


def groups(config: DictionaryConfig) -> Iterator[slice]:
    """The features of each rank, in order."""
    start = 0
    for _, count in config.ranks:
        yield slice(start, start + count)
        start += count


def decode(params: Tree, config: DictionaryConfig, a: Array, x: Array | None = None) -> Array:
    """``Σ_i a_i U_i V_i x + b_dec`` (+ skip) for ``a [L, ..., N]``, ``x [L, ..., D]`` → ``[L, ..., D']``."""
    y = _apply(params, config, a, needed(x))
    return encoder.bias_and_skip(params, config, y, x)


def needed(x: Array | None) -> Array:
    """``x``, which decoding cannot do without."""
    if x is None:
        raise ValueError("the features of a molt are maps of its input: decode needs x too")
    return x


def _apply(params: Tree, config: DictionaryConfig, a: Array, x: Array) -> Array:
    """``Σ_i a_i U_i V_i x``, rank by rank: V x, times the activation, U."""
    y: Any = 0.0
    for group, u, v in zip(groups(config), params[OUT], params[IN], strict=True):
        inner = einsum("l...d,lckd->l...ck", x, v) * a[..., group, None]
        y = y + einsum("l...ck,lcdk->l...d", inner, u)
    return y


def decode_few(params: Tree, config: DictionaryConfig, indices: Array, values: Array, x: Array) -> Array:
    """As `decode` without bias and skip, of few features a row: a slot at a time, each row's own U and V.

    Args:
      indices, values: ``[L, R, K]``; an index of N says nothing. x: ``[L, R, D]``.

    Returns:
      ``[L, R, D']``.
    """

    @jax.checkpoint
    def slot(y: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        index, value = one
        for group, u, v in zip(groups(config), params[OUT], params[IN], strict=True):
            inside = (index >= group.start) & (index < group.stop)
            at = jnp.clip(index - group.start, 0, u.shape[1] - 1)
            own_u, own_v = (jax.vmap(lambda maps, i: maps[i])(maps, at) for maps in (u, v))
            weight = jnp.where(inside, value, jnp.zeros_like(value))[..., None]
            y = y + einsum("lrk,lrek->lre", einsum("lrd,lrkd->lrk", x, own_v) * weight, own_u)
        return y, None

    slots = (jnp.moveaxis(indices, -1, 0), jnp.moveaxis(values, -1, 0))
    return jax.lax.scan(slot, jnp.zeros((*x.shape[:-1], config.d_out), x.dtype), slots)[0]


def transform(params: Tree, config: DictionaryConfig, a: Array) -> Array:
    """``Σ_i a_i U_i V_i``, the map that acts with activations ``a [L, ..., N]``: ``[L, ..., D', D]``.

    With activations held it is the Jacobian of the dictionary; `jacobian` lets them move.
    """
    total: Any = 0.0
    for group, u, v in zip(groups(config), params[OUT], params[IN], strict=True):
        total = total + einsum("l...c,lcek,lckd->l...ed", a[..., group], u, v)
    return total


def writes_of(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """``U_i V_i x``, what each feature writes at ``x [L, ..., D]`` with activation one: ``[L, ..., N, D']``."""
    parts = [
        einsum("l...ck,lcek->l...ce", einsum("l...d,lckd->l...ck", x, v), u)
        for u, v in zip(params[OUT], params[IN], strict=True)
    ]
    return jnp.concatenate(parts, axis=-2)


def jacobian(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """dy/dx at ``x [L, ..., D]``, ``[L, ..., D', D]``: `transform` plus ``(U_i V_i x) da_i/dx`` of every gate."""
    h, norms = encoder.pre_activations(params, config, x), _ranking(params, config)
    slope = jax.jvp(lambda h: encoder.activations(params, config, h, norms), (h,), (jnp.ones_like(h),))[1]
    found = transform(params, config, encode(params, config, x))
    found = found + einsum("l...n,l...ne,lnd->l...ed", slope, writes_of(params, config, x), params["W_enc"])
    if config.skip:
        skip = params["W_skip"]
        found = found + skip.reshape(skip.shape[0], *(1,) * (x.ndim - 2), *skip.shape[1:])
    return found


def writes(config: DictionaryConfig) -> tuple[tuple[int, int], ...]:
    """Every layer writes to itself only."""
    return transcoder.writes(config)


def decoder_rows(params: Tree, config: DictionaryConfig, source: int, target: int, features: Array) -> Array:
    """Not possible: what a feature writes depends on the input; see `writes_of`."""
    raise ValueError("a feature of a molt is a linear map and writes no one direction")


def decode_into(
    params: Tree, config: DictionaryConfig, layer: int, a: Array, x: Array | None = None
) -> Array:
    """What ``a [..., N]`` of one layer writes at its input ``x [..., D]``: ``[L, ..., D']``, zero elsewhere."""
    one = {OUT: tuple(u[layer][None] for u in params[OUT]), IN: tuple(v[layer][None] for v in params[IN])}
    y = _apply(one, config, a[None], needed(x)[None])[0]
    return jnp.zeros((config.n_layers, *y.shape), y.dtype).at[layer].set(y)


def decoder_norms(params: Tree, config: DictionaryConfig) -> Array:
    """``[L, N]``, ``‖U_i V_i‖`` (Frobenius), from ``trace(UᵀU VVᵀ)``: K × K numbers a feature instead of D' × D."""
    del config
    squares = [
        jnp.sum(einsum("lcek,lcej->lckj", u, u) * einsum("lckd,lcjd->lckj", v, v), axis=(-2, -1))
        for u, v in zip(params[OUT], params[IN], strict=True)
    ]
    return encoder.root(jnp.concatenate(squares, axis=1))


def with_decoders(
    params: Tree, config: DictionaryConfig, rows: dict[tuple[int, int], Array], at: Array | None = None
) -> dict[str, Any]:
    """See `Kind.with_decoders`: ``U_i V_i`` becomes the map of rank one that sends ``at`` to the row.

    Rows of V after the first stay as they are and columns of U after the first become zero, so that training can use
    the other ranks.
    """
    if at is None:
        raise ValueError("the features of a molt write what they read: with_decoders needs at")
    done = jnp.asarray([(layer, layer) in rows for layer in range(config.n_layers)])
    given = [rows.get((layer, layer)) for layer in range(config.n_layers)]
    shape = (config.n_features, config.d_out)
    new = jnp.stack([jnp.zeros(shape, at.dtype) if row is None else row for row in given])
    squares = jnp.sum(at * at, axis=-1, keepdims=True)
    first = at / jnp.where(squares > 0, squares, jnp.ones_like(squares))
    outs, ins = [], []
    for group, u, v in zip(groups(config), params[OUT], params[IN], strict=True):
        out = jnp.zeros_like(u).at[..., 0].set(new[:, group])
        outs.append(jnp.where(done[:, None, None, None], out, u))
        ins.append(jnp.where(done[:, None, None, None], v.at[:, :, 0].set(first[:, group]), v))
    return {**params, OUT: tuple(outs), IN: tuple(ins)}


def belongs(config: DictionaryConfig, which: Array) -> dict[str, Any]:
    """See `Kind.belongs`."""
    parts = tuple(which[:, group, None, None] for group in groups(config))
    return {**encoder.belongs(which), OUT: parts, IN: parts}


def scale_features(params: Tree, config: DictionaryConfig, scale: Array) -> dict[str, Any]:
    """See `Kind.scale_features`."""
    outs = (u / scale[:, group, None, None] for group, u in zip(groups(config), params[OUT], strict=True))
    return {**params, **encoder.scale_features(params, scale), OUT: tuple(outs)}


def scale_sites(params: Tree, config: DictionaryConfig, read: Array, write: Array) -> dict[str, Any]:
    """See `Kind.scale_sites`."""
    del config
    changed = encoder.scale_sites(params, read, write)
    outs = tuple(u * write[:, None, None, None] for u in params[OUT])
    return {**params, **changed, OUT: outs, IN: tuple(v * read[:, None, None, None] for v in params[IN])}


def _ranking(params: Tree, config: DictionaryConfig) -> Array | None:
    return decoder_norms(params, config) if config.ranked else None


def encode(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """Activations ``[L, ..., N]`` of the gates for ``x [L, ..., D]``."""
    h = encoder.pre_activations(params, config, x)
    return encoder.activations(params, config, h, _ranking(params, config))


def encode_layer(params: Tree, config: DictionaryConfig, layer: Any, x: Array) -> Array:
    """Activations ``[..., N]`` of one layer for its read-site values ``x [..., D]``."""
    return encoder.encode_layer(params, config, layer, x, _ranking(params, config))


KIND = Kind(
    declare=declare,
    groups=encoder.layer_groups,
    pre_activations=encoder.pre_activations,
    encode=encode,
    encode_layer=encode_layer,
    decode=decode,
    writes=writes,
    encoder_rows=encoder.encoder_rows,
    decoder_rows=decoder_rows,
    decode_into=decode_into,
    decoder_norms=decoder_norms,
    with_decoders=with_decoders,
    scale_features=scale_features,
    scale_sites=scale_sites,
    belongs=belongs,
    maps=True,
)
