"""From what a run counted to files.

Letters: N features, k slots, W tokens of a window, T tokens a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.dashboards import own, packing
from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.tally import Tally
from jaxinterp.interpret.together import Together

CHUNK = 128
REAL = {"float32": "f4", "float16": "f2"}


class Written(NamedTuple):
    """What the features of a layer write: logits, their values, decoder lengths, neighbours; [N, ...] each."""

    logits: np.ndarray
    logit_values: np.ndarray
    norms: np.ndarray
    neighbour_layers: np.ndarray
    neighbours: np.ndarray
    cosines: np.ndarray


class Layer(NamedTuple):
    """The file of a layer to be written: what it is of, the header's facts."""

    path: Path
    header: Mapping[str, Any]
    vocabulary: int
    documents: bool


def groups(config: DashboardConfig) -> list[str]:
    """The names of groups of examples."""
    return ["Top", *(f"Quantile {i + 1}" for i in range(config.quantiles))]


def write(
    layer: Layer, tally: Tally, tokens: np.ndarray, written: Written, together: Callable[[int], Any],
    config: DashboardConfig,
) -> None:  # fmt: skip
    """Write the file of a layer.

    Args:
      tokens: see `reading.Scratch.all`.
      together: of a feature, (layers, numbers, values) of those that are active with it.
    """
    token, real = "u2" if layer.vocabulary <= 1 << 16 else "u4", REAL[config.real]
    entries: list[bytes] = []
    largest = np.maximum(tally.top.value.max(axis=1), 0)
    for begin in range(0, tally.features, CHUNK):
        chunk = slice(begin, min(begin + CHUNK, tally.features))
        for index, fields in enumerate(_examples(tally, chunk, tokens, config, layer.documents), start=begin):
            counts = tally.counts[index]
            filled = np.flatnonzero(counts)
            if filled.size:
                fields["first_bin"], fields["counts"] = filled[:1], counts[filled[0] : filled[-1] + 1]
                fields["values"] = fields["values"] / largest[index]
            fields |= {name: getattr(written, name)[index] for name in Written._fields}
            layers, others, values = together(index)
            fields |= {"coactive_layers": layers, "coactive": others, "coactive_values": values}
            entries.append(packing.pack(fields, token, real))
    header = {**layer.header, "groups": groups(config), "token": token, "float": real}
    own.write_layer(layer.path, header, entries, tally.counts.sum(axis=1, dtype=np.uint64), largest)


def _examples(
    tally: Tally, chunk: slice, tokens: np.ndarray, config: DashboardConfig, documents: bool
) -> Iterator[dict[str, Any]]:
    """The examples of some features, in order."""
    top, sample = tally.top, tally.sample
    # Top: the largest first, of equal ones the first. Sample: without what is in the top; in parts, from the largest.
    order = np.lexsort((top.place[chunk], top.rank[chunk]), axis=1)
    chosen, sizes = [], []
    for i, feature in enumerate(range(*chunk.indices(tally.features))):
        slots = order[i][top.place[feature, order[i]] >= 0]
        there = np.flatnonzero(sample.place[feature] >= 0)
        there = there[~np.isin(sample.text[feature, there], top.text[feature, slots])]
        there = there[np.lexsort((sample.place[feature, there], -sample.value[feature, there]))]
        parts = np.array_split(there, config.quantiles) if config.quantiles else []
        chosen.append((feature, slots, there))
        sizes.append([len(slots), *(len(part) for part in parts)])
    pieces = {
        name: np.concatenate(
            [np.concatenate([getattr(top, name)[f, a], getattr(sample, name)[f, b]]) for f, a, b in chosen]
        )
        for name in ("place", "repeats", "window")
    }
    place, window = pieces["place"], pieces["window"]
    number = place[:, None] + np.arange(-config.before, config.after + 1)[None, :]
    length = config.text.length
    inside = (number // length == (place // length)[:, None]) & (number >= 0)
    number = np.where(inside, number, place[:, None])
    rows = np.asarray(tokens[number])  # [examples, W, 4]
    inside &= rows[:, :, 1] == rows[:, config.before, 1][:, None]
    ends = np.cumsum([0, *(sum(one) for one in sizes)])
    for i, size in enumerate(sizes):
        here = slice(ends[i], ends[i + 1])
        good, values = inside[here], window[here]
        active = (values != 0) & good
        first = good.argmax(axis=1) if len(good) else np.zeros(0, np.int64)
        fields = {
            "groups": size, "lengths": good.sum(axis=1), "at": config.before - first, "place": place[here],
            "repeats": pieces["repeats"][here], "tokens": rows[here][:, :, 0][good], "active": active.sum(axis=1),
            "where": np.nonzero(active)[1] - np.repeat(first, active.sum(axis=1)), "values": values[active],
        }  # fmt: skip
        if documents:
            peak = rows[here][:, config.before]
            fields |= {"document": peak[:, 2], "position": peak[:, 3]}
        yield fields


def coactive(
    found: Together | None, number: int, size: int, layers: tuple[int, ...]
) -> Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """What `write` asks of features active together, for one layer."""

    def of(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if found is None:
            none = np.zeros(0)
            return none, none, none
        others, values = found.of(number * size + index)
        return np.asarray(layers)[others // size], others % size, values

    return of
