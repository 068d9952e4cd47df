"""Which features are active together, on a sample of tokens.

Letters: F features of all layers, t tokens of the sample.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

MOST = 2_000_000_000
"""Pairs of active features to count in all layers at most; above it they are counted in each layer alone."""
LEAST = 3
"""Tokens that two features must share."""
CHUNK = 1024


class Together(NamedTuple):
    """The features most often active with each, best first: as rows of a sparse matrix, ``start [F + 1]``."""

    start: np.ndarray
    features: np.ndarray
    values: np.ndarray

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and values."""
        here = slice(self.start[feature], self.start[feature + 1])
        return self.features[here], self.values[here]


def together(noted: list[np.ndarray], size: int, k: int) -> Together:
    """Count them.

    Args:
      noted: for each layer the tokens and features of the sample's active pairs, int64 [2, P].
      size: features a layer; feature i of layer l is number ``l size + i``.

    Returns:
      for every feature the k others with the largest ``n_ab / sqrt(n_a n_b)``, n tokens on which one or both are
      active; of equal ones those with the smaller number.
    """
    import scipy.sparse as sparse

    layers = np.concatenate([np.full(one.shape[1], layer) for layer, one in enumerate(noted)])
    tokens, features = np.concatenate(noted, axis=1)
    numbers, token = np.unique(tokens, return_inverse=True)
    total = len(noted) * size
    across = float((np.bincount(token).astype(np.float64) ** 2).sum()) <= MOST
    feature = layers * size + features
    ones = np.ones(len(feature), np.float32)
    active = sparse.csr_matrix((ones, (token, feature)), shape=(len(numbers), total)).tocsc()
    count = np.diff(active.indptr).astype(np.float64)
    start, found, values = [0], [], []
    for begin in range(0, total, CHUNK):
        for low, high in _steps(begin, min(begin + CHUNK, total), size, across):
            others = slice(0, total) if across else slice(low // size * size, (low // size + 1) * size)
            shared = (active[:, low:high].T @ active[:, others]).tocsr()
            for row in range(high - low):
                here = slice(shared.indptr[row], shared.indptr[row + 1])
                other, both = shared.indices[here] + others.start, shared.data[here]
                good = (other != low + row) & (both >= LEAST)
                other, both = other[good], both[good]
                value = both / np.sqrt(count[low + row] * count[other])
                best = np.lexsort((other, -value))[:k]
                found.append(other[best])
                values.append(value[best])
                start.append(start[-1] + len(best))
    none = np.zeros(0)
    return Together(
        np.array(start), np.concatenate([none.astype(np.int64), *found]),
        np.concatenate([none, *values]).astype(np.float32),
    )  # fmt: skip


def _steps(begin: int, end: int, size: int, across: bool) -> list[tuple[int, int]]:
    """A range of features cut where layers end, if layers are counted alone."""
    if across:
        return [(begin, end)]
    cuts = [begin, *range((begin // size + 1) * size, end, size), end]
    return list(pairwise(cuts))
