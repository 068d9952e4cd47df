"""Graphs of any size for the viewer's tests and benchmark: seeded, with the shape of traced ones.

Features crowd at late tokens and middle layers; a few nodes have thousands of edges and most have tens; weights are a
few strong and many weak ones; targets read mostly the last layers. Influence comes from `assemble`, so everything that
is computed from the edges is true of them.

    python -m tests.viewer.synthetic OUT [--nodes 10000] [--edges 1000000] [--layers 26] [--tokens 40]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.graphs import EMBEDDING, ERROR, FEATURE, TARGET, Csr, Graph, assemble, node_order, node_table
from jaxinterp.graphs.build import from_triples

WORDS = (
    "state", "city", "river", "north", "old", "green", "sings", "winter", "market", "seven", "because",
    "ships", "bread", "under", "glass", "horse", "letter", "music", "stone", "east", "paper", "island",
    "captain", "blue", "doors", "garden", "question", "almost", "iron", "summer",
)  # fmt: skip


def synthetic(
    nodes: int = 500,
    edges: int = 6000,
    *,
    layers: int = 12,
    tokens: int = 12,
    targets: int = 5,
    seed: int = 0,
    width: int = 1 << 14,
    **changes: Any,
) -> Graph:
    """A graph of exactly ``nodes`` nodes and at most ``edges`` edges (fewer where there are not so many places).

    width: how many features a layer's dictionary has, at least.
    changes: token_texts, labels (a dict from node to text), prompt, settings.
    """
    rng = np.random.default_rng(seed)
    records = _records(nodes, layers, tokens, targets, width, rng)
    csr = _edges(records, edges, rng)
    # What has no way to a target would not be in a traced graph; it stays here, with influence 0, as in capped ones.
    texts = changes.get("token_texts") or tuple(f" {WORDS[i % len(WORDS)]}" for i in range(tokens))
    labels = [""] * nodes
    for i in np.flatnonzero(records["kind"] == FEATURE):
        if rng.random() < 0.4:
            labels[i] = f"{rng.choice(WORDS)} {rng.choice(WORDS)}"
    for k, i in enumerate(np.flatnonzero(records["kind"] == TARGET)):
        labels[i] = f" {WORDS[-1 - k % len(WORDS)]}"
    for node, text in changes.get("labels", {}).items():
        labels[node] = text
    return assemble(
        records,
        csr,
        token_ids=tuple(range(100, 100 + tokens)),
        token_texts=tuple(texts),
        prompt=changes.get("prompt", "".join(texts).strip()),
        n_layers=layers,
        labels=tuple(labels),
        settings={"convention": "circuit-tracer", **changes.get("settings", {})},
    )


def _records(
    n: int, layers: int, tokens: int, targets: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """The node table: an error at every layer and token where they leave half of the nodes to features."""
    errors = layers * tokens if 2 * layers * tokens + tokens + targets <= n else 0
    features = n - errors - tokens - targets
    if features < 0:
        raise ValueError(f"{n} nodes are too few for {tokens} tokens and {targets} targets")
    found = node_table(n)
    kinds = np.repeat([FEATURE, ERROR, EMBEDDING, TARGET], [features, errors, tokens, targets])
    found["kind"] = kinds
    at = {kind: kinds == kind for kind in (FEATURE, ERROR, EMBEDDING, TARGET)}
    middle = np.minimum((rng.beta(1.6, 1.8, features) * layers).astype(np.int32), layers - 1)
    late = np.minimum((rng.beta(2.5, 1.1, features) * tokens).astype(np.int32), tokens - 1)
    values: dict[int, dict[str, Any]] = {
        FEATURE: {
            "layer": middle,
            "position": late,
            "index": rng.permutation(max(features, width))[:features],
            "activation": rng.lognormal(1.0, 0.8, features),
        },
        ERROR: {
            "layer": np.repeat(np.arange(layers), tokens)[:errors],
            "position": np.tile(np.arange(tokens), layers)[:errors],
            "index": -1,
        },
        EMBEDDING: {"layer": -1, "position": np.arange(tokens), "index": np.arange(100, 100 + tokens)},
        TARGET: {
            "layer": layers,
            "position": tokens - 1,
            "index": np.arange(targets),
            "probability": np.sort(rng.dirichlet(np.full(targets, 0.4)))[::-1] * 0.95,
        },
    }
    for kind, columns in values.items():
        for name, column in columns.items():
            found[name][at[kind]] = column
    return found[node_order(found)]


def _edges(records: np.ndarray, count: int, rng: np.random.Generator) -> Csr:
    """Edges up the layers and forward in the text, between nodes of very different degrees."""
    n, kind, layer, position = len(records), records["kind"], records["layer"], records["position"]
    takes, gives = np.flatnonzero((kind == FEATURE) | (kind == TARGET)), np.flatnonzero(kind != TARGET)
    taken = np.where(kind == TARGET, 20.0, 1.0)[takes] * rng.lognormal(0, 0.6, len(takes))
    given = np.where(kind == EMBEDDING, 8.0, 1.0)[gives] * (rng.pareto(1.5, len(gives)) + 0.3)
    pairs = np.zeros(0, np.int64)
    for _ in range(40):
        size = max(4 * count, 64)
        target = rng.choice(takes, size, p=taken / taken.sum())
        source = rng.choice(gives, size, p=given / given.sum())
        fits = (layer[target] > layer[source]) & (position[target] >= position[source])
        before = len(pairs)
        pairs = np.unique(np.concatenate([pairs, target[fits].astype(np.int64) * n + source[fits]]))
        if len(pairs) >= count or len(pairs) == before:
            break
    pairs = np.sort(rng.choice(pairs, min(count, len(pairs)), replace=False))
    target, source = pairs // n, pairs % n
    near = 1.0 / (1.0 + 0.15 * (position[target] - position[source]))
    weights = rng.standard_normal(len(pairs)) * rng.lognormal(0, 1.2, len(pairs)) * near
    return from_triples(n, target, source, weights.astype(np.float32))


def document(graph: Graph) -> dict[str, Any]:
    """The graph as a JSON document in circuit-tracer's own dialect, to be spoilt by tests of bad input."""
    from tests.benchmarks.bench_graph_files import circuit_tracer

    return circuit_tracer(graph)


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON document; the path."""
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def main() -> None:
    """Write one graph."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--tokens", type=int, default=40)
    given = parser.parse_args()
    found = synthetic(given.nodes, given.edges, layers=given.layers, tokens=given.tokens, targets=10)
    if given.out.suffix == ".json":
        write_json(given.out, document(found))
    else:
        found.save(given.out)
    print(found)


if __name__ == "__main__":
    main()
