"""Node numbers and the node table of a graph being traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxinterp.attribution.readings import Targets
from jaxinterp.attribution.sources import Active, Group
from jaxinterp.graphs.kinds import BIAS, BIAS_NAMES, EMBEDDING, ERROR, FEATURE, TARGET, node_table
from jaxinterp.models.config import ModelConfig
from jaxinterp.replacement import Place
from jaxinterp.replacement.parts import JUNCTIONS

DECODER, ATTENTION, NORM, POSITION, MLP, OFFSET = range(len(BIAS_NAMES))
NO_PART = JUNCTIONS.index("mlp")


class Layout(NamedTuple):
    """Where each kind of node starts in the graph with every active feature.

    Attributes:
      groups: the features, from node 0 on.
      features: A.
      errors: (place, layer) → first error node; by position.
      biases: (layer, kind, part) → first bias node; by position; empty when the graph has none.
      embeddings, targets, size: first embedding, first target, number of nodes.
      n_layers, n_tokens: L, T.
    """

    groups: list[Group]
    features: int
    errors: dict[tuple[int, int], int]
    biases: dict[tuple[int, int, int], int]
    embeddings: int
    targets: int
    size: int
    n_layers: int
    n_tokens: int


def bias_places(
    config: ModelConfig, places: Sequence[Place], groups: Sequence[Group], mlp_layers: Sequence[int]
) -> list[tuple[int, int, int]]:
    """The (layer, kind, part) that bias nodes exist for, in node order; the final norm's stand at layer L.

    Args:
      mlp_layers: layers in which a line stands for the MLP, whose constant is a bias.
    """
    found = [(-1, POSITION, NO_PART)] if config.positions == "learned" else []
    parts = {
        (group.layer, JUNCTIONS.index(places[group.place].junction)) for group in groups if group.own >= 0
    }
    for layer in range(config.n_layers + 1):
        if layer < config.n_layers:
            found += [(layer, DECODER, part) for part in range(len(JUNCTIONS)) if (layer, part) in parts]
            if config.has_attention_biases:
                found.append((layer, ATTENTION, NO_PART))
        if config.has_norm_biases:
            found.append((layer, NORM, NO_PART))
        if layer in mlp_layers:
            found.append((layer, MLP, NO_PART))
    return found


def lay_out_nodes(
    groups: list[Group], n_features: int, biases: Sequence[tuple[int, int, int]], n_targets: int, n_layers: int,
    n_tokens: int,
) -> Layout:  # fmt: skip
    """Number the nodes: features | errors | biases | embeddings | targets."""
    errors = {
        (group.place, group.layer): n_features + i * n_tokens for i, group in enumerate(groups)
    }  # groups are in node order
    first = n_features + len(groups) * n_tokens
    starts = {place: first + i * n_tokens for i, place in enumerate(biases)}
    embeddings = first + len(biases) * n_tokens
    targets = embeddings + n_tokens
    return Layout(
        groups, n_features, errors, starts, embeddings, targets, targets + n_targets, n_layers, n_tokens
    )


def table(
    layout: Layout, active: Active, places: Sequence[Place], tokens: np.ndarray, targets: Targets,
    values: np.ndarray, constants: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The node table, all but ``left_out``; values and constants [C] are the targets'."""
    t = layout.n_tokens
    nodes = node_table(layout.size)
    features = slice(0, layout.features)
    nodes["kind"][features] = FEATURE
    for name, column in (
        ("part", active.part), ("layer", active.layer), ("position", active.position), ("index", active.feature),
        ("activation", active.activation), ("value", active.pre_activation), ("constant", active.bias),
    ):  # fmt: skip
        nodes[name][features] = column
    for (place, layer), start in layout.errors.items():
        at = slice(start, start + t)
        nodes["kind"][at], nodes["layer"][at] = ERROR, layer
        nodes["part"][at] = JUNCTIONS.index(places[place].junction)
        nodes["position"][at] = np.arange(t)
    for (layer, kind, part), start in layout.biases.items():
        at = slice(start, start + t)
        nodes["kind"][at], nodes["layer"][at], nodes["index"][at] = BIAS, layer, kind
        nodes["part"][at], nodes["position"][at] = part, np.arange(t)
    embeddings = slice(layout.embeddings, layout.targets)
    nodes["kind"][embeddings], nodes["layer"][embeddings] = EMBEDDING, -1
    nodes["position"][embeddings], nodes["index"][embeddings] = np.arange(t), tokens
    at = slice(layout.targets, layout.size)
    nodes["kind"][at] = TARGET
    for name, column in (
        ("part", targets.part), ("layer", targets.layer), ("position", targets.position), ("index", targets.index),
        ("probability", targets.weights), ("value", values), ("constant", constants),
    ):  # fmt: skip
        nodes[name][at] = column
    return nodes
