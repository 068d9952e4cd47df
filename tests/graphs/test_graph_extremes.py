"""Graphs at the edge of what is one: no features, one token, one layer, nothing at all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import (
    ERROR,
    FEATURE,
    EdgeBuilder,
    assemble,
    grouped,
    load_graph,
    node_table,
    propose,
    report,
)
from jaxinterp.graphs.build import only, select
from tests.graphs.graph_examples import random_graph, same


def without_features():
    graph = random_graph()
    keep = graph.nodes["kind"] != FEATURE
    csr = select(graph.csr, keep, np.ones(len(graph.weights), bool))
    return assemble(
        graph.nodes[keep],
        csr,
        token_ids=graph.token_ids,
        token_texts=graph.token_texts,
        prompt="",
        n_layers=3,
    )


@pytest.mark.parametrize(
    "graph",
    [
        without_features(),
        random_graph(layers=1, positions=1, per_place=1, targets=1),
        random_graph(density=0.0),
        random_graph(layers=1, positions=1, per_place=0),
    ],
    ids=["no features", "one token and layer", "no edges", "one token, no features"],
)
def test_everything_works_on_it(tmp_path, graph):
    scores = graph.scores()
    assert 0 <= scores.replacement <= 1 and 0 <= scores.completeness <= 1
    small = graph.prune(0.5, 0.5)
    assert len(small) <= len(graph) and report(small, 80) and small.scores().pruned is not None
    assert 0 <= graph.error_share().total <= 1
    assert grouped(graph, [], range(len(graph))).weights.shape == (len(graph), len(graph))
    for ending in ("json", "jigraph"):
        graph.save(tmp_path / f"g.{ending}")
        assert same(load_graph(tmp_path / f"g.{ending}"), graph)


def test_without_features_there_is_nothing_to_group():
    with pytest.raises(InputError, match="no feature nodes, so there is nothing to group"):
        propose(without_features())


def test_a_graph_of_nothing_is_refused():
    with pytest.raises(InputError, match="a graph needs at least one target"):
        assemble(node_table(0), EdgeBuilder(0).finish(), token_ids=(), token_texts=(), prompt="", n_layers=0)


def test_errors_at_odd_layers_of_other_peoples_files():
    graph = random_graph()
    nodes = graph.nodes.copy()
    first = int(np.flatnonzero(nodes["kind"] == ERROR)[0])
    nodes["layer"][first] = -1
    share = dataclasses.replace(graph, nodes=nodes).error_share()
    assert share.total == graph.error_share().total and share.by_layer.sum() < share.total
    nodes["layer"][first] = 2**31 - 1
    with pytest.raises(InputError, match="layer 2147483647, which is beyond any model"):
        dataclasses.replace(graph, nodes=nodes).error_share()


def test_rows_of_no_edges():
    csr = EdgeBuilder(4).finish()
    assert only(csr, np.zeros(0, bool)).indptr.tolist() == [0] * 5
    assert select(csr, np.array([True, False, True, False]), np.zeros(0, bool)).indptr.tolist() == [0, 0, 0]


def test_a_cycle_among_features_is_named_by_everything_that_follows_influence():
    nodes = node_table(3)
    nodes["kind"], nodes["layer"], nodes["index"] = [0, 0, 4], [0, 1, 2], [3, 4, 5]
    nodes["probability"][2] = 1.0
    builder = EdgeBuilder(3)
    for target, source in ((1, 0), (0, 1), (2, 1)):
        builder.add([target], [source], [[1.0]])
    with pytest.raises(InputError, match=r"cycle, so influence has no end: nodes . <- . <- .") as caught:
        assemble(nodes, builder.finish(), token_ids=(1,), token_texts=("a",), prompt="a", n_layers=2)
    assert "\n" not in str(caught.value)
