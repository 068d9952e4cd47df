"""Influence: the Neumann series against the inverse, conservation, invariance, cycles, reference cases."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import BIAS, EMBEDDING, ERROR, FEATURE, TARGET, EdgeBuilder, Flow, node_influence
from jaxinterp.graphs.build import to_csr
from jaxinterp.graphs.influence import running_share, target_weights
from jaxinterp.graphs.order import row_sums
from jaxinterp.graphs.scores import basic
from tests.graphs.graph_examples import CASES, case, dense_matrix, dense_normalised, random_graph

graphs = st.builds(
    random_graph,
    st.integers(0, 2**31),
    layers=st.integers(1, 4),
    positions=st.integers(1, 4),
    per_place=st.integers(1, 4),
    targets=st.integers(1, 3),
    bias=st.booleans(),
    density=st.floats(0.1, 1.0),
    parts=st.sampled_from([(1,), (0, 1), (0, 1, 2), (2,)]),
)


@settings(max_examples=200, deadline=None)
@given(graphs)
def test_influence_is_that_of_the_inverse(graph):
    n = len(graph)
    weights = target_weights(graph.nodes)
    hat = dense_normalised(dense_matrix(graph))
    expected = weights @ (np.linalg.inv(np.eye(n) - hat) - np.eye(n))
    np.testing.assert_allclose(graph.nodes["influence"], expected, rtol=1e-10, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(graphs)
def test_influence_does_not_depend_on_the_kind_of_matrix(graph):
    weights = target_weights(graph.nodes)
    for matrix in (dense_matrix(graph), sparse.csr_array(dense_matrix(graph)), graph.csr):
        np.testing.assert_array_equal(node_influence(matrix, weights), graph.nodes["influence"])


@settings(max_examples=25, deadline=None)
@given(graphs)
def test_all_influence_of_a_target_ends_at_roots(graph):
    rows = np.diff(graph.indptr)
    kinds = graph.nodes["kind"]
    roots = (kinds == EMBEDDING) | (kinds == ERROR) | (kinds == BIAS) | ((kinds == FEATURE) & (rows == 0))
    for target in graph.targets:
        start = np.zeros(len(graph))
        start[target] = 1.0
        total = node_influence(graph.csr, start)[roots].sum()
        assert total == pytest.approx(1.0 if rows[target] else 0.0, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(graphs, st.integers(0, 2**31))
def test_order_of_nodes_changes_nothing(graph, seed):
    dense, kinds = dense_matrix(graph), graph.nodes["kind"]
    weights = target_weights(graph.nodes)
    shuffle = np.random.default_rng(seed).permutation(len(graph))
    moved = dense[np.ix_(shuffle, shuffle)]
    np.testing.assert_allclose(
        node_influence(moved, weights[shuffle]), graph.nodes["influence"][shuffle], atol=1e-13
    )
    here = basic(graph.csr, kinds, weights, "paper")
    there = basic(to_csr(moved), kinds[shuffle], weights[shuffle], "paper")
    assert there.replacement == pytest.approx(here.replacement, abs=1e-12)
    assert there.completeness == pytest.approx(here.completeness, abs=1e-12)
    assert there.path_length == pytest.approx(here.path_length, abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(graphs, st.integers(0, 1000))
def test_a_feature_split_into_halves_shares_its_influence(graph, pick):
    dense, kinds = dense_matrix(graph), graph.nodes["kind"]
    weights = target_weights(graph.nodes)
    one = pick % int((kinds == FEATURE).sum())
    # The copy has the same inputs; both have half the outputs.
    twice = np.insert(dense, one, dense[one], axis=0)
    twice = np.insert(twice, one, twice[:, one] / 2, axis=1)
    twice[:, one + 1] /= 2
    more = np.insert(weights, one, 0.0)
    influence = node_influence(twice, more)
    assert influence[one] == pytest.approx(influence[one + 1], abs=1e-12)
    np.testing.assert_allclose(
        np.delete(influence, [one, one + 1]), np.delete(graph.nodes["influence"], one), atol=1e-12
    )
    assert influence[one : one + 2].sum() == pytest.approx(graph.nodes["influence"][one], abs=1e-12)


def test_targets_without_inputs_and_empty_graphs():
    empty = EdgeBuilder(3).finish()
    assert not node_influence(empty, np.array([0, 0, 1.0])).any()
    assert not running_share(np.zeros(3)).any()
    found = basic(empty, np.array([FEATURE, EMBEDDING, TARGET]), np.array([0, 0, 1.0]), "paper")
    assert (found.replacement, found.path_length, found.path_profile) == (0.0, 0.0, ())


@pytest.mark.parametrize(
    "edges", [[(0, 1), (1, 0), (2, 0)], [(0, 0), (2, 0)], [(0, 1), (1, 2), (2, 0), (3, 0)]]
)
def test_a_cycle_is_named(edges):
    dense = np.zeros((5, 5))
    for target, source in edges:
        dense[target, source] = 1.0
    start = np.zeros(5)
    start[edges[-1][0]] = 1.0
    with pytest.raises(InputError, match=r"cycle.*node"):
        node_influence(dense, start)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_long_chain_is_no_cycle(shuffled):
    n = 600
    number = np.random.default_rng(0).permutation(n) if shuffled else np.arange(n)
    builder = EdgeBuilder(n, "float64")
    for i in range(1, n):
        builder.add([number[i]], [number[i - 1]], [[0.5]])
    csr = builder.finish()
    start = np.zeros(n)
    start[number[-1]] = 1.0
    np.testing.assert_array_equal(node_influence(csr, start), 1 - start)
    kinds = np.full(n, FEATURE)
    kinds[number[0]], kinds[number[-1]] = EMBEDDING, TARGET
    assert basic(csr, kinds, start, "paper").path_length == n - 1


def test_a_long_cycle_is_named_in_one_line():
    n = 3000
    builder = EdgeBuilder(n)
    for i in range(n):
        builder.add([i], [(i + 1) % n], [[1.0]])
    with pytest.raises(InputError, match=r"cycle.*nodes \d+ <- .* <- \.\.\. <- ") as caught:
        node_influence(builder.finish(), np.eye(n)[0])
    assert len(str(caught.value)) < 200


def test_a_cycle_that_leads_to_no_target_does_no_harm():
    dense = np.zeros((5, 5))
    dense[0, 1] = dense[1, 0] = dense[1, 2] = dense[3, 2] = dense[4, 3] = 1.0
    start = np.array([0, 0, 0, 0, 1.0])
    np.testing.assert_array_equal(node_influence(dense, start), [0, 0, 1, 1, 0])


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_size_of_chunks_changes_nothing(monkeypatch, shuffled):
    graph = random_graph(6, parts=(0, 1, 2))
    order = np.random.default_rng(1).permutation(len(graph)) if shuffled else np.arange(len(graph))
    csr = to_csr(dense_matrix(graph)[np.ix_(order, order)])
    kinds, weights = graph.nodes["kind"][order], target_weights(graph.nodes)[order]
    before, whole = node_influence(csr, weights), basic(csr, kinds, weights, "paper")
    monkeypatch.setattr("jaxinterp.graphs.order.CHUNK", 7)
    np.testing.assert_allclose(node_influence(csr, weights), before, rtol=1e-13)
    again = basic(csr, kinds, weights, "paper")
    assert again.replacement == pytest.approx(whole.replacement)
    assert again.path_profile == pytest.approx(whole.path_profile)


@settings(max_examples=15, deadline=None)
@given(graphs)
def test_lengths_of_paths_in_one_pass_are_those_of_single_steps(graph):
    weights, kinds = target_weights(graph.nodes), graph.nodes["kind"]
    flow = Flow.of(graph.csr, weights != 0)
    share = row_sums(graph.csr, kinds == EMBEDDING) / flow.divisor
    found = flow.arrivals(weights, share)
    steps = [float(arrived[kinds == EMBEDDING].sum()) for arrived in flow.steps(weights)]
    np.testing.assert_allclose(found, steps[: len(found)], atol=1e-14)
    assert not any(steps[len(found) :])


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
def test_shares_of_errors_by_place(convention):
    graph = random_graph(2, parts=(0, 2), bias=False, convention=convention)
    found = graph.error_share()
    nodes, whole = graph.nodes, graph.nodes["probability"][graph.targets].sum()
    for layer in range(3):
        for part in range(3):
            here = (nodes["kind"] == ERROR) & (nodes["layer"] == layer) & (nodes["part"] == part)
            expected = nodes["influence"][here].sum() / whole
            assert found.by_layer[layer, part] == pytest.approx(expected, abs=1e-15)
    assert found.by_layer.shape == (3, 3) and found.by_position.shape == (4,)
    assert found.by_position.sum() == pytest.approx(found.total) == pytest.approx(found.by_layer.sum())
    layer, part, share = found.worst(1)[0]
    assert share == found.by_layer.max() and part in ("attention", "residual")
    rows = np.diff(graph.indptr) > 0
    ends = ~rows & (nodes["kind"] == FEATURE)
    rest = nodes["influence"][(nodes["kind"] == EMBEDDING) | ends].sum() / whole
    assert rows[graph.targets].all() and found.total + rest == pytest.approx(1)
    if convention == "paper":
        assert graph.prune(0.5, 0.8).error_share().to_dict() == found.to_dict()


def test_running_share_puts_the_strongest_first():
    share = running_share(np.array([1.0, 5.0, 0.0, 4.0]))
    np.testing.assert_allclose(share, [1.0, 0.5, 1.0, 0.9])


def test_targets_without_probabilities_weigh_the_same():
    graph = random_graph(targets=2)
    nodes = graph.nodes.copy()
    nodes["probability"] = np.nan
    weights = target_weights(dataclasses.replace(graph, nodes=nodes).nodes)
    np.testing.assert_array_equal(weights[graph.targets], [0.5, 0.5])


@pytest.mark.parametrize("prefix", ["", "lim_"])
@pytest.mark.parametrize("name", CASES)
def test_influence_of_the_reference_cases(name, prefix):
    ref = case(name, prefix)
    found = node_influence(ref["adjacency"], ref["probabilities"], "circuit-tracer")
    np.testing.assert_allclose(found, ref["node_influence"], atol=1e-5)
    np.testing.assert_allclose(running_share(found), ref["cumulative_scores"], atol=1e-5)
