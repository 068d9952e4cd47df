"""Which features become targets when not all may: adaptive expansion by influence.

*Circuit Tracing* (2025), "Attribution graphs": start from the targets and repeatedly expand the features
with the most influence on them, as far as the rows so far tell; unexpanded features count as errors.

Letters: A features, n nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jaxinterp.attribution.rows import Part

_CHUNK = 1 << 18  # numbers of which absolute values are taken at once: they stay in the cache
_LEAST = 1e-8  # of a row's sum of absolute effects


class Known:
    """Rows of a graph so far, and the influence that they tell."""

    def __init__(self, features: int, stage: np.ndarray) -> None:
        """Args:
        features: A; they are the first nodes.
        stage: [n] such that every edge comes from a lower one.
        """
        self.parts: list[Part] = []
        self._stage, self._features = stage, features
        self._sums: list[np.ndarray] = []

    def add(self, part: Part) -> None:
        """Rows of the nodes ``part.numbers``."""
        self.parts.append(part)
        self._sums.append(
            np.maximum(_absolute(part.rows, np.ones(part.rows.shape[1], part.rows.dtype)), _LEAST)
        )

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """[n] influence of every node on the targets, which have ``weights [n]``.

        That is the sum over path lengths of weights times normalised absolute effects; a node without a row passes
        nothing on. One pass over the rows, those of late stages first, since every edge comes from an earlier one.
        """
        influence = np.zeros(len(self._stage))
        stages = [self._stage[part.numbers] for part in self.parts]
        for stage in sorted({int(s) for own in stages for s in np.unique(own)}, reverse=True):
            for part, sums, own in zip(self.parts, self._sums, stages, strict=True):
                at = np.flatnonzero(own == stage)
                flow = (influence + weights)[part.numbers[at]] / sums[at]
                if not flow.any():
                    continue
                found = _absolute(part.rows if len(at) == len(own) else part.rows[at], None, flow)
                influence[: part.features] += found[: part.features]
                influence[self._features :] += found[part.features :]
        return influence


def _absolute(rows: np.ndarray, right: np.ndarray | None, left: np.ndarray | None = None) -> np.ndarray:
    """``|rows| @ right`` or ``left @ |rows|`` in float64, a few rows at a time."""
    step = max(1, _CHUNK // max(rows.shape[1], 1))
    size = np.empty((min(step, len(rows)), rows.shape[1]), rows.dtype)
    found = np.zeros(rows.shape[1] if right is None else len(rows))
    for low in range(0, len(rows), step):
        some = rows[low : low + step]
        absolute = np.abs(some, out=size[: len(some)])
        if right is not None:
            found[low : low + step] = absolute @ right
        elif left is not None:
            found += left[low : low + step].astype(rows.dtype) @ absolute
    return found


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
    left = min(limit, n_features)
    while left:
        order = np.argsort(-influence()[:n_features], kind="stable")
        batch = order[~visited[order]][: min(rank_every, left)]
        visited[batch] = True
        left -= len(batch)
        yield batch
