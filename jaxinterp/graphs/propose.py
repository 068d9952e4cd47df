"""Supernodes found automatically, with a preview of what they would show and hide.

The paper reports that no automatic method sufficed; these are proposals to look at, and nothing changes until
one applies them (`with_supernodes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxinterp.core.display import html
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.kinds import EMBEDDING, FEATURE, TARGET
from jaxinterp.graphs.signatures import similarities
from jaxinterp.graphs.supernodes import Supernode, SupernodeGraph, grouped

MOST = 5_000  # features compared pair by pair


@dataclass(frozen=True)
class Proposal:
    """One supernode and how good it is: cohesion is the mean likeness of two members, weakest the smallest."""

    supernode: Supernode
    cohesion: float
    weakest: float
    influence: float


@dataclass(frozen=True, eq=False)
class Preview:
    """Proposals, strongest first, and the graph as it would look with them.

    shown: groups, embeddings and targets, with the edges between them. single: features that were compared and
    found no partner (node numbers). hidden_influence: share of the influence of all features that those in no
    group hold. likeness (F, F) and compared (F,): what was compared, for another cut.
    """

    proposals: tuple[Proposal, ...]
    shown: SupernodeGraph
    single: tuple[int, ...]
    hidden_influence: float
    compared: np.ndarray
    likeness: np.ndarray

    @property
    def supernodes(self) -> tuple[Supernode, ...]:
        """What `with_supernodes` takes."""
        return tuple(proposal.supernode for proposal in self.proposals)

    def _repr_html_(self) -> str:
        return html("preview", self)

    def __str__(self) -> str:
        lines = []
        for i, proposal in enumerate(self.proposals):
            members = len(proposal.supernode.members)
            lines.append(
                f"{proposal.supernode.name}: {members} features, cohesion {proposal.cohesion:.2f} "
                f"(weakest pair {proposal.weakest:.2f}), influence {proposal.influence:.3f}"
            )
            into = [edge for edge in self.shown.edges() if edge[0] == i][:3]
            lines += [f"  <- {self.shown.groups[s].name} {w:+.3f}" for _, s, w in into]
        hidden = ", ".join(f"{n} {name}" for name, n in self.shown.hidden.items()) or "nothing"
        lines.append(
            f"hidden: {hidden} nodes, {100 * self.hidden_influence:.1f}% of the influence of features; "
            f"{self.shown.inside} edges within groups"
        )
        return "\n".join(lines)


def propose(
    graph: Graph,
    vectors: Any = None,
    *,
    at_least: float = 0.5,
    most: int = 300,
    features: Sequence[int] | None = None,
    across_positions: bool = False,
    weights: Mapping[str, float] | None = None,
) -> Preview:
    """Group features that are alike in what they do; the graph is not changed.

    Hierarchical clustering with complete linkage: every two members of a group are alike by ``at_least``.

    Args:
      graph: pruned or not.
      vectors: [A, D] decoder vectors, one for every feature node in node order, as a further signal.
      at_least: least likeness of two members, 0 to 1 (see `signatures.similarities`).
      most: how many features to compare, the most influential ones.
      features: node numbers of the features to compare, instead.
      across_positions: whether a group may hold features of several positions.
      weights: of the signals "outputs", "inputs", "decoders".

    Raises:
      InputError: no features, numbers of nodes that are no features, or settings out of range.
    """
    if not 0 <= at_least <= 1:
        raise InputError(f"at_least is {at_least}: expected a likeness from 0 to 1")
    compared = _compared(graph, features, most)
    alike = similarities(graph, compared, vectors, weights)
    if not across_positions:
        place = graph.nodes["position"][compared]
        alike = np.where(place[:, None] == place[None, :], alike, -1.0)
    found = []
    for members in _clusters(alike, at_least):
        pairs = alike[np.ix_(members, members)][np.triu_indices(len(members), 1)]
        nodes = tuple(int(i) for i in compared[members])
        influence = float(np.nan_to_num(graph.nodes["influence"][list(nodes)]).sum())
        name = _name(graph, nodes)
        found.append(Proposal(Supernode(name, nodes), float(pairs.mean()), float(pairs.min()), influence))
    found.sort(key=lambda proposal: (-proposal.influence, proposal.supernode.members))
    found = _distinct(found)
    taken = {i for proposal in found for i in proposal.supernode.members}
    kinds = graph.nodes["kind"]
    singles = np.flatnonzero((kinds == EMBEDDING) | (kinds == TARGET)).tolist()
    shown = grouped(graph, [proposal.supernode for proposal in found], singles)
    whole = float(np.nan_to_num(graph.nodes["influence"][kinds == FEATURE]).sum())
    held = sum(proposal.influence for proposal in found)
    return Preview(
        proposals=tuple(found),
        shown=shown,
        single=tuple(int(i) for i in compared if int(i) not in taken),
        hidden_influence=1 - held / whole if whole > 0 else 0.0,
        compared=compared,
        likeness=alike,
    )


def _compared(graph: Graph, features: Sequence[int] | None, most: int) -> np.ndarray:
    """Node numbers of the features to compare, ascending."""
    is_feature = graph.nodes["kind"] == FEATURE
    if not is_feature.any():
        raise InputError("the graph has no feature nodes, so there is nothing to group")
    if not 1 <= most <= MOST:
        raise InputError(f"most is {most}: expected 1 to {MOST} features")
    if features is None:
        influence = np.where(is_feature, np.nan_to_num(graph.nodes["influence"]), -1.0)
        order = np.argsort(-influence, kind="stable")[: min(most, int(is_feature.sum()))]
        return np.sort(order)
    chosen = np.unique(np.asarray(features, np.int64))
    if not 1 <= chosen.size <= MOST:
        raise InputError(f"{chosen.size} features to compare: expected 1 to {MOST}")
    for node in chosen.tolist():
        if not (0 <= node < len(graph) and is_feature[node]):
            raise InputError(f"node {node} is no feature of this graph of {len(graph)} nodes")
    return chosen


def _clusters(alike: np.ndarray, at_least: float) -> list[np.ndarray]:
    """Groups of two or more, each the places of its members, all pairs alike by ``at_least``."""
    from scipy.cluster import hierarchy  # takes longer to import than all of this room

    if len(alike) < 2:
        return []
    distance = (1 - alike)[np.triu_indices(len(alike), 1)]
    tree = hierarchy.linkage(np.maximum(distance, 0.0), "complete")
    label = hierarchy.fcluster(tree, 1 - at_least, "distance")
    groups = [np.flatnonzero(label == i) for i in range(1, int(label.max()) + 1)]
    return [group for group in groups if len(group) > 1]


def _distinct(proposals: list[Proposal]) -> list[Proposal]:
    """The proposals with names of their own: the second of a name has "(2)" behind it."""
    used, found = Counter[str](), []
    for proposal in proposals:
        name = proposal.supernode.name
        used[name] += 1
        if used[name] > 1:
            name = f"{name} ({used[name]})"
        found.append(replace(proposal, supernode=replace(proposal.supernode, name=name)))
    return found


def _name(graph: Graph, members: tuple[int, ...]) -> str:
    """The commonest label of the members, else where they are."""
    labels = Counter(graph.labels[i] for i in members if graph.labels[i])
    if labels:
        return labels.most_common(1)[0][0]
    layers, places = (
        graph.nodes["layer"][list(members)],
        sorted(set(graph.nodes["position"][list(members)].tolist())),
    )
    low, high = int(layers.min()), int(layers.max())
    texts = " ".join(graph.token_texts[i].strip() or repr(graph.token_texts[i]) for i in places[:3])
    where = f"L{low}" if low == high else f"L{low}-{high}"
    return f'{where} "{texts}"@{",".join(str(i) for i in places[:3])}'
