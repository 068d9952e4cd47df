"""Edges, collected block by block in any order and put into compressed sparse rows (row = target)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jaxinterp.core.errors import InputError


class Csr(NamedTuple):
    """Edges by target: the sources of target t are indices[indptr[t]:indptr[t + 1]], ascending."""

    indptr: np.ndarray  # (n + 1,) int64
    indices: np.ndarray  # (edges,) int32
    weights: np.ndarray  # (edges,) float32 or float64


class EdgeBuilder:
    """Collects blocks of edge weights; the result does not depend on how or in which order they were cut."""

    def __init__(self, n_nodes: int, dtype: Any = np.float32) -> None:
        self.n_nodes = int(n_nodes)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise InputError(f"edge weights of type {self.dtype}: expected float32 or float64")
        self._chunks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, targets: Any, sources: Any, block: Any) -> None:
        """Add weights block[r, s] of sources[s] onto targets[r].

        targets (R,), sources (S,), block (R, S). Negative node numbers mark padding and are skipped; exact
        zeros are no edges. Raises InputError on a number that is not finite, naming the edge.
        """
        targets, sources, block = np.asarray(targets), np.asarray(sources), np.asarray(block)
        if block.shape != (targets.size, sources.size):
            raise InputError(
                f"edge block of shape {block.shape} for {targets.size} targets, {sources.size} sources"
            )
        rows, columns = np.nonzero(block)
        weights = block[rows, columns].astype(self.dtype)
        rows, columns = targets.reshape(-1)[rows], sources.reshape(-1)[columns]
        keep = (rows >= 0) & (columns >= 0) & (weights != 0)
        if not keep.all():
            rows, columns, weights = rows[keep], columns[keep], weights[keep]
        if not rows.size:
            return
        top = max(int(rows.max()), int(columns.max()))
        if top >= self.n_nodes:
            raise InputError(f"edge names node {top}, but there are {self.n_nodes} nodes")
        if not np.isfinite(weights).all():
            bad = int(np.flatnonzero(~np.isfinite(weights))[0])
            raise InputError(
                f"edge from node {columns[bad]} to node {rows[bad]} is {weights[bad]}, not a number"
            )
        self._chunks.append((rows.astype(np.int32), columns.astype(np.int32), weights))

    def finish(self) -> Csr:
        """The edges as sorted rows. Raises InputError if one edge was given twice."""
        n = self.n_nodes
        if self._chunks:
            rows, columns, weights = (np.concatenate(parts) for parts in zip(*self._chunks, strict=True))
        else:
            rows, columns, weights = (np.zeros(0, t) for t in (np.int32, np.int32, self.dtype))
        return from_triples(n, rows, columns, weights)


def from_triples(n: int, rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> Csr:
    """Sorted rows from edges (target, source, weight) in any order; zeros given here are kept."""
    order = np.argsort(rows.astype(np.int64) * n + columns, kind="stable")
    rows, columns = rows[order], columns[order]
    twice = np.flatnonzero((rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1]))
    if twice.size:
        at = int(twice[0])
        raise InputError(f"the edge from node {columns[at]} to node {rows[at]} was given twice")
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    return Csr(indptr, columns.astype(np.int32), weights[order])


def rows_of(csr: Csr) -> np.ndarray:
    """The target of every edge, (edges,) int32."""
    return np.repeat(np.arange(len(csr.indptr) - 1, dtype=np.int32), np.diff(csr.indptr))


def to_csr(matrix: Any) -> Csr:
    """Rows from a dense (n, n) array, a scipy sparse matrix, or a Csr (returned as it is)."""
    if isinstance(matrix, Csr):
        return matrix
    found = sparse.csr_array(matrix)
    if found.shape[0] != found.shape[1]:
        raise InputError(f"adjacency of shape {found.shape}: expected a square matrix (row = target)")
    found.sum_duplicates()
    found.sort_indices()
    return Csr(found.indptr.astype(np.int64), found.indices.astype(np.int32), found.data)


def select(csr: Csr, nodes: np.ndarray, edges: np.ndarray | None = None) -> Csr:
    """The rows and columns of the nodes kept by the mask (n,), and of their edges those kept by (edges,)."""
    rows = rows_of(csr)
    keep = nodes[rows] & nodes[csr.indices]
    if edges is not None:
        keep &= edges
    new = np.cumsum(nodes, dtype=np.int64) - 1
    indptr = np.zeros(int(nodes.sum()) + 1, np.int64)
    np.cumsum(np.bincount(rows[keep], minlength=len(nodes))[nodes], out=indptr[1:])
    return Csr(indptr, new[csr.indices[keep]].astype(np.int32), csr.weights[keep])
