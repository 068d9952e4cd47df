"""Supernodes: groups of nodes that are read as one, and the edges between them.

Anthropic, "Circuit Tracing" (2025), and the published code of its interface, in which for groups S and T
  abs_t = Σ_s |A[t, s]|     ext_t = Σ_{s not in T} |A[t, s]|
  ω_t = (ext_t / abs_t) / Σ_{t' in T} (ext_t' / abs_t')
  A(S -> T) = Σ_{t in T} ω_t Σ_{s in S} A[t, s] / ext_t
A member counts by the share of its inputs that come from outside the group. For groups of one this is the signed
share of a node's inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.core.display import html
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.ids import graph_ids
from jaxinterp.graphs.kinds import KIND_NAMES
from jaxinterp.graphs.order import chunks
from jaxinterp.graphs.summary import node_text


@dataclass(frozen=True)
class Supernode:
    """A group of nodes under one name; members are node numbers of a graph."""

    name: str
    members: tuple[int, ...]


class Place(NamedTuple):
    """Where a group stands: the kind of its members (None if they differ), the mean layer, and part and position of
    its most influential member."""

    kind: int | None
    layer: int
    part: int
    position: int


@dataclass(frozen=True, eq=False)
class SupernodeGraph:
    """A graph drawn with supernodes.

    groups: supernodes, and nodes shown as they are as groups of one. weights (G, G) float64: A(source -> target),
    row = target, 0 within a group. activation (G,): sum over members, nan where none has one. influence (G,): sum
    over members. hidden: how many nodes of each kind are in no group. inside: how many edges run within a group.
    places: where each group stands.
    """

    groups: tuple[Supernode, ...]
    weights: np.ndarray
    activation: np.ndarray
    influence: np.ndarray
    hidden: dict[str, int]
    inside: int
    places: tuple[Place, ...] = ()

    def edges(self) -> list[tuple[int, int, float]]:
        """(target, source, weight) of every edge between groups, largest size first."""
        targets, sources = np.nonzero(self.weights)
        values = self.weights[targets, sources]
        order = np.argsort(-np.abs(values), kind="stable")
        return [(int(targets[i]), int(sources[i]), float(values[i])) for i in order]

    def _repr_html_(self) -> str:
        return html("supernodes", self)

    def plot(self, **options: Any) -> Any:
        """A matplotlib figure of the groups: see `plot.plot_supernodes` for the options."""
        from jaxinterp.graphs.plot import plot_supernodes

        return plot_supernodes(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; unknown activations are null."""
        return {
            "groups": [{"name": group.name, "members": list(group.members)} for group in self.groups],
            "edges": [{"target": t, "source": s, "weight": w} for t, s, w in self.edges()],
            "activation": [float(x) if np.isfinite(x) else None for x in self.activation],
            "influence": self.influence.tolist(),
            "hidden": dict(self.hidden),
            "inside": self.inside,
        }


def grouped(graph: Graph, supernodes: Sequence[Supernode], singles: Sequence[int] = ()) -> SupernodeGraph:
    """The graph with these supernodes, and the nodes ``singles`` as groups of one; others are hidden.

    Sums over sources run over all edges of the graph, hidden nodes' too. Raises InputError on an empty group, a
    node that does not exist and a node in two groups.
    """
    n = len(graph)
    groups = (*supernodes, *(Supernode(_single(graph, i), (int(i),)) for i in singles))
    group_of = _group_of(groups, n)
    rows = np.flatnonzero(group_of >= 0)
    rows = rows[np.diff(graph.indptr)[rows] > 0]
    whole, outside = np.zeros(n), np.zeros(n)
    inside = 0
    for part, begins, sources, weights in chunks(graph.csr, rows):
        own = np.repeat(group_of[part], np.diff(begins)) == group_of[sources]
        size = np.abs(weights, dtype=np.float64)
        whole[part] = np.add.reduceat(size, begins[:-1])
        outside[part] = np.add.reduceat(np.where(own, 0.0, size), begins[:-1])
        inside += int((own & (weights != 0)).sum())
    ratio = np.divide(outside, whole, out=np.zeros(n), where=whole > 0)
    shown = group_of >= 0
    total = np.bincount(group_of[shown], weights=ratio[shown], minlength=len(groups))
    factor = np.zeros(n)  # ω_t / ext_t
    fed = rows[outside[rows] > 0]
    factor[fed] = ratio[fed] / total[group_of[fed]] / outside[fed]

    count = len(groups)
    between = np.zeros(count * count)
    for part, begins, sources, weights in chunks(graph.csr, fed):
        target = np.repeat(group_of[part].astype(np.int64), np.diff(begins))
        source = group_of[sources]
        keep = (source >= 0) & (source != target)
        values = weights * np.repeat(factor[part], np.diff(begins))
        place = target[keep] * count + source[keep]
        between += np.bincount(place, weights=values[keep], minlength=count * count)
    activation = graph.nodes["activation"]
    known = shown & np.isfinite(activation)
    sums = np.bincount(group_of[known], weights=activation[known], minlength=count)
    has = np.bincount(group_of[known], minlength=count) > 0
    influence = np.nan_to_num(graph.nodes["influence"][shown])
    lost = np.bincount(graph.nodes["kind"][~shown], minlength=len(KIND_NAMES))
    return SupernodeGraph(
        groups=groups,
        weights=between.reshape(count, count),
        activation=np.where(has, sums, np.nan),
        influence=np.bincount(group_of[shown], weights=influence, minlength=count),
        hidden={name: int(k) for name, k in zip(KIND_NAMES, lost, strict=True) if k},
        inside=inside,
        places=tuple(_place(graph.nodes[list(group.members)]) for group in groups),
    )


def with_supernodes(graph: Graph, supernodes: Sequence[Supernode]) -> Graph:
    """The graph with these supernodes in its view, as the JSON dialect stores them: [name, id, id, ...].

    They take the place of earlier ones; members are pinned, since viewers draw pinned nodes alone. Raises
    InputError as `grouped` does.
    """
    _group_of(supernodes, len(graph))
    ids = graph_ids(graph)
    pinned = graph.view.get("pinnedIds") or []
    pinned = pinned.split(",") if isinstance(pinned, str) else list(pinned)
    members = [ids[i] for group in supernodes for i in group.members]
    pins = [*pinned, *(name for name in members if name not in set(pinned))]
    stored = [[group.name, *(ids[i] for i in group.members)] for group in supernodes]
    return replace(graph, view={**graph.view, "pinnedIds": pins, "supernodes": stored})


def supernodes_of(graph: Graph) -> tuple[Supernode, ...]:
    """The supernodes in the graph's view; members that pruning took away are left out.

    Raises InputError where the view holds something else.
    """
    number = {name: i for i, name in enumerate(graph_ids(graph))}
    found = []
    stored = graph.view.get("supernodes") or []
    for entry in stored if isinstance(stored, list) else [stored]:
        if not (isinstance(entry, list) and entry and all(isinstance(x, str) for x in entry)):
            raise InputError(f"view.supernodes: {entry!r}: expected a name and node ids")
        members = tuple(number[name] for name in entry[1:] if name in number)
        if members:
            found.append(Supernode(entry[0], members))
    return tuple(found)


def _place(members: np.ndarray) -> Place:
    first = members[int(np.argmax(np.nan_to_num(members["influence"])))]
    kinds = set(members["kind"].tolist())
    layer = round(float(members["layer"].mean()))
    return Place(kinds.pop() if len(kinds) == 1 else None, layer, int(first["part"]), int(first["position"]))


def _single(graph: Graph, node: int) -> str:
    return node_text(graph, int(node)) if 0 <= node < len(graph) else f"node {node}"


def _group_of(groups: Sequence[Supernode], n: int) -> np.ndarray:
    """The group of every node, -1 for none, (n,)."""
    found = np.full(n, -1, np.int64)
    for i, group in enumerate(groups):
        if not group.members:
            raise InputError(f"supernode {group.name!r} has no members")
        for node in group.members:
            if not 0 <= node < n:
                raise InputError(f"supernode {group.name!r} names node {node}: the graph has {n} nodes")
            if found[node] >= 0:
                where = "twice in" if found[node] == i else f"in {groups[found[node]].name!r} and"
                raise InputError(f"node {node} is {where} {group.name!r}: a node can be in one supernode")
            found[node] = i
    return found
