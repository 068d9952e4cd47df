"""The page computes edges between boxes itself; its unit test compares with numbers that `grouped` made.

`python -m tests.viewer.test_supernode_fixture` writes graph and numbers again.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from jaxinterp.graphs import EMBEDDING, ERROR, FEATURE, Csr, Graph, assemble, node_table
from jaxinterp.graphs.supernodes import Supernode, SupernodeGraph, grouped
from tests.viewer.browser.chromium import WEB
from tests.viewer.synthetic import synthetic

FIXTURE = WEB / "src/panes/subgraph/weights.fixture.json"


def graph_of(stored: dict[str, Any]) -> Graph:
    """The graph in the fixture."""
    nodes = node_table(len(stored["kind"]))
    for name in ("kind", "layer", "position", "index"):
        nodes[name] = stored[name]
    csr = Csr(
        np.array(stored["in_start"], np.int64),
        np.array(stored["in_source"], np.int32),
        np.array(stored["weight"], np.float32),
    )
    tokens = tuple(f"t{i}" for i in range(stored["tokens"]))
    ids = tuple(range(len(tokens)))
    return assemble(
        nodes, csr, token_ids=ids, token_texts=tokens, prompt="".join(tokens), n_layers=stored["n_layers"]
    )


def groups_of(stored: dict[str, Any]) -> SupernodeGraph:
    """Its groups, those of one node as single ones."""
    several = [Supernode(f"group {i}", tuple(g)) for i, g in enumerate(stored["groups"]) if len(g) > 1]
    return grouped(graph_of(stored), several, [g[0] for g in stored["groups"] if len(g) == 1])


def test_the_page_is_tested_against_what_grouped_makes() -> None:
    stored = json.loads(FIXTURE.read_text())
    found = groups_of(stored)
    np.testing.assert_allclose(np.array(stored["weights"]), found.weights, rtol=1e-12, atol=1e-15)
    assert stored["inside"] == found.inside > 0
    assert np.count_nonzero(found.weights) > 20


def _make() -> dict[str, Any]:
    graph = synthetic(70, 600, layers=5, tokens=4, targets=3, seed=6)
    kinds = graph.nodes["kind"]
    features = np.flatnonzero(kinds == FEATURE)
    influence = np.nan_to_num(graph.nodes["influence"][features])
    strong = features[np.argsort(-influence, kind="stable")].tolist()
    tokens = np.flatnonzero(kinds == EMBEDDING).tolist()
    # Groups that feed themselves, one of two kinds, one of nodes without inputs; then single nodes.
    late = max(
        strong,
        key=lambda i: int(np.isin(graph.indices[graph.indptr[i] : graph.indptr[i + 1]], features).sum()),
    )
    own = graph.indices[graph.indptr[late] : graph.indptr[late + 1]]
    first = [late, *own[np.isin(own, features)].tolist()[:4]]
    rest = [i for i in strong if i not in first]
    groups = [first, rest[:3], [rest[3], int(np.flatnonzero(kinds == ERROR)[0])], tokens[:2]]
    singles = [[i] for i in (*rest[4:9], tokens[2], len(graph) - 3)]
    stored = {
        **{name: graph.nodes[name].tolist() for name in ("kind", "layer", "position", "index")},
        "tokens": len(graph.token_ids),
        "n_layers": graph.n_layers,
        "in_start": graph.indptr.tolist(),
        "in_source": graph.indices.tolist(),
        "weight": [float(w) for w in graph.weights],
        "groups": [*groups, *singles],
    }
    found = groups_of(stored)
    return {**stored, "weights": found.weights.tolist(), "inside": found.inside}


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(_make(), separators=(",", ":")) + "\n")
