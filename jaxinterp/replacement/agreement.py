"""How far the edges of two graphs of one prompt agree, target by target: what another linearisation changes.

Letters: C targets, n nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph

_SAME = ("kind", "part", "layer", "position", "index")


@dataclass(frozen=True)
class Agreement:
    """One number a target, for the targets that have edges in both graphs.

    Attributes:
      targets: [C] their row numbers.
      cosine: [C] of the two rows of edges.
      rank: [C] Spearman's correlation over the sources that have an edge in either.
      size: [C] sum of absolute edges in the second over that in the first.
    """

    targets: np.ndarray
    cosine: np.ndarray
    rank: np.ndarray
    size: np.ndarray

    def __str__(self) -> str:
        if not len(self.targets):
            return "no target has edges in both"
        parts = []
        for name in ("cosine", "rank", "size"):
            low, middle, high = np.quantile(getattr(self, name), (0.1, 0.5, 0.9))
            parts.append(f"{name} {middle:.3f} ({low:.3f} to {high:.3f})")
        return f"{len(self.targets)} targets, median (10 % to 90 %): " + ", ".join(parts)


def agreement(one: Any, other: Any) -> Agreement:
    """Compare edges row by row.

    Args:
      one, other: graphs of the same nodes, or arrays of edges [C, n] (dense or scipy's sparse), row = target.

    Raises:
      InputError: graphs of other nodes (the first that differs is named), or arrays of other shapes.
    """
    if isinstance(one, Graph) and isinstance(other, Graph):
        _same_nodes(one.nodes, other.nodes)
    a, b = _rows(one), _rows(other)
    if a.shape != b.shape:
        raise InputError(f"edges of shape {a.shape} and {b.shape}, expected the same targets and sources")
    found = []
    for row in range(a.shape[0]):
        (ia, x), (ib, y) = _row(a, row), _row(b, row)
        if not len(ia) or not len(ib):
            continue
        sources = np.union1d(ia, ib)
        u, v = np.zeros(len(sources)), np.zeros(len(sources))
        u[np.searchsorted(sources, ia)], v[np.searchsorted(sources, ib)] = x, y
        found.append((row, _cosine(u, v), _rank(u, v), np.abs(v).sum() / np.abs(u).sum()))
    columns = np.array(found, float).reshape(-1, 4)
    return Agreement(columns[:, 0].astype(np.int64), *columns[:, 1:].T)


def _rows(edges: Any) -> sparse.csr_array:
    if isinstance(edges, Graph):
        shape = (len(edges), len(edges))
        edges = sparse.csr_array((np.asarray(edges.weights), edges.indices, edges.indptr), shape=shape)
    found = sparse.csr_array(edges, dtype=np.float64)
    found.eliminate_zeros()
    found.sort_indices()
    return found


def _row(rows: sparse.csr_array, row: int) -> tuple[np.ndarray, np.ndarray]:
    part = slice(rows.indptr[row], rows.indptr[row + 1])
    return rows.indices[part], rows.data[part]


def _cosine(u: np.ndarray, v: np.ndarray) -> float:
    return float(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)))


def _rank(u: np.ndarray, v: np.ndarray) -> float:
    """Spearman's correlation; 1 where all are alike in both, 0 where they are in one."""
    from scipy.stats import rankdata  # slow to import

    p, q = rankdata(u), rankdata(v)
    p, q = p - p.mean(), q - q.mean()
    size = np.linalg.norm(p) * np.linalg.norm(q)
    return float(p @ q / size) if size > 0 else float(not p.any() and not q.any())


def _same_nodes(one: np.ndarray, other: np.ndarray) -> None:
    if len(one) != len(other):
        raise InputError(f"graphs of {len(one)} and {len(other)} nodes: trace both with the same settings")
    for name in _SAME:
        differ = np.flatnonzero(one[name] != other[name])
        if len(differ):
            node = int(differ[0])
            raise InputError(
                f"graphs of other nodes: one has {name} {one[name][node]} where the other has {other[name][node]}"
            )
