"""An order of the rows of a graph in which every node comes after its sources.

In graphs made here the nodes are numbered in such an order already (kinds.py: by layer, then part), and stages
of rows without edges among themselves are found by looking once at every edge. Imported graphs may be numbered
otherwise; then the order is found by taking away, again and again, the nodes all of whose sources are placed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np
from scipy import sparse

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.build import Csr

CHUNK = 1 << 22  # edges looked at together


class Order(NamedTuple):
    """rows (R,): node numbers, sources first. bounds (G + 1,): rows[bounds[i]:bounds[i + 1]] is stage i, in
    which no node is a source of another."""

    rows: np.ndarray
    bounds: np.ndarray


def find_order(csr: Csr, ends: np.ndarray) -> Order:
    """The order of every row that leads to the nodes of the mask ``ends`` (n,); often of all rows.

    Raises InputError naming a cycle, if one leads there.
    """
    bounds = _stages(csr)
    if bounds is not None:
        return Order(np.arange(len(csr.indptr) - 1), bounds)
    return _search(csr, ends)


def chunks(csr: Csr, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The edges of the rows, at most about CHUNK at a time.

    Yields (rows (r,), where each begins (r + 1,) int32, sources (e,), weights (e,)).
    """
    counts = csr.indptr[rows + 1] - csr.indptr[rows]
    running = np.cumsum(counts)
    low = 0
    while low < len(rows):
        before = int(running[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(running, before + CHUNK, side="right")))
        part = rows[low:high]
        begins = np.zeros(len(part) + 1, np.int32)
        begins[1:] = running[low:high] - before
        first = csr.indptr[part]
        take: slice | np.ndarray = slice(int(first[0]), int(first[0]) + int(begins[-1]))
        if (first[1:] != first[0] + begins[1:-1]).any():  # not neighbours in memory
            take = np.repeat(first - begins[:-1], counts[low:high]) + np.arange(begins[-1])
        yield part, begins, csr.indices[take], csr.weights[take]
        low = high


def row_sums(csr: Csr, of: np.ndarray | None = None, signed: bool = False) -> np.ndarray:
    """Σ_s |A[t, s]| of[s] for every row t, float64; with ``signed`` of A itself.

    of: (n,) or (n, k), giving (n,) or (n, k); None for ones.
    """
    n = len(csr.indptr) - 1
    factor = np.ones(n) if of is None else of.astype(np.float64)
    found = np.zeros(factor.shape)
    for rows, begins, sources, weights in chunks(csr, np.arange(n)):
        size = weights.astype(np.float64) if signed else np.abs(weights, dtype=np.float64)
        found[rows] = sparse.csr_array((size, sources, begins), shape=(len(rows), n)) @ factor
    return found


def _stages(csr: Csr) -> np.ndarray | None:
    """Bounds of the stages where nodes are numbered sources first, else None.

    Nodes without inputs need no place: they pass nothing on.
    """
    n = len(csr.indptr) - 1
    inner = np.diff(csr.indptr) > 0
    last = np.full(n, -1, np.int64)  # the last source of each row that has inputs itself
    for rows, begins, sources, _ in chunks(csr, np.flatnonzero(inner)):
        last[rows] = np.maximum.reduceat(np.where(inner[sources], sources, -1), begins[:-1])
    if (last >= np.arange(n)).any():
        return None
    running = np.maximum.accumulate(last) if n else last
    bounds = [0]
    while bounds[-1] < n:  # a stage lasts until a row has a source in it
        bounds.append(int(np.searchsorted(running, bounds[-1])))
    return np.array(bounds)


def _search(csr: Csr, ends: np.ndarray) -> Order:
    n = len(csr.indptr) - 1
    rows = sparse.csr_array((csr.weights != 0, csr.indices, csr.indptr), shape=(n, n), copy=True)
    rows.eliminate_zeros()
    reached = ends.copy()
    front = np.flatnonzero(ends)
    while front.size:
        sources = np.unique(rows[front].indices)
        front = sources[~reached[sources]]
        reached[front] = True
    inner = reached & (np.diff(rows.indptr) > 0)
    among = rows[inner][:, inner]
    numbers = np.flatnonzero(inner)
    missing = np.diff(among.indptr)
    users = among.T.tocsr()
    placed, bounds = [], [0]
    front = np.flatnonzero(missing == 0)
    while front.size:
        placed.append(numbers[front])
        bounds.append(bounds[-1] + len(front))
        missing[front] = -1
        used = users[front].indices
        np.subtract.at(missing, used, 1)
        front = np.unique(used[missing[used] == 0])
    if bounds[-1] < len(numbers):
        _refuse_cycle(among, missing > 0, numbers)
    return Order(np.concatenate([np.zeros(0, np.int64), *placed]), np.array(bounds))


def _refuse_cycle(rows: sparse.csr_array, unplaced: np.ndarray, numbers: np.ndarray) -> NoReturn:
    """Raise InputError naming a cycle: every unplaced row has an unplaced source, so a walk along them returns."""
    walk = [int(np.flatnonzero(unplaced)[0])]
    place = {walk[0]: 0}
    while True:
        sources = rows.indices[rows.indptr[walk[-1]] : rows.indptr[walk[-1] + 1]]
        after = int(sources[unplaced[sources]][0])
        if after in place:
            cycle = [str(numbers[i]) for i in [*walk[place[after] :], after]]
            if len(cycle) == 2:
                raise InputError(f"the graph has a cycle: node {cycle[0]} is its own source")
            names = " <- ".join(cycle if len(cycle) < 12 else [*cycle[:8], "...", *cycle[-2:]])
            raise InputError(
                f"the graph has a cycle, so influence has no end: nodes {names} (target <- source)"
            )
        place[after] = len(walk)
        walk.append(after)
