"""The gradient of a step: of the whole batch, of its parts one after another, or summed in an order no mesh changes.

A part is an equal share of the rows. The loss of a batch in parts is the mean of their losses, so that whatever a loss
takes over all its rows together (the competition of batch top-k, a variance, the square of a mean L0) it then takes
over the rows of a part. Losses that are means over rows are the same either way, up to rounding.

Letters: L layers, G groups of N features, R rows, D width, P parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.training.objective import Found

if TYPE_CHECKING:
    from jax.sharding import Mesh

SHARDS = 8
"""Logical shards of a batch whose gradients are added in order: what a mesh may have along "data" divides it."""

Value = Callable[[Tree, Array, Array], tuple[Array, Found]]
"""(params, x, y ``[L, R, D]``) → the loss and what the objective found."""


class Measured(NamedTuple):
    """What a step needs of a batch besides its gradient; of parts the mean, but ``x`` and ``residual`` of all rows.

    Attributes:
      total: the loss. error: ``[L]``. share: ``[G, N]``, of rows on which a feature is active.
      terms, seen: as in `Found`.
      x, residual: ``[L, R, D]``, sites as they were read and what is left of the scaled ones to be written; None where
        they were not asked for.
      losses: ``[P]``, of each part.
    """

    total: Array
    error: Array
    share: Array
    terms: dict[str, Array]
    seen: dict[str, Array]
    x: Array | None
    residual: Array | None
    losses: Array | None


Measure = Callable[[Value, Tree, Array, Array], tuple[Tree, Measured]]
"""(value, params, x, y) → gradient and the rest."""


def whole(value: Value, params: Tree, x: Array, y: Array) -> tuple[Tree, Measured]:
    """Of all rows at once."""
    (total, found), gradient = jax.value_and_grad(value, has_aux=True)(params, x, y)
    return gradient, Measured(
        total, found.error, found.share, found.terms, found.seen, x, found.residual, total[None]
    )


def in_parts(parts: int, rows: bool, value: Value, params: Tree, x: Array, y: Array) -> tuple[Tree, Measured]:
    """Of ``parts`` microbatches, one at a time; microbatch i has the rows i, i + parts, i + 2 parts, …

    So each of them is spread over a mesh as the batch is, and only one's activations are in memory.

    Args:
      parts: how many; divides R.
      rows: whether the residual of every row is wanted.
    """
    if parts == 1:
        gradient, found = whole(value, params, x, y)
        return gradient, found if rows else found._replace(x=None, residual=None)

    def pieces(values: Array) -> Array:
        layers, count, *rest = values.shape
        return jnp.moveaxis(values.reshape(layers, count // parts, parts, *rest), 2, 0)

    def one(piece: tuple[Array, Array]) -> tuple[Any, Any]:
        gradient, found = whole(value, params, *piece)
        summed = gradient, found._replace(x=None, residual=None, losses=None)
        return summed, (found.residual if rows else None, found.total)

    def body(carry: Any, piece: tuple[Array, Array]) -> tuple[Any, Any]:
        summed, kept = one(piece)
        return jax.tree.map(jnp.add, carry, summed), kept

    each = pieces(x), pieces(y)
    shapes = jax.eval_shape(lambda: one(jax.tree.map(lambda leaf: leaf[0], each))[0])
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (gradient, found), (residual, losses) = jax.lax.scan(body, start, each)
    gradient, found = jax.tree.map(lambda leaf: leaf / parts, (gradient, found))
    if residual is not None:
        residual = jnp.moveaxis(residual, 0, 2).reshape(x.shape)
    return gradient, found._replace(x=x if rows else None, residual=residual, losses=losses)


def in_order(
    axis: str, parts: int, rows: bool, value: Value, params: Tree, x: Array, y: Array
) -> tuple[Tree, Measured]:
    """Of the rows of all devices along ``axis``, with the same bytes for any number of them. Inside `jax.shard_map`.

    The batch is cut into `SHARDS` runs of rows. Each device computes the gradients of its runs one at a time, by the
    same program whatever their number; then all devices get all of them and add them in order.
    """
    here = SHARDS // jax.lax.axis_size(axis)
    # Two places at least, and a bound that is not known when compiling: a loop of one run is then compiled as one of
    # eight is. Of one place the compiler knows the index, and takes what is computed out of the loop.
    places, bound = max(here, 2), jax.lax.optimization_barrier(jnp.asarray(here, jnp.int32))

    def cut(values: Array) -> Array:
        layers, count, *rest = values.shape
        runs = jnp.moveaxis(values.reshape(layers, here, count // here, *rest), 1, 0)
        return jnp.pad(runs, ((0, places - here), *((0, 0) for _ in runs.shape[1:])))

    runs = cut(x), cut(y)

    def one(index: Array | int) -> Any:
        mine = [jax.lax.dynamic_index_in_dim(run, index, keepdims=False) for run in runs]
        return jax.lax.optimization_barrier(in_parts(parts, rows, value, params, *mine))

    def body(index: Array, kept: Any) -> Any:
        return jax.tree.map(lambda all_, new: all_.at[index].set(new), kept, one(index))

    shapes = jax.eval_shape(lambda: one(0))
    empty = jax.tree.map(lambda leaf: jnp.zeros((places, *leaf.shape), leaf.dtype), shapes)
    kept = jax.tree.map(lambda leaf: leaf[:here], jax.lax.fori_loop(0, bound, body, empty))
    kept = jax.lax.optimization_barrier(
        jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, axis, axis=0, tiled=True), kept)
    )
    gradient, found = kept
    joined = found._replace(x=None, residual=None, losses=None)
    gradient, joined = jax.tree.map(_add_up, (gradient, joined))
    losses = None if found.losses is None else found.losses.reshape(-1)
    kept_rows = (_rows(found.x), _rows(found.residual)) if rows else (None, None)
    return gradient, joined._replace(x=kept_rows[0], residual=kept_rows[1], losses=losses)


def _rows(runs: Array | None) -> Array:
    """``[S, L, R/S, D]`` → ``[L, R, D]``."""
    assert runs is not None
    return jnp.moveaxis(runs, 0, 1).reshape(runs.shape[1], -1, *runs.shape[3:])


def _add_up(values: Array) -> Array:
    """The mean over the first axis, added one after another."""
    total = values[0]
    for index in range(1, len(values)):
        total = total + values[index]
    return total / len(values)


def check_exact(mesh: Mesh | None, rows: int, parts: int) -> None:
    """Whether ``reduce: exact`` can be done.

    Raises:
      InputError: features are divided, or the numbers do not go together.
    """
    if rows % (SHARDS * parts):
        raise InputError(
            f"reduce: exact needs a batch divisible by {SHARDS}"
            + (f" × accumulate={parts}" if parts > 1 else "")
            + f", not {rows} rows"
        )
    if mesh is None:
        return
    for name, size in mesh.shape.items():
        if name != "data" and size > 1:
            raise InputError(
                f"reduce: exact needs all devices along data, the mesh has {name}={size}: a sum over features has no "
                "order of its own; take reduce: psum, or a mesh of data alone"
            )
    if SHARDS % mesh.shape["data"]:
        raise InputError(
            f"reduce: exact cuts a batch into {SHARDS} parts, which data={mesh.shape['data']} does not divide"
        )


def on_every_device(step: Callable[[Tree, Any], Any], state: Tree, batch: Any, mesh: Mesh | None) -> Any:
    """``step(state, batch)`` as each device's own program: copies of the state, the rows of ``batch`` divided.

    Without a mesh it is one device's.
    """
    from jax.sharding import PartitionSpec

    from jaxinterp.parallel.mesh import make

    mesh = mesh or make(1, devices=jax.local_devices()[:1])
    whole_, rows = PartitionSpec(), PartitionSpec(None, "data")
    # What is added in order is the same everywhere, which the checker of copies cannot know.
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(whole_, rows), out_specs=whole_, check_vma=False)
    return mapped(state, batch)
