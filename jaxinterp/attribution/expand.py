"""Which features become targets when not all may: adaptive expansion by influence.

*Circuit Tracing* (2025), "Attribution graphs": start from the targets and repeatedly expand the features
with the most influence on them, as far as the rows so far tell; unexpanded features count as errors.

Letters: A features, R rows known so far, n nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_CHUNK = 1 << 18  # numbers of which absolute values are taken at once: they stay in the cache
_LEAST = 1e-8  # of a row's sum of absolute effects


class Known:
    """Rows of a graph so far, and the influence that they tell.

    Memory is taken for all rows at once; what stays zero is never touched.
    """

    def __init__(self, capacity: int, features: int, stage: np.ndarray, dtype: Any) -> None:
        """Args:
        capacity: rows at most. features: A; they are the first nodes.
        stage: [n] such that every edge comes from a lower one.
        """
        self.rows = np.zeros((capacity, len(stage)), dtype)
        self.numbers = np.zeros(capacity, np.int64)
        self.left = np.zeros(capacity)
        self.count = 0
        self._stage, self._features = stage, features
        self._first = np.zeros(capacity, np.int64)  # features of a row that may have effects
        self._sums = np.zeros(capacity)

    def add(self, numbers: np.ndarray, features: int, rows: np.ndarray, left: np.ndarray) -> None:
        """Rows of the nodes ``numbers [R]``: ``[R, features + rest]``, the first features and all that are none.

        ``left [R]`` is what else has effects on them.
        """
        at = slice(self.count, self.count + len(numbers))
        self.rows[at, :features], self.rows[at, self._features :] = rows[:, :features], rows[:, features:]
        self.numbers[at], self.left[at], self._first[at] = numbers, left, features
        self._sums[at] = np.abs(rows).sum(axis=1, dtype=np.float64)
        self.count = at.stop

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """[n] influence of every node on the targets, which have ``weights [n]``: sum over path lengths of weights times
        normalised absolute effects. A node without a row passes nothing on.

        One pass over the rows, those of late stages first, since every edge comes from an earlier one.
        """
        influence = np.zeros(self.rows.shape[1])
        numbers = self.numbers[: self.count]
        order = np.lexsort((self._first[: self.count], -self._stage[numbers]))
        keys = np.stack([self._stage[numbers[order]], self._first[order]])
        edges = np.flatnonzero((np.diff(keys, axis=1) != 0).any(axis=0)) + 1
        for rows in np.split(order, edges):
            flow = (influence + weights)[self.numbers[rows]] / np.maximum(self._sums[rows], _LEAST)
            if flow.any():
                self._pass_on(influence, rows, flow.astype(self.rows.dtype))
        return influence

    def _pass_on(self, influence: np.ndarray, rows: np.ndarray, flow: np.ndarray) -> None:
        spans = slice(0, int(self._first[rows[0]])), slice(self._features, None)
        step = max(1, _CHUNK // max(self.rows.shape[1], 1))
        for low in range(0, len(rows), step):
            some, by = rows[low : low + step], flow[low : low + step]
            for span in spans:
                influence[span] += by @ np.abs(self.rows[some, span])


def expand(
    n_features: int, limit: int, rank_every: int, influence: Callable[[], np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield batches of features to expand until ``limit`` are; the caller adds their rows in between.

    Args:
      n_features: A.
      limit: how many to expand at most.
      rank_every: size of a batch; features are ranked again after each.
      influence: () → [≥ A] influence of every node along the rows so far.

    Yields:
      feature numbers, strongest first.
    """
    visited = np.zeros(n_features, bool)
    if limit >= n_features:
        yield np.arange(n_features)
        return
    left = limit
    while left:
        order = np.argsort(-influence()[:n_features], kind="stable")
        batch = order[~visited[order]][: min(rank_every, left)]
        visited[batch] = True
        left -= len(batch)
        yield batch
