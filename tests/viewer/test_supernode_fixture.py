"""The page computes edges between boxes itself; its unit test compares with numbers that `grouped` made.

python -m tests.viewer.test_supernode_fixture     writes those numbers again
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from jaxinterp.graphs import EMBEDDING, ERROR, FEATURE
from jaxinterp.graphs.supernodes import Supernode, grouped
from tests.viewer.browser.chromium import WEB
from tests.viewer.synthetic import synthetic

FIXTURE = WEB / "src/panes/subgraph/weights.fixture.json"


def numbers() -> dict[str, Any]:
    """A small graph, groups in it and the edges between them, as plain values."""
    graph = synthetic(70, 600, layers=5, tokens=4, targets=3, seed=6)
    kinds = graph.nodes["kind"]
    features = np.flatnonzero(kinds == FEATURE)
    influence = np.nan_to_num(graph.nodes["influence"][features])
    strong = features[np.argsort(-influence, kind="stable")][:14].tolist()
    # Groups that feed themselves, one with a node that has no inputs, and one of nodes of several kinds.
    groups = [
        Supernode("first", tuple(strong[:5])),
        Supernode("second", tuple(strong[5:8])),
        Supernode("mixed", (strong[8], int(np.flatnonzero(kinds == ERROR)[0]))),
        Supernode("tokens", tuple(int(i) for i in np.flatnonzero(kinds == EMBEDDING)[:2])),
    ]
    singles = [*strong[9:], int(np.flatnonzero(kinds == EMBEDDING)[2]), len(graph) - 3]
    found = grouped(graph, groups, singles)
    return {
        "kind": kinds.tolist(),
        "in_start": graph.indptr.tolist(),
        "in_source": graph.indices.tolist(),
        "weight": [float(w) for w in graph.weights],
        "groups": [list(group.members) for group in found.groups],
        "weights": found.weights.tolist(),
        "inside": found.inside,
    }


def test_the_page_is_tested_against_what_grouped_makes() -> None:
    stored, made = json.loads(FIXTURE.read_text()), numbers()
    weights = np.array(stored.pop("weights"))
    np.testing.assert_allclose(weights, made.pop("weights"), rtol=1e-12, atol=1e-15)
    assert stored == made
    assert np.count_nonzero(weights) > 20 and stored["inside"] > 0


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(numbers(), separators=(",", ":")) + "\n")
