"""Scores and checks: the peer's figures, dense formulas, brute-force paths."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.graphs import BIAS, EMBEDDING, ERROR, FEATURE, TARGET, load_graph, strongest
from jaxinterp.graphs.build import to_csr
from jaxinterp.graphs.checks import Checks
from jaxinterp.graphs.influence import target_weights
from jaxinterp.graphs.scores import Scores, basic
from tests.graphs.graph_examples import CASES, case, dense_matrix, dense_normalised, random_graph
from tests.support import shared


@pytest.mark.parametrize("prefix", ["", "lim_"])
@pytest.mark.parametrize("name", CASES)
def test_scores_of_the_reference_cases(name, prefix):
    ref = case(name, prefix)
    found = basic(to_csr(ref["adjacency"]), ref["kinds"], ref["probabilities"], "circuit-tracer")
    np.testing.assert_allclose([found.replacement, found.completeness], ref["scores"], atol=1e-4)


@pytest.mark.parametrize("name", ["mit-dallas_ea", "mit-war_ea"])
def test_completeness_of_real_graphs(name):
    # In these two files circuit-tracer left its completeness score under the key node_threshold.
    path = shared(f"cases/graphs/{name}.json")
    written = json.loads(path.read_text())["metadata"]["node_threshold"]
    assert load_graph(path).scores().completeness == pytest.approx(written, abs=1e-6)


def plain_scores(dense, kinds, weights):
    n = len(dense)
    hat = dense_normalised(dense)
    q = weights @ (np.linalg.inv(np.eye(n) - hat) - np.eye(n))
    tokens, errors = q[kinds == EMBEDDING].sum(), q[kinds == ERROR].sum()
    counted = (kinds == FEATURE) | (kinds == TARGET)
    share = np.where(counted, q + weights, 0)
    explained = 1 - hat[:, kinds == ERROR].sum(1)
    return tokens / (tokens + errors), (share * explained).sum() / share.sum()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_paper_scores_are_the_dense_formulas(seed, left_out):
    graph = random_graph(seed, left_out=left_out)
    dense, kinds, weights = dense_matrix(graph), graph.nodes["kind"], target_weights(graph.nodes)
    found = graph.scores()
    assert (found.replacement, found.completeness) == pytest.approx(plain_scores(dense, kinds, weights))
    bare = plain_scores(np.where(kinds == BIAS, 0, dense), kinds, weights)
    assert (found.replacement_without_bias, found.completeness_without_bias) == pytest.approx(bare)
    if left_out:
        wide = np.pad(dense, ((0, 1), (0, 1)))
        wide[:-1, -1] = graph.nodes["left_out"]
        wider = plain_scores(wide, np.append(kinds, ERROR), np.append(weights, 0))
        assert (found.replacement_with_left_out, found.completeness_with_left_out) == pytest.approx(wider)
    else:
        assert found.replacement_with_left_out is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_both_scores_of_a_pruned_graph(seed):
    graph = random_graph(seed)
    small = graph.prune(0.6, 0.9)
    kept = {tuple(node) for node in small.nodes[["kind", "layer", "position", "index"]].tolist()}
    rows = graph.nodes[["kind", "layer", "position", "index"]].tolist()
    gone = np.array([tuple(row) not in kept for row in rows])
    dense, kinds, weights = dense_matrix(graph), graph.nodes["kind"], target_weights(graph.nodes)
    dense[gone] = 0
    found = small.scores().pruned
    separate = plain_scores(dense, np.where(gone, ERROR, kinds), weights)
    assert (found.separate_replacement, found.separate_completeness) == pytest.approx(separate)
    merged = dense.copy()
    for i in np.flatnonzero(gone):
        place = (ERROR, rows[i][1], rows[i][2], -1)
        merged[:, rows.index(place)] += dense[:, i]
        merged[:, i] = 0
    assert (found.merged_replacement, found.merged_completeness) == pytest.approx(
        plain_scores(merged, kinds, weights)
    )


def all_paths(dense, kinds, node):
    """Every path from an embedding to the node with the product of its normalised signed weights."""
    if kinds[node] == EMBEDDING:
        return [((node,), 1.0)]
    size = np.abs(dense[node]).sum()
    return [
        ((*path, node), strength * dense[node, s] / size)
        for s in np.flatnonzero(dense[node])
        for path, strength in all_paths(dense, kinds, int(s))
    ]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_strongest_paths_and_the_path_profile_by_enumeration(seed, k):
    graph = random_graph(seed, layers=3, positions=3, per_place=2, density=0.5)
    dense, kinds = dense_matrix(graph), graph.nodes["kind"]
    weights = target_weights(graph.nodes)
    by_length = np.zeros(5)
    for target in graph.targets:
        paths = sorted(all_paths(dense, kinds, int(target)), key=lambda p: -abs(p[1]))
        found = strongest(graph.csr, kinds, int(target), k)
        assert [p.nodes for p in found] == [p for p, _ in paths[:k]]
        assert [p.strength for p in found] == pytest.approx([s for _, s in paths[:k]])
        for path, strength in paths:
            by_length[len(path) - 1] += weights[target] * abs(strength)
    scores = graph.scores()
    profile = np.cumsum(by_length)[1:]
    length = len(scores.path_profile)
    if profile[-1] > 0:
        expected = profile / profile[-1] * scores.replacement
        np.testing.assert_allclose(scores.path_profile, expected[:length], atol=1e-12)
        assert scores.path_profile[-1] == pytest.approx(scores.replacement)
        mean = (np.arange(5) * by_length).sum() / by_length.sum()
        assert scores.path_length == pytest.approx(mean)


def test_scores_and_checks_survive_json():
    graph = random_graph(left_out=True).prune(0.7, 0.9)
    scores, checks = graph.scores(), graph.checks()
    assert scores.pruned is not None
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores
    assert Checks.from_dict(json.loads(json.dumps(checks.to_dict()))) == checks


def changed(graph, node, **fields):
    nodes = graph.nodes.copy()
    for name, value in fields.items():
        nodes[name][node] = value
    return dataclasses.replace(graph, nodes=nodes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_checks_hold_on_a_consistent_graph_and_catch_a_wrong_one(dtype):
    graph = random_graph(dtype=dtype, left_out=True)
    checks = graph.checks()
    assert checks.ok and checks.identity_2 < checks.tolerance and checks.identity_3 < checks.tolerance
    assert "exact" in str(checks)
    size = np.abs(dense_matrix(graph)).sum(1)
    for node, field in ((5, "identity_2"), (int(graph.targets[0]), "identity_3")):
        off = graph.nodes["value"][node] + 0.01 * size[node]
        wrong = changed(graph, node, value=off).checks()
        assert not wrong.ok and wrong.worst == node
        assert getattr(wrong, field) == pytest.approx(0.01, rel=1e-3)
        assert "NOT EXACT" in str(wrong) and "worst" in str(wrong)
    missed = dataclasses.replace(graph, measured={"identity_1": 0.5}).checks()
    assert not missed.ok and "NOT EXACT" in str(missed)
    assert not changed(graph, 5, constant=np.nan).checks().ok


def test_checks_of_a_target_without_inputs():
    graph = random_graph()
    row = int(graph.targets[0])
    keep = np.ones(len(graph.weights), bool)
    keep[graph.indptr[row] : graph.indptr[row + 1]] = False
    indptr = graph.indptr.copy()
    indptr[row + 1 :] -= (~keep).sum()
    cut = dataclasses.replace(graph, indptr=indptr, indices=graph.indices[keep], weights=graph.weights[keep])
    bare = changed(cut, row, value=2.0, constant=2.0)
    assert bare.checks().ok
    assert changed(cut, row, value=0.0, constant=0.0).checks().ok
    assert not changed(cut, row, value=1.0, constant=0.0).checks().ok
    assert 0 <= bare.scores().replacement <= 1


def test_a_graph_without_values_is_not_called_exact():
    graph = random_graph()
    nodes = graph.nodes.copy()
    nodes["value"] = np.nan
    checks = dataclasses.replace(graph, nodes=nodes, measured={}).checks()
    assert not checks.ok and not checks.measured and "none possible" in str(checks)
