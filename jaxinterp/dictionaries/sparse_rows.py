"""Products with a matrix that has a few entries in each row, kept as (indices, values).

Such a matrix A has R rows of K slots, slot j of row r being the entry ``values[r, j]`` in the column ``indices[r, j]``.
An index of N says that the slot is not used; its value must be 0. No product here costs more than its used slots, save
for what it writes, and each has the other two as its derivatives:

    gather_sum    A W      [R, K] slots, rows [N, D]   → [R, D]
    scatter_sum   Aᵀ y     [R, K] slots, y [R, D]      → [N, D]
    row_dots      W y at the slots only                → [R, K]

Sums have a fixed order, so the same input gives the same bytes. Loops run over slots, with whole columns of slots at a
time: on a CPU that is ten times as fast as a gathered ``[R, K, D]``, which is never made.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array

UNROLLED = 8
"""Slots that one pass over the result takes together."""
CHUNK = 8
"""Entries of a column that are added up before they reach the result."""
BLOCK = 1024
"""Such sums that are computed together."""


@jax.custom_vjp
def gather_sum(rows: Array, indices: Array, values: Array) -> Array:
    """``Σ_j values[r, j] rows[indices[r, j]]``: ``rows [N, D]``, ``indices, values [R, K]`` → ``[R, D]``."""
    return _gather_sum(rows, indices, values)


def _gather_sum(rows: Array, indices: Array, values: Array) -> Array:
    return sum_columns(rows, indices.T, values.T)


def sum_columns(rows: Array, indices: Array, values: Array) -> Array:
    """`gather_sum` of slots that come first, ``[K, R]``, so that a pass reads its own only. Without a derivative."""
    count = len(indices)
    whole = count - count % UNROLLED

    def add(total: Array, part: tuple[Array, ...]) -> Array:
        for index, value in zip(*part, strict=True):
            total = total + value[:, None] * rows.at[index].get(mode="clip")
        return total

    total = jnp.zeros((indices.shape[1], rows.shape[1]), rows.dtype)
    if whole:
        parts = tuple(c[:whole].reshape(-1, UNROLLED, c.shape[1]) for c in (indices, values))
        total, _ = jax.lax.scan(lambda acc, part: (add(acc, part), None), total, parts)
    return add(total, (indices[whole:], values[whole:]))


def _gather_forward(rows: Array, indices: Array, values: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _gather_sum(rows, indices, values), (rows, indices, values)


def _gather_backward(saved: tuple[Array, Array, Array], ct: Array) -> tuple[Array, None, Array]:
    rows, indices, values = saved
    return _scatter_sum(indices, values, ct, len(rows)), None, _row_dots(rows, indices, ct)


gather_sum.defvjp(_gather_forward, _gather_backward)


@jax.custom_vjp
def row_dots(rows: Array, indices: Array, y: Array) -> Array:
    """``rows[indices[r, j]] · y[r]``, 0 where a slot is not used: ``[N, D]``, ``[R, K]``, ``[R, D]`` → ``[R, K]``."""
    return _row_dots(rows, indices, y)


def _row_dots(rows: Array, indices: Array, y: Array) -> Array:
    return dot_columns(rows, indices.T, y).T


def dot_columns(rows: Array, indices: Array, y: Array) -> Array:
    """`row_dots` of slots that come first, ``[K, R]`` → ``[K, R]``. Without a derivative."""
    found = jax.lax.platform_dependent(rows, indices, y, cpu=_lane_dots, default=_gathered_dots)
    return jnp.where(indices < len(rows), found, jnp.zeros_like(found))


def _gathered_dots(rows: Array, indices: Array, y: Array) -> Array:
    return jax.lax.map(lambda index: jnp.sum(rows.at[index].get(mode="clip") * y, axis=-1), indices)


def _lane_dots(rows: Array, indices: Array, y: Array) -> Array:
    """Sums of every D / P-th product first: XLA adds up vectors of those side by side, but not one row's products."""
    n, d = rows.shape
    pieces = next((p for p in (32, 16, 8, 4, 2) if d % p == 0 and d // p >= 8), 1)
    split, own = rows.reshape(n, pieces, -1), y.reshape(len(y), pieces, -1)

    def one(index: Array) -> Array:
        total = split.at[index, 0].get(mode="clip") * own[:, 0]
        for p in range(1, pieces):
            total = total + split.at[index, p].get(mode="clip") * own[:, p]
        return total

    return jnp.sum(jax.lax.map(one, indices), axis=-1)


def _dots_forward(rows: Array, indices: Array, y: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _row_dots(rows, indices, y), (rows, indices, y)


def _dots_backward(saved: tuple[Array, Array, Array], ct: Array) -> tuple[Array, None, Array]:
    rows, indices, y = saved
    ct = jnp.where(indices < len(rows), ct, jnp.zeros_like(ct))
    return _scatter_sum(indices, ct, y, len(rows)), None, _gather_sum(rows, indices, ct)


row_dots.defvjp(_dots_forward, _dots_backward)


def scatter_sum(indices: Array, values: Array, y: Array, n: int) -> Array:
    """``Σ_{r, j: indices[r, j] = i} values[r, j] y[r]`` for every i < n: ``[R, K]`` twice, ``[R, D]`` → ``[n, D]``."""

    @jax.custom_vjp
    def product(indices: Array, values: Array, y: Array) -> Array:
        return _scatter_sum(indices, values, y, n)

    def forward(indices: Array, values: Array, y: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        return _scatter_sum(indices, values, y, n), (indices, values, y)

    def backward(saved: tuple[Array, Array, Array], ct: Array) -> tuple[None, Array, Array]:
        indices, values, y = saved
        return None, _row_dots(ct, indices, y), _gather_sum(ct, indices, values)

    product.defvjp(forward, backward)
    return product(indices, values, y)


class Columns(NamedTuple):
    """The slots of ``indices [R, K]`` in the order of their columns, those of a column in the order of rows.

    Attributes:
      slots: ``[R K]``, their numbers. starts: ``[n + 1]``, where each column starts; the last is where the slots begin
        that are not used.
    """

    slots: Array
    starts: Array


def by_column(indices: Array, n: int) -> Columns:
    """See `Columns`."""
    count = indices.size
    slots = jnp.arange(count, dtype=jnp.int32)
    flat = jnp.minimum(indices.reshape(-1), n).astype(jnp.int32)
    if (n + 1) * count <= 2**32:  # both in one number: five times as fast to sort
        size = jnp.uint32(count)
        joined = jnp.sort(flat.astype(jnp.uint32) * size + slots.astype(jnp.uint32))
        flat, slots = (joined // size).astype(jnp.int32), (joined % size).astype(jnp.int32)
    else:
        flat, slots = jax.lax.sort((flat, slots), num_keys=2)
    return Columns(slots, jnp.searchsorted(flat, jnp.arange(n + 1, dtype=jnp.int32)).astype(jnp.int32))


def _scatter_sum(indices: Array, values: Array, y: Array, n: int) -> Array:
    columns = by_column(indices, n)
    return sum_by_column(columns, values, columns.slots // max(indices.shape[1], 1), y, n)


def sum_by_column(columns: Columns, values: Array, rows: Array, y: Array, n: int) -> Array:
    """`scatter_sum` of the first ``n`` of ``columns``. Without a derivative.

    Entries are taken in the order of columns, `CHUNK` at a time added up as in `gather_sum`, and these sums by column.
    As many blocks of sums are computed as there are entries for, which does not depend on how they are spread.

    Args:
      values: of the slots, whatever their shape. rows: ``[R K]``, the row of ``y [R, D]`` of each of ``columns.slots``.
    """
    slots = columns.slots.size
    if not slots:
        return jnp.zeros((n, y.shape[1]), y.dtype)
    starts, entries = columns.starts[: n + 1], values.reshape(-1)[columns.slots]
    chunks = (jnp.diff(starts) + CHUNK - 1) // CHUNK
    ends = jnp.cumsum(chunks, dtype=jnp.int32)
    block = min(BLOCK, slots)

    def add(number: Array, total: Array) -> Array:
        mine = number * block + jnp.arange(block, dtype=jnp.int32)
        column = jnp.searchsorted(ends, mine, side="right").astype(jnp.int32)
        inside = jnp.minimum(column, n - 1)
        first = starts[inside] + (mine - ends[inside] + chunks[inside]) * CHUNK
        place = first[None, :] + jnp.arange(CHUNK, dtype=jnp.int32)[:, None]
        used = (place < starts[inside + 1][None, :]) & (column < n)[None, :]
        place = jnp.clip(place, 0, slots - 1)
        value = jnp.where(used, entries[place], jnp.zeros((), entries.dtype))
        # Kept apart from the sum, which would look every index up again for every entry of a row.
        row, value = jax.lax.optimization_barrier((rows[place], value))
        found = value[0][:, None] * y[row[0]]
        for j in range(1, CHUNK):
            found = found + value[j][:, None] * y[row[j]]
        return total.at[column].add(found, mode="drop", indices_are_sorted=True)

    blocks = (ends[-1] + block - 1) // block
    return jax.lax.fori_loop(0, blocks, add, jnp.zeros((n, y.shape[1]), y.dtype))
