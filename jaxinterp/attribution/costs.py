"""What a graph costs, from shapes and the numbers of active features alone: operations of its walks, bytes of what is
large. Nothing here allocates more than tables of layers times positions.

Letters: A active features, C targets, G groups, L layers, T position (T' of a walk), D width, K slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxinterp.attribution.blocks import lengths, padded_length, width
from jaxinterp.attribution.nodes import Layout
from jaxinterp.attribution.sources import AT_ONCE, PAGE
from jaxinterp.attribution.writes import KEPT, rows_size, writers
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.graphs.build import SEGMENT
from jaxinterp.graphs.kinds import NODE
from jaxinterp.models.config import ModelConfig
from jaxinterp.replacement import Place
from jaxinterp.replacement.parts import needs_mlp, site_width

INDEX = 4  # bytes of a source's number in an edge
EDGE_SECONDS = 5e-8  # of putting an edge in order, on a core of a server
PATTERN_SECONDS = 2.5e-8  # of an attention pattern's entry there, in the model's run and in the check of I1


@dataclass(frozen=True)
class Shapes:
    """What is traced.

    Attributes:
      config, places: the model, and where dictionaries stand.
      dictionaries: configs, as places number them; lazy: whether each stays in its files.
      itemsize: bytes of a number.
      rows: about how many rows C x T' blocks have, `blocks.block_rows`.
      operators: how many linear maps rows are the mean of.
      live: "", "norms" or "all": what responds in them.
    """

    config: ModelConfig
    places: tuple[Place, ...]
    dictionaries: tuple[DictionaryConfig, ...]
    lazy: tuple[bool, ...]
    itemsize: int
    rows: int
    operators: int = 1
    live: str = ""

    def of_place(self, place: Place) -> DictionaryConfig | None:
        """The config of its dictionary."""
        return None if place.dictionary is None else self.dictionaries[place.dictionary]


def prompt_bytes(shapes: Shapes, tokens: int) -> dict[str, int]:
    """Bytes that a prompt of so many tokens takes until its rows are begun, whatever is active.

    Patterns count twice, stacked and by layer: that is their peak.
    """
    config, size = shapes.config, shapes.itemsize
    t = padded_length(tokens, config.context)
    values = 4 * config.d_model  # embeddings, residual stream, final norm
    one_encoder = 0
    for place in shapes.places:
        values += 3 * config.n_layers * site_width(config, place.write_site)  # written, as sources, as errors
        d = shapes.of_place(place)
        if d is None or place.dictionary is None:
            continue
        values += config.n_layers * d.d_model
        lazy = shapes.lazy[place.dictionary]
        pre = t * d.n_features * size
        whole = not lazy and d.n_layers * pre <= AT_ONCE
        encoder = d.n_features * d.d_model * size if lazy else 0
        one_encoder = max(one_encoder, 2 * pre * (d.n_layers if whole else 1) + encoder)
    return {
        "patterns": 2 * pattern_bytes(shapes, tokens),
        "values": t * values * size,
        "logits": 2 * t * config.vocab_size * size,
        "encoders": one_encoder,
    }


def pattern_bytes(shapes: Shapes, tokens: int) -> int:
    """Bytes of attention patterns, those of a Lorsa included, once."""
    t = padded_length(tokens, shapes.config.context)
    heads = shapes.config.n_layers * shapes.config.n_heads
    for place in shapes.places:
        d = shapes.of_place(place)
        if d is not None and kind_of(d).sequences:
            assert d.attention is not None
            heads += d.n_layers * d.attention.heads
    return heads * t * t * shapes.itemsize


@dataclass(frozen=True)
class Costs:
    """Costs of one graph.

    Attributes:
      shapes, layout: what is traced; targets: C' readings, with the positions [C'] and layers [C'] where they read.
    """

    shapes: Shapes
    layout: Layout
    positions: np.ndarray
    layers: np.ndarray

    @property
    def padded(self) -> int:
        """T of the arrays."""
        return padded_length(self.layout.n_tokens, self.shapes.config.context)

    @cached_property
    def counts(self) -> np.ndarray:
        """[G, T] active features."""
        t, groups = self.layout.n_tokens, self.layout.groups
        found = np.array([np.diff(group.start)[:t] for group in groups], np.int64)
        return found.reshape(len(groups), t)

    @cached_property
    def sources(self) -> np.ndarray:
        """[G + 1, T] how many sources have an effect on what reads just before a group writes, at a position; the last
        row is after all."""
        layout, groups, t = self.layout, self.layout.groups, self.layout.n_tokens
        features = np.zeros((len(groups) + 1, t))
        features[1:] = self.counts.cumsum(axis=0).cumsum(axis=1)
        return features + self.fixed[:, None] * np.arange(1, t + 1)[None, :] / max(layout.n_tokens, 1)

    @cached_property
    def fixed(self) -> np.ndarray:
        """[G + 1] how many nodes that are no features come before a group writes."""
        groups, t = self.layout.groups, self.layout.n_tokens
        layers = np.array([*[group.layer for group in groups], self.shapes.config.n_layers])
        biases = np.array([layer for layer, _, _ in self.layout.biases])
        before = (
            (biases[None, :] <= layers[:, None]).sum(axis=1) if len(biases) else np.zeros(len(layers), int)
        )
        return np.asarray(t * (1 + np.arange(len(groups) + 1) + before))

    @cached_property
    def pairs(self) -> dict[tuple[int, int], list[int]]:
        """See `writes.writers`."""
        configs = [self.shapes.of_place(place) for place in self.shapes.places]
        return writers(self.layout.groups, self.shapes.places, configs)

    def share(self, limit: int) -> np.ndarray:
        """[G, T] how many features of each place get a row, of ``limit`` that do.

        Which will be chosen is not known; influence favours late positions, so half of them are taken to be at the last
        one and the others anywhere.
        """
        if limit >= self.layout.features:
            return self.counts.astype(float)
        found = self.counts * (limit / max(self.layout.features, 1))
        late = found.sum(axis=1) / 2
        found /= 2
        found[:, -1] += late
        return np.asarray(found)

    def edges(self, limit: int) -> int:
        """About how many edges a graph of so many features has."""
        kept, own = limit / max(self.layout.features, 1), self.share(limit)
        t = np.arange(1, self.layout.n_tokens + 1)[None, :] / self.layout.n_tokens
        fixed = self.fixed[:, None] * t
        seen = (self.sources - fixed) * min(kept, 1.0) + fixed
        at = self._entries()
        return int((own * seen[:-1]).sum() + seen[at, self.positions].sum())

    def operations(self, limit: int) -> tuple[float, float]:
        """Floating-point operations that no exact method can leave out, and as executed in blocks.

        Multiply-adds times two: transposed attention, contraction with what sources write, and tangents and skips.
        """
        t = self.layout.n_tokens
        allowed = np.array(lengths(self.padded))
        walked = allowed[np.searchsorted(allowed, np.arange(t) + 1)]
        needed, executed = (
            self._by_layer(np.arange(1, t + 1), exact=True),
            self._by_layer(walked, exact=False),
        )
        own, layers = self.share(limit), np.array([group.layer for group in self.layout.groups], int)
        found = []
        for cost in (needed, executed):
            total = (own * cost[layers + 1]).sum() if len(layers) else 0.0
            total += cost[self.layers + 1, self.positions].sum()
            found.append(float(total) * self.shapes.operators * (2 if self.shapes.live == "all" else 1))
        return found[0], found[1]

    def beside(self, limit: int, on_cpu: bool) -> float:
        """About how many seconds are no products of walks: edges on the host, and on a CPU the run of the model."""
        entries = pattern_bytes(self.shapes, self.layout.n_tokens) / self.shapes.itemsize
        return self.edges(limit) * EDGE_SECONDS + (entries * PATTERN_SECONDS if on_cpu else 0.0)

    def memory(self, limit: int, chosen: bool) -> dict[str, int]:
        """Bytes by what takes them while rows are computed; see also `prompt_bytes`.

        Args:
          chosen: features are chosen by influence, for which rows over every node are kept.
        """
        shapes, layout, size = self.shapes, self.layout, self.shapes.itemsize
        begun = prompt_bytes(shapes, layout.n_tokens)
        edge, edges = INDEX + size, self.edges(limit)
        found = {
            "patterns": pattern_bytes(shapes, layout.n_tokens) * shapes.operators,
            "values": begun["values"],
            "logits": begun["logits"] // 2,
            "decoder rows": self._decoder_rows(),
            "gradients of blocks": self._gradients(),
            "nodes": 2 * layout.size * NODE.itemsize,
            "edges": edge
            * (edges + min(edges, SEGMENT)),  # the last piece of memory is copied while it is there
        }
        fixed = layout.size - layout.features
        found["rows of targets"] = len(self.positions) * layout.size * size
        if chosen:
            first = np.array([group.first for group in layout.groups], float)
            own = self.counts.sum(axis=1)
            mean = float((own * first).sum() / max(layout.features, 1))
            found["rows kept for ranking"] = int(limit * (mean + fixed) * size)
        return found

    def peak(self, limit: int, chosen: bool) -> int:
        """The most bytes at a time, beyond model and dictionary."""
        begun = prompt_bytes(self.shapes, self.layout.n_tokens)
        before = sum(begun.values()) - begun["encoders"]
        return max(
            before + max(begun["encoders"], self._decoder_rows()), sum(self.memory(limit, chosen).values())
        )

    def most(self, limit: int, timed: bool, budget: int) -> int:
        """The largest number of features up to ``limit`` whose graph stays within the budget; 0 for none."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            right = self.peak(middle, timed or middle < self.layout.features) <= budget
            low, high = (middle, high) if right else (low, middle - 1)
        return low

    def _entries(self) -> np.ndarray:
        """[C'] row of `sources` for each reading."""
        after = np.array([group.layer for group in self.layout.groups], int)
        return np.searchsorted(after, self.layers, side="left")

    def _by_layer(self, length: np.ndarray, exact: bool) -> np.ndarray:
        """[L + 2, T] operations of one target, walks being so long: entry l + 1 of one that reads in layer l after its
        attention, the last of one that reads after the final norm."""
        config = self.shapes.config
        inner, kv = config.n_heads * config.d_value, config.n_kv_heads * config.d_value
        seen = length.astype(float)
        looked = seen * (seen + 1) / 2 if exact else seen**2
        step = seen * 2 * config.d_model * (inner + kv) + 2 * looked * inner
        walks = np.minimum(np.arange(config.n_layers + 2), config.n_layers)
        found = walks[:, None] * step[None, :]
        ends = np.zeros((config.n_layers, len(seen)))
        tangents = needs_mlp(self.shapes.places, config.n_layers)
        for (number, layer), numbers in self.pairs.items():
            place = self.shapes.places[number]
            d, w = self.shapes.of_place(place), site_width(config, place.write_site)
            for group in numbers:
                ends[layer] += 2 * w * self._met(group, length, exact)
            if d is not None and d.skip:
                ends[layer] += 2 * seen * d.d_model * w
        if tangents:
            ends += (6 if config.gated else 4) * seen[None, :] * config.d_model * config.d_mlp
        # A target that reads in a layer meets what is written below it.
        found[2:] += ends.cumsum(axis=0)
        return found

    def _met(self, group: int, length: np.ndarray, exact: bool) -> np.ndarray:
        """[T] vectors of a group with which a gradient is contracted."""
        if exact:
            return np.asarray(self.counts[group].cumsum(), float)
        own = self.layout.groups[group]
        return np.asarray(length * own.slots + len(own.pages) * PAGE, float)

    def _decoder_rows(self) -> int:
        groups, padded = self.layout.groups, self.padded
        sizes = [
            rows_size(
                groups[g], padded, site_width(self.shapes.config, self.shapes.places[number].write_site)
            )
            for (number, _), numbers in self.pairs.items()
            for g in numbers
        ]
        total = sum(sizes) * self.shapes.itemsize
        # One more while it is laid out, as vectors and as rows.
        making = 2 * max(sizes, default=0) * self.shapes.itemsize
        return making + (total if total <= KEPT else 0)

    def _gradients(self) -> int:
        config, length = self.shapes.config, self.padded
        c = width(length, self.shapes.rows)
        widths = 2 * config.d_model + 3 * config.n_heads * config.d_value
        widths += sum(site_width(config, place.write_site) for place in self.shapes.places)
        slots = sum(group.slots for group in self.layout.groups)
        pages = sum(len(group.pages) * PAGE for group in self.layout.groups)
        waiting = 2 * (length * slots + pages) + self.layout.size  # two blocks at a time, and the rows of one
        return c * (length * widths + waiting) * self.shapes.itemsize
