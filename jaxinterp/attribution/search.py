"""Which features tell prompts apart: features active on some prompts and not on others, and features as targets.

The features of a graph are those that it has: all active ones, unless it was capped or pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxinterp.attribution.wanted import Feature, Supernode
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.kinds import FEATURE, PART_NAMES


class Activity(NamedTuple):
    """Features of several graphs, by (part, layer, feature number); G graphs, N features.

    Attributes:
      part, layer, feature: [N] which.
      activation: [G, N] the largest activation on each prompt, 0 where inactive.
      influence: [G, N] the sum of its nodes' influence in each graph.
    """

    part: np.ndarray
    layer: np.ndarray
    feature: np.ndarray
    activation: np.ndarray
    influence: np.ndarray

    def __len__(self) -> int:
        return len(self.feature)

    def take(self, numbers: np.ndarray) -> Activity:
        """Some of the features, in the order given."""
        return Activity(*(column[..., numbers] for column in self))


def activity(graphs: Sequence[Graph], positions: Sequence[int] | None = None) -> Activity:
    """The features of graphs, at given positions (negative: from the end) or anywhere.

    Raises:
      InputError: no graph, or a position outside one of the prompts.
    """
    if not graphs:
        raise InputError("no graph was given")
    keys, activations, influences, which = [], [], [], []
    for number, graph in enumerate(graphs):
        nodes = graph.nodes
        kept = nodes["kind"] == FEATURE
        if positions is not None:
            kept &= np.isin(nodes["position"], _inside(positions, len(graph.token_ids)))
        nodes = nodes[kept]
        keys.append(np.stack([nodes[name].astype(np.int64) for name in ("part", "layer", "index")], axis=1))
        activations.append(nodes["activation"])
        influences.append(np.nan_to_num(nodes["influence"]))
        which.append(np.full(len(nodes), number))
    found, same = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    at = (np.concatenate(which), same.ravel())
    activation, influence = np.zeros((2, len(graphs), len(found)))
    np.maximum.at(activation, at, np.concatenate(activations))
    np.add.at(influence, at, np.concatenate(influences))
    part, layer, feature = found.T
    return Activity(part, layer, feature, activation, influence)


def active_only(
    on: Sequence[Graph], off: Sequence[Graph] = (), *, at_least: float = 1.0, at_most: float = 0.0,
    positions: Sequence[int] | None = None,
) -> Activity:  # fmt: skip
    """Features active on prompts of the first kind and not on those of the second, the most influential first.

    Args:
      on, off: graphs of the two kinds.
      at_least: share of ``on`` that a feature must be active on.
      at_most: share of ``off`` that it may be active on.
      positions: count activity there only.

    Returns:
      `Activity` over ``[*on, *off]``, ordered by mean influence on ``on``.

    Raises:
      InputError: no graph of the first kind, a share outside 0 to 1.
    """
    for name, share in (("at_least", at_least), ("at_most", at_most)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} is {share}, expected a share from 0 to 1")
    if not on:
        raise InputError("no graph was given that features are to be active on")
    found = activity([*on, *off], positions)
    active = found.activation != 0
    here, there = active[: len(on)], active[len(on) :]
    kept = here.any(axis=0) & (here.mean(axis=0) >= at_least)
    if off:
        kept &= there.mean(axis=0) <= at_most
    numbers = np.flatnonzero(kept)
    strength = found.influence[: len(on), numbers].mean(axis=0)
    return found.take(numbers[np.argsort(-strength, kind="stable")])


def overlap(a: Graph, b: Graph, positions: Sequence[int] | None = None) -> np.ndarray:
    """[L] intersection over union of the features active in two graphs, layer by layer; nan where neither has one."""
    if a.n_layers != b.n_layers:
        raise InputError(f"graphs of {a.n_layers} and {b.n_layers} layers cannot be compared")
    found = activity([a, b], positions)
    active = found.activation != 0
    both = np.bincount(found.layer[active.all(axis=0)], minlength=a.n_layers)
    either = np.bincount(found.layer[active.any(axis=0)], minlength=a.n_layers)
    return np.divide(both, either, out=np.full(a.n_layers, np.nan), where=either > 0)


def as_target(graph: Graph, name: str, nodes: Sequence[int]) -> Supernode:
    """Feature nodes of a graph, such as the ``members`` of a `graphs.Supernode`, as a target for another trace.

    Raises:
      InputError: a number that is no feature node of the graph.
    """
    members = []
    for number in nodes:
        if not 0 <= number < len(graph) or graph.nodes["kind"][number] != FEATURE:
            raise InputError(f"{name}: node {number} is no feature of the graph")
        node = graph.nodes[number]
        members.append(
            Feature(int(node["layer"]), int(node["index"]), int(node["position"]), PART_NAMES[node["part"]])
        )
    return Supernode(name, tuple(members))


def _inside(positions: Sequence[int], length: int) -> list[int]:
    places = []
    for one in positions:
        at = one + length if one < 0 else one
        if not 0 <= at < length:
            raise InputError(f"position {one} is outside a prompt of {length} tokens")
        places.append(at)
    return places
