"""The largest of many values that are divided over a mesh, without gathering them.

Inside `jaxinterp.parallel.placement.placed` every chip looks among its own rows and features only. Of the features of a
row it hands on its k best, and the best of all chips' are taken; of all rows together chips hand on counts. The choice
is that of one device, but that values equal to the last one chosen from all rows are all chosen.

Letters: G groups, R rows, N features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.parallel import placement


class Division(NamedTuple):
    """Mesh axes over which rows and features of an array are divided."""

    mesh: Any
    rows: tuple[str, ...]
    features: tuple[str, ...]

    @property
    def spec(self) -> Any:
        """Of ``[G, R, N]``."""
        return jax.P(None, self.rows or None, self.features or None)


def division(shape: tuple[int, ...]) -> Division | None:
    """How ``[G, R, N]`` is divided where this is traced; None where it is not, or has other axes."""
    at = placement.current()
    if at is None or len(shape) != 3 or at.mesh.size == 1:
        return None

    def fitting(logical: str, size: int, taken: tuple[str, ...]) -> tuple[str, ...]:
        axes = tuple(name for name in at.rules.targets(logical, at.mesh) if name not in taken)
        while axes and size % math.prod(at.mesh.shape[name] for name in axes):
            axes = axes[:-1]
        return axes

    features = fitting("features", shape[2], ())
    return Division(at.mesh, fitting("batch", shape[1], features), features)


def top_k(values: Array, k: int, recall: float = 1.0) -> tuple[Array, Array]:
    """The k largest of each row of ``values [..., N]`` and where they are: ``[..., k]``, as `jax.lax.top_k`.

    Args:
      recall: below one, the share of them that is found on TPU (`jax.lax.approx_max_k`, on each chip among its own);
        elsewhere all are.
    """
    divided = division(values.shape)
    if divided is None or not divided.features:
        find = partial(_top, k=k, recall=recall)
        if divided is None or not divided.rows:
            return find(values)
        return _on_chips(divided, lambda v: find(v), values, (jax.P(None, divided.rows),) * 2)
    out = (jax.P(None, divided.rows or None),) * 2
    return _on_chips(divided, lambda v: _merged(v, k, recall, divided.features)[:2], values, out)


def winners(values: Array, k: int, keep: Array | None = None, recall: float = 1.0) -> Array:
    """Which of ``values [..., N]`` are among the k largest of their row: a mask of their shape.

    Args:
      keep: how many of the k, where that is not known when compiling; None means all.
      recall: see `top_k`.
    """
    divided = division(values.shape)
    if divided is None:
        return marked(values.shape, _top(values, k, recall)[1], keep)
    count = jnp.asarray(k if keep is None else keep, jnp.int32)

    def local(mine: Array, count: Array) -> Array:
        if not divided.features:
            return marked(mine.shape, _top(mine, k, recall)[1], count)
        _, _, own, place = _merged(mine, k, recall, divided.features)
        won = place < count
        return _mark(mine.shape, jnp.where(won, own, mine.shape[-1]), True)

    return jax.shard_map(
        local, mesh=divided.mesh, in_specs=(divided.spec, jax.P()), out_specs=divided.spec, check_vma=False
    )(values, count)


def _merged(values: Array, k: int, recall: float, axes: tuple[str, ...]) -> tuple[Array, Array, Array, Array]:
    """On one chip: the k largest of whole rows, where they are, where its own candidates are here, and their ranks."""
    here = min(k, values.shape[-1])
    best, own = _top(values, here, recall)
    everyone = jax.lax.all_gather(best, axes, axis=-1, tiled=True)
    chip = jax.lax.axis_index(axes)
    numbers = jax.lax.all_gather(own + chip * values.shape[-1], axes, axis=-1, tiled=True)
    found, at = jax.lax.top_k(everyone, k)
    # The rank of each of this chip's candidates among the winners; k where it is none.
    ranks = jnp.broadcast_to(jnp.arange(k, dtype=at.dtype), at.shape)
    places = at - chip * here
    places = jnp.where((places >= 0) & (places < here), places, here)
    rank = _put(jnp.full((*own.shape[:-1], here), k, at.dtype), places, ranks)
    return found, jnp.take_along_axis(numbers, at, axis=-1), own, rank


def _top(values: Array, k: int, recall: float) -> tuple[Array, Array]:
    if recall >= 1:
        found, index = jax.lax.top_k(values, k)
        return found, index
    return jax.lax.platform_dependent(
        values,
        tpu=lambda v: tuple(jax.lax.approx_max_k(v, k, recall_target=recall)),
        default=lambda v: tuple(jax.lax.top_k(v, k)),
    )


def marked(shape: tuple[int, ...], chosen: Array, keep: Array | None = None) -> Array:
    """The mask of ``shape [..., N]`` that is true at the numbers ``chosen [..., k]``, or the first ``keep`` of them."""
    kept: Any = True
    if keep is not None:
        first = jnp.arange(chosen.shape[-1], dtype=chosen.dtype) < jnp.asarray(keep, chosen.dtype)
        kept = jnp.broadcast_to(first, chosen.shape)
    return _mark(shape, chosen, kept)


def _mark(shape: tuple[int, ...], chosen: Array, kept: Any) -> Array:
    return _put(jnp.zeros(shape, bool), chosen, kept)


def _put(into: Array, numbers: Array, values: Any) -> Array:
    """``into [..., N]`` with ``values`` at ``numbers [..., k]``; those beyond N are left out."""
    flat = numbers.reshape(-1, numbers.shape[-1])
    rows = jnp.arange(flat.shape[0], dtype=flat.dtype)[:, None]
    if not isinstance(values, bool):
        values = values.reshape(flat.shape)
    return into.reshape(-1, into.shape[-1]).at[rows, flat].set(values, mode="drop").reshape(into.shape)


def winners_of_all(values: Array, count: Array | int) -> Array:
    """Which of ``values [G, R, N]`` are positive and among the ``count`` largest of their group, over all its rows.

    The smallest of them is found bit by bit, each by counting: no chip sees another's values, and nothing is sorted.
    """
    kind = {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}[values.dtype.itemsize]
    positive = values > 0
    # Positive floats are in the order of their bits.
    bits = jax.lax.bitcast_convert_type(jnp.where(positive, values, jnp.zeros_like(values)), kind)
    wanted = jnp.asarray(count, jnp.int32)

    def set_bit(step: Array, least: Array) -> Array:
        bit = jnp.left_shift(jnp.ones((), kind), (jnp.iinfo(kind).bits - 2 - step).astype(kind))
        higher = least | bit
        enough = jnp.sum(bits >= higher[:, None, None], axis=(1, 2), dtype=jnp.int32) >= wanted
        return jnp.where(enough, higher, least)

    least = jax.lax.fori_loop(0, jnp.iinfo(kind).bits - 1, set_bit, jnp.zeros(len(values), kind))
    return positive & (bits >= least[:, None, None])


def _on_chips(divided: Division, local: Callable[[Array], Any], values: Array, out: Any) -> Any:
    return jax.shard_map(local, mesh=divided.mesh, in_specs=divided.spec, out_specs=out, check_vma=False)(
        values
    )
