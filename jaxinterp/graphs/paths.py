"""The strongest paths from the tokens to a target."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np

from jaxinterp.graphs.build import Csr
from jaxinterp.graphs.influence import Flow
from jaxinterp.graphs.kinds import EMBEDDING
from jaxinterp.graphs.order import chunks

_LIMIT = 200_000  # partial paths looked at before giving up on ties


@dataclass(frozen=True)
class Path:
    """Nodes from a token to the target, and the product of the normalised edge weights with their signs."""

    nodes: tuple[int, ...]
    strength: float


def reach(flow: Flow, ends: np.ndarray) -> np.ndarray:
    """For every node the largest product of weights along a path from the mask (n,); 1 at the mask."""
    best = ends.astype(np.float64)
    bounds = flow.order.bounds.tolist()
    for low, high in itertools.pairwise(bounds):  # sources first
        rows = flow.order.rows[low:high]
        rows = rows[flow.csr.indptr[rows + 1] > flow.csr.indptr[rows]]
        for part, begins, sources, weights in chunks(flow.csr, rows):
            gain = np.maximum.reduceat(np.abs(weights, dtype=np.float64) * best[sources], begins[:-1])
            best[part] = np.maximum(best[part], gain / flow.divisor[part])
    return best


def strongest(
    csr: Csr, kinds: np.ndarray, target: int, k: int = 5, convention: str = "paper", flow: Flow | None = None
) -> list[Path]:
    """The k strongest paths from embeddings to the node ``target``, strongest first.

    The strength of a path is the product of |A[t, s]| / Σ_s |A[t, s]| along it. Best-first search from the
    target, guided by the exact best continuation of every node, so the result is exact; equal paths come in node
    order. ``flow`` saves preparing the graph again for every target. Raises InputError if the graph has a cycle.
    """
    if flow is None:
        flow = Flow.of(csr, np.arange(len(kinds)) == target, convention)
    best = reach(flow, kinds == EMBEDDING)
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
        low, high = int(csr.indptr[path[0]]), int(csr.indptr[path[0] + 1])
        share = np.abs(csr.weights[low:high], dtype=np.float64) / flow.divisor[path[0]]
        gain = share * best[csr.indices[low:high]]
        # No more than k continuations of one path can be among the k best.
        for at in np.argsort(-gain, kind="stable")[:k]:
            if gain[at] <= 0:
                break
            source = int(csr.indices[low + at])
            turn = sign if csr.weights[low + at] > 0 else -sign
            step = (-product * float(gain[at]), (source, *path), product * float(share[at]), turn)
            heapq.heappush(queue, step)
    return found
