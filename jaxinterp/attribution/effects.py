"""Direct effects of every source on blocks of targets: walks down the layers, a block a device.

Letters: C targets of a block, T' positions of the walk, K slots, P pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinterp.attribution import steps
from jaxinterp.attribution.blocks import Block
from jaxinterp.attribution.readings import FINAL
from jaxinterp.attribution.sources import LEAST_PAGES, PAGE
from jaxinterp.attribution.steps import Step
from jaxinterp.attribution.writes import Writes
from jaxinterp.core.letters import Array
from jaxinterp.models.sites import VECTOR_SITES
from jaxinterp.parallel.hosts import on_host
from jaxinterp.replacement.operator import ReplacementOperator
from jaxinterp.replacement.parts import JUNCTIONS


class Effects(NamedTuple):
    """Direct effects on the targets of one wave of blocks; every array has a leading axis of devices.

    Attributes:
      groups: number of the group → [T', C, K] by slot, and [P, C, `sources.PAGE`] by page or None.
      attention, norm, mlp: layer → [T', C] bias nodes; of ``norm`` the final norm's stand at layer L.
      embed, position: [T', C] token embeddings, and learned positions or None.
    """

    groups: dict[int, tuple[Array, Array | None]]
    attention: dict[int, Array]
    norm: dict[int, Array]
    mlp: dict[int, Array]
    embed: Array
    position: Array | None


class Walker:
    """Walks blocks of targets through one prompt's frozen layers."""

    def __init__(
        self, operator: ReplacementOperator, writes: Writes, embed: Array, patterns: Sequence[Any], mesh: Mesh
    ) -> None:
        """Args:
        operator: the frozen replacement model of the padded prompt.
        embed: [T, D] token embeddings as they enter the residual stream.
        patterns: for each place where the heads of a Lorsa look, [L', Q, T, S], or None.
        mesh: one block goes to each device along "data".
        """
        self.config, self.places, self.writes, self.mesh = operator.config, operator.places, writes, mesh
        self.operator = self.put(steps.light(operator))
        self.layers = [self.put(one) for one in steps.slices(operator)]
        self.embed = self.put(embed)
        self.learned = None if operator.positions is None else self.put(operator.positions)
        self.patterns = patterns
        self.devices = mesh.shape["data"]
        self.dtype = operator.dtype
        self._by_part = {JUNCTIONS.index(place.junction): i for i, place in enumerate(self.places)}

    def put(self, tree: Any) -> Any:
        """Arrays whole on every device of the mesh."""
        return put_whole(tree, self.mesh)

    def walk(
        self, wave: Sequence[Block], vectors: Sequence[np.ndarray], positions: Sequence[np.ndarray],
        heads: Sequence[np.ndarray] | None = None,
    ) -> Effects:  # fmt: skip
        """Effects on at most as many blocks as there are devices, all of one part and shape.

        Args:
          vectors: [c, D] of each block, what its targets read with, c at most C. positions: [c].
          heads: [c] of each block, for targets that read through a Lorsa.
        """
        length, part = wave[0].length, wave[0].part
        size = wave[0].width
        given = self._stacked([_pad(v.astype(self.dtype, copy=False), size) for v in vectors])
        at = self._stack([_pad(p.astype(np.int32), size) for p in positions])
        through = None if heads is None else self._stack([_pad(h.astype(np.int32), size) for h in heads])
        # Of every device and target the layer where it reads; -1 for padding, which reads nowhere.
        reads = np.full((self.devices, size), -1)
        for own, block in zip(reads, wave, strict=False):
            own[: len(block.members)] = block.layers
        x: Any = None
        found = Effects({}, {}, {}, {}, x, None)
        top = int(reads.max())
        if part == FINAL:
            x, norm = steps.enter_final(self.operator, self._split(given), at, self.mesh, length)
            if self.config.has_norm_biases:
                found.norm[self.config.n_layers] = norm
            top -= 1
        for layer in range(top, -1, -1):
            enters = (reads == layer) & (part != FINAL)
            step: Step | None = None
            if x is not None:
                step = steps.advance(self.operator, self.layers[layer], x, self.mesh)
            if enters.any():
                # Vectors of zeros for targets that read elsewhere.
                own = self._split(np.where(enters[:, :, None], given, np.zeros((), self.dtype)))
                entered = self._enter(layer, part, own, at, through, length)
                step = (
                    entered
                    if step is None
                    else steps.either(self._split(reads > layer), step, entered, self.mesh)
                )
            assert step is not None
            x = step.x
            self.collect(found, layer, step, None if (reads > layer).any() else part)
        if x is None:  # read in no layer: nothing comes from below
            raise ValueError("a walk of no layers")
        embed, position = steps.finish(x, self.embed, self.learned, self.mesh)
        return found._replace(embed=embed, position=position)

    def warm_pages(self, length: int, width: int) -> None:
        """Compile what few pages of crowded positions need, which other prompts may have."""
        how: Any = {"mesh": self.mesh, "precision": self.operator.precision}
        for d in {own.shape[2] for own in self.writes.own}:
            gradient = _put(
                np.zeros((self.devices, length, width, d), self.dtype),
                NamedSharding(self.mesh, PartitionSpec("data")),  # as it comes out of a step
            )
            for count in (LEAST_PAGES, 2 * LEAST_PAGES):
                pages = self.put(np.zeros((count, PAGE, d), self.dtype))
                positions = self.put(np.zeros(count, np.int32))
                found = steps.turn(gradient, pages, positions, **how)
                steps.turn_more(gradient, pages, positions, found, **how)

    def _enter(self, layer: int, part: int, given: Any, at: Any, heads: Any, length: int) -> Step:
        number = self._by_part[part]
        spread = None
        if heads is not None:
            spread = self.put(self.patterns[number][self.places[number].layers.index(layer)][0])
        return steps.enter(
            self.operator, self.layers[layer], given, at, spread, heads, self.mesh, length, number
        )

    def collect(self, found: Effects, layer: int, step: Step, reader: int | None) -> None:
        """Contract the gradients of a step, all of whose targets read for ``reader`` in this very layer, or None."""
        before = None
        if reader is not None:
            site = self.places[self._by_part[reader]].read_site
            assert site is not None
            before = VECTOR_SITES.index(site)
        for number, place in enumerate(self.places):
            if (number, layer) not in self.writes.into:
                continue
            if before is not None and VECTOR_SITES.index(place.write_site) >= before:
                continue  # written after it is read
            for group in self.writes.into[number, layer]:
                self._contract(found.groups, group, layer, step.write[number])
        for name in ("attention", "norm", "mlp"):
            if (value := getattr(step, name)) is not None:
                getattr(found, name)[layer] = value

    def _contract(self, groups: dict[int, Any], number: int, layer: int, gradient: Array) -> None:
        rows = self.writes.rows(number, layer)
        so_far = groups.get(number)
        how: Any = {"mesh": self.mesh, "precision": self.operator.precision}
        pages = None
        if so_far is None:
            whole = steps.contract(gradient, rows.rows, **how)
            if rows.pages is not None:
                pages = steps.turn(gradient, rows.pages, rows.positions, **how)
        else:
            whole = steps.contract_more(gradient, rows.rows, so_far[0], **how)
            if rows.pages is not None:
                pages = steps.turn_more(gradient, rows.pages, rows.positions, so_far[1], **how)
        groups[number] = whole, pages

    def _stack(self, parts: Sequence[np.ndarray]) -> Any:
        return self._split(self._stacked(parts))

    def _stacked(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """One part a device; zeros where there are fewer parts."""
        return np.stack([*parts, *[np.zeros_like(parts[0])] * (self.devices - len(parts))])

    def _split(self, values: np.ndarray) -> Any:
        """``values [devices, ...]``, each device its own."""
        if self.mesh.size == 1:
            return values  # a program takes them from the host at less cost
        return _put(values, NamedSharding(self.mesh, PartitionSpec("data")))

    def any_says(self, said: bool) -> bool:
        """Whether any of the processes that the mesh belongs to says so: the same answer in each."""
        return bool(np.asarray(on_host(self._split(np.full((self.devices, 1), said)))).any())


def put_whole(tree: Any, mesh: Mesh) -> Any:
    """Arrays whole on every device of ``mesh``; where it belongs to several processes, each of them has them."""
    return _put(tree, NamedSharding(mesh, PartitionSpec()))


def _put(tree: Any, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(leaf: Any) -> Array:
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])

    return jax.tree.map(one, tree)


def _pad(values: np.ndarray, count: int) -> np.ndarray:
    return np.pad(values, [(0, count - len(values))] + [(0, 0)] * (values.ndim - 1))
