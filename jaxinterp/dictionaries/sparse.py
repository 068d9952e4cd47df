"""Sparse code, (indices, values) next to dense activations: encoding, decoding and their derivatives.

Dense and sparse agree in value and gradient; what differs is the cost. A step of training with dense activations makes
six products of rows × features × width (a decoder's three, an encoder's three); here the encoder's forward product is
the only one left, and the rest costs what the used slots cost.

Letters: L layers, G groups of N features (G = L, or 1 for a crosscoder), R rows, K slots, D width.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import crosscoder, encoder, molt
from jaxinterp.dictionaries.activations import activate
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.sparse_choose import Choose, in_pieces, largest
from jaxinterp.dictionaries.sparse_rows import (
    Columns,
    by_column,
    dot_columns,
    gather_sum,
    sum_by_column,
    sum_columns,
)

KINDS = ("plt", "clt", "crosscoder", "molt")
"""Kinds whose features are read one by one."""

WRITTEN = (*KINDS, "lorsa")
"""Kinds that sparse code can be decoded of; that of a lorsa, whose features look back, comes from `from_dense`."""


class Code(NamedTuple):
    """Activations of few features. A slot whose value is 0 says nothing; its index may be N.

    Attributes:
      indices: ``[G, ..., K]`` int32, different from one another where below N. values: ``[G, ..., K]``.
      lost: ``[G]`` int32, how many active features found no slot.
    """

    indices: Array
    values: Array
    lost: Array


def encode(
    params: Tree, config: DictionaryConfig, x: Array, capacity: int | None = None, recall: float = 1.0
) -> Code:
    """The features that are active, with their gradients; pre-activations of all are never in memory at once.

    Args:
      x: ``[L, ..., D]``.
      capacity: slots of a row, K. Top-k and group-max know theirs; the others need it, and count in `Code.lost` what
        did not fit.
      recall: see `sparse_choose.largest`.

    Raises:
      InputError: no capacity, or a kind whose features are not read one by one.
    """
    check(config, KINDS)
    n, choosing = config.n_features, config.activation in ("topk", "groupmax")
    if not choosing and capacity is None:
        raise InputError(f"sparse code of {config.activation} features needs a capacity: the slots of a row")
    slots = config.k if choosing else min(capacity or 0, n)
    norms = kind_of(config).decoder_norms(params, config) if config.ranked else None

    def choose(h: Array, extra: Any) -> tuple[Array, Array, Array]:
        if config.activation == "topk":
            indices = winners(h, slots, extra["norms"], recall)
            lost = jnp.zeros(len(h), jnp.int32)
        elif config.activation == "groupmax":
            indices = group_winners(h, slots, extra["norms"])
            lost = jnp.zeros(len(h), jnp.int32)
        else:
            active = h > extra["threshold"][None, :]
            indices, lost = fitting(active, h, slots)
        return indices, at(h, indices), lost

    thresholds = params["threshold"] if config.activation == "jumprelu" else jnp.zeros_like(params["b_enc"])
    batch, flat = x.shape[1:-1], x.reshape(len(x), -1, x.shape[-1])
    indices, h, lost = read(params, config, flat, choose, {"norms": norms, "threshold": thresholds})
    if config.activation == "gated":
        shift, scale, bias = (pick(params[name], indices) for name in ("b_enc", "r_mag", "b_mag"))
        values = jax.nn.relu(jnp.exp(scale) * (h - shift) + bias)
    else:
        values = activate(h, pick(thresholds, indices) if config.activation == "jumprelu" else None)
    values = jnp.where(indices < n, values, jnp.zeros_like(values))
    shape = (len(indices), *batch, slots)
    return Code(indices.reshape(shape), values.reshape(shape), jnp.sum(lost, axis=1, dtype=jnp.int32))


def check(config: DictionaryConfig, kinds: tuple[str, ...]) -> None:
    """Raises an `InputError` where this cannot be done sparsely for the dictionary's kind."""
    if config.kind not in kinds:
        raise InputError(
            f"there is no such sparse code of the kind {config.kind}, only of {', '.join(kinds)}"
        )


def winners(h: Array, k: int, norms: Array | None = None, recall: float = 1.0) -> Array:
    """The numbers of the ``k`` largest of each row of ``h [R, N]``, by ``h * norms [N]`` where given: ``[R, k]``."""
    return largest(h if norms is None else h * norms[None, :], k, recall)[1]


def group_winners(h: Array, k: int, norms: Array | None = None) -> Array:
    """The number of the largest of each of ``k`` groups of neighbours, as `winners`."""
    rank = (h if norms is None else h * norms[None, :]).reshape(len(h), k, -1)
    size = rank.shape[-1]
    return jnp.argmax(rank, axis=-1).astype(jnp.int32) + size * jnp.arange(k, dtype=jnp.int32)[None, :]


def fitting(active: Array, h: Array, slots: int) -> tuple[Array, Array]:
    """The numbers of the ``active [R, N]``, those with the largest ``h`` first, else N; and how many did not fit.

    Returns:
      ``[R, slots]``, ``[R]``.
    """
    n = h.shape[1]
    _, indices = largest(jnp.where(active, h, -jnp.inf), slots)
    count = jnp.sum(active, axis=1, dtype=jnp.int32)
    used = jnp.arange(slots, dtype=jnp.int32)[None, :] < count[:, None]
    return jnp.where(used, indices, n), jnp.maximum(count - slots, 0)


def at(h: Array, indices: Array) -> Array:
    """``h [R, N]`` at ``indices [R, K]``, 0 where these are N."""
    found = jnp.take_along_axis(h, jnp.minimum(indices, h.shape[1] - 1), axis=1)
    return jnp.where(indices < h.shape[1], found, jnp.zeros_like(found))


def pick(values: Array, indices: Array) -> Array:
    """``values [G, N]`` at ``indices [G, ..., K]``, 0 where these are N."""
    n = values.shape[1]
    found = jax.vmap(lambda own, index: own[jnp.minimum(index, n - 1)])(values, indices)
    return jnp.where(indices < n, found, jnp.zeros_like(found))


def read(params: Tree, config: DictionaryConfig, x: Array, choose: Choose, belongs: Tree) -> Tree:
    """What ``choose`` finds in the pre-activations of ``x [L, R, D]``, these with their derivative.

    Args:
      choose: ``(h [R, N], its group's part of belongs)`` → (indices ``[R, K]``, h at them, anything). May also give a
        tuple of such triples.
      belongs: leaves ``[G, ...]``.

    Returns:
      the same with ``[G, R, K]``, where h depends on the parameters and ``x`` as pre-activations do.
    """
    xs, bias = encoder.inputs(params, config, x)
    if config.kind == "crosscoder":
        weights, xs = params["W_enc"][None], xs[None]
    else:
        weights, xs = params["W_enc"][:, None], xs[:, None]
    found = in_pieces(choose, weights, bias, xs, belongs)

    def connect(indices: Array, h: Array, rest: Any) -> tuple[Array, Array, Any]:
        h = h + (pick(bias, indices) - jax.lax.stop_gradient(pick(bias, indices)))
        for site in range(weights.shape[1]):
            h = _depends(h, weights[:, site], xs[:, site], indices)
        return indices, h, rest

    if isinstance(found[0], tuple):
        return tuple(connect(*one) for one in found)
    return connect(*found)


@jax.custom_vjp
def _depends(h: Array, weights: Array, x: Array, indices: Array) -> Array:
    """``h [G, R, K]``, which was computed as ``weights[g, indices] · x`` and something, with that derivative too."""
    return h


def _depends_forward(h: Array, weights: Array, x: Array, indices: Array) -> tuple[Array, tuple[Array, ...]]:
    return h, (weights, x, indices)


def _depends_backward(saved: tuple[Array, ...], ct: Array) -> tuple[Array, Array, Array, None]:
    weights, x, indices = saved
    groups, n, width = weights.shape
    rows = x.shape[1]
    flat = _joined(indices, n)
    columns = by_column(flat, groups * n)
    slots = ct.reshape(groups * rows, -1)
    to_weights = sum_by_column(
        columns, slots, columns.slots // flat.shape[1], x.reshape(-1, width), groups * n
    )
    to_x = sum_columns(weights.reshape(-1, width), flat.T, slots.T)
    return ct, to_weights.reshape(weights.shape), to_x.reshape(x.shape), None


_depends.defvjp(_depends_forward, _depends_backward)


def _joined(indices: Array, n: int) -> Array:
    """``[G, R, K]`` → ``[G R, K]``, numbers among the G N features of all groups; G N where a slot is not used."""
    groups, rows, slots = indices.shape
    first = n * jnp.arange(groups, dtype=indices.dtype)[:, None, None]
    return jnp.where(indices < n, indices + first, groups * n).reshape(groups * rows, slots)


def decode(params: Tree, config: DictionaryConfig, code: Code, x: Array | None = None) -> Array:
    """As `Kind.decode`: ``[L, ..., D]``, every decoder, bias and skip; ``x [L, ..., D]`` where that needs it.

    Raises:
      InputError: a kind without sparse code. ValueError: no ``x`` where it is needed.
    """
    check(config, WRITTEN)
    n, batch = config.n_features, code.indices.shape[1:-1]
    indices = code.indices.reshape(len(code.indices), -1, code.indices.shape[-1])
    values = code.values.reshape(indices.shape)
    if config.kind == "clt" and not config.tied:
        y = _across(tuple(params["W_dec"]), indices, values)
    elif config.kind == "molt":
        given = molt.needed(x)
        y = molt.decode_few(params, config, indices, values, given.reshape(*indices.shape[:2], -1))
    elif config.kind == "crosscoder":
        decoders = crosscoder.decoders(params, config)
        y = jnp.stack([gather_sum(rows, indices[0], values[0]) for rows in decoders])
    else:
        table = params["W_dec"].reshape(len(indices) * n, -1)
        y = gather_sum(table, _joined(indices, n), values.reshape(-1, values.shape[-1]))
        y = y.reshape(len(indices), -1, y.shape[-1])
        if config.kind == "clt":  # tied: every layer's is written into all later ones too
            y = jnp.stack(list(itertools.accumulate(y)))
    y = y.reshape(config.n_layers, *batch, y.shape[-1])
    return encoder.bias_and_skip(params, config, y, x)


@jax.custom_vjp
def _across(decoders: tuple[Array, ...], indices: Array, values: Array) -> Array:
    """``decoders[t] [t + 1, N, D]``, ``[L, R, K]`` → ``[L, R, D]``: what layers s ≤ t write into t.

    The slots of the first layers are the first of all slots in the order of columns, so that they are sorted once.
    """
    return _across_forward(decoders, indices, values)[0]


def _slots_first(indices: Array, values: Array, n: int) -> tuple[Array, Array]:
    layers, rows, slots = indices.shape
    flat = _joined(indices, n).reshape(layers, rows, slots)
    return tuple(jnp.swapaxes(leaf, 1, 2).reshape(layers * slots, rows) for leaf in (flat, values))  # type: ignore


def _across_forward(
    decoders: tuple[Array, ...], indices: Array, values: Array
) -> tuple[Array, tuple[Any, ...]]:
    slots, n, width = indices.shape[2], *decoders[0].shape[1:]
    index, value = _slots_first(indices, values, n)
    y = []
    for target, rows in enumerate(decoders):
        count = (target + 1) * slots
        y.append(sum_columns(rows.reshape(-1, width), index[:count], value[:count]))
    return jnp.stack(y), (decoders, indices, values)


def _across_backward(saved: tuple[Any, ...], ct: Array) -> tuple[tuple[Array, ...], None, Array]:
    decoders, indices, values = saved
    (layers, rows, slots), (_, n, width) = indices.shape, decoders[0].shape
    index, _ = _slots_first(indices, values, n)
    flat = _joined(indices, n)
    columns = by_column(flat, layers * n)
    row = (columns.slots // slots) % rows
    to_values = jnp.zeros_like(index, values.dtype)
    to_decoders = []
    for target, own in enumerate(decoders):
        count = (target + 1) * slots
        dots = dot_columns(own.reshape(-1, width), index[:count], ct[target])
        to_values = to_values.at[:count].add(dots)
        summed = sum_by_column(Columns(*columns), values, row, ct[target], (target + 1) * n)
        to_decoders.append(summed.reshape(own.shape))
    back = jnp.swapaxes(to_values.reshape(layers, slots, rows), 1, 2)
    return tuple(to_decoders), None, jnp.where(indices < n, back, jnp.zeros_like(back))


_across.defvjp(_across_forward, _across_backward)


def to_dense(code: Code, n: int) -> Array:
    """``[G, ..., N]`` activations of a code."""
    shape = code.indices.shape
    rows = math.prod(shape[:-1])
    flat = jnp.zeros((rows, n), code.values.dtype)
    place = jnp.arange(rows, dtype=jnp.int32)[:, None]
    added = flat.at[place, code.indices.reshape(rows, -1)].add(code.values.reshape(rows, -1), mode="drop")
    return added.reshape(*shape[:-1], n)


def from_dense(a: Array, capacity: int) -> Code:
    """The code of activations ``a [G, ..., N]`` in ``capacity`` slots, the largest of a row first."""
    n, slots = a.shape[-1], min(capacity, a.shape[-1])
    flat = a.reshape(-1, n)
    indices, lost = fitting(jax.lax.stop_gradient(flat != 0), flat, slots)
    shape = (*a.shape[:-1], slots)
    values = at(flat, indices)
    return Code(
        indices.reshape(shape),
        values.reshape(shape),
        jnp.sum(lost.reshape(len(a), -1), axis=1, dtype=jnp.int32),
    )


def density(code: Code, n: int) -> Array:
    """Share of rows on which each feature is active: ``[G, N]``."""
    groups = len(code.indices)
    rows = math.prod(code.indices.shape[1:-1])
    flat = _joined(code.indices.reshape(groups, rows, -1), n).reshape(-1)
    active = (code.values != 0).astype(code.values.dtype).reshape(-1)
    counts = jnp.zeros(groups * n, active.dtype).at[flat].add(active, mode="drop")
    return counts.reshape(groups, n) / rows


def within(code: Code, size: int) -> Code:
    """The code of the first ``size`` features alone (Matryoshka prefixes)."""
    return code._replace(values=jnp.where(code.indices < size, code.values, jnp.zeros_like(code.values)))
