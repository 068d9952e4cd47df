"""Which features become targets when not all may: adaptive expansion by influence.

*Circuit Tracing* (2025), "Attribution graphs": start from the targets and repeatedly expand the features
with the most influence on them, as far as the rows so far tell; unexpanded features count as errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from jaxinterp.core.errors import InputError


def partial_influence(rows: np.ndarray, row_nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Influence of every node on the targets along the rows known so far.

    Args:
      rows: [R, n] direct effects; the last axis is every node of the graph.
      row_nodes: [R] node number of each row.
      weights: [n] probability of each target, 0 elsewhere.

    Returns:
      [n] the sum over path lengths of weights times normalised absolute effects. A node without a row
      passes nothing on.
    """
    normalised = np.abs(rows)
    total = normalised.sum(axis=1, keepdims=True)
    normalised /= np.maximum(total, 1e-8).astype(rows.dtype)
    influence = np.zeros(rows.shape[1], rows.dtype)
    product = weights.astype(rows.dtype)
    for _ in range(len(row_nodes) + 1):
        product = product[row_nodes] @ normalised
        if not product.any():
            return influence
        influence += product
    raise InputError("the graph has a cycle, influence does not end")


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
