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
from jaxinterp.attribution.steps import Step
from jaxinterp.attribution.writes import Writes
from jaxinterp.core.letters import Array
from jaxinterp.models.sites import VECTOR_SITES
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
        given = self._stack([_pad(v.astype(self.dtype, copy=False), wave[0].width) for v in vectors])
        at = self._stack([_pad(p.astype(np.int32), wave[0].width) for p in positions])
        through = (
            None if heads is None else self._stack([_pad(h.astype(np.int32), wave[0].width) for h in heads])
        )
        found = Effects({}, {}, {}, {}, given, None)
        x: Any = None
        top = max(block.layer for block in wave)
        if part == FINAL:
            x, norm = steps.enter_final(self.operator, given, at, self.mesh, length)
            if self.config.has_norm_biases:
                found.norm[self.config.n_layers] = norm
            top -= 1
        for layer in range(top, -1, -1):
            above = np.array([block.layer > layer for block in wave])
            enters = np.array([block.layer == layer for block in wave]) & (part != FINAL)
            step: Step | None = None
            if x is not None:
                step = steps.advance(self.operator, self.layers[layer], x, self.mesh)
            if enters.any():
                # Vectors of zeros on devices whose block reads elsewhere.
                own = (
                    given
                    if enters.all() and len(wave) == self.devices
                    else given * self._stack([np.full((1, 1), one, self.dtype) for one in enters])
                )
                entered = self._enter(layer, part, own, at, through, length)
                if step is None:
                    step = entered
                else:
                    alive = self._stack([*above, *[above[-1]] * (self.devices - len(above))])
                    step = steps.either(alive, step, entered, self.mesh)
            assert step is not None
            x = step.x
            self._collect(found, layer, step, None if above.any() else part)
        if x is None:  # read in no layer: nothing comes from below
            raise ValueError("a walk of no layers")
        embed, position = steps.finish(x, self.embed, self.learned, self.mesh)
        return found._replace(embed=embed, position=position)

    def _enter(self, layer: int, part: int, given: Any, at: Any, heads: Any, length: int) -> Step:
        number = self._by_part[part]
        spread = None
        if heads is not None:
            spread = self.put(self.patterns[number][self.places[number].layers.index(layer)][0])
        return steps.enter(
            self.operator, self.layers[layer], given, at, spread, heads, self.mesh, length, number
        )

    def _collect(self, found: Effects, layer: int, step: Step, reader: int | None) -> None:
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
        pages = None
        if so_far is None:
            whole = steps.contract(gradient, rows.rows, self.mesh)
            if rows.pages is not None:
                pages = steps.turn(gradient, rows.pages, rows.positions, self.mesh)
        else:
            whole = steps.contract_more(gradient, rows.rows, so_far[0], self.mesh)
            if rows.pages is not None:
                pages = steps.turn_more(gradient, rows.pages, rows.positions, so_far[1], self.mesh)
        groups[number] = whole, pages

    def _stack(self, parts: Sequence[Any]) -> Any:
        """One part a device; zeros where there are fewer parts."""
        parts = [np.asarray(part) for part in parts]
        filled = [*parts, *[np.zeros_like(parts[0])] * (self.devices - len(parts))]
        return jax.device_put(np.stack(filled), NamedSharding(self.mesh, PartitionSpec("data")))


def put_whole(tree: Any, mesh: Mesh) -> Any:
    """Arrays whole on every device of ``mesh``."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def _pad(values: np.ndarray, count: int) -> np.ndarray:
    return np.pad(values, [(0, count - len(values))] + [(0, 0)] * (values.ndim - 1))
