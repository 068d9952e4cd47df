"""Which part of a graph a figure shows: what a person saved, else what the strongest paths to the answer pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.ids import graph_ids
from jaxinterp.graphs.influence import Flow
from jaxinterp.graphs.kinds import EMBEDDING, ERROR, FEATURE, TARGET
from jaxinterp.graphs.paths import strongest
from jaxinterp.graphs.propose import propose
from jaxinterp.graphs.supernodes import Supernode, grouped, supernodes_of

AT_LEAST = 0.5  # likeness of two features that are drawn as one
ERRORS = 0.02  # an error is shown from this share of influence on, and from
EDGE = 0.03  # this share of a node's inputs on


@dataclass(frozen=True)
class Choice:
    """supernodes, single nodes, and labels by node that take the place of the graph's."""

    supernodes: tuple[Supernode, ...]
    singles: tuple[int, ...]
    labels: dict[int, str]


def saved(graph: Graph) -> Choice | None:
    """The subgraph in the graph's view: its supernodes and what is pinned beside them. None where nothing is."""
    number = {name: i for i, name in enumerate(graph_ids(graph))}
    groups = supernodes_of(graph)
    grouped = {i for group in groups for i in group.members}
    pins = graph.view.get("pinnedIds") or []
    pins = pins.split(",") if isinstance(pins, str) else pins
    known = [number[pin] for pin in pins if isinstance(pin, str) and pin in number]
    singles = tuple(i for i in dict.fromkeys(known) if i not in grouped)
    if not groups and not singles:
        return None
    return Choice(groups, singles, _labels(graph.view.get("clerps"), number))


def automatic(graph: Graph, most: int = 12) -> Choice:
    """The target of the highest probability, and at most ``most`` features on the strongest paths to it with their
    tokens; features that do the same are one supernode, and errors that take much of the influence are shown too.

    Without influence (a cycle) the strongest inputs of the target.
    """
    chance = np.nan_to_num(graph.nodes["probability"][graph.targets], nan=-1.0)
    target = int(graph.targets[int(np.argmax(chance))])
    kinds = graph.nodes["kind"]
    try:
        flow = Flow.of(graph.csr, kinds == TARGET, graph.convention)
    except InputError:
        return Choice((), _inputs(graph, target, most), {})
    influence = flow.influence((np.arange(len(graph)) == target).astype(np.float64))
    chosen = {target}
    for path in strongest(graph.csr, kinds, target, 40, graph.convention, flow):
        more = chosen | set(path.nodes)
        if sum(kinds[i] == FEATURE for i in more) > most:
            continue
        chosen = more
    features = sorted(i for i in chosen if kinds[i] == FEATURE)
    groups: tuple[Supernode, ...] = ()
    if len(features) > 1:
        found = propose(graph, features=features, at_least=AT_LEAST).supernodes
        groups = tuple(replace(group, name=_name(graph, group)) for group in found)
    taken = {i for group in groups for i in group.members}
    singles = sorted(i for i in chosen if i not in taken)
    singles += _errors(graph, influence, groups, singles)
    return Choice(groups, tuple(singles), {})


def named(graph: Graph, choice: Choice) -> Graph:
    """The graph with the labels of the choice."""
    if not choice.labels:
        return graph
    return replace(graph, labels=tuple(choice.labels.get(i, label) for i, label in enumerate(graph.labels)))


def _errors(
    graph: Graph, influence: np.ndarray, groups: Sequence[Supernode], singles: Sequence[int]
) -> list[int]:
    """At most three error nodes of much influence that have an edge of this share to something chosen."""
    errors = np.flatnonzero((graph.nodes["kind"] == ERROR) & (influence >= ERRORS))
    errors = errors[np.argsort(-influence[errors], kind="stable")[:20]]
    shown = grouped(graph, groups, [*singles, *errors.tolist()])
    first = len(groups) + len(singles)
    size = np.abs(shown.weights[:first, first:]).max(axis=0, initial=0.0)
    return [int(i) for i in errors[size >= EDGE][:3]]


def _name(graph: Graph, group: Supernode) -> str:
    """The commonest label of the members, else their layers: their position is seen."""
    labels = [graph.labels[i] for i in group.members if graph.labels[i]]
    if labels:
        return max(dict.fromkeys(labels), key=labels.count)
    layers = graph.nodes["layer"][list(group.members)]
    low, high = int(layers.min()), int(layers.max())
    return f"L{low}" if low == high else f"L{low}–{high}"


def _inputs(graph: Graph, target: int, most: int) -> tuple[int, ...]:
    low, high = int(graph.indptr[target]), int(graph.indptr[target + 1])
    usable = np.isin(graph.nodes["kind"][graph.indices[low:high]], (FEATURE, ERROR, EMBEDDING))
    size = np.where(usable, np.abs(graph.weights[low:high]), -1.0)
    order = np.argsort(-size, kind="stable")[: min(most, int(usable.sum()))]
    return tuple(sorted({target, *graph.indices[low:high][order].tolist()}))


def _labels(stored: Any, number: dict[str, int]) -> dict[int, str]:
    """Labels that a viewer stored as pairs of an id and a text."""
    pairs = list(stored.items()) if isinstance(stored, dict) else stored if isinstance(stored, list) else []
    return {
        number[pair[0]]: pair[1]
        for pair in pairs
        if isinstance(pair, list | tuple)
        and len(pair) == 2
        and pair[0] in number
        and isinstance(pair[1], str)
    }
