"""The strongest paths from the tokens to a target."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jaxinterp.graphs.build import Csr
from jaxinterp.graphs.influence import normalised, steps
from jaxinterp.graphs.kinds import EMBEDDING

_LIMIT = 200_000  # partial paths looked at before giving up on ties


@dataclass(frozen=True)
class Path:
    """Nodes from a token to the target, and the product of the normalised edge weights with their signs."""

    nodes: tuple[int, ...]
    strength: float


def reach(rows: sparse.csr_array, ends: np.ndarray) -> np.ndarray:
    """For every node the largest product of weights along a path from the mask (n,); 1 at the mask."""
    full = np.flatnonzero(np.diff(rows.indptr))
    starts = rows.indptr[full]
    best = ends.astype(np.float64)
    while full.size:
        longer = best.copy()
        longer[full] = np.maximum(best[full], np.maximum.reduceat(rows.data * best[rows.indices], starts))
        if np.array_equal(longer, best):
            break
        best = longer
    return best


def strongest(csr: Csr, kinds: np.ndarray, target: int, k: int = 5, convention: str = "paper") -> list[Path]:
    """The k strongest paths from embeddings to the node ``target``, strongest first.

    The strength of a path is the product of |A[t, s]| / Σ_s |A[t, s]| along it. Best-first search from the
    target,
    guided by the exact best continuation of every node, so the result is exact; equal paths come in node
    order. Raises InputError if the graph has a cycle.
    """
    rows = normalised(csr, convention)
    start = np.zeros(len(kinds))
    start[target] = 1.0
    for _ in steps(rows, start):  # ends only without cycles
        pass
    best = reach(rows, kinds == EMBEDDING)
    found: list[Path] = []
    queue: list[tuple[float, tuple[int, ...], float, float]] = [
        (-float(best[target]), (int(target),), 1.0, 1.0)
    ]
    looked = 0
    while queue and len(found) < k and looked < _LIMIT:
        priority, path, product, sign = heapq.heappop(queue)
        looked += 1
        if priority == 0.0:
            break
        if kinds[path[0]] == EMBEDDING:
            found.append(Path(path, sign * product))
            continue
        low, high = int(rows.indptr[path[0]]), int(rows.indptr[path[0] + 1])
        gain = rows.data[low:high] * best[rows.indices[low:high]]
        # No more than k continuations of one path can be among the k best.
        for at in np.argsort(-gain, kind="stable")[:k]:
            if gain[at] <= 0:
                break
            source = int(rows.indices[low + at])
            turn = sign if csr.weights[low + at] > 0 else -sign
            step = (-product * float(gain[at]), (source, *path), product * float(rows.data[low + at]), turn)
            heapq.heappush(queue, step)
    return found
