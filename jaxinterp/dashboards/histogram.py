"""Activations on a logarithmic axis: 16 bins an octave, found from a number's bits, so that counts are exact.

Bin b holds values from ``2**(b // 16 - 16) * (1 + b % 16 / 16)`` to that of bin b + 1. Smaller ones than 2^-16 are in
the first of 512 bins, those of 2^16 and above in the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

PER_OCTAVE = 16
LOWEST = -16
BINS = 512
SHOWN = 40
"""Bins of a record's histogram at most."""
_FIRST = (127 + LOWEST) * PER_OCTAVE  # what the bits of 2^LOWEST are without the last 19 of the mantissa


def bins(values: np.ndarray) -> np.ndarray:
    """The bins, int32, of positive float32 numbers."""
    found = (np.ascontiguousarray(values, np.float32).view(np.int32) >> 19) - np.int32(_FIRST)
    return np.clip(found, 0, BINS - 1, out=found)


def edges(bins: np.ndarray | int) -> np.ndarray:
    """Where bins begin, float64."""
    octave, part = np.divmod(np.asarray(bins), PER_OCTAVE)
    return np.ldexp(1.0 + part / PER_OCTAVE, octave + LOWEST)


def quantiles(counts: np.ndarray, largest: float) -> list[float] | None:
    """The values below which 1, 2, … 100 percent of the counted activations are.

    Within a bin they are spread evenly, so a value is off by a bin's width at most, 1/16 of it; the last is
    ``largest``, which is exact. None where nothing was counted.
    """
    total = int(counts.sum())
    if not total:
        return None
    reached = np.concatenate([[0], np.cumsum(counts.astype(np.float64))])
    found = np.interp(np.arange(1, 101) / 100 * total, reached, edges(np.arange(len(counts) + 1)))
    found = np.minimum(found, largest)
    found[-1] = largest
    return [_short(x) for x in found]


def shown(counts: np.ndarray) -> dict[str, Any] | None:
    """What a record has: at most 40 bins from the first that is not empty; 16, 8, 4 … of them an octave."""
    filled = np.flatnonzero(counts)
    if not filled.size:
        return None
    join = 1
    while filled[-1] // join - filled[0] // join + 1 > SHOWN:
        join *= 2
    sums = counts.astype(np.int64).reshape(-1, join).sum(axis=1)
    first, last = filled[0] // join, filled[-1] // join
    ends = edges(np.arange(first, last + 2) * join)
    return {"edges": ends.tolist(), "counts": sums[first : last + 1].tolist(), "log": True}


def _short(x: float) -> float:
    """With the digits that a float32 has."""
    return float(f"{x:.7g}")
