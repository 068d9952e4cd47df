"""Indirect influence on the targets: the Neumann series of the row-normalised absolute adjacency.

Anthropic, "Circuit Tracing" (2025), appendix on graph pruning: with  Â[t, s] = |A[t, s]| / Σ_s |A[t, s]|
and target
weights p, the influence of the nodes is  q = p (Â + Â² + ...) = p ((I - Â)^-1 - I),  that is  q = (q + p) Â.
Every edge goes up a stage (order.py), so one pass over the rows, from the targets down, solves this exactly:
when a row's turn comes, its own influence is complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from jaxinterp.graphs.build import Csr, to_csr
from jaxinterp.graphs.order import Order, chunks, find_order, row_sums

_MANY = 256  # stages up to which all path lengths are gathered in one pass
FLOOR = {"paper": 0.0, "circuit-tracer": 1e-10}


@dataclass(frozen=True)
class Flow:
    """A graph made ready for passes: its edges, the order of its rows and what rows are divided by, (n,)."""

    csr: Csr
    order: Order
    divisor: np.ndarray

    @staticmethod
    def of(matrix: Any, ends: np.ndarray, convention: str = "paper") -> Flow:
        """Ready for passes that start at nodes of the mask ``ends`` (n,).

        matrix: Csr, scipy sparse or dense (n, n), row = target. Raises InputError naming a cycle.
        """
        csr = to_csr(matrix)
        return Flow(csr, find_order(csr, ends), divisors(row_sums(csr), convention))

    def influence(self, start: np.ndarray) -> np.ndarray:
        """q (n,) of the targets' weights ``start`` (n,)."""
        total = start.astype(np.float64)  # q + p, complete for every row whose turn has come
        bounds = self.order.bounds.tolist()
        for low, high in zip(bounds[-2::-1], bounds[:0:-1], strict=True):
            self._push(self.order.rows[low:high], total, total)
        return total - start

    def steps(self, start: np.ndarray) -> Iterator[np.ndarray]:
        """start Â, start Â², ..., each (n,), until all is zero: what arrives along paths of each length."""
        flow = start.astype(np.float64)
        while True:
            arrived = np.zeros(len(flow))
            self._push(self.order.rows, flow, arrived)
            if not arrived.any():
                return
            yield arrived
            flow = arrived

    def arrivals(self, start: np.ndarray, share: np.ndarray) -> np.ndarray:
        """What arrives somewhere along paths of 1, 2, ... edges, (longest,); the last entry is not zero.

        ``share`` (n,): the share of what each node hands on that goes there directly. One pass over the rows,
        sources first, in which every node gathers what it sends there along paths of each length.
        """
        stages = len(self.order.bounds) - 1
        if stages > _MANY:
            found = np.array([(flow * share).sum() for flow in (start, *self.steps(start))])
        else:
            sent = np.zeros((len(share), stages + 1))
            sent[:, 0] = share
            n = len(share)
            for low, high in itertools.pairwise(self.order.bounds.tolist()):
                rows = self.order.rows[low:high]
                for part, begins, sources, weights in chunks(self.csr, rows):
                    size = np.abs(weights, dtype=np.float64)
                    passed = sparse.csr_array((size, sources, begins), shape=(len(part), n)) @ sent
                    sent[part, 1:] = passed[:, :-1] / self.divisor[part][:, None]
            ends = np.flatnonzero(start)
            found = (start[ends, None] * sent[ends]).sum(axis=0)
        return found[: int(np.flatnonzero(found)[-1]) + 1] if found.any() else found[:0]

    def _push(self, rows: np.ndarray, flow: np.ndarray, into: np.ndarray) -> None:
        """Add, in place, what the rows hand on to their sources."""
        n = len(flow)
        fed = np.flatnonzero(flow[rows])
        rows = rows[fed[0] : fed[-1] + 1] if fed.size else rows[:0]
        for part, begins, sources, weights in chunks(self.csr, rows):
            size = np.abs(weights, dtype=np.float64)
            share = flow[part] / self.divisor[part]
            if len(sources) < n // 8:
                np.add.at(into, sources, size * np.repeat(share, np.diff(begins)))
            else:
                into += sparse.csc_array((size, sources, begins), shape=(n, len(part))) @ share


def divisors(sums: np.ndarray, convention: str) -> np.ndarray:
    """What rows are divided by, (n,): their sums; 1 for rows without inputs. Under "circuit-tracer" at least
    1e-10, as in that program."""
    return np.where(sums > 0, np.maximum(sums, FLOOR[convention]), 1.0)


def normalised(matrix: Any, convention: str = "paper") -> sparse.csr_array:
    """Â as float64 sparse rows: absolute weights, each row divided by its sum; rows without inputs stay zero."""
    csr = to_csr(matrix)
    n = len(csr.indptr) - 1
    divisor = divisors(row_sums(csr), convention)
    weights = np.abs(csr.weights, dtype=np.float64)
    weights /= np.repeat(divisor, np.diff(csr.indptr))
    return sparse.csr_array((weights, csr.indices, csr.indptr), shape=(n, n))


def node_influence(matrix: Any, weights: np.ndarray, convention: str = "paper") -> np.ndarray:
    """q (n,): influence of every node on the targets, which carry weights (n,) (probabilities).

    Raises InputError naming a cycle that leads to a target.
    """
    return Flow.of(matrix, weights != 0, convention).influence(weights)


def steps(rows: sparse.csr_array, start: np.ndarray) -> Iterator[np.ndarray]:
    """start Â, start Â², ... (each (n,) float64) until all is zero, of rows that are normalised already."""
    csr = to_csr(rows)
    return Flow(csr, find_order(csr, start != 0), np.ones(len(start))).steps(start)


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


__all__ = [
    "Csr",
    "Flow",
    "divisors",
    "node_influence",
    "normalised",
    "running_share",
    "steps",
    "target_weights",
]
