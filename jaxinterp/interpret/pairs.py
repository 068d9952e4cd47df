"""The active pairs of a block, one layer: which feature is active on which token, and how much; and their peaks.

Letters: R tokens of a block, N features of the layer, P pairs, W tokens of a window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """[P] each, by feature, then by token.

    Attributes:
      feature, row: which.
      value: float32, above zero.
      stretch: counts up where feature or document changes: pairs of one feature in one document share it.
    """

    feature: np.ndarray
    row: np.ndarray
    value: np.ndarray
    stretch: np.ndarray


class Peaks(NamedTuple):
    """The largest pair of each feature in each document, the first of equal ones: numbers of pairs, by feature."""

    pair: np.ndarray
    feature: np.ndarray
    row: np.ndarray
    value: np.ndarray


def from_dense(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, feature and value of what is above zero in ``a [R, N]``, row by row."""
    flat = np.flatnonzero(a > 0)
    row, feature = np.divmod(flat, a.shape[1])
    return row.astype(np.int32), feature.astype(np.int32), a.reshape(-1)[flat]


def from_chosen(values: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from the largest activations of each row and their features, ``[R, k]`` each, in any order."""
    row, slot = np.nonzero(values > 0)
    feature, value = features[row, slot].astype(np.int32), values[row, slot]
    order = np.lexsort((feature, row))
    return row[order].astype(np.int32), feature[order], value[order]


def by_feature(
    row: np.ndarray, feature: np.ndarray, value: np.ndarray, documents: np.ndarray, size: int
) -> Pairs:
    """Pairs that come row by row put in order.

    Args:
      documents: [R], the number of each row's document within the block, ascending.
      size: N.
    """
    key = feature.astype(np.uint16) if size <= 1 << 16 else feature
    order = np.argsort(key, kind="stable")
    row, feature, value = row[order], feature[order], value[order]
    where = documents[row]
    change = (feature[1:] != feature[:-1]) | (where[1:] != where[:-1])
    stretch = np.zeros(len(row), np.int32)
    np.cumsum(change, out=stretch[1:])
    return Pairs(feature, row, value, stretch)


def peaks(pairs: Pairs) -> Peaks:
    """See `Peaks`."""
    if not len(pairs.value):
        none = np.zeros(0, np.int64)
        return Peaks(none, pairs.feature, pairs.row, pairs.value)
    starts = np.flatnonzero(np.diff(pairs.stretch, prepend=-1))
    largest = np.maximum.reduceat(pairs.value, starts)
    equal = np.flatnonzero(pairs.value == largest[pairs.stretch])
    first = equal[np.flatnonzero(np.diff(pairs.stretch[equal], prepend=-1))]
    return Peaks(first, pairs.feature[first], pairs.row[first], pairs.value[first])


def windows(pairs: Pairs, chosen: np.ndarray, before: int, after: int) -> np.ndarray:
    """Activations around pairs ``[n]``, as far as their documents go: float32 ``[n, before + 1 + after]``."""
    found = np.zeros((len(chosen), before + 1 + after), np.float32)
    found[:, before] = pairs.value[chosen]
    number = np.arange(len(chosen))
    for way, reach in ((-1, before), (1, after)):
        left, at = number, chosen
        for _ in range(reach):
            at = at + way
            inside = (at >= 0) & (at < len(pairs.row))
            left, at = left[inside], at[inside]
            apart = pairs.row[at] - pairs.row[chosen[left]]
            good = (pairs.stretch[at] == pairs.stretch[chosen[left]]) & (np.abs(apart) <= reach)
            left, at, apart = left[good], at[good], apart[good]
            if not len(left):
                break
            found[left, before + apart] = pairs.value[at]
    return found
