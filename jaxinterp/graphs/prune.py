"""Which nodes and edges to keep: the strongest that carry a given share of the influence on the targets.

Anthropic, "Circuit Tracing" (2025), graph pruning. Two conventions:
  paper            errors, biases and embeddings are never pruned; the node that crosses the threshold is
  kept.
  circuit-tracer   errors can be pruned too, as in that program (version 0.4).
Both then drop nodes that have lost their last edge, until nothing changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.graphs.build import Csr, among, only, rows_of, to_csr
from jaxinterp.graphs.cutoff import cutoff
from jaxinterp.graphs.influence import Flow, divisors, running_share
from jaxinterp.graphs.kinds import CONVENTIONS, ERROR, FEATURE, TARGET
from jaxinterp.graphs.order import row_sums


class Masks(NamedTuple):
    """What survives: nodes (n,), edges ((edges,) by row, or (n, n) for dense input), and running shares."""

    node_mask: np.ndarray
    edge_mask: np.ndarray
    cumulative: np.ndarray


def prune_masks(
    matrix: Any,
    kinds: np.ndarray,
    probabilities: np.ndarray,
    node_threshold: float = 0.8,
    edge_threshold: float = 0.98,
    convention: str = "paper",
) -> Masks:
    """Masks of the nodes and edges to keep.

    matrix: Csr, scipy sparse or dense (n, n), row = target; kinds (n,); probabilities (n,), read at targets
    only.
    A threshold of 1 keeps everything that is connected. Raises InputError on a threshold outside [0, 1].
    """
    check_settings(node_threshold, edge_threshold, convention)
    csr = to_csr(matrix)
    start = np.where(kinds == TARGET, np.nan_to_num(probabilities), 0.0)
    flow = Flow.of(csr, start != 0, convention)
    influence = flow.influence(start)

    paper = convention == "paper"
    prunable = kinds == FEATURE if paper else (kinds == FEATURE) | (kinds == ERROR)
    nodes = ~prunable
    if node_threshold >= 1:
        nodes |= prunable
    else:
        counted = influence[kinds != TARGET] if paper else influence
        nodes |= influence >= cutoff(counted, node_threshold)

    edges = alive = among(csr, nodes)
    if edge_threshold < 1:
        edges = np.zeros(len(alive), bool)
        edges[alive] = _strong(flow, alive, start, edge_threshold, convention)
    _drop_loose(csr, nodes, edges, kinds, prunable)

    edge_mask = edges
    if not isinstance(matrix, Csr) and isinstance(matrix, np.ndarray):
        edge_mask = np.zeros(matrix.shape, bool)
        edge_mask[rows_of(csr), csr.indices] = edges
    return Masks(nodes, edge_mask, running_share(influence))


def _strong(
    flow: Flow, alive: np.ndarray, start: np.ndarray, threshold: float, convention: str
) -> np.ndarray:
    """Which of the edges left after pruning nodes carry the given share of what flows along them."""
    left = only(flow.csr, alive)
    rest = Flow(left, flow.order, divisors(row_sums(left), convention))
    scores = np.abs(left.weights, dtype=np.float64)
    scores *= np.repeat((rest.influence(start) + start) / rest.divisor, np.diff(left.indptr))
    return scores >= cutoff(scores, threshold)


def _drop_loose(
    csr: Csr, nodes: np.ndarray, edges: np.ndarray, kinds: np.ndarray, prunable: np.ndarray
) -> None:
    """Drop, in place, prunable nodes without outgoing and features without incoming edges, until stable."""
    n = len(nodes)
    left = only(csr, edges)
    at, targets, sources = np.flatnonzero(edges), rows_of(left), left.indices
    out, into = np.bincount(sources, minlength=n), np.bincount(targets, minlength=n)
    while True:
        gone = nodes & ((prunable & (out == 0)) | ((kinds == FEATURE) & (into == 0)))
        if not gone.any():
            return
        nodes &= ~gone
        lost = gone[targets] | gone[sources]
        edges[at[lost]] = False
        out -= np.bincount(sources[lost], minlength=n)
        into -= np.bincount(targets[lost], minlength=n)
        at, targets, sources = at[~lost], targets[~lost], sources[~lost]


def check_settings(node_threshold: float, edge_threshold: float, convention: str) -> None:
    """Raises InputError on a threshold outside [0, 1] or an unknown convention."""
    for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}: expected a share between 0 and 1")
    if convention not in CONVENTIONS:
        raise InputError(
            f"unknown convention {convention!r}{near(convention, CONVENTIONS)}: expected one of {CONVENTIONS}"
        )
