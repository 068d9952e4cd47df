"""What a large graph costs: building from blocks, influence, pruning, scores; CPU seconds and peak memory.

    python -m tests.benchmarks.bench_graph [--nodes 50000] [--edges 5000000] [--layers 26] [--parts 1]

A layered graph is drawn at random: features at every layer, part and position, edges up and forward.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from jaxinterp.graphs import (
    BIAS,
    EMBEDDING,
    ERROR,
    FEATURE,
    TARGET,
    Csr,
    EdgeBuilder,
    Graph,
    assemble,
    node_order,
    node_table,
    prune_masks,
)
from jaxinterp.graphs.influence import node_influence, target_weights
from jaxinterp.graphs.scores import pruned_scores, scores

POSITIONS, TARGETS = 64, 10
PARTS = {1: (1,), 2: (0, 1), 3: (0, 1, 2)}


def node_records(n: int, layers: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """A node table of about n nodes; what is no feature is as in a traced graph of 64 tokens."""
    places = [
        (kind, part, layer, position, -1 if kind == ERROR else 0)
        for kind in (ERROR, BIAS)
        for layer in range(layers)
        for part in PARTS[parts]
        for position in range(POSITIONS)
    ]
    places += [(EMBEDDING, 1, -1, position, position) for position in range(POSITIONS)]
    places += [(TARGET, 1, layers, POSITIONS - 1, k) for k in range(TARGETS)]
    features = n - len(places)
    nodes = node_table(n)
    nodes["kind"][:features] = FEATURE
    nodes["layer"][:features] = rng.integers(0, layers, features)
    nodes["part"][:features] = rng.choice(PARTS[parts], features)
    nodes["position"][:features] = rng.integers(0, POSITIONS, features)
    nodes["index"][:features] = rng.permutation(features)
    for name, column in zip(("kind", "part", "layer", "position", "index"), np.array(places).T, strict=True):
        nodes[name][features:] = column
    nodes["probability"][-TARGETS:] = 0.9 / TARGETS
    return nodes[node_order(nodes)]


def edges(nodes: np.ndarray, count: int, rng: np.random.Generator, block: int = 128) -> Csr:
    """About ``count`` edges up and forward, added to the builder in blocks of targets that share a stage."""
    stage = np.where(nodes["kind"] == TARGET, 10**6, 3 * nodes["layer"] + nodes["part"])
    takes = np.flatnonzero((nodes["kind"] == FEATURE) | (nodes["kind"] == TARGET))
    gives = np.flatnonzero(nodes["kind"] != TARGET)
    builder = EdgeBuilder(len(nodes))
    possible = 0
    for start in range(0, len(takes), 4096):  # how many edges there could be, from a part of the targets
        some = takes[start : start + 8]
        possible += (
            int((stage[some, None] > stage[None, gives]).sum()) * len(takes[start : start + 4096]) // 8
        )
    density = 2 * count / possible  # half of them lead back in the text
    for start in range(0, len(takes), block):
        targets = takes[start : start + block]
        sources = gives[stage[gives] < stage[targets].max()]
        chosen = rng.random((len(targets), len(sources)), np.float32) < density
        chosen &= nodes["position"][targets][:, None] >= nodes["position"][sources][None, :]
        chosen &= stage[targets][:, None] > stage[sources][None, :]
        weights = np.zeros(chosen.shape, np.float32)
        # A few strong and many weak ones, as in a traced graph.
        weights[chosen] = rng.standard_normal(int(chosen.sum()), np.float32) ** 3
        builder.add(targets, sources, weights)
    return builder.finish()


class Meter:
    """CPU seconds and peak memory, step by step."""

    def __init__(self) -> None:
        self.total = 0.0

    def __call__(self, name: str, work, count: bool = True):
        """Do the work, print what it cost."""
        start = time.process_time()
        found = work()
        seconds = time.process_time() - start
        self.total += seconds if count else 0.0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:<34} {seconds:8.2f} CPU s   peak {peak:6.2f} GiB", flush=True)
        return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=50_000)
    parser.add_argument("--edges", type=int, default=5_000_000)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--parts", type=int, default=1, choices=(1, 2, 3))
    parser.add_argument("--convention", default="paper", choices=("paper", "circuit-tracer"))
    options = parser.parse_args()
    rng, meter = np.random.default_rng(0), Meter()
    nodes = meter(
        "nodes", lambda: node_records(options.nodes, options.layers, options.parts, rng), count=False
    )
    csr = meter("drawing edges, EdgeBuilder", lambda: edges(nodes, options.edges, rng), count=False)
    print(f"{len(nodes)} nodes, {len(csr.weights)} edges")
    weights, kinds = target_weights(nodes), nodes["kind"]
    meter("influence", lambda: node_influence(csr, weights, options.convention))
    masks = meter(
        "pruning (0.8, 0.98)", lambda: prune_masks(csr, kinds, weights, 0.8, 0.98, options.convention)
    )
    meter("scores, path profile", lambda: scores(csr, nodes, weights, options.convention))
    meter(
        "scores of the pruned graph",
        lambda: pruned_scores(csr, nodes, weights, masks.node_mask, options.convention),
    )
    print(f"influence, pruning and scores: {meter.total:.2f} CPU s")
    texts = tuple(str(i) for i in range(POSITIONS))
    graph: Graph = meter(
        "assemble",
        lambda: assemble(
            nodes,
            csr,
            token_ids=tuple(range(POSITIONS)),
            token_texts=texts,
            prompt="",
            n_layers=options.layers,
            settings={"convention": options.convention},
        ),
    )
    meter("Graph.prune, all of it", lambda: graph.prune(0.8, 0.98))
    print(f"kept {int(masks.node_mask.sum())} nodes, {int(masks.edge_mask.sum())} edges")


if __name__ == "__main__":
    main()
