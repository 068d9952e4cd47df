"""What two prompts do differently: two graphs of the same targets, edge by edge.

Nodes are the same when kind, part, layer, aligned position and index are. A node of one graph only (a feature active on
one prompt only, another token) has effect 0 in the other, so that, for every target and exactly,

    value_a - value_b  =  Σ_s (effect_a[s] - effect_b[s])  +  left_out_a - left_out_b  +  constant_a - constant_b.

Letters: E edges, N nodes of either graph, R rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxinterp.attribution.align import Alignment, align_positions
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.kinds import FEATURE, TARGET
from jaxinterp.graphs.plain import plain

PAIR = np.dtype(
    [
        ("kind", "u1"), ("part", "u1"), ("layer", "<i4"), ("index", "<i8"),
        ("position_a", "<i4"), ("position_b", "<i4"),  # -1 in a graph that has not got the node
        ("node_a", "<i8"), ("node_b", "<i8"),  # its number in each graph, -1 where there is none
        ("activation_a", "<f8"), ("activation_b", "<f8"),  # of features; 0 where inactive
    ]
)  # fmt: skip
ROW = np.dtype(
    [("node", "<i8")]
    + [(f"{name}_{side}", "<f8") for name in ("value", "constant", "left_out") for side in "ab"]
)
FORMAT, VERSION = "jaxinterp-contrast", 1
MOST_EDGES = 2_000_000  # in a file


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two graphs side by side.

    Attributes:
      nodes: [N] of dtype PAIR: nodes of the first graph in its order, then those of the second alone.
      labels: [N] text of each.
      rows: [R] of dtype ROW: the targets in both graphs, in the order of the first; with ``inner`` also features in
        both.
      indptr, indices: edges in sparse rows: the sources of row r are ``nodes[indices[indptr[r]:indptr[r + 1]]]``.
      effects: [E, 2] effect in each graph, 0 where it has no such edge.
      tokens: texts of the two prompts' tokens.
      facts: what is known of the graphs: prompts, names, whether model and settings are the same, what is unmatched.
    """

    nodes: np.ndarray
    labels: tuple[str, ...]
    rows: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    effects: np.ndarray
    tokens: tuple[tuple[str, ...], tuple[str, ...]]
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def differences(self, row: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(nodes, effect in A minus effect in B) of a row, the largest first."""
        part = slice(self.indptr[row], self.indptr[row + 1])
        change = self.effects[part, 0] - self.effects[part, 1]
        order = np.argsort(-np.abs(change), kind="stable")
        return self.indices[part][order], change[order]

    def value(self, row: int = 0) -> float:
        """The value of a row in A minus that in B."""
        return float(self.rows["value_a"][row] - self.rows["value_b"][row])

    def remainder(self, row: int = 0) -> float:
        """What edges, left-out effects and constants do not account for: rounding, but for pruned graphs."""
        one = self.rows[row]
        other = sum(one[f"{name}_a"] - one[f"{name}_b"] for name in ("constant", "left_out"))
        return self.value(row) - float(self.differences(row)[1].sum()) - float(other)

    def only(self, side: str) -> np.ndarray:
        """Nodes [n] that are features active on prompt "a" or "b" alone, the most active first."""
        if side not in ("a", "b"):
            raise InputError(f"side is {side!r}, expected 'a' or 'b'")
        nodes, other = self.nodes, "b" if side == "a" else "a"
        found = np.flatnonzero(
            (nodes["kind"] == FEATURE) & (nodes[f"node_{side}"] >= 0) & (nodes[f"node_{other}"] < 0)
        )
        return found[np.argsort(-nodes[f"activation_{side}"][found], kind="stable")]

    def table(self, row: int = 0, top: int = 20, width: int = 100) -> str:
        """A row as text: its value in both graphs and the nodes that account for most of the difference."""
        from jaxinterp.attribution.contrast_text import table

        return table(self, row, top, width)

    def __str__(self) -> str:
        return "\n\n".join(self.table(row) for row in range(len(self)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` gives it back."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "nodes": {name: plain(self.nodes[name]) for name in PAIR.names or ()},
            "labels": list(self.labels),
            "rows": {name: plain(self.rows[name]) for name in ROW.names or ()},
            "indptr": plain(self.indptr),
            "indices": plain(self.indices),
            "effects": plain(self.effects),
            "tokens": [list(side) for side in self.tokens],
            "facts": plain(self.facts, "facts"),
        }

    @staticmethod
    def from_dict(data: Any, where: str = "contrast") -> Contrast:
        """The contrast that `to_dict` gave. Raises InputError naming what does not fit, or a newer version."""
        from jaxinterp.attribution.contrast_read import read

        return read(data, where)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON. Raises InputError where there are more than 2,000,000 edges."""
        if len(self.indices) > MOST_EDGES:
            raise InputError(
                f"{path}: {len(self.indices)} edges, more than {MOST_EDGES} are not written as JSON: contrast pruned "
                "graphs, or leave out inner=True"
            )
        write_json(path, self.to_dict(), indent=None)


def load_contrast(path: str | os.PathLike[str]) -> Contrast:
    """A contrast that `Contrast.save` wrote."""
    return Contrast.from_dict(read_json(path), str(path))


def contrast(
    a: Graph, b: Graph, *, align: Alignment = "end", targets: Sequence[tuple[int, int]] | None = None,
    inner: bool = False,
) -> Contrast:  # fmt: skip
    """Compare two graphs, usually of two prompts and the same targets.

    Args:
      a, b: graphs of the same dictionary, in the same convention; pruned ones compare what was kept, and what was not
        is in `Contrast.remainder`.
      align: which positions belong together, see `align.align_positions`.
      targets: pairs (place among the targets of A, place among those of B) to compare; None pairs those with the same
        token, feature or label that stand at aligned positions.
      inner: rows also for features active in both graphs, to see why one is more active in A.

    Raises:
      InputError: graphs of other depths, dictionaries or conventions, or without a target in common.
    """
    facts = _facts(a, b)
    to_b = align_positions(a.token_ids, b.token_ids, align)
    to_a = np.full(len(b.token_ids), -1, np.int64)
    to_a[to_b[to_b >= 0]] = np.flatnonzero(to_b >= 0)
    pairs = _natural_pairs(a, b, to_a) if targets is None else _given_pairs(a, b, targets)
    facts |= {
        "positions": [[int(i), int(j)] for i, j in enumerate(to_b) if j >= 0],
        "unmatched_targets": [
            [graph.labels[t] for k, t in enumerate(graph.targets) if k not in {pair[side] for pair in pairs}]
            for side, graph in enumerate((a, b))
        ],
    }
    place = _places(a, b, to_a, pairs)
    nodes, labels = _nodes(a, b, place)
    both = (nodes["node_a"] >= 0) & (nodes["node_b"] >= 0)
    row_nodes = np.flatnonzero(both & (nodes["kind"] == TARGET))
    if inner:
        row_nodes = np.concatenate([row_nodes, np.flatnonzero(both & (nodes["kind"] == FEATURE))])
    rows = np.zeros(len(row_nodes), ROW)
    rows["node"] = row_nodes
    for side, graph in (("a", a), ("b", b)):
        for name in ("value", "constant", "left_out"):
            rows[f"{name}_{side}"] = graph.nodes[name][nodes[f"node_{side}"][row_nodes]]
    indptr, indices, effects = _edges((a, b), place, row_nodes, len(nodes))
    return Contrast(nodes, labels, rows, indptr, indices, effects, (a.token_texts, b.token_texts), facts)


def _facts(a: Graph, b: Graph) -> dict[str, Any]:
    for what, one, two in (
        ("layers", a.n_layers, b.n_layers),
        ("convention", a.convention, b.convention),
        ("dictionary", a.provenance.get("dictionary_digest"), b.provenance.get("dictionary_digest")),
    ):
        if one != two:
            raise InputError(
                f"the graphs cannot be compared: {what} {one!s:.40} in the first, {two!s:.40} in the second"
            )
    digests = [graph.provenance.get("model_digest") for graph in (a, b)]
    return {
        "prompts": [a.prompt, b.prompt],
        "same_model": digests[0] == digests[1],
        "pruned": [graph.pruned is not None for graph in (a, b)],
        "convention": a.convention,
        "n_layers": a.n_layers,
    }


def _name(graph: Graph, node: int, position: int) -> tuple[Any, ...]:
    record = graph.nodes[node]
    label = re.sub(r"@\d+$", "", graph.labels[node]) if record["index"] < 0 else ""
    return int(record["layer"]), int(record["part"]), int(record["index"]), position, label


def _natural_pairs(a: Graph, b: Graph, to_a: np.ndarray) -> list[tuple[int, int]]:
    there: dict[Any, list[int]] = {}
    for j, node in enumerate(b.targets):
        there.setdefault(_name(b, node, int(to_a[b.nodes["position"][node]])), []).append(j)
    pairs = []
    for i, node in enumerate(a.targets):
        if same := there.get(_name(a, node, int(a.nodes["position"][node]))):
            pairs.append((i, same.pop(0)))
    if not pairs:
        first, second = ([graph.labels[t] for t in graph.targets[:3]] for graph in (a, b))
        raise InputError(
            f"no target of the first graph ({', '.join(map(repr, first))}) is one of the second "
            f"({', '.join(map(repr, second))}): trace both with the same targets, or pair them with targets=[(0, 0)]"
        )
    return pairs


def _given_pairs(a: Graph, b: Graph, targets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    pairs = []
    for pair in targets:
        try:
            i, j = (int(one.__index__()) for one in pair)
        except (TypeError, ValueError, AttributeError):
            raise InputError(f"targets: expected pairs of places, not {pair!r:.60}") from None
        for one, graph, name in ((i, a, "first"), (j, b, "second")):
            if not 0 <= one < len(graph.targets):
                raise InputError(
                    f"targets: the {name} graph has targets 0 to {len(graph.targets) - 1}, not {one}"
                )
        pairs.append((i, j))
    if not pairs:
        raise InputError("targets is empty, give at least one pair")
    if any(len({pair[side] for pair in pairs}) < len(pairs) for side in (0, 1)):
        raise InputError("targets: a target is in two pairs")
    return pairs


def _places(
    a: Graph, b: Graph, to_a: np.ndarray, pairs: list[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """[n_a] and [n_b]: the number of each graph's nodes among those of both; -1 for unpaired targets."""

    def keys(graph: Graph, position: np.ndarray) -> np.ndarray:
        nodes = graph.nodes
        return np.stack(
            [nodes[n].astype(np.int64) for n in ("kind", "part", "layer", "index")] + [position], axis=1
        )

    inside = [graph.nodes["kind"] != TARGET for graph in (a, b)]
    spot = b.nodes["position"]
    # Positions without a partner in A get numbers that A has not.
    moved = np.where(to_a[spot] >= 0, to_a[spot], len(a.token_ids) + spot.astype(np.int64))
    stacked = np.concatenate(
        [keys(a, a.nodes["position"].astype(np.int64))[inside[0]], keys(b, moved)[inside[1]]]
    )
    _, first, same = np.unique(stacked, axis=0, return_index=True, return_inverse=True)
    # Numbers by first appearance: A's order, then what B has besides.
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    numbers = rank[same.ravel()]
    places = []
    for side, (graph, part) in enumerate(zip((a, b), inside, strict=True)):
        place = np.full(len(graph), -1, np.int64)
        start = 0 if side == 0 else int(inside[0].sum())
        place[part] = numbers[start : start + int(part.sum())]
        for number, pair in enumerate(sorted(pairs)):
            place[graph.targets[pair[side]]] = len(first) + number
        places.append(place)
    return places[0], places[1]


def _nodes(a: Graph, b: Graph, places: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    count = max(int(place.max(initial=-1)) for place in places) + 1
    nodes = np.zeros(count, PAIR)
    labels = np.full(count, "", object)
    for side in "ab":
        nodes[f"position_{side}"] = nodes[f"node_{side}"] = -1
    for side, graph, place in (
        ("b", b, places[1]),
        ("a", a, places[0]),
    ):  # where they differ, A's word counts
        own = np.flatnonzero(place >= 0)
        at = place[own]
        for name in ("kind", "part", "layer", "index"):
            nodes[name][at] = graph.nodes[name][own]
        nodes[f"position_{side}"][at], nodes[f"node_{side}"][at] = graph.nodes["position"][own], own
        nodes[f"activation_{side}"][at] = np.nan_to_num(graph.nodes["activation"][own])
        texts = np.asarray(graph.labels, object)[own]
        labels[at] = np.where(texts != "", texts, labels[at])
    return nodes, tuple(labels)


def _edges(
    graphs: tuple[Graph, Graph], places: tuple[np.ndarray, np.ndarray], row_nodes: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row_of = np.full(count, -1, np.int64)
    row_of[row_nodes] = np.arange(len(row_nodes))
    codes, weights = [], []
    for graph, place in zip(graphs, places, strict=True):
        targets, sources, weight = graph.edges()
        row = np.where(place[targets] >= 0, row_of[place[targets]], -1)
        kept = row >= 0
        codes.append(row[kept] * count + place[sources[kept]])
        weights.append(weight[kept].astype(np.float64))
    union = np.union1d(*codes)
    effects = np.zeros((len(union), 2))
    for side, (code, weight) in enumerate(zip(codes, weights, strict=True)):
        effects[np.searchsorted(union, code), side] = weight
    indptr = np.searchsorted(union, np.arange(len(row_nodes) + 1) * count)
    return indptr, union % count, effects
