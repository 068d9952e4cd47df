"""What sources write, laid out for contraction with gradients: decoder rows times activations, errors, biases.

For each pair of layers that a dictionary writes there is one array of rows. All are kept where they fit; else each is
made again from the dictionary when it is needed, so that decoders larger than memory stream by.

Letters: T position (padded), K slots, P pages, D width of the written site, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.attribution.feature_rows import FeatureRows
from jaxinterp.attribution.sources import PAGE, VECTORS, Group
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.replacement import Place

KEPT = 1 << 32
"""Bytes of rows that are kept by default."""


class Rows(NamedTuple):
    """What one group writes into one layer: rows [T, K, D], and pages [P, `PAGE`, D] with positions [P], or None."""

    rows: Any
    pages: Any
    positions: Any


def writers(
    groups: Sequence[Group], places: Sequence[Place], configs: Sequence[DictionaryConfig | None]
) -> dict[tuple[int, int], list[int]]:
    """(place, layer) → the numbers of the groups that write there; the layer's own group comes last.

    Args:
      configs: of the dictionary at each place, or None.
    """
    by_place = {(g.place, g.layer): n for n, g in enumerate(groups)}
    found: dict[tuple[int, int], list[int]] = {key: [] for key in by_place}
    for number, (place, config) in enumerate(zip(places, configs, strict=True)):
        if config is None:
            continue
        for source, target in kind_of(config).writes(config):
            if source != target:
                to = (number, place.layers[target])
                found[to].append(by_place[number, place.layers[source]])
    for key, own in by_place.items():
        found[key].sort()
        found[key].append(own)
    return found


def rows_size(group: Group, padded: int, width: int) -> int:
    """How many numbers the rows of a group have, for one layer of ``width`` that it writes into."""
    return (padded * group.slots + len(group.pages) * PAGE) * width


class Writes:
    """Rows by (number of the group, layer); see `Rows`.

    Attributes:
      into: (place, layer) → the numbers of the groups that write there; the layer's own group comes last.
      errors: (place, layer) → [T, D] error vectors; omitted: [T, D] what is written but is no source of the graph.
    """

    def __init__(
        self, groups: Sequence[Group], places: Sequence[Place], readers: Sequence[FeatureRows | None],
        own: Sequence[np.ndarray], bias: Sequence[np.ndarray | None], n_tokens: int, skip_first: bool,
        put: Callable[[Any], Any], kept: int = KEPT,
    ) -> None:  # fmt: skip
        """Args:
        own: for each place [L, T, D], what is written on the prompt without decoder bias and skip.
        bias: for each place decoder biases [L, D], or None.
        n_tokens: of the prompt without its padding.
        skip_first: features and errors at position 0 are no sources: what they write there is left out.
        put: makes arrays for the devices.
        kept: bytes of rows that may be kept.
        """
        self.groups, self.places, self.readers = groups, places, readers
        self.own, self.bias, self.put = own, bias, put
        self.n_tokens, self.padded = n_tokens, own[0].shape[1]
        configs = [None if reader is None else reader.config for reader in readers]
        self.into = writers(groups, places, configs)
        self.errors: dict[tuple[int, int], np.ndarray] = {}
        self.omitted: dict[tuple[int, int], np.ndarray] = {}
        self._kept: dict[tuple[int, int], Rows] = {}
        self.bytes = sum(
            rows_size(groups[g], self.padded, own[place].shape[2]) * own[place].dtype.itemsize
            for (place, _), from_ in self.into.items()
            for g in from_
        )
        self.keeps = self.bytes <= kept
        for (place, layer), numbers in self.into.items():
            self._find_error(place, layer, numbers, skip_first)

    def rows(self, number: int, layer: int) -> Rows:
        """What a group writes into a layer of its place."""
        if (found := self._kept.get((number, layer))) is not None:
            return found
        vectors = self._vectors(number, layer)
        return self._laid_out(number, layer, vectors)

    def _vectors(self, number: int, layer: int) -> np.ndarray:
        """[n, D] decoder rows times activations."""
        group, like = self.groups[number], self.own[self.groups[number].place]
        reader = self.readers[group.place]
        if reader is None or not len(group.feature):
            return np.zeros((0, like.shape[2]), like.dtype)
        target = self.places[group.place].layers.index(layer)
        rows = reader.decoder(group.own, target, group.feature)
        return rows * group.activation[:, None].astype(rows.dtype)

    def _find_error(self, place: int, layer: int, numbers: Sequence[int], skip_first: bool) -> None:
        """What features do not explain of a write; and their rows, where they are kept."""
        written = self.own[place][layer]
        if not np.isfinite(written[: self.n_tokens]).all():
            raise InputError(f"{self._name(place)}: decoder bias or skip of layer {layer} is not finite")
        explained = np.zeros_like(written)
        for number in numbers:
            group = self.groups[number]
            vectors = self._vectors(number, layer)
            some = np.flatnonzero(np.diff(group.start))
            if len(some):
                explained[some] += np.add.reduceat(vectors, group.start[some], axis=0)
            if not np.isfinite(explained).all():
                raise InputError(
                    f"{self._name(place)}: what layer {group.layer} writes into layer {layer} is not finite"
                )
            if self.keeps and group.layer != layer:
                self._kept[number, layer] = self._laid_out(number, layer, vectors)
        error, omitted = written - explained, np.zeros_like(written)
        error[self.n_tokens :] = 0
        if skip_first:
            omitted[0], error[0] = written[0], 0
        self.errors[place, layer], self.omitted[place, layer] = error, omitted
        if self.keeps:
            # The own group's vectors are the last that were made.
            self._kept[numbers[-1], layer] = self._laid_out(numbers[-1], layer, vectors)

    def _name(self, place: int) -> str:
        reader = self.readers[place]
        return "the model" if reader is None else reader.dictionary.name or "the dictionary"

    def _laid_out(self, number: int, layer: int, vectors: np.ndarray) -> Rows:
        group = self.groups[number]
        d, dtype = self.own[group.place].shape[2], self.own[group.place].dtype
        rows = np.zeros((self.padded, group.slots, d), dtype)
        inside = group.slot >= 0
        rows[group.position[inside], group.slot[inside]] = vectors[inside]
        if group.layer == layer:
            rows[:, 0], rows[:, 1] = (
                self.errors[group.place, layer],
                self.omitted[group.place, layer],
            )
            bias = self.bias[group.place]
            if bias is not None:
                rows[: self.n_tokens, 2] = bias[layer]
        pages = positions = None
        if len(group.pages):
            pages = np.zeros((len(group.pages), PAGE, d), dtype)
            pages[group.page[~inside], group.place_on_page[~inside]] = vectors[~inside]
            pages, positions = self.put(pages), self.put(group.pages)
        return Rows(self.put(rows), pages, positions)


assert VECTORS == 3  # error, omitted, decoder bias: the slots that `_laid_out` fills
