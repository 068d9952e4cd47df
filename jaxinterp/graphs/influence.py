"""Indirect influence on the targets: the Neumann series of the row-normalised absolute adjacency.

Anthropic, "Circuit Tracing" (2025), appendix on graph pruning: with  Â[t, s] = |A[t, s]| / Σ_s |A[t, s]|
and target
weights p, the influence of the nodes is  q = p (Â + Â² + ...) = p ((I - Â)^-1 - I).  Every edge goes up a
layer, so the series ends by itself (A is nilpotent); no inverse and no tolerance is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.build import Csr, to_csr

_FLOOR = {"paper": 0.0, "circuit-tracer": 1e-10}
_PATIENCE = 256  # steps before the graph is searched for a cycle; layered graphs end after L + 2


def normalised(matrix: Any, convention: str = "paper") -> sparse.csr_array:
    """Â as float64 sparse rows: absolute weights, each row divided by its sum.

    Rows without inputs stay zero. Under "circuit-tracer" the divisor is at least 1e-10, as in that program.
    """
    csr = to_csr(matrix)
    n = len(csr.indptr) - 1
    weights = np.abs(csr.weights.astype(np.float64))
    counts = np.diff(csr.indptr)
    sums = sparse.csr_array((weights, csr.indices, csr.indptr), shape=(n, n)) @ np.ones(n)
    divisor = np.maximum(sums, _FLOOR[convention])
    divisor[divisor == 0] = 1.0
    return sparse.csr_array((weights / np.repeat(divisor, counts), csr.indices, csr.indptr), shape=(n, n))


def steps(rows: sparse.csr_array, start: np.ndarray) -> Iterator[np.ndarray]:
    """start Â, start Â², ... (each (n,) float64) until all is zero. Raises InputError naming a cycle."""
    backward = rows.T.tocsr()
    flow = start.astype(np.float64)
    taken = 0
    while True:
        flow = backward @ flow
        if not flow.any():
            return
        taken += 1
        if taken == _PATIENCE:
            _refuse_cycles(rows)
        yield flow


def node_influence(matrix: Any, weights: np.ndarray, convention: str = "paper") -> np.ndarray:
    """q (n,): influence of every node on the targets, which carry weights (n,) (probabilities)."""
    return influence_of(normalised(matrix, convention), weights)


def influence_of(rows: sparse.csr_array, weights: np.ndarray) -> np.ndarray:
    """The same from rows that are normalised already."""
    total = np.zeros(rows.shape[0])
    for flow in steps(rows, weights):
        total += flow
    return total


def running_share(influence: np.ndarray) -> np.ndarray:
    """For every node the share of all influence held by it and the stronger ones (0-1, small = important)."""
    order = np.argsort(-influence, kind="stable")
    running = np.cumsum(influence[order])
    share = np.zeros(len(influence))
    if running.size and running[-1] > 0:
        share[order] = running / running[-1]
    return share


def target_weights(nodes: np.ndarray, target_kind: int = 4) -> np.ndarray:
    """p (n,): the probability of each target, 0 elsewhere; equal weights when no target has a probability."""
    target = nodes["kind"] == target_kind
    known = target & np.isfinite(nodes["probability"])
    if not known.any():
        return target / max(int(target.sum()), 1)
    return np.where(known, nodes["probability"], 0.0)


def _refuse_cycles(rows: sparse.csr_array) -> None:
    """Raise InputError naming a cycle, if there is one."""
    real = sparse.csr_array(rows)
    real.eliminate_zeros()
    loops = np.flatnonzero(real.diagonal())
    if loops.size:
        raise InputError(f"the graph has a cycle: node {loops[0]} is its own source")
    _, label = csgraph.connected_components(real, directed=True, connection="strong")
    size = np.bincount(label)
    if size.max(initial=1) < 2:
        return
    inside = label == int(np.flatnonzero(size > 1)[0])
    walk = [int(np.flatnonzero(inside)[0])]
    while True:
        row = real.indices[real.indptr[walk[-1]] : real.indptr[walk[-1] + 1]]
        after = int(row[inside[row]][0])
        if after in walk:
            names = " <- ".join(str(i) for i in [*walk[walk.index(after) :], after])
            raise InputError(
                f"the graph has a cycle, so influence has no end: nodes {names} (target <- source)"
            )
        walk.append(after)


__all__ = ["Csr", "influence_of", "node_influence", "normalised", "running_share", "steps", "target_weights"]
