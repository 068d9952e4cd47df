"""Edges, collected block by block in any order and put into compressed sparse rows (row = target).

Blocks are cut into pieces, one for each of their targets. The pieces are put in order, not the edges, so that
building costs one pass over the edges and little more memory than the result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jaxinterp.core.errors import InputError

SEGMENT = 1 << 24  # edges stored in one piece of memory, large enough that freeing it returns it


class Csr(NamedTuple):
    """Edges by target: the sources of target t are indices[indptr[t]:indptr[t + 1]], ascending."""

    indptr: np.ndarray  # (n + 1,) int64
    indices: np.ndarray  # (edges,) int32
    weights: np.ndarray  # (edges,) float32 or float64


class _Segment:
    """Edges of whole pieces, one after the other."""

    def __init__(self, size: int, dtype: np.dtype) -> None:
        # Memory that is never written is never taken from the machine.
        self.columns, self.weights = np.empty(size, np.int32), np.empty(size, dtype)
        self.used = 0
        self.targets: list[np.ndarray] = []
        self.counts: list[np.ndarray] = []

    def put(self, targets: np.ndarray, counts: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> None:
        end = self.used + len(weights)
        self.columns[self.used : end], self.weights[self.used : end] = columns, weights
        self.used = end
        self.targets.append(targets)
        self.counts.append(counts)


class EdgeBuilder:
    """Collects blocks of edge weights; the result does not depend on how or in which order they were cut."""

    def __init__(self, n_nodes: int, dtype: Any = np.float32) -> None:
        self.n_nodes = int(n_nodes)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise InputError(f"edge weights of type {self.dtype}: expected float32 or float64")
        self._segments: list[_Segment] = []

    def add(self, targets: Any, sources: Any, block: Any) -> None:
        """Add weights block[r, s] of sources[s] onto targets[r].

        targets (R,), sources (S,) (fastest when ascending), block (R, S). Negative node numbers mark padding
        and are skipped; exact zeros are no edges. Raises InputError on a number that is not finite, naming the
        edge, on a node that does not exist, and on a source named twice.
        """
        targets, sources, block = np.asarray(targets).ravel(), np.asarray(sources).ravel(), np.asarray(block)
        if block.shape != (targets.size, sources.size):
            raise InputError(
                f"edge block of shape {block.shape} for {targets.size} targets, {sources.size} sources"
            )
        if not block.size:
            return
        if targets.min() < 0:
            targets, block = targets[targets >= 0], block[targets >= 0]
        if sources.min() < 0:
            sources, block = sources[sources >= 0], block[:, sources >= 0]
        if not block.size:
            return
        top = max(int(targets.max()), int(sources.max()))
        if top >= self.n_nodes:
            raise InputError(f"edge names node {top}, but there are {self.n_nodes} nodes")
        if (np.diff(sources) <= 0).any():
            order = np.argsort(sources, kind="stable")
            sources, block = sources[order], block[:, order]
            twice = np.flatnonzero(np.diff(sources) == 0)
            if twice.size:
                raise InputError(f"an edge block names source {sources[int(twice[0])]} twice")
        block = block.astype(self.dtype, copy=False)
        edge = block != 0
        weights = block[edge]
        if not weights.size:
            return
        counts = edge.sum(axis=1, dtype=np.int64)
        columns = np.broadcast_to(sources.astype(np.int32), block.shape)[edge]
        if not np.isfinite(weights).all():
            bad = int(np.flatnonzero(~np.isfinite(weights))[0])
            row = targets[int(np.searchsorted(np.cumsum(counts), bad, side="right"))]
            raise InputError(f"edge from node {columns[bad]} to node {row} is {weights[bad]}, not a number")
        self._put(targets[counts > 0].astype(np.int32), counts[counts > 0], columns, weights)

    def finish(self) -> Csr:
        """The edges as sorted rows; what was collected is given up. Raises InputError if one edge was given
        twice."""
        none = [np.zeros(0, np.int64)]
        targets = np.concatenate([part for s in self._segments for part in s.targets] or none)
        counts = np.concatenate([part for s in self._segments for part in s.counts] or none)
        firsts = np.concatenate([_firsts(s) for s in self._segments] or none)
        indptr = np.zeros(self.n_nodes + 1, np.int64)
        np.add.at(indptr, targets.astype(np.int64) + 1, counts)
        np.cumsum(indptr, out=indptr)
        # Where each piece goes: behind the pieces of its target that start at a smaller source.
        order = np.lexsort((firsts, targets))
        goes = np.empty(len(order), np.int64)
        goes[order] = np.cumsum(counts[order]) - counts[order]

        size = int(indptr[-1])
        columns, weights = np.empty(size, np.int32), np.empty(size, self.dtype)
        done = 0
        self._segments.reverse()
        while self._segments:
            segment = self._segments.pop()
            pieces = sum(len(part) for part in segment.targets)
            _copy(segment, goes[done : done + pieces], counts[done : done + pieces], columns, weights)
            done += pieces
        csr = Csr(indptr, columns, weights)
        _order_within(csr, np.flatnonzero(np.bincount(targets, minlength=self.n_nodes) > 1))
        return csr

    def _put(self, targets: np.ndarray, counts: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> None:
        if not self._segments or self._segments[-1].used + len(weights) > len(self._segments[-1].weights):
            self._segments.append(_Segment(max(SEGMENT, len(weights)), self.dtype))
        self._segments[-1].put(targets, counts, columns, weights)


def _firsts(segment: _Segment) -> np.ndarray:
    """The first source of each piece."""
    counts = np.concatenate(segment.counts)
    return segment.columns[np.cumsum(counts) - counts].astype(np.int64)


def _copy(
    segment: _Segment, goes: np.ndarray, counts: np.ndarray, columns: np.ndarray, weights: np.ndarray
) -> None:
    """Copy pieces to where they go, neighbours that stay neighbours at once."""
    lies = np.cumsum(counts) - counts
    starts = np.flatnonzero(np.r_[True, goes[1:] != goes[:-1] + counts[:-1]])
    ends = np.r_[lies[starts[1:]], segment.used]
    for to, low, high in zip(goes[starts].tolist(), lies[starts].tolist(), ends.tolist(), strict=True):
        columns[to : to + high - low] = segment.columns[low:high]
        weights[to : to + high - low] = segment.weights[low:high]


def _order_within(csr: Csr, rows: np.ndarray) -> None:
    """Sort, in place, the given rows by source. Raises InputError if a row has a source twice."""
    for row in rows.tolist():
        part = slice(int(csr.indptr[row]), int(csr.indptr[row + 1]))
        columns = csr.indices[part]
        if (np.diff(columns) > 0).all():
            continue
        order = np.argsort(columns, kind="stable")
        columns, csr.weights[part] = columns[order], csr.weights[part][order]
        csr.indices[part] = columns
        twice = np.flatnonzero(columns[1:] == columns[:-1])
        if twice.size:
            raise InputError(f"the edge from node {columns[int(twice[0])]} to node {row} was given twice")


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


def among(csr: Csr, nodes: np.ndarray) -> np.ndarray:
    """Mask (edges,) of the edges, zeros apart, that run between nodes of the mask (n,)."""
    found = nodes[csr.indices]
    for row in np.flatnonzero(~nodes & (np.diff(csr.indptr) > 0)).tolist():
        found[csr.indptr[row] : csr.indptr[row + 1]] = False
    found &= csr.weights != 0
    return found


def only(csr: Csr, edges: np.ndarray) -> Csr:
    """The same nodes with the edges of the mask (edges,) alone."""
    counts = np.zeros(len(csr.indptr), np.int64)
    full = np.flatnonzero(np.diff(csr.indptr))
    if full.size:
        counts[full + 1] = np.add.reduceat(edges, csr.indptr[full], dtype=np.int64)
    return Csr(np.cumsum(counts), csr.indices[edges], csr.weights[edges])


def select(csr: Csr, nodes: np.ndarray, edges: np.ndarray) -> Csr:
    """The rows and columns of the nodes kept by the mask (n,), and those of their edges in the mask (edges,)."""
    kept = only(csr, edges & among(csr, nodes))
    new = np.cumsum(nodes, dtype=np.int32) - 1
    return Csr(np.r_[kept.indptr[:-1][nodes], kept.indptr[-1]], new[kept.indices], kept.weights)
