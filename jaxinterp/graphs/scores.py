"""How much of the answer a graph explains: replacement and completeness scores, and path lengths.

Anthropic, "Circuit Tracing" (2025): with Â, q and p of influence.py,
  replacement   q(embeddings) / (q(embeddings) + q(errors))
  completeness  Σ_t w_t (1 - Σ_{errors s} Â[t, s]) / Σ_t w_t,   w = q, at targets p
  path profile  P_l: share of the influence that reaches embeddings within l steps; P_l ends at the
  replacement score
Convention "paper" averages completeness over the nodes that can have inputs (features and targets);
"circuit-tracer" over all nodes, where roots count as fully explained.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jaxinterp.graphs.build import Csr, from_triples, rows_of
from jaxinterp.graphs.influence import normalised, steps
from jaxinterp.graphs.kinds import BIAS, EMBEDDING, ERROR, FEATURE, TARGET


@dataclass(frozen=True)
class PrunedScores:
    """Scores of a pruned graph, its pruned nodes counting as errors; two definitions, both found in use.

    separate_*: every pruned node is an error source of its own (absolute values first).
    merged_*: the direct effect of a pruned node is added, with its sign, to the error node at its layer, part and
      position before absolute values are taken.
    """

    separate_replacement: float
    separate_completeness: float
    merged_replacement: float
    merged_completeness: float


@dataclass(frozen=True)
class Scores:
    """Scores of a graph; those of a pruned graph are the ones of the graph it was pruned from, plus
    ``pruned``.

    path_profile[l - 1] is P_l. The two ``*_without_bias`` leave bias nodes out before rows are normalised
    (paper graphs). The two ``*_with_left_out`` count what unselected features do to each node as one more
    error (paper graphs with max_feature_nodes); None where a score has no meaning for the graph.
    """

    replacement: float
    completeness: float
    path_length: float
    path_profile: tuple[float, ...]
    replacement_without_bias: float | None = None
    completeness_without_bias: float | None = None
    replacement_with_left_out: float | None = None
    completeness_with_left_out: float | None = None
    pruned: PrunedScores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "path_profile": list(self.path_profile)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Scores:
        """The scores that `to_dict` gave. Raises TypeError or ValueError on anything else."""
        data = dict(data)
        if data.get("pruned") is not None:
            data["pruned"] = PrunedScores(**{key: _real(x) for key, x in data["pruned"].items()})
        for key in ("replacement", "completeness", "path_length"):
            data[key] = _real(data[key])
        for pair in ("without_bias", "with_left_out"):
            names = (f"replacement_{pair}", f"completeness_{pair}")
            values: list[Any] = [data.get(name) for name in names]
            if values != [None, None]:
                data |= {name: _real(value) for name, value in zip(names, values, strict=True)}
        data["path_profile"] = tuple(_real(x) for x in data["path_profile"])
        return Scores(**data)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no score")
    return float(value)


def basic(csr: Csr, kinds: np.ndarray, weights: np.ndarray, convention: str) -> Scores:
    """Replacement, completeness and path lengths of one graph; kinds and target weights (n,)."""
    rows = normalised(csr, convention)
    influence = np.zeros(len(kinds))
    reached = []
    for flow in steps(rows, weights):
        influence += flow
        reached.append(float(flow[kinds == EMBEDDING].sum()))
    to_tokens, to_errors = sum(reached), float(influence[kinds == ERROR].sum())
    roots = to_tokens + to_errors
    profile = np.cumsum(reached) / roots if roots > 0 else np.zeros(len(reached))
    length = float(np.dot(np.arange(1, len(reached) + 1), reached) / to_tokens) if to_tokens > 0 else 0.0

    explained = 1 - rows @ (kinds == ERROR).astype(np.float64)
    share = influence + weights
    if convention == "paper":
        share = np.where((kinds == FEATURE) | (kinds == TARGET), share, 0.0)
    total = float(share.sum())
    return Scores(
        replacement=to_tokens / roots if roots > 0 else 0.0,
        completeness=float(share @ explained) / total if total > 0 else 0.0,
        path_length=length,
        path_profile=tuple(profile.tolist()),
    )


def scores(csr: Csr, nodes: np.ndarray, weights: np.ndarray, convention: str) -> Scores:
    """All scores of an unpruned graph: edges, node table, target weights (n,)."""
    kinds = nodes["kind"]
    found = basic(csr, kinds, weights, convention)
    if convention != "paper":
        return found
    extra: dict[str, float] = {}
    if (kinds == BIAS).any():
        bare = basic(without_sources(csr, kinds == BIAS), kinds, weights, convention)
        extra |= {
            "replacement_without_bias": bare.replacement,
            "completeness_without_bias": bare.completeness,
        }
    else:
        extra |= {
            "replacement_without_bias": found.replacement,
            "completeness_without_bias": found.completeness,
        }
    left = np.nan_to_num(nodes["left_out"])
    if left.any():
        wider, more_kinds = _with_source(csr, kinds, left)
        full = basic(wider, more_kinds, np.append(weights, 0.0), convention)
        extra |= {
            "replacement_with_left_out": full.replacement,
            "completeness_with_left_out": full.completeness,
        }
    return Scores(**{**_shallow(found), **extra})


def pruned_scores(
    csr: Csr, nodes: np.ndarray, weights: np.ndarray, kept: np.ndarray, convention: str
) -> PrunedScores:
    """Scores of what is left of the unpruned graph (csr, nodes) when only the nodes of the mask (n,) stay."""
    gone = ~kept
    kinds = np.where(gone, ERROR, nodes["kind"])
    cut = _without_rows(csr, gone)
    separate = basic(cut, kinds, np.where(gone, 0.0, weights), convention)
    merged, merged_kinds = _merge(cut, nodes, gone)
    extra = len(merged_kinds) - len(nodes)
    together = basic(
        merged, merged_kinds, np.append(np.where(gone, 0.0, weights), np.zeros(extra)), convention
    )
    return PrunedScores(
        separate.replacement, separate.completeness, together.replacement, together.completeness
    )


def without_sources(csr: Csr, mask: np.ndarray) -> Csr:
    """The edges without those that leave the nodes of the mask (n,)."""
    return csr._replace(weights=np.where(mask[csr.indices], csr.weights.dtype.type(0), csr.weights))


def _without_rows(csr: Csr, mask: np.ndarray) -> Csr:
    return csr._replace(weights=np.where(mask[rows_of(csr)], csr.weights.dtype.type(0), csr.weights))


def _with_source(csr: Csr, kinds: np.ndarray, effect: np.ndarray) -> tuple[Csr, np.ndarray]:
    """One more error node, whose direct effect on every node is given, (n,)."""
    n = len(kinds)
    hit = np.flatnonzero(effect).astype(np.int32)
    joined = from_triples(
        n + 1,
        np.concatenate([rows_of(csr), hit]),
        np.concatenate([csr.indices, np.full(len(hit), n, np.int32)]),
        np.concatenate([csr.weights.astype(np.float64), effect[hit]]),
    )
    return joined, np.append(kinds, np.uint8(ERROR))


def _merge(csr: Csr, nodes: np.ndarray, gone: np.ndarray) -> tuple[Csr, np.ndarray]:
    """Move edges of pruned nodes to the error node of the same place, made where there is none."""
    n = len(nodes)
    place: dict[tuple[int, int, int], int] = {}
    for i in np.flatnonzero(nodes["kind"] == ERROR):
        place[int(nodes["layer"][i]), int(nodes["part"][i]), int(nodes["position"][i])] = int(i)
    moved = np.arange(n)
    made = 0
    for i in np.flatnonzero(gone):
        key = (int(nodes["layer"][i]), int(nodes["part"][i]), int(nodes["position"][i]))
        if key not in place:
            place[key], made = n + made, made + 1
        moved[i] = place[key]
    kinds = np.concatenate([nodes["kind"], np.full(made, ERROR, np.uint8)])
    size = n + made
    key = rows_of(csr).astype(np.int64) * size + moved[csr.indices]
    unique, where = np.unique(key, return_inverse=True)
    sums = np.bincount(where, weights=csr.weights.astype(np.float64), minlength=len(unique))
    return from_triples(size, unique // size, unique % size, sums), kinds


def _shallow(found: Scores) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Scores.__dataclass_fields__}
