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
from jaxinterp.graphs.build import Csr, rows_of, to_csr
from jaxinterp.graphs.influence import influence_of, normalised, running_share
from jaxinterp.graphs.kinds import CONVENTIONS, ERROR, FEATURE, TARGET

TIE = 1e-12


class Masks(NamedTuple):
    """What survives: nodes (n,), edges ((edges,) by row, or (n, n) for dense input), and running shares."""

    node_mask: np.ndarray
    edge_mask: np.ndarray
    cumulative: np.ndarray


def cutoff(scores: np.ndarray, share: float) -> float:
    """The score from which on items are kept: that of the item with which the strongest first reach this share.

    Less a relative 1e-12, so that rounding does not part equal scores, such as those of the edges along a chain.
    """
    ordered = np.sort(scores)[::-1]
    running = np.cumsum(ordered)
    if not running.size or running[-1] <= 0:
        return 0.0
    at = int(np.searchsorted(running / running[-1], share))
    return float(ordered[min(at, len(ordered) - 1)]) * (1 - TIE)


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
    influence = influence_of(normalised(csr, convention), start)

    paper = convention == "paper"
    prunable = kinds == FEATURE if paper else (kinds == FEATURE) | (kinds == ERROR)
    nodes = ~prunable
    if node_threshold >= 1:
        nodes |= prunable
    else:
        counted = influence[kinds != TARGET] if paper else influence
        nodes |= influence >= cutoff(counted, node_threshold)

    rows = rows_of(csr)
    alive = nodes[rows] & nodes[csr.indices] & (csr.weights != 0)
    edges = alive & _strong_edges(csr, rows, alive, start, edge_threshold, convention)
    _drop_loose(nodes, edges, rows, csr.indices, kinds, prunable)

    edge_mask = edges
    if not isinstance(matrix, Csr) and isinstance(matrix, np.ndarray):
        edge_mask = np.zeros(matrix.shape, bool)
        edge_mask[rows, csr.indices] = edges
    return Masks(nodes, edge_mask, running_share(influence))


def _strong_edges(
    csr: Csr, rows: np.ndarray, alive: np.ndarray, start: np.ndarray, threshold: float, convention: str
) -> np.ndarray:
    """Edges that carry the given share of what flows along edges of the graph left after pruning nodes."""
    if threshold >= 1:
        return np.ones(len(rows), bool)
    left = normalised(csr._replace(weights=np.where(alive, csr.weights, 0)), convention)
    scores = left.data * (influence_of(left, start) + start)[rows]
    return scores >= cutoff(scores, threshold)


def _drop_loose(
    nodes: np.ndarray,
    edges: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    kinds: np.ndarray,
    prunable: np.ndarray,
) -> None:
    """Drop, in place, prunable nodes without outgoing and features without incoming edges, until stable."""
    n = len(nodes)
    while True:
        out = np.bincount(columns[edges], minlength=n) > 0
        into = np.bincount(rows[edges], minlength=n) > 0
        kept = nodes & (out | ~prunable) & (into | (kinds != FEATURE))
        if np.array_equal(kept, nodes):
            return
        nodes[:] = kept
        edges &= kept[rows] & kept[columns]


def check_settings(node_threshold: float, edge_threshold: float, convention: str) -> None:
    """Raises InputError on a threshold outside [0, 1] or an unknown convention."""
    for name, value in (("node_threshold", node_threshold), ("edge_threshold", edge_threshold)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}: expected a share between 0 and 1")
    if convention not in CONVENTIONS:
        raise InputError(
            f"unknown convention {convention!r}{near(convention, CONVENTIONS)}: expected one of {CONVENTIONS}"
        )
