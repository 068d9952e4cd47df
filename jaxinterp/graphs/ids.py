"""Names of nodes in the JSON dialect: node ids and the paired feature number."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from jaxinterp.graphs.kinds import BIAS, BIAS_NAMES, EMBEDDING, ERROR, FEATURE, MLP_PART

if TYPE_CHECKING:
    from jaxinterp.graphs.graph import Graph

SHORT_PARTS = ("attn", "mlp", "resid")


def cantor(layer: int, index: int) -> int:
    """Cantor's pairing of (layer, index): (l + i)(l + i + 1)/2 + i."""
    return (layer + index) * (layer + index + 1) // 2 + index


def uncantor(paired: int) -> tuple[int, int]:
    """The (layer, index) that `cantor` pairs to this number."""
    total = (math.isqrt(8 * paired + 1) - 1) // 2
    index = paired - total * (total + 1) // 2
    return total - index, index


def node_ids(nodes: np.ndarray, n_layers: int) -> list[str]:
    """A distinct id for every node: "{layer}_{index}_{position}" and its relatives.

    Parts other than the MLP's are named in it, so that the ids of a graph with MLP dictionaries alone are those
    that other programs take apart.
    """
    found, used = [], Counter[str]()
    columns = [nodes[name].tolist() for name in ("kind", "part", "layer", "position", "index")]
    for kind, part, layer, position, index in zip(*columns, strict=True):
        name = _node_id(kind, part, layer, position, index, n_layers)
        used[name] += 1
        # Only targets that are no tokens (directions) can share a name.
        found.append(name if used[name] == 1 else f"{name}-{used[name]}")
    return found


def graph_ids(graph: Graph) -> list[str]:
    """The ids of a graph's nodes: those of the file that it was read from, if others wrote it."""
    given = (graph.foreign or {}).get("nodes", {})
    made = node_ids(graph.nodes, graph.n_layers)
    return [given.get(str(i), {}).get("node_id", name) for i, name in enumerate(made)]


def _node_id(kind: int, part: int, layer: int, position: int, index: int, n_layers: int) -> str:
    middle = "" if part == MLP_PART else f"{SHORT_PARTS[part]}_"
    if kind == FEATURE:
        return f"{layer}_{middle}{index}_{position}"
    if kind == ERROR:
        return f"{layer}_error_{SHORT_PARTS[part]}_{position}"
    if kind == BIAS:
        name = BIAS_NAMES[index] if 0 <= index < len(BIAS_NAMES) else str(index)
        return f"{'E' if layer < 0 else layer}_bias_{name}_{middle}{position}"
    if kind == EMBEDDING:
        return f"E_{index}_{position}"
    if layer < n_layers and index >= 0:  # a feature's pre-activation
        return f"{n_layers + 1}_{layer}.{middle[:-1]}{'.' if middle else ''}{index}_{position}"
    return f"{n_layers + 1}_{index if index >= 0 else 'direction'}_{position}"


def safe_name(text: str, otherwise: str, limit: int = 60) -> str:
    """Text as a slug: letters, digits, "_", "." and "-" only, at least two characters."""
    slug = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")[:limit].strip("-._")
    return slug if len(slug) >= 2 else otherwise
