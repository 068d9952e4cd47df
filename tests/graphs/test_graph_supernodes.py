"""Supernodes: the formula by hand and as plain loops, what is kept in files, faults."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import (
    EMBEDDING,
    FEATURE,
    TARGET,
    EdgeBuilder,
    Graph,
    Supernode,
    assemble,
    grouped,
    load_graph,
    node_table,
    supernodes_of,
    with_supernodes,
)
from tests.graphs.graph_examples import dense_matrix, random_graph


def small(edges: dict[tuple[int, int], float], kinds: list[int], layers: list[int]) -> Graph:
    """A graph of one token from its edges {(target, source): weight}."""
    n = len(kinds)
    nodes = node_table(n)
    nodes["kind"], nodes["layer"], nodes["index"] = kinds, layers, np.arange(n)
    nodes["activation"][nodes["kind"] == FEATURE] = 1.5
    nodes["probability"][nodes["kind"] == TARGET] = 1.0
    builder = EdgeBuilder(n, "float64")
    for (target, source), weight in edges.items():
        builder.add([target], [source], [[weight]])
    return assemble(
        nodes, builder.finish(), token_ids=(7,), token_texts=(" a",), prompt=" a", n_layers=max(layers)
    )


# Sources s1, s2, u = 0, 1, 2; members of T = 3, 4, of which 3 feeds 4; embedding 5; target 6.
HAND = small(
    {
        (3, 0): 2.0, (3, 1): -1.0, (3, 2): 1.0, (4, 0): 1.0, (4, 2): -2.0, (4, 3): 3.0,
        (0, 5): 1.0, (1, 5): 1.0, (2, 5): 1.0, (6, 3): 1.0, (6, 4): 3.0, (6, 5): -4.0,
    },
    [FEATURE] * 5 + [EMBEDDING, TARGET],
    [0, 0, 0, 1, 2, -1, 3],
)  # fmt: skip


def test_the_edges_of_a_graph_small_enough_for_paper():
    found = grouped(HAND, [Supernode("S", (0, 1)), Supernode("T", (3, 4))], singles=(2, 6))
    assert [group.name for group in found.groups] == ["S", "T", "L0/2@0", '"token 6"']
    # Node 3: abs 4, ext 4, share 1; node 4: abs 6, ext 3, share 1/2; so ω = 2/3, 1/3.
    expected = np.zeros((4, 4))
    expected[1, 0] = 2 / 3 * (2 - 1) / 4 + 1 / 3 * 1 / 3
    expected[1, 2] = 2 / 3 * 1 / 4 + 1 / 3 * -2 / 3
    expected[3, 1] = (1 + 3) / 8
    np.testing.assert_allclose(found.weights, expected, atol=1e-15)
    assert found.activation[:3].tolist() == [3.0, 3.0, 1.5] and np.isnan(found.activation[3])
    assert found.hidden == {"embedding": 1} and found.inside == 1
    assert found.edges()[0] == (3, 1, 0.5) and len(found.edges()) == 3
    influence = HAND.nodes["influence"]
    np.testing.assert_allclose(found.influence[:2], [influence[:2].sum(), influence[3:5].sum()])
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["activation"] == [3.0, 3.0, 1.5, None]


def test_a_group_fed_by_itself_alone_takes_nothing():
    found = grouped(HAND, [Supernode("own", (0, 5))], singles=(1, 6))
    assert found.weights.tolist() == [[0, 0, 0], [1, 0, 0], [-0.5, 0, 0]] and found.inside == 1


def plain_edges(dense: np.ndarray, groups: list[tuple[int, ...]]) -> np.ndarray:
    """The formula, written as it stands."""
    found = np.zeros((len(groups), len(groups)))
    for i, into in enumerate(groups):
        whole = {t: np.abs(dense[t]).sum() for t in into}
        outside = {t: sum(abs(dense[t, s]) for s in range(len(dense)) if s not in into) for t in into}
        ratio = {t: outside[t] / whole[t] if whole[t] else 0.0 for t in into}
        for j, source in enumerate(groups):
            for t in into:
                if i != j and outside[t] > 0:
                    share = ratio[t] / sum(ratio.values())
                    found[i, j] += share * sum(dense[t, s] for s in source) / outside[t]
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_edges_between_supernodes_are_the_formula(seed, count):
    graph = random_graph(seed, layers=2, positions=3, per_place=2, parts=(0, 1))
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, count, len(graph))
    groups = [tuple(np.flatnonzero(label == i).tolist()) for i in range(count)]
    groups = [group for group in groups if group]
    found = grouped(graph, [Supernode(str(i), group) for i, group in enumerate(groups)])
    np.testing.assert_allclose(found.weights, plain_edges(dense_matrix(graph), groups), atol=1e-13)
    assert sum(found.hidden.values()) == (label == -1).sum()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_positive_edges_of_a_whole_partition_sum_to_one(seed):
    graph = random_graph(seed)
    graph = dataclasses.replace(graph, weights=np.abs(graph.weights))
    label = np.random.default_rng(seed).integers(0, 5, len(graph))
    names = np.unique(label)
    found = grouped(graph, [Supernode(str(i), tuple(np.flatnonzero(label == i).tolist())) for i in names])
    sums = found.weights.sum(1)
    assert ((np.abs(sums - 1) < 1e-12) | (sums == 0)).all() and (sums > 0).any()


def test_groups_of_one_have_signed_shares():
    graph = random_graph(4)
    found = grouped(graph, [], singles=range(len(graph)))
    dense = dense_matrix(graph)
    size = np.abs(dense).sum(1, keepdims=True)
    np.testing.assert_allclose(found.weights, dense / np.where(size > 0, size, 1), atol=1e-15)


def test_supernodes_live_in_the_view_and_in_every_file(tmp_path):
    graph = random_graph(parts=(0, 1))
    groups = (Supernode("first", (0, 1)), Supernode('say "x"', (5,)))
    marked = with_supernodes(
        dataclasses.replace(graph, view={"pinnedIds": ["3_50_3"], "gridsnap": 2}), groups
    )
    assert graph.view == {} and supernodes_of(graph) == () and supernodes_of(marked) == groups
    assert marked.view["supernodes"][0][0] == "first" and len(marked.view["pinnedIds"]) == 4
    for ending in ("json", "jigraph"):
        marked.save(tmp_path / f"g.{ending}")
        assert supernodes_of(load_graph(tmp_path / f"g.{ending}")) == groups
    assert json.loads((tmp_path / "g.json").read_text())["qParams"]["supernodes"] == marked.view["supernodes"]
    again = with_supernodes(marked, groups[:1])
    assert supernodes_of(again) == groups[:1]
    pruned = marked.prune(0.1, 0.5)
    assert sum(len(group.members) for group in supernodes_of(pruned)) < 3
    for group in supernodes_of(pruned):
        for new in group.members:
            assert pruned.nodes[new].tobytes() in {graph.nodes[i].tobytes() for i in (0, 1, 5)}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([Supernode("a", ())], "supernode 'a' has no members"),
        ([Supernode("a", (99999,))], "'a' names node 99999: the graph has"),
        ([Supernode("a", (-1,))], "'a' names node -1"),
        ([Supernode("a", (1, 2)), Supernode("b", (2,))], "node 2 is in 'a' and 'b'"),
        ([Supernode("a", (3, 3))], "node 3 is twice in 'a'"),
    ],
)
def test_groups_that_are_none_are_refused(groups, message):
    graph = random_graph()
    for work in (grouped, with_supernodes):
        with pytest.raises(InputError, match=message):
            work(graph, groups)


@pytest.mark.parametrize("odd", ["a,b", [["x", 3]], [[]], [3], {"a": 1}])
def test_a_view_with_odd_supernodes_is_refused(odd):
    with pytest.raises(InputError, match=r"view\.supernodes"):
        supernodes_of(dataclasses.replace(random_graph(), view={"supernodes": odd}))
