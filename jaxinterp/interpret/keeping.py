"""The best k texts of every feature, found in one pass: each text once, with how often it came.

Two rules of what is best: the largest activation, and the smallest of fixed random numbers that belong to (feature,
text), which makes a fair sample of all texts.

A text that is among the best in the end was so since its best place was seen, so what is kept is exact. How often it
came counts from when it was first kept: of the sample that is always its first time; of the largest it is wherever the
same text comes with the same activation.

Letters: N features, k texts of each, W tokens of a window, c candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Windows = Callable[[np.ndarray], np.ndarray]
"""Numbers of pairs [n] → their activations around [n, W]."""
_EMPTY = -1


class Candidates(NamedTuple):
    """[c] each: a peak, the number of its text, its rank (small is good), its activation, its place among the tokens
    of the run, and its number among the block's pairs."""

    feature: np.ndarray
    text: np.ndarray
    rank: np.ndarray
    value: np.ndarray
    place: np.ndarray
    pair: np.ndarray


class Best:
    """The best k texts of N features; slots are in no order, and empty where ``place`` is -1."""

    def __init__(self, features: int, k: int, window: int, rank: type) -> None:
        self.worst_rank: np.ndarray = np.array(np.inf if rank is np.float32 else np.iinfo(rank).max, rank)
        self.text = np.zeros((features, k), np.uint64)
        self.rank: np.ndarray = np.full((features, k), self.worst_rank, rank)
        self.value = np.zeros((features, k), np.float32)
        self.place = np.full((features, k), _EMPTY, np.int64)
        self.repeats = np.zeros((features, k), np.uint32)
        self.window = np.zeros((features, k, window), np.float32)
        self.worst: np.ndarray = np.full(features, self.worst_rank, rank)

    def arrays(self) -> dict[str, np.ndarray]:
        """What there is to save; `worst` follows from it."""
        return {name: getattr(self, name) for name in ("text", "rank", "value", "place", "repeats", "window")}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `arrays` gave."""
        for name, array in arrays.items():
            getattr(self, name)[...] = array
        self._find_worst(np.arange(len(self.worst)))

    def offer(self, new: Candidates, windows: Windows) -> None:
        """Take in the peaks of a block; blocks come in order."""
        if not self.text.shape[1]:
            return
        good = np.flatnonzero(new.rank <= self.worst[new.feature])
        if not len(good):
            return
        new, times = _once(Candidates(*(array[good] for array in new)))
        same = (self.text[new.feature] == new.text[:, None]) & (self.place[new.feature] != _EMPTY)
        known = same.any(axis=1)
        self._again(Candidates(*(a[known] for a in new)), times[known], same[known].argmax(axis=1), windows)
        fresh = ~known & (new.rank < self.worst[new.feature])
        if fresh.any():
            self._insert(Candidates(*(array[fresh] for array in new)), times[fresh], windows)

    def _again(self, new: Candidates, times: np.ndarray, slot: np.ndarray, windows: Windows) -> None:
        """Texts that are kept already: count them, and keep the larger activation."""
        self.repeats[new.feature, slot] += times
        larger = np.flatnonzero(new.value > self.value[new.feature, slot])
        if not len(larger):
            return
        at = new.feature[larger], slot[larger]
        for name in ("rank", "value", "place"):
            getattr(self, name)[at] = getattr(new, name)[larger]
        self.window[at] = windows(new.pair[larger])
        self._find_worst(np.unique(at[0]))

    def _insert(self, new: Candidates, times: np.ndarray, windows: Windows) -> None:
        """Texts that are not kept yet, by feature: they and those kept compete for the slots."""
        k = self.text.shape[1]
        touched, index = np.unique(new.feature, return_inverse=True)
        rank, place = self.rank[touched], self.place[touched]
        of, slot = np.nonzero(place != _EMPTY)
        feature = np.concatenate([of, index])
        order = np.lexsort(
            (
                np.concatenate([place[of, slot], new.place]),
                np.concatenate([rank[of, slot], new.rank]),
                feature,
            )
        )
        begin = np.searchsorted(feature[order], np.arange(len(touched)))
        kept = order[np.arange(len(order)) - begin[feature[order]] < k]
        used = np.zeros((len(touched), k), bool)
        old = kept[kept < len(of)]
        used[of[old], slot[old]] = True
        free = np.argsort(used, axis=1, kind="stable")
        chosen = np.sort(kept[kept >= len(of)]) - len(of)  # by feature, as candidates are
        mine = index[chosen]
        into = free[mine, np.arange(len(chosen)) - np.searchsorted(mine, mine)]
        at = touched[mine], into
        for name in ("text", "rank", "value", "place"):
            getattr(self, name)[at] = getattr(new, name)[chosen]
        self.repeats[at] = times[chosen]
        self.window[at] = windows(new.pair[chosen])
        self._find_worst(touched)

    def _find_worst(self, features: np.ndarray) -> None:
        if self.text.shape[1]:  # empty slots have the worst rank there is
            self.worst[features] = self.rank[features].max(axis=1)


def _once(new: Candidates) -> tuple[Candidates, np.ndarray]:
    """Each text of each feature once, the first of its largest activations; and how often it came, uint32."""
    order = np.lexsort((new.place, -new.value, new.text, new.feature))
    feature, text = new.feature[order], new.text[order]
    change = np.ones(len(order), bool)
    change[1:] = (feature[1:] != feature[:-1]) | (text[1:] != text[:-1])
    first = np.flatnonzero(change)
    times = np.diff(np.append(first, len(order))).astype(np.uint32)
    return Candidates(*(array[order[first]] for array in new)), times
