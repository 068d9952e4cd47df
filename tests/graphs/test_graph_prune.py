"""Pruning: the reference cases exactly, and the paper's rules on random graphs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import EMBEDDING, ERROR, FEATURE, TARGET, prune_masks
from jaxinterp.graphs.cutoff import cutoff
from jaxinterp.graphs.influence import target_weights
from tests.graphs.graph_examples import CASES, case, dense_matrix, dense_normalised, random_graph


@pytest.mark.parametrize("prefix", ["", "lim_"])
@pytest.mark.parametrize("name", CASES)
def test_masks_of_the_reference_cases_are_exact(name, prefix):
    ref = case(name, prefix)
    found = prune_masks(ref["adjacency"], ref["kinds"], ref["probabilities"], 0.8, 0.98, "circuit-tracer")
    np.testing.assert_array_equal(found.node_mask, ref["node_mask"].astype(bool))
    np.testing.assert_array_equal(found.edge_mask, ref["edge_mask"])
    np.testing.assert_allclose(found.cumulative, ref["cumulative_scores"], atol=1e-5)


def test_the_item_that_crosses_the_threshold_is_kept():
    scores = np.array([1.0, 4.0, 3.0, 2.0])  # shares 0.4, 0.7, 0.9, 1
    for share, last in ((0.4, 4.0), (0.41, 3.0), (0.8, 2.0), (1.0, 1.0)):
        assert cutoff(scores, share) == pytest.approx(last, rel=1e-11)
    assert cutoff(np.zeros(3), 0.5) == 0.0


@pytest.mark.parametrize("size", [3, 30_000])
def test_of_a_share_of_nothing_the_strongest_is_kept(size):
    scores = np.random.default_rng(0).random(size)
    assert (scores >= cutoff(scores, 0.0)).sum() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.999), st.integers(1, 30_000), st.booleans())
def test_the_cutoff_is_that_of_sorting(seed, share, size, ties):
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(size) < 0.8, np.exp(rng.normal(0, rng.integers(1, 40), size)), 0.0)
    if ties:
        scores = rng.choice(scores[: 1 + size // 50], size)
    ordered = np.sort(scores)[::-1]
    running = np.cumsum(ordered)
    found = cutoff(scores, share)
    if running[-1] == 0:
        assert found == 0
        return
    kept = scores >= found
    # The kept ones reach the share, and without the weakest among them (and its equals) they would not.
    slack = 1e-12 * running[-1]
    assert scores[kept].sum() >= share * running[-1] - slack
    weakest = scores[kept].min()
    assert scores[scores > weakest * (1 + 1e-11)].sum() <= share * running[-1] + slack


def slow_prune(graph, node_share, edge_share):
    """The paper's pruning, written as loops over a dense matrix; equal scores stay together."""
    dense, kinds = dense_matrix(graph), graph.nodes["kind"]
    n = len(dense)
    weights = target_weights(graph.nodes)

    def influence(matrix):
        return weights @ (np.linalg.inv(np.eye(n) - dense_normalised(matrix)) - np.eye(n))

    q = influence(dense)
    candidates = sorted((i for i in range(n) if kinds[i] != TARGET), key=lambda i: -q[i])
    kept, running, last = set(), 0.0, np.inf
    for i in candidates:
        if running >= node_share * q[candidates].sum() and q[i] < last * (1 - 1e-12):
            break
        running, last = running + q[i], q[i]
        kept.add(i)
    nodes = {i for i in range(n) if i in kept or kinds[i] != FEATURE}
    left = dense.copy()
    for i in set(range(n)) - nodes:
        left[i], left[:, i] = 0, 0
    flow = dense_normalised(left) * (influence(left) + weights)[:, None]
    edges, running, last = set(), 0.0, np.inf
    for place in np.argsort(-flow, axis=None):
        t, s = divmod(int(place), n)
        if flow[t, s] == 0 or (running >= edge_share * flow.sum() and flow[t, s] < last * (1 - 1e-12)):
            break
        running, last = running + flow[t, s], flow[t, s]
        edges.add((t, s))
    while True:
        gone = {
            i
            for i in nodes
            if kinds[i] == FEATURE and not (any(t == i for t, _ in edges) and any(s == i for _, s in edges))
        }
        if not gone:
            return nodes, edges
        nodes -= gone
        edges = {(t, s) for t, s in edges if t in nodes and s in nodes}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 0.95), st.floats(0.2, 0.99), st.booleans(), st.booleans())
def test_paper_pruning_is_the_plain_algorithm(seed, node_share, edge_share, bias, several):
    parts = (0, 1, 2) if several else (1,)
    graph = random_graph(seed, bias=bias, layers=2, positions=3, per_place=2, parts=parts)
    masks = prune_masks(graph.csr, graph.nodes["kind"], graph.nodes["probability"], node_share, edge_share)
    nodes, edges = slow_prune(graph, node_share, edge_share)
    assert set(np.flatnonzero(masks.node_mask).tolist()) == nodes
    targets, sources, _ = graph.edges()
    found = set(zip(targets[masks.edge_mask].tolist(), sources[masks.edge_mask].tolist(), strict=True))
    assert found == edges


def test_paper_keeps_errors_and_the_peer_does_not():
    graph = random_graph(3, per_place=4)
    kinds = graph.nodes["kind"]
    args = (graph.csr, kinds, graph.nodes["probability"], 0.5, 0.8)
    paper, peer = prune_masks(*args, "paper"), prune_masks(*args, "circuit-tracer")
    assert paper.node_mask[kinds != FEATURE].all()
    assert not peer.node_mask[kinds == ERROR].all()
    assert peer.node_mask[kinds == EMBEDDING].all() and peer.node_mask[kinds == TARGET].all()


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
def test_larger_shares_keep_more(convention):
    graph = random_graph(4, convention=convention)
    sizes = [len(graph.prune(share, 0.9)) for share in (0.3, 0.6, 0.9, 1.0)]
    assert sizes == sorted(sizes)
    edges = [len(graph.prune(0.9, share).weights) for share in (0.3, 0.6, 0.9, 1.0)]
    assert edges == sorted(edges)


def test_a_pruned_graph_keeps_its_numbers_and_says_what_is_gone():
    graph = random_graph(5)
    small = graph.prune(0.6, 0.9)
    records = {node.tobytes() for node in small.nodes}
    kept = [i for i, node in enumerate(graph.nodes) if node.tobytes() in records]
    assert len(kept) == len(small)
    assert small.nodes.tobytes() == graph.nodes[kept].tobytes()
    full = dense_matrix(graph)[np.ix_(kept, kept)]
    assert np.array_equal(dense_matrix(small)[dense_matrix(small) != 0], full[dense_matrix(small) != 0])
    assert small.checks() == graph.checks()
    assert small.scores().replacement == graph.scores().replacement
    assert sum(small.pruned["hidden_nodes"].values()) == len(graph) - len(small)
    assert small.pruned["hidden_edges"] == len(graph.weights) - len(small.weights)
    smaller = small.prune(0.5, 0.8)
    assert sum(smaller.pruned["hidden_nodes"].values()) == len(graph) - len(smaller)
    assert smaller.pruned["hidden_edges"] == len(graph.weights) - len(smaller.weights)
    assert smaller.scores().pruned is None


@pytest.mark.parametrize("bad", [(1.5, 0.9), (0.8, -0.1), (float("nan"), 0.9)])
def test_thresholds_outside_zero_and_one_are_refused(bad):
    with pytest.raises(InputError, match=r"threshold is .*: expected a share between 0 and 1"):
        random_graph().prune(*bad)
