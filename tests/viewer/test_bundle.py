"""The bundle: what the page reads is the graph, bit by bit, whatever the graph."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from jaxinterp.graphs import TARGET, load_graph
from jaxinterp.graphs.ids import graph_ids
from jaxinterp.viewer.bundle import bundle, flow, graph_arrays, node_rows, pack
from tests.graphs.graph_examples import dense_matrix, random_graph
from tests.support import shared
from tests.viewer.graphs_to_view import REAL, chain, cyclic, parsed
from tests.viewer.synthetic import synthetic


def check(graph, found):
    header, arrays = found
    n, m = len(graph), len(graph.weights)
    for name in ("kind", "part", "layer", "position", "index"):
        np.testing.assert_array_equal(arrays[name], graph.nodes[name])
    for name in ("activation", "influence", "share", "probability", "value", "constant", "left_out"):
        np.testing.assert_array_equal(arrays[name], graph.nodes[name].astype(np.float32))
    targets, sources, weights = graph.edges()
    rows = np.repeat(np.arange(n), np.diff(arrays["in_start"]))
    np.testing.assert_array_equal(rows, targets)
    np.testing.assert_array_equal(arrays["in_source"], sources)
    np.testing.assert_array_equal(arrays["weight"], weights.astype(np.float32))
    # by source: every edge once, at its source
    assert sorted(arrays["out_edge"].tolist()) == list(range(m))
    leaves = np.repeat(np.arange(n), np.diff(arrays["out_start"]))
    np.testing.assert_array_equal(sources[arrays["out_edge"]], leaves)
    totals = np.bincount(targets, np.abs(weights), minlength=n)
    np.testing.assert_allclose(arrays["input_total"], totals, rtol=1e-6)
    assert header["n_edges"] == m
    assert header["ids"] == graph_ids(graph)
    assert len(set(header["ids"])) == n
    assert sum(header["counts"].values()) == n
    strong = arrays["strong"]
    assert len(strong) == min(m, 20_000)
    assert len(set(strong.tolist())) == len(strong)
    return header, arrays


@pytest.mark.parametrize("name", REAL)
def test_real_graphs_with_every_node(name):
    graph = load_graph(shared(f"cases/graphs/{name}.json"))
    header, _ = check(graph, parsed(bundle(graph, {"file": name})))
    assert header["file"] == name
    assert header["tokens"] == list(graph.token_texts)
    # the text of a target is its token, whatever the dialect's label around it
    first = str(int(graph.targets[0]))
    assert f'"{header["labels"][first]}"' in graph.labels[int(first)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"layers": 80, "per_place": 1},
        {"layers": 1},
        {"density": 0.0},
        {"parts": (0, 1, 2)},
        {"dtype": "float32"},
    ],
    ids=["plain", "80 layers", "one layer", "zero links", "three parts", "float32"],
)
def test_any_shape(settings):
    graph = random_graph(1, **settings)
    header, _ = check(graph, parsed(bundle(graph, {})))
    assert header["n_layers"] == graph.n_layers


def test_strong_edges_are_those_with_most_flow():
    graph = random_graph(2)
    _, arrays = parsed(bundle(graph, {}))
    size = np.abs(dense_matrix(graph))
    matter = graph.nodes["influence"] + np.where(graph.nodes["kind"] == TARGET, graph.nodes["probability"], 0)
    expected = size / np.maximum(size.sum(1, keepdims=True), 1e-300) * matter[:, None]
    targets, sources, _ = graph.edges()
    np.testing.assert_allclose(flow(graph), expected[targets, sources], rtol=1e-5)
    in_order = expected[targets, sources][arrays["strong"]]
    assert (np.diff(in_order) <= 1e-7 * in_order[0]).all()


def test_many_edges_leave_the_strongest():
    graph = random_graph(4, layers=4)
    whole, few = flow(graph), graph_arrays(graph, most=50)
    assert len(few["weight"][1]) == 50
    assert len(few["in_start"][1]) == len(graph) + 1
    kept = np.sort(np.abs(few["weight"][1]))
    best = np.argsort(-whole, kind="stable")[:50]
    np.testing.assert_allclose(kept, np.sort(np.abs(graph.weights[best])).astype(np.float32))
    # of all edges, not of those sent
    total = np.bincount(graph.edges()[0], np.abs(graph.weights), minlength=len(graph))
    np.testing.assert_allclose(few["input_total"][1], total, rtol=1e-6)


def test_unknown_influence_goes_by_share():
    graph = cyclic()
    header, arrays = parsed(bundle(graph, {}))
    assert np.isnan(arrays["influence"]).all()
    assert len(arrays["strong"]) == header["n_edges"] == 3


def test_texts_of_every_sort():
    nasty = ('"', "</script><b>x", "\x00\u2028", "\udc80", "\U0001f308")
    graph = chain(labels=(*nasty, '"'), token_texts=('"', "<i>"))
    header, _ = parsed(bundle(graph, {}))
    assert header["tokens"] == ['"', "<i>"]
    assert header["labels"]["5"] == '"'
    assert header["labels"]["1"] == nasty[1]
    assert header["labels"]["3"] == nasty[3]


def test_numbers_beyond_float32():
    graph = chain()
    nodes = graph.nodes.copy()
    nodes["activation"][0], nodes["value"][0] = 1e300, -1e300
    big = replace(graph, nodes=nodes, weights=graph.weights * 1e200)
    _, arrays = parsed(bundle(big, {}))
    assert np.isfinite(arrays["weight"]).all()
    assert np.isfinite(arrays["activation"][0])
    assert arrays["value"][0] < -1e38


def test_pack_empty_arrays():
    header, arrays = parsed(
        pack({"x": 1}, {"a": ("f4", np.zeros(0)), "b": ("u1", np.arange(3)), "c": ("i4", [7])})
    )
    assert header["x"] == 1
    assert arrays["a"].size == 0
    assert arrays["b"].tolist() == [0, 1, 2]
    assert arrays["c"].tolist() == [7]


def test_rows_of_a_node():
    graph = random_graph(5)
    dense = dense_matrix(graph)
    for node in (0, len(graph) // 2, int(graph.targets[0])):
        found = node_rows(graph, node, most=4)
        inputs, outputs = dense[node], dense[:, node]
        assert found["n_inputs"] == np.count_nonzero(inputs)
        assert found["n_outputs"] == np.count_nonzero(outputs)
        np.testing.assert_allclose(found["input_total"], np.abs(inputs).sum())
        for pairs, row in ((found["inputs"], inputs), (found["outputs"], outputs)):
            assert len(pairs) == min(4, np.count_nonzero(row))
            assert [w for _, w in pairs] == [row[i] for i, _ in pairs]
            np.testing.assert_allclose([abs(w) for _, w in pairs], np.sort(np.abs(row[row != 0]))[::-1][:4])


def test_large_graph_is_quick():
    graph = synthetic(3000, 200_000, layers=20, tokens=20)
    begin = time.process_time()
    data = bundle(graph, {})
    assert time.process_time() - begin < 1.0  # a twentieth of that on a quiet machine
    header, arrays = parsed(data)
    assert header["n_edges"] == len(arrays["weight"]) == len(graph.weights)


@pytest.mark.slow
def test_ten_million_links_in_little_memory():
    """Of which the 2 million strongest are sent."""
    import resource

    rng = np.random.default_rng(0)
    rows, each = 20_000, 500
    base = random_graph(0, layers=1, positions=1, per_place=1, targets=1, bias=False)
    nodes = np.repeat(base.nodes[:1], 30_001)
    nodes["index"] = np.arange(30_001)
    nodes[-1] = base.nodes[-1]
    nodes["influence"] = rng.random(30_001)
    indices = np.cumsum(rng.integers(1, 20, (rows, each)), axis=1).astype(np.int32).ravel()
    indptr = np.concatenate([np.zeros(10_002, np.int64), np.arange(1, rows + 1) * each])
    graph = replace(
        base, nodes=nodes, labels=("",) * len(nodes), indptr=indptr, indices=indices,
        weights=rng.normal(size=len(indices)).astype(np.float32),
    )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = bundle(graph, {})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 600_000  # KB
    header, arrays = parsed(data)
    assert header["n_edges"] == 10_000_000
    assert len(arrays["weight"]) == len(arrays["in_source"]) == 2_000_000
    assert arrays["in_start"][-1] == arrays["out_start"][-1] == 2_000_000
    strength = np.sort(flow(graph))[::-1]
    total = arrays["input_total"]
    top = arrays["strong"][0]
    target = int(np.searchsorted(arrays["in_start"], top, side="right")) - 1
    probability = nodes["probability"][target] if nodes["kind"][target] == TARGET else 0.0
    np.testing.assert_allclose(
        abs(arrays["weight"][top]) / total[target] * (nodes["influence"][target] + probability),
        strength[0],
        rtol=1e-5,
    )
