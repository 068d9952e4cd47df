"""Rows of the adjacency: walks for targets and features in blocks, put into node order on the host.

Letters: C targets of a block, n nodes, T' positions of a walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution import readings as reads
from jaxinterp.attribution.blocks import FEW, ROWS, Block, cut, lengths, waves, width
from jaxinterp.attribution.effects import Effects, Walker
from jaxinterp.attribution.feature_rows import FeatureRows
from jaxinterp.attribution.nodes import Layout
from jaxinterp.attribution.readings import FINAL, Readings
from jaxinterp.attribution.sources import PAGE, Active
from jaxinterp.dictionaries import lorsa
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.graphs.kinds import BIAS_NAMES
from jaxinterp.parallel.hosts import on_host
from jaxinterp.replacement.parts import JUNCTIONS, site_width

_WARM: set[Any] = set()


class Part(NamedTuple):
    """Rows of some targets.

    Attributes:
      numbers: [C] which, as they were counted in the call.
      features: F, so many features come first in ``rows``; later ones have no effect.
      rows: [C, F + rest] direct effects of those features and of all nodes that are no features.
      left: [C] effects of sources that are no nodes, float64: what is omitted, and biases when the graph has no
        bias nodes.
    """

    numbers: np.ndarray
    features: int
    rows: np.ndarray
    left: np.ndarray


class Rows:
    """Computes rows over every node of a graph."""

    def __init__(
        self, walkers: Sequence[tuple[float, Walker]], layout: Layout, readers: Sequence[FeatureRows | None],
        active: Active, block_rows: int = ROWS,
    ) -> None:  # fmt: skip
        """Args:
        walkers: with what each weighs; rows are the weighted sum of theirs.
        readers: rows of the dictionary at each place.
        block_rows: see `blocks.cut`.
        """
        self.walkers, self.layout, self.readers, self.active = walkers, layout, readers, active
        self.walker = walkers[0][1]
        self.block_rows = block_rows
        self.padded = self.walker.writes.padded
        self._by_part = {JUNCTIONS.index(place.junction): i for i, place in enumerate(self.walker.places)}

    def warm(self) -> None:
        """Run every program that walks of features may need once, on nothing, unless this process did so already.

        Which lengths and mixtures of layers occur differs from prompt to prompt; after this a second prompt of similar
        length compiles nothing.
        """
        walker = self.walker
        parts = {int(p) for p in np.unique(self.active.part)}
        shapes = tuple(sorted({(g.place, g.slots, len(g.pages)) for g in self.layout.groups}))
        key: tuple[Any, ...] = (
            walker.config,
            walker.places,
            walker.operator.live,
            walker.operator.precision,
            walker.mesh,
            walker.dtype,
        )
        for part in sorted(parts):
            place = walker.places[self._by_part[part]]
            # Three: what a layer gives to later ones is added up on the way down from the third on.
            layers = np.asarray(place.layers[:3][::-1])
            reader, own = self._reader(part, int(layers[0]))
            width_ = reader.encoder(own, np.zeros(1, np.int64)).shape[1]
            heads = self._heads(self._by_part[part], np.zeros(len(layers), np.int64))
            for length in lengths(self.padded):
                if (known := (*key, self.padded, shapes, part, length, self.block_rows)) in _WARM:
                    continue
                _WARM.add(known)
                members = np.arange(len(layers))
                block = Block(part, length, width(length, self.block_rows), members, layers)
                nothing = np.zeros((len(layers), width_), walker.dtype)
                walker.walk([block], [nothing], [members * 0], None if heads is None else [heads])
                walker.warm_pages(length, block.width)
        if (known := (*key, self.padded, shapes, "final")) not in _WARM:
            _WARM.add(known)
            end = np.asarray([walker.config.n_layers])
            for length in lengths(self.padded)[-2:]:
                block = Block(FINAL, length, min(FEW, width(length, self.block_rows)), end * 0, end)
                walker.walk([block], [np.zeros((1, walker.config.d_model), walker.dtype)], [end * 0])
                walker.warm_pages(length, block.width)

    def of_features(self, features: np.ndarray) -> Iterator[Part]:
        """Rows of active features given by node number; blocks come in node order within a shape."""
        active = self.active
        numbers = np.sort(features)
        where = Readings(
            active.layer[numbers], active.part[numbers], active.position[numbers], active.feature[numbers],
            np.full(len(numbers), -1), np.zeros((0, 0)),
        )  # fmt: skip
        for part in self.of_readings(where):
            yield part._replace(numbers=numbers[part.numbers])

    def of_readings(self, readings: Readings) -> Iterator[Part]:
        """Rows of readings, numbered as they stand."""
        open_: tuple[list[Block], list[Effects]] | None = None
        for wave in self._waves(readings):
            started = wave, self._walk(wave, readings)
            if open_ is not None:  # while the devices compute the next
                yield from self._finished(*open_)
            open_ = started
        if open_ is not None:
            yield from self._finished(*open_)

    def _waves(self, readings: Readings) -> Iterator[list[Block]]:
        """Features of a part may read through heads, where directions do not, so they share no block."""
        for own in (np.flatnonzero(readings.feature >= 0), np.flatnonzero(readings.feature < 0)):
            where = readings.layer[own], readings.part[own], readings.position[own]
            blocks = cut(*where, self.padded, self.block_rows)
            yield from waves([b._replace(members=own[b.members]) for b in blocks], self.walker.devices)

    def encoder_rows(self, readings: Readings) -> tuple[np.ndarray, np.ndarray]:
        """[C', D] what readings read with, features looked up, and [C'] their pre-activations for an input of zero."""
        vectors, constants = readings.vectors.copy(), np.zeros(len(readings.layer))
        for i in np.flatnonzero(readings.feature >= 0):
            reader, own = self._reader(int(readings.part[i]), int(readings.layer[i]))
            feature = readings.feature[i : i + 1]
            row = reader.encoder(own, feature)[0]
            vectors[i, : len(row)] = row
            constants[i] = reader.bias(own, feature)[0]
        return vectors, constants

    def values(self, readings: Readings, constants: np.ndarray, found: Any) -> np.ndarray:
        """What each reading reads [C'], in float64; ``found`` is the `Setup`, features are looked up already."""
        values = reads.values(readings, np.asarray(found.run.final_norm)[0], found.read(), constants)
        for i in np.flatnonzero(readings.feature >= 0):
            number = self._by_part[int(readings.part[i])]
            heads = self._heads(number, readings.feature[i : i + 1])
            if heads is not None:  # it reads from everywhere its head looks
                own = self.walker.places[number].layers.index(int(readings.layer[i]))
                looks = np.asarray(self.walker.patterns[number][own])[0, heads[0], readings.position[i]]
                seen = found.read()[int(readings.part[i])][readings.layer[i]].astype(np.float64)
                values[i] = constants[i] + looks @ seen @ readings.vectors[i]
        return values

    def _heads(self, number: int, features: np.ndarray) -> np.ndarray | None:
        """The heads through which features of a place read; None where they read their own position."""
        reader = self.readers[number]
        if reader is None or not kind_of(reader.config).sequences:
            return None
        return features // (reader.config.n_features // lorsa.attention_of(reader.config).heads)

    def _reader(self, part: int, layer: int) -> tuple[FeatureRows, int]:
        number = self._by_part[part]
        reader = self.readers[number]
        assert reader is not None
        return reader, self.walker.places[number].layers.index(layer)

    def _walk(self, wave: list[Block], readings: Readings) -> list[Effects]:
        vectors, heads = [], []
        for block in wave:
            found, through = self._read_with(block, readings)
            vectors.append(found)
            heads.append(through)
        positions = [readings.position[block.members] for block in wave]
        known = [h for h in heads if h is not None]
        return [walker.walk(wave, vectors, positions, known if known else None) for _, walker in self.walkers]

    def _read_with(self, block: Block, readings: Readings) -> tuple[np.ndarray, np.ndarray | None]:
        features = readings.feature[block.members]
        if (features < 0).all():
            site = None if block.part == FINAL else self.walker.places[self._by_part[block.part]].read_site
            return readings.vectors[block.members, : site_width(self.walker.operator.config, str(site))], None
        vectors = [
            reader.encoder(own, features[block.layers == layer])
            for layer in np.unique(block.layers)[::-1].tolist()
            for reader, own in [self._reader(block.part, layer)]
        ]
        return np.concatenate(vectors), self._heads(self._by_part[block.part], features)

    def _finished(self, wave: list[Block], effects: list[Effects]) -> Iterator[Part]:
        host = [jax.tree.map(np.asarray, on_host(one)) for one in effects]
        for i, block in enumerate(wave):
            parts = [self.assemble(block, jax.tree.map(lambda x, i=i: x[i], one)) for one in host]
            if len(parts) == 1:
                yield parts[0]
                continue
            weights = [weight for weight, _ in self.walkers]
            rows = sum(w * part.rows.astype(np.float64) for w, part in zip(weights, parts, strict=True))
            left = sum(w * part.left for w, part in zip(weights, parts, strict=True))
            yield parts[0]._replace(rows=np.asarray(rows, parts[0].rows.dtype), left=np.asarray(left))

    def assemble(self, block: Block, effects: Any) -> Part:
        """Effects on one block, on the host and without the axis of devices, put into node order."""
        layout, count = self.layout, len(block.members)
        t = min(block.length, layout.n_tokens)
        groups = [layout.groups[number] for number in effects.groups]
        features = max((group.first + len(group.feature) for group in groups), default=0)
        out = np.zeros((count, features + layout.size - layout.features), effects.embed.dtype)
        left = np.zeros(count)
        rest = out[:, features:]

        def put(start: int, value: np.ndarray) -> None:
            rest[:, start - layout.features : start - layout.features + t] = value[:t, :count].T

        def bias(place: tuple[int, int, int], value: np.ndarray) -> None:
            nonlocal left
            if (start := layout.biases.get(place)) is not None:
                put(start, value)
            else:
                left += value[:t, :count].sum(axis=0, dtype=np.float64)

        for number, (slots, pages) in effects.groups.items():
            group = layout.groups[number]
            _place_features(out, group, slots, pages, count, t)
            # The first slots are filled in the group's own layer.
            put(layout.errors[group.place, group.layer], slots[:, :, 0])
            left += slots[:t, :count, 1].sum(axis=0, dtype=np.float64)
            part = JUNCTIONS.index(self.walker.places[group.place].junction)
            if group.own >= 0:
                bias((group.layer, table.DECODER, part), slots[:, :, 2])
        for kind in ("attention", "norm", "mlp"):
            for layer, value in getattr(effects, kind).items():
                bias((layer, BIAS_NAMES.index(kind), table.NO_PART), value)
        put(layout.embeddings, effects.embed)
        if effects.position is not None:
            bias((-1, table.POSITION, table.NO_PART), effects.position)
        return Part(block.members, features, out, left)


def _place_features(out: np.ndarray, group: Any, slots: Any, pages: Any, count: int, t: int) -> None:
    """Effects by slot [T', C, K] and page [P, C, `PAGE`] into the columns of a group's nodes."""
    seen = int(group.start[t])
    if not seen:
        return
    place, columns = group.slot[:seen], slice(group.first, group.first + seen)
    at = group.position[:seen].astype(np.intp) * slots.shape[1] * slots.shape[2] + np.maximum(place, 0)
    beyond = np.flatnonzero(place < 0)
    on_page = (
        group.page[beyond] * pages.shape[1] * PAGE + group.place_on_page[beyond] if len(beyond) else None
    )
    # One target at a time, so that each of its numbers is copied once.
    flat, numbers = slots.reshape(-1), out[:, columns]
    for target in range(count):
        flat.take(at + target * slots.shape[2], out=numbers[target], mode="clip")
        if on_page is not None:
            numbers[target, beyond] = pages.reshape(-1)[on_page + target * PAGE]
