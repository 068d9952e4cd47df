"""How much of the answer a graph explains: replacement and completeness scores, and path lengths.

Anthropic, "Circuit Tracing" (2025): with Â, q and p of influence.py,
  replacement   q(embeddings) / (q(embeddings) + q(errors))
  completeness  Σ_t w_t (1 - Σ_{errors s} Â[t, s]) / Σ_t w_t,   w = q, at targets p
  path profile  P_l: share of the influence that reaches embeddings within l steps; P_l ends at the
  replacement score
Convention "paper" averages completeness over the nodes that can have inputs (features and targets);
"circuit-tracer" over all nodes, where roots count as fully explained.

Neither needs more of a graph than influence and three sums for every row: of all it is divided by, of what comes
from errors and of what comes from tokens. Leaving out biases, or counting left-out or pruned nodes as errors,
changes these sums and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jaxinterp.core.display import html
from jaxinterp.graphs.build import Csr
from jaxinterp.graphs.influence import Flow, divisors
from jaxinterp.graphs.kinds import BIAS, EMBEDDING, ERROR, FEATURE, TARGET
from jaxinterp.graphs.order import chunks, row_sums


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

    def _repr_html_(self) -> str:
        return html("scores", self)

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


class Sums(NamedTuple):
    """Sums of |A[t, s]| for every row t, (n,) each: over all sources s, errors, and tokens."""

    whole: np.ndarray
    errors: np.ndarray
    tokens: np.ndarray


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no score")
    return float(value)


def basic(csr: Csr, kinds: np.ndarray, weights: np.ndarray, convention: str) -> Scores:
    """Replacement, completeness and path lengths of one graph; kinds and target weights (n,)."""
    flow = Flow.of(csr, weights != 0, convention)
    return _basic(flow, kinds, weights, _sums(csr, kinds), convention)


def scores(csr: Csr, nodes: np.ndarray, weights: np.ndarray, convention: str) -> Scores:
    """All scores of an unpruned graph: edges, node table, target weights (n,)."""
    kinds = nodes["kind"]
    flow, sums = Flow.of(csr, weights != 0, convention), _sums(csr, kinds)
    found = _basic(flow, kinds, weights, sums, convention)
    if convention != "paper":
        return found
    counted = (kinds == FEATURE) | (kinds == TARGET)
    bare = found.replacement, found.completeness
    if (kinds == BIAS).any():
        bare = _two(flow, weights, sums._replace(whole=row_sums(csr, kinds != BIAS)), counted, convention)
    more = replace(found, replacement_without_bias=bare[0], completeness_without_bias=bare[1])
    left = np.abs(np.nan_to_num(nodes["left_out"]))
    if left.any():  # one more error source, with this effect on every node
        wider = Sums(sums.whole + left, sums.errors + left, sums.tokens)
        full = _two(flow, weights, wider, counted, convention)
        more = replace(more, replacement_with_left_out=full[0], completeness_with_left_out=full[1])
    return more


def pruned_scores(
    csr: Csr, nodes: np.ndarray, weights: np.ndarray, kept: np.ndarray, convention: str
) -> PrunedScores:
    """Scores of what is left of the unpruned graph (csr, nodes) when only the nodes of the mask (n,) stay."""
    kinds = nodes["kind"]
    flow = Flow.of(csr, weights != 0, convention)
    lost = ~kept | (kinds == ERROR)
    counted = kept & ((kinds == FEATURE) | (kinds == TARGET))
    columns = np.stack([lost, kept & (kinds == EMBEDDING), ~lost], axis=1)
    errors, tokens, others = row_sums(csr, columns).T
    merged = _merged_sums(csr, nodes, lost)
    found = [
        _two(
            flow, np.where(kept, weights, 0.0), Sums(others + part, part, tokens), counted, convention, ~kept
        )
        for part in (errors, merged)
    ]
    return PrunedScores(*found[0], *found[1])


def _basic(flow: Flow, kinds: np.ndarray, weights: np.ndarray, sums: Sums, convention: str) -> Scores:
    counted = (kinds == FEATURE) | (kinds == TARGET)
    replacement, completeness = _two(flow, weights, sums, counted, convention)
    reached = flow.arrivals(weights, sums.tokens / flow.divisor)
    tokens = float(reached.sum())
    profile = np.cumsum(reached) * (replacement / tokens) if tokens > 0 else reached
    length = float((np.arange(1, len(reached) + 1) * reached).sum()) / tokens if tokens > 0 else 0.0
    return Scores(replacement, completeness, length, tuple(profile.tolist()))


def _sums(csr: Csr, kinds: np.ndarray) -> Sums:
    columns = np.stack([np.ones(len(kinds), bool), kinds == ERROR, kinds == EMBEDDING], axis=1)
    return Sums(*row_sums(csr, columns).T)


def _two(
    flow: Flow,
    weights: np.ndarray,
    sums: Sums,
    counted: np.ndarray,
    convention: str,
    stopped: np.ndarray | None = None,
) -> tuple[float, float]:
    """Replacement and completeness; the latter averages over ``counted`` (n,), or all nodes. What reaches a
    node of the mask ``stopped`` (n,) goes no further."""
    divisor = divisors(sums.whole, convention)
    if stopped is not None:
        divisor = np.where(stopped, np.inf, divisor)
    share = replace(flow, divisor=divisor).influence(weights) + weights
    handed = share / divisor
    # Sums, not products of vectors: those depend on the number of threads.
    to_tokens, to_errors = float((handed * sums.tokens).sum()), float((handed * sums.errors).sum())
    roots = to_tokens + to_errors
    if convention == "paper":
        total, missed = float(share[counted].sum()), float((handed * sums.errors)[counted].sum())
    else:
        total, missed = float(weights.sum() + (handed * sums.whole).sum()), to_errors
    return to_tokens / roots if roots > 0 else 0.0, 1 - missed / total if total > 0 else 0.0


def _merged_sums(csr: Csr, nodes: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """For every row the sum over places (layer, part, position) of |Σ A[t, s]| of the lost nodes s there, (n,)."""
    n = len(nodes)
    if not lost.any():
        return np.zeros(n)
    place = np.stack([nodes[name][lost].astype(np.int64) for name in ("layer", "part", "position")])
    _, where = np.unique(place, axis=1, return_inverse=True)
    where = where.ravel()
    gather = sparse.csr_array(
        (np.ones(len(where)), (np.flatnonzero(lost), where)), shape=(n, int(where.max()) + 1)
    )
    found = np.zeros(n)
    for rows, begins, sources, weights in chunks(csr, np.arange(n)):
        block = sparse.csr_array((weights.astype(np.float64), sources, begins), shape=(len(rows), n))
        found[rows] = abs(block @ gather).sum(axis=1)
    return found
