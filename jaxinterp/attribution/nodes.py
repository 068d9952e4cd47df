"""Node numbers and the node table of a graph being traced."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxinterp.attribution.sources import Active, Slots
from jaxinterp.graphs.kinds import BIAS, EMBEDDING, ERROR, FEATURE, TARGET, node_table

DECODER, ATTENTION, NORM, POSITION = range(4)  # places in BIAS_NAMES


class Layout(NamedTuple):
    """Where each kind of node starts in the graph with every active feature.

    Attributes:
      slots: places of features.
      errors: first error node; errors by (layer, position).
      biases: (layer, kind) → first bias node, by position; empty when the graph has none.
      embeddings, targets, size: first embedding, first target, number of nodes.
    """

    slots: Slots
    errors: int
    biases: dict[tuple[int, int], int]
    embeddings: int
    targets: int
    size: int


def bias_places(n_layers: int, attention: bool, norm: bool, position: bool) -> list[tuple[int, int]]:
    """The (layer, kind) that bias nodes exist for, in node order; the final norm's stand at layer L."""
    found = [(-1, POSITION)] if position else []
    for layer in range(n_layers + 1):
        if layer < n_layers:
            found.append((layer, DECODER))
            if attention:
                found.append((layer, ATTENTION))
        if norm:
            found.append((layer, NORM))
    return found


def lay_out_nodes(slots: Slots, n_features: int, biases: list[tuple[int, int]], n_targets: int) -> Layout:
    """Number the nodes: features | errors | biases | embeddings | targets."""
    n_layers, t, _ = slots.node.shape
    errors = n_features
    first = errors + n_layers * t
    starts = {place: first + i * t for i, place in enumerate(biases)}
    embeddings = first + len(biases) * t
    return Layout(slots, errors, starts, embeddings, embeddings + t, embeddings + t + n_targets)


def table(
    layout: Layout, active: Active, tokens: np.ndarray, target_tokens: np.ndarray, probabilities: np.ndarray,
    values: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The node table, all but ``left_out``."""
    n_layers, t, _ = layout.slots.node.shape
    nodes = node_table(layout.size)
    features = slice(0, layout.errors)
    nodes["kind"][features] = FEATURE
    for name, column in (
        ("layer", active.layer), ("position", active.position), ("index", active.feature),
        ("activation", active.activation), ("value", active.pre_activation), ("constant", active.bias),
    ):  # fmt: skip
        nodes[name][features] = column
    errors = slice(layout.errors, layout.errors + n_layers * t)
    nodes["kind"][errors] = ERROR
    nodes["layer"][errors] = np.repeat(np.arange(n_layers), t)
    nodes["position"][errors] = np.tile(np.arange(t), n_layers)
    for (layer, kind), start in layout.biases.items():
        place = slice(start, start + t)
        nodes["kind"][place], nodes["layer"][place], nodes["index"][place] = BIAS, layer, kind
        nodes["position"][place] = np.arange(t)
    embeddings = slice(layout.embeddings, layout.targets)
    nodes["kind"][embeddings], nodes["layer"][embeddings] = EMBEDDING, -1
    nodes["position"][embeddings], nodes["index"][embeddings] = np.arange(t), tokens
    targets = slice(layout.targets, layout.size)
    nodes["kind"][targets], nodes["layer"][targets], nodes["position"][targets] = TARGET, n_layers, t - 1
    nodes["index"][targets], nodes["probability"][targets] = target_tokens, probabilities
    nodes["value"][targets] = values
    return nodes


def rows(layout: Layout, effects: Any, final_bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Effects on C targets as rows over all nodes.

    Args:
      effects: `effects.Effects` of host arrays.
      final_bias: [C] direct effect of the final norm's bias at the last position, for target rows.

    Returns:
      rows [C, n], and [C] the effects of sources that are no nodes: what is omitted, and biases when the
      graph has no bias nodes.
    """
    c = len(effects.omitted)
    out = np.zeros((c, layout.size), effects.features.dtype)
    filled = layout.slots.node >= 0
    out[:, layout.slots.node[filled]] = effects.features[:, filled]
    out[:, layout.errors : layout.errors + effects.errors[0].size] = effects.errors.reshape(c, -1)
    t = effects.embed.shape[1]
    out[:, layout.embeddings : layout.targets] = effects.embed
    left = effects.omitted.astype(np.float64)
    by_kind = (effects.decoder, effects.attention, effects.norm)
    if not layout.biases:
        left = left + sum(part.sum(axis=(1, 2), dtype=np.float64) for part in by_kind)
        left = left + effects.position.sum(axis=1, dtype=np.float64)
        return out, left if final_bias is None else left + final_bias
    n_layers = effects.errors.shape[1]
    for (layer, kind), start in layout.biases.items():
        place = slice(start, start + t)
        if kind == POSITION:
            out[:, place] = effects.position
        elif layer < n_layers:
            out[:, place] = by_kind[kind][:, layer]
        elif final_bias is not None:
            out[:, start + t - 1] = final_bias
    return out, left
