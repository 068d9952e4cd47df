"""Dashboards the slow and plain way: every activation in memory, loops, no streaming. Nothing of `jaxinterp.interpret`.

Letters: S sequences, T tokens of each, N features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Text(NamedTuple):
    """[S, T] each."""

    tokens: np.ndarray
    segments: np.ndarray
    use: np.ndarray


def peaks(a: np.ndarray, text: Text, before: int, after: int) -> list[dict[str, Any]]:
    """The peak of every document in which a feature ``a [S, T]`` is active, in order, with its window."""
    found = []
    sequences, length = a.shape
    for s in range(sequences):
        begin = 0
        for t in range(1, length + 1):
            if t < length and text.segments[s, t] == text.segments[s, begin]:
                continue
            values = np.where(text.use[s, begin:t], a[s, begin:t], 0)
            if values.max() > 0:
                at = begin + int(values.argmax())
                low, high = max(begin, at - before), min(t, at + after + 1)
                found.append({
                    "place": s * length + at, "value": float(values.max()), "at": at - low,
                    "tokens": [int(x) for x in text.tokens[s, low:high]],
                    "values": [float(a[s, i]) if text.use[s, i] else 0.0 for i in range(low, high)],
                })  # fmt: skip
            begin = t
    return found


def texts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each text, up to the token after the peak, once: its largest peak, the first of equal ones; how often it came."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in found:
        key = (one["at"], tuple(one["tokens"][: one["at"] + 2]))
        if key not in best:
            best[key] = {**one, "repeats": 1}
            continue
        repeats = best[key]["repeats"] + 1
        best[key] = {**(one if one["value"] > best[key]["value"] else best[key]), "repeats": repeats}
    return list(best.values())


def top(found: list[dict[str, Any]], k: int) -> list[dict[str, Any]]:
    """The k texts with the largest activations; of equal ones the first."""
    return sorted(texts(found), key=lambda one: (-one["value"], one["place"]))[:k]


def histogram(values: np.ndarray) -> dict[float, int]:
    """How many values lie in each bin, by the bin's lower edge: 16 equal parts of every octave."""
    counts: dict[float, int] = {}
    for x in values:
        octave = 2.0 ** np.floor(np.log2(np.float64(x)))
        edge = float(octave * (1 + np.floor((np.float64(x) / octave - 1) * 16) / 16))
        counts[edge] = counts.get(edge, 0) + 1
    return counts
