"""Blocks of sequences over a mesh: who computes which, and how their activations come back.

Letters: W ways (parts into which the batch is divided), b sequences a block, T tokens of each, L layers, D width.

A way is a part of the mesh over which the batch is not divided any further. Whatever the number of ways, each runs the
same program on one block [b, T] at a time, so that a block's bytes do not depend on the mesh's size along the batch.
Every way belongs to one process, that of its first device, and a process writes what its ways compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_layout import Site
from jaxinterp.activations.store_quantise import encode
from jaxinterp.activations.text import Batch
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.decoder import forward
from jaxinterp.models.expert_parallel import OnMesh
from jaxinterp.models.model import Model
from jaxinterp.models.sites import END_SITES
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights
from jaxinterp.parallel.rules import Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh

Values = Callable[[Tree, Array, Array, Array], dict[str, Array]]
"""(weights, tokens, segments, positions) → site → [L, b, T, D]."""


class Block(NamedTuple):
    """Sequences ``number·b`` and on of a shard."""

    shard: int
    number: int


Pieces = list[tuple[slice, np.ndarray]]
"""An array divided along its last axis: where each part belongs, and the part."""


class Result(NamedTuple):
    """What a block gave: per site its stored arrays ([L, b·T, D], and scales), and whether sequences [b] are finite."""

    block: Block
    arrays: list[tuple[Pieces, ...]]
    finite: list[np.ndarray]


def values_of(model: Model | FlaxSource, names: Sequence[str], dispatch: Any) -> Values:
    """The forward pass of a model that gives named sites with a leading axis of layers (of one for end sites).

    What a `FlaxSource` calls otherwise is found as `FlaxSource.collect` finds it.
    """
    if isinstance(model, FlaxSource):
        source = model
        own = {name: source._name(name, names[0]) for name in names}

        def run(params: Tree, tokens: Array, segments: Array, positions: Array) -> dict[str, Array]:
            found = source.activations(params, tokens, positions, segments)
            return {name: found[own[name]] for name in names}

        return run
    config = model.config

    def of_ours(params: Tree, tokens: Array, segments: Array, positions: Array) -> dict[str, Array]:
        _, found = forward(
            params, config, tokens, sites=names, segments=segments, positions=positions, dispatch=dispatch
        )
        values = {name: getattr(found, name) for name in names}
        return {name: v[None] if name in END_SITES else v for name, v in values.items()}

    return of_ours


class Forward:
    """A compiled forward pass over one block for every way of a mesh.

    Args:
      model: whose activations.
      sites: what to return.
      dtype: as what, see `store_quantise.encode`.
      mesh, rules: where.
      block: sequences a block.
      length: tokens a sequence.
    """

    def __init__(
        self, model: Model | FlaxSource, sites: tuple[Site, ...], dtype: str, mesh: Mesh, rules: Rules, *,
        block: int, length: int,
    ) -> None:  # fmt: skip
        from jax.sharding import NamedSharding, PartitionSpec

        self.sites, self.block, self.length = sites, block, length
        axes = rules.targets("batch", mesh)
        self.ways = math.prod(mesh.shape[axis] for axis in axes)
        self.rows = NamedSharding(mesh, PartitionSpec(axes or None))
        scale = NamedSharding(mesh, PartitionSpec(None, axes or None))
        self.owners, together = self._owners()
        # What is as wide as the model stays divided where a process has all parts: no device needs all of it.
        record = rules.targets("record", mesh) if together else ()
        parts = math.prod(mesh.shape[axis] for axis in record)

        def layered(site: Site) -> NamedSharding:
            return NamedSharding(
                mesh,
                PartitionSpec(None, axes or None, record if record and site.width % parts == 0 else None),
            )

        self.params = place(model, mesh, rules)
        run = values_of(model, [site.name for site in sites], OnMesh(mesh, rules))
        out: list[Any] = [(layered(site), scale) if dtype == "int8" else (layered(site),) for site in sites]
        self.run = jax.jit(
            partial(_stored, run, sites, dtype),
            out_shardings=(out, [self.rows for _ in sites]),
        )

    def _owners(self) -> tuple[list[int], bool]:
        """The process of each way, and whether no way has devices of several processes."""
        owners, together = [-1] * self.ways, True
        places: Any = self.rows.devices_indices_map((self.ways,))
        for device, index in places.items():
            way = index[0].start or 0
            process = device.process_index
            together &= owners[way] in (-1, process)
            owners[way] = process if owners[way] < 0 else min(owners[way], process)
        return owners, together

    def start(
        self, blocks: dict[int, Block], read: Callable[[Block], Batch]
    ) -> Callable[[], Iterator[Result]]:
        """Begin to compute way → block; the returned function waits and gives what belongs to this process.

        Ways without a block compute one of zeros, which is thrown away.
        """
        nothing = np.zeros((self.block, self.length), np.int32)
        shape = (self.ways * self.block, self.length)
        made: dict[int, Batch] = {}

        def column(field: str, index: tuple[slice, ...]) -> np.ndarray:
            begin, end, _ = index[0].indices(shape[0])
            pieces = []
            for way in range(begin // self.block, end // self.block):
                if way not in blocks:
                    pieces.append(nothing)
                    continue
                if way not in made:
                    made[way] = read(blocks[way])
                pieces.append(np.asarray(getattr(made[way], field), np.int32))
            return np.concatenate(pieces)

        placed = [
            jax.make_array_from_callback(shape, self.rows, partial(column, field))
            for field in ("tokens", "segments", "positions")
        ]
        arrays, finite = self.run(self.params, *placed)
        return partial(self._results, blocks, arrays, finite)

    def _results(
        self, blocks: dict[int, Block], arrays: list[tuple[Array, ...]], finite: list[Array]
    ) -> Iterator[Result]:
        size = self.block * self.length
        mine = {way: b for way, b in blocks.items() if self.owners[way] == jax.process_index()}
        pieces = [tuple(_by_way(part, 1, size, mine) for part in site) for site in arrays]
        flags = [_by_way(flag, 0, self.block, mine) for flag in finite]
        for way, block in mine.items():
            yield Result(
                block, [tuple(p[way] for p in site) for site in pieces], [f[way][0][1] for f in flags]
            )


def _stored(
    run: Values, sites: tuple[Site, ...], dtype: str, params: Tree, tokens: Array, segments: Array,
    positions: Array,
) -> tuple[list[tuple[Array, ...]], list[Array]]:  # fmt: skip
    found = run(params, tokens, segments, positions)
    arrays, finite = [], []
    for site in sites:
        values = found[site.name]
        if site.layers != tuple(range(values.shape[0])):
            values = jnp.take(values, np.asarray(site.layers, np.int32), axis=0)
        finite.append(jnp.all(jnp.isfinite(values), axis=(0, 2, 3)))
        arrays.append(encode(values.reshape(values.shape[0], -1, values.shape[-1]), dtype))
    return arrays, finite


def _by_way(array: Array, axis: int, size: int, wanted: dict[int, Any]) -> dict[int, Pieces]:
    """The parts of an array on this process's devices, by way; copies of the same part come once."""
    found: dict[int, dict[int, tuple[slice, np.ndarray]]] = {}
    for shard in array.addressable_shards:
        way = (shard.index[axis].start or 0) // size
        last = shard.index[-1] if array.ndim > axis + 1 else slice(None)
        if way in wanted and (last.start or 0) not in found.setdefault(way, {}):
            found[way][last.start or 0] = last, np.asarray(shard.data)
    return {way: list(parts.values()) for way, parts in found.items()}


def place(model: Model | FlaxSource, mesh: Mesh, rules: Rules) -> Tree:
    """The weights of a model on a mesh: a model of ours divided by the rules, a Flax model's copied to every device.

    Weights that lie on the mesh already stay where they are; shapes without values stay shapes (`activations.ahead`).
    """
    from jax.sharding import NamedSharding, PartitionSpec

    if isinstance(model, Model):
        params, wanted = model.params, weights.shardings(declare(model.config), mesh, rules)
    else:
        params = model.variables
        wanted = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), params)

    def put(leaf: Any, sharding: NamedSharding) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        if isinstance(leaf, jax.Array) and getattr(leaf.sharding, "mesh", None) == mesh:
            return leaf
        if jax.process_count() > 1 and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = np.asarray(leaf)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, params, wanted)
