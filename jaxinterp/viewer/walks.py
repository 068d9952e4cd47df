"""Walks back from a target: at every node one goes to one of its inputs, each with its share |A[t, s]| / Σ_s |A[t, s]|.

What a walk visits is what influences the target: the chance of visiting a node is the node's influence on it (edges go
up, so no walk visits a node twice), and walks end in tokens, errors, biases and nodes without inputs. The share of the
walks that pass a group of nodes and then another is a share of influence that can be said of a route.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jaxinterp.graphs.influence import Flow
from jaxinterp.graphs.order import chunks


@dataclass(frozen=True, eq=False)
class Visits:
    """chance (K, K): that a walk from stop k visits stop l (1 for itself). The first stop is where walks start."""

    stops: np.ndarray
    chance: np.ndarray

    def through(self, groups: Sequence[Sequence[int]]) -> float:
        """The share of walks from the first stop that pass a member of each group, in this order (places of stops)."""
        at, weight = np.zeros(1, np.int64), np.ones(1)
        for group in groups:
            members = np.asarray(group, np.int64)
            arrived = weight @ self.chance[np.ix_(at, members)]
            # arrived[m] counts walks that were at other members before: solve for the first member that each meets.
            weight = np.linalg.solve(self.chance[np.ix_(members, members)].T, arrived)
            weight, at = np.maximum(weight, 0.0), members
        return float(weight.sum())


def visits(flow: Flow, stops: np.ndarray) -> Visits:
    """The chances between these nodes (K,), the first of which is where walks start."""
    csr, n = flow.csr, len(flow.csr.indptr) - 1
    found = np.zeros((n, len(stops)))
    places = np.arange(len(stops))
    found[stops, places] = 1.0
    bounds = flow.order.bounds.tolist()
    for low, high in itertools.pairwise(bounds):  # sources first
        rows = flow.order.rows[low:high]
        rows = rows[csr.indptr[rows + 1] > csr.indptr[rows]]
        for part, begins, sources, weights in chunks(csr, rows):
            size = np.abs(weights, dtype=np.float64)
            passed = sparse.csr_array((size, sources, begins), shape=(len(part), n)) @ found
            found[part] += passed / flow.divisor[part][:, None]
    chance = np.minimum(found[stops], 1.0)
    chance[places, places] = 1.0
    return Visits(stops, chance)
