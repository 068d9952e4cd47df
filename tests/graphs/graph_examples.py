"""Random layered graphs whose identities hold, and the reference cases as arrays."""

from __future__ import annotations

import itertools

import numpy as np

from jaxinterp.graphs import (
    BIAS,
    EMBEDDING,
    ERROR,
    FEATURE,
    TARGET,
    EdgeBuilder,
    Graph,
    assemble,
    node_order,
    node_table,
)
from tests.support import shared

CASES = ("gemma2_plt_jumprelu", "llama_plt_relu_skip", "llama_clt_relu")


def random_graph(
    seed: int = 0,
    *,
    layers: int = 3,
    positions: int = 4,
    per_place: int = 3,
    targets: int = 2,
    bias: bool = True,
    density: float = 0.6,
    dtype: str = "float64",
    convention: str = "paper",
    left_out: bool = False,
    parts: tuple[int, ...] = (1,),
) -> Graph:
    """A graph of features at every (layer, part, position) with random edges going up and forward."""
    rng = np.random.default_rng(seed)
    rows = []
    for layer in range(layers):
        for part, position in itertools.product(parts, range(positions)):
            for index in sorted(rng.choice(1000, per_place, replace=False)):
                rows.append((FEATURE, part, layer, position, index))
            rows.append((ERROR, part, layer, position, -1))
            if bias:
                rows.append((BIAS, part, layer, position, 0))
    rows += [(EMBEDDING, 1, -1, position, 7 + position) for position in range(positions)]
    rows += [(TARGET, 1, layers, positions - 1, 50 + k) for k in range(targets)]
    nodes = node_table(len(rows))
    columns = zip(*rows, strict=True)
    for name, column in zip(("kind", "part", "layer", "position", "index"), columns, strict=True):
        nodes[name] = column
    nodes = nodes[node_order(nodes)]
    n = len(nodes)
    kind, position = nodes["kind"], nodes["position"]
    layer = 3 * nodes["layer"] + nodes["part"]
    takes = (kind == FEATURE) | (kind == TARGET)
    possible = takes[:, None] & (kind != TARGET)[None, :]
    possible &= (layer[:, None] > layer[None, :]) & (position[:, None] >= position[None, :])
    block = np.where(possible & (rng.random((n, n)) < density), rng.normal(size=(n, n)), 0.0).astype(dtype)
    nodes["probability"][kind == TARGET] = np.sort(rng.dirichlet(np.ones(targets + 1))[:targets])[::-1]
    nodes["activation"][kind == FEATURE] = rng.random(int((kind == FEATURE).sum()))
    nodes["constant"] = np.where(takes, rng.normal(size=n), 0)
    if left_out:
        nodes["left_out"] = np.where(takes, rng.normal(size=n), 0)
    sums = block.astype(np.float64).sum(1) + nodes["constant"] + nodes["left_out"]
    nodes["value"] = np.where(takes, sums, np.nan)
    builder = EdgeBuilder(n, dtype)
    builder.add(np.arange(n), np.arange(n), block)
    labels = tuple(f" word{i}" if k == TARGET else "" for i, k in enumerate(kind))
    return assemble(
        nodes,
        builder.finish(),
        token_ids=tuple(range(7, 7 + positions)),
        token_texts=tuple(f" t{i}" for i in range(positions)),
        prompt="".join(f" t{i}" for i in range(positions)),
        n_layers=layers,
        labels=labels,
        settings={
            "convention": convention,
            "model": "a/Model x",
            "source_set": "own set",
            "max_feature_nodes": 9,
        },
        provenance={"versions": {"jaxinterp": "9.8.7"}, "model_digest": "ab12"},
        measured={"identity_1": 1e-12},
    )


def dense_normalised(matrix: np.ndarray) -> np.ndarray:
    """Row-normalised absolute values, the plain way."""
    size = np.abs(matrix.astype(np.float64))
    sums = size.sum(1, keepdims=True)
    return size / np.where(sums > 0, sums, 1)


def dense_matrix(graph: Graph) -> np.ndarray:
    """Float64 adjacency, the plain way."""
    dense = np.zeros((len(graph), len(graph)))
    for target, source, weight in zip(*graph.edges(), strict=True):
        dense[target, source] = weight
    return dense


def same(a: Graph, b: Graph) -> bool:
    """Whether two graphs hold the same in every field."""
    for name in ("nodes", "indptr", "indices", "weights"):
        left, right = getattr(a, name), getattr(b, name)
        if left.dtype != right.dtype or left.tobytes() != right.tobytes():
            return False
    fields = (
        "token_ids",
        "token_texts",
        "prompt",
        "n_layers",
        "labels",
        "settings",
        "provenance",
        "measured",
    )
    return all(getattr(a, name) == getattr(b, name) for name in (*fields, "view", "foreign"))


def case(name: str, prefix: str = "") -> dict[str, np.ndarray]:
    """A reference case: adjacency, kinds, probabilities and the peer's answers; skips where it is absent."""
    with np.load(shared(f"cases/{name}/reference.npz")) as data:
        arrays = {key: data[key] for key in data.files}
    n, targets, tokens = len(arrays[prefix + "adjacency"]), len(arrays["logit_probs"]), len(arrays["tokens"])
    features = len(arrays["lim_selected_features"] if prefix else arrays["active_features"])
    kinds = np.full(n, ERROR, np.uint8)
    kinds[:features] = FEATURE
    kinds[n - targets - tokens :] = EMBEDDING
    kinds[n - targets :] = TARGET
    probabilities = np.zeros(n)
    probabilities[n - targets :] = arrays["logit_probs"]
    edges = np.unpackbits(arrays[prefix + "edge_mask"], axis=1)[:, :n].astype(bool)
    names = ("adjacency", "node_influence", "node_mask", "cumulative_scores", "scores")
    found = {key: arrays[prefix + key] for key in names}
    return {**found, "edge_mask": edges, "kinds": kinds, "probabilities": probabilities}
