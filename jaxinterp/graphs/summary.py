"""What a person asks of a graph first, as plain values: targets, scores, checks, features, paths."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.ids import graph_ids
from jaxinterp.graphs.influence import Flow
from jaxinterp.graphs.kinds import (
    BIAS,
    BIAS_NAMES,
    EMBEDDING,
    FEATURE,
    KIND_NAMES,
    MLP_PART,
    PART_NAMES,
    TARGET,
)
from jaxinterp.graphs.paths import strongest
from jaxinterp.graphs.plain import plain


def summary(graph: Graph, *, targets: int = 3, features: int = 10, paths: int = 5) -> dict[str, Any]:
    """The facts that `report` prints, as JSON values.

    For the first ``targets`` targets: the ``features`` features with the largest influence on that target
    (share of
    what flows back from it, along all paths) with their direct weights, and the ``paths`` strongest paths.
    """
    nodes = graph.nodes
    ids = graph_ids(graph)
    flow = Flow.of(graph.csr, nodes["kind"] == TARGET, graph.convention)
    found = []
    for rank, target in enumerate(graph.targets.tolist()):
        entry: dict[str, Any] = {
            "node": target,
            "node_id": ids[target],
            "token_id": int(nodes["index"][target]),
            "text": target_text(graph, target),
            "probability": float(nodes["probability"][target]),
            "value": float(nodes["value"][target]),
        }
        if rank < targets:
            entry["features"] = _features(graph, flow, target, features, ids)
            chosen = strongest(graph.csr, nodes["kind"], target, paths, graph.convention, flow)
            entry["paths"] = [
                {
                    "strength": path.strength,
                    "nodes": list(path.nodes),
                    "node_ids": [ids[i] for i in path.nodes],
                    "text": [node_text(graph, i) for i in path.nodes],
                }
                for path in chosen
            ]
        found.append(entry)
    scores, checks, errors = graph.scores(), graph.checks(), graph.error_share()
    return plain(
        {
            "prompt": graph.prompt,
            "tokens": [
                {"position": i, "id": number, "text": text}
                for i, (number, text) in enumerate(zip(graph.token_ids, graph.token_texts, strict=True))
            ],
            "convention": graph.convention,
            "targets": found,
            "scores": scores.to_dict(),
            "checks": {**checks.to_dict(), "text": str(checks)},
            "errors": [
                {"layer": layer, "part": part, "share": share} for layer, part, share in errors.worst()
            ],
            "error_share": errors.total,
            "nodes": graph.counts(),
            "edges": len(graph.weights),
            "pruned": graph.pruned,
            "settings": graph.settings,
            "provenance": graph.provenance,
        }
    )


def target_text(graph: Graph, node: int) -> str:
    """The text of a target: its label, for imported graphs what their label quotes."""
    label = graph.labels[node]
    if graph.foreign and graph.foreign.get("whole") and label.count('"') >= 2:
        return label[label.index('"') + 1 : label.rindex('"')]
    return label or f"token {int(graph.nodes['index'][node])}"


def node_text(graph: Graph, node: int) -> str:
    """A node in a few words."""
    record = graph.nodes[node]
    kind, layer, position = int(record["kind"]), int(record["layer"]), int(record["position"])
    part = "" if record["part"] == MLP_PART else f" {PART_NAMES[record['part']]}"
    if kind == TARGET:
        return f'"{target_text(graph, node)}"'
    if kind == EMBEDDING:
        return f'{position}:"{graph.token_texts[position]}"'
    if kind == FEATURE:
        label = graph.labels[node]
        return f"L{layer}{part}/{record['index']}@{position}" + (f" {label}" if label else "")
    if kind == BIAS:
        index = int(record["index"])
        return (
            f"{BIAS_NAMES[index] if 0 <= index < len(BIAS_NAMES) else 'other'} bias L{layer}{part}@{position}"
        )
    return f"{KIND_NAMES[kind]} L{layer}{part}@{position}"


def _features(graph: Graph, flow: Flow, target: int, count: int, ids: list[str]) -> list[dict[str, Any]]:
    nodes = graph.nodes
    start = np.zeros(len(nodes))
    start[target] = 1.0
    influence = flow.influence(start)
    candidates = np.flatnonzero((nodes["kind"] == FEATURE) & (influence > 0))
    chosen = candidates[np.argsort(-influence[candidates], kind="stable")[:count]]
    low, high = int(graph.indptr[target]), int(graph.indptr[target + 1])
    direct = dict(zip(graph.indices[low:high].tolist(), graph.weights[low:high].tolist(), strict=True))
    return [
        {
            "node": i,
            "node_id": ids[i],
            "layer": int(nodes["layer"][i]),
            "part": PART_NAMES[nodes["part"][i]],
            "position": int(nodes["position"][i]),
            "token": graph.token_texts[int(nodes["position"][i])],
            "feature": int(nodes["index"][i]),
            "label": graph.labels[i],
            "activation": float(nodes["activation"][i]),
            "weight": direct.get(i, 0.0),
            "influence": float(influence[i]),
        }
        for i in chosen.tolist()
    ]
