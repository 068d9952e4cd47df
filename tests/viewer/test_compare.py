"""Two graphs side by side."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from jaxinterp.graphs import EMBEDDING, ERROR, FEATURE, TARGET, load_graph
from jaxinterp.viewer.compare import compare
from tests.graphs.graph_examples import dense_matrix, random_graph
from tests.support import shared
from tests.viewer.graphs_to_view import chain
from tests.viewer.synthetic import synthetic


def same_dictionary(graph, name="d"):
    return replace(graph, provenance={**graph.provenance, "dictionary_digest": name})


def test_a_graph_with_itself():
    graph = same_dictionary(random_graph(0))
    found = compare(graph, graph)
    assert found["pairs"] == [[i, i] for i in range(len(graph))]
    assert found["only_a"] == found["only_b"] == found["edges"] == []
    json.dumps(found, allow_nan=False)


def test_with_what_was_pruned_away():
    graph = same_dictionary(random_graph(1))
    small = graph.prune(0.5, 0.8)
    found = compare(graph, small)
    assert len(found["pairs"]) == len(small)
    assert len(found["only_a"]) == len(graph) - len(small)
    assert found["only_b"] == []
    before, after = dense_matrix(graph), dense_matrix(small)
    for ta, sa, tb, sb, wa, wb in found["edges"]:
        assert before[ta, sa] == wa
        assert after[tb, sb] == wb
        assert [ta, tb] in found["pairs"]
        assert [sa, sb] in found["pairs"]


def test_edges_that_differ_most_come_first():
    graph = same_dictionary(random_graph(2))
    weights = graph.weights.copy()
    row = int(graph.indptr[int(graph.targets[0])])
    weights[row] *= -3
    found = compare(graph, replace(graph, weights=weights))
    ta, sa, _, _, wa, wb = found["edges"][0]
    assert (ta, sa) == (int(graph.targets[0]), int(graph.indices[row]))
    assert wb == -3 * wa


def test_prompts_of_different_length_from_their_ends():
    short, long = random_graph(0, positions=3), random_graph(0, positions=5)
    long = replace(long, token_ids=(90, *long.token_ids[1:]), token_texts=("other", *long.token_texts[1:]))
    found = compare(same_dictionary(short), same_dictionary(long))
    pairs = np.array(found["pairs"])
    a, b = short.nodes[pairs[:, 0]], long.nodes[pairs[:, 1]]
    assert (a["kind"] == b["kind"]).all()
    inner = a["kind"] != TARGET
    assert (a["position"][inner] - 3 == b["position"][inner] - 5).all()
    assert (a["layer"] == b["layer"]).all()
    assert any("3 and 5 tokens" in note for note in found["notes"])
    assert sorted([*pairs[:, 0].tolist(), *found["only_a"]]) == list(range(len(short)))
    assert sorted([*pairs[:, 1].tolist(), *found["only_b"]]) == list(range(len(long)))


def test_a_word_more_in_the_middle():
    """Before it places are counted from the start, after it from the end."""
    one = random_graph(0, positions=4)
    two = random_graph(0, positions=5)
    first, second = ("the", "city", "dallas", "is"), ("the", "city", "summer", "hollow", "is")
    one = replace(one, token_texts=first, token_ids=(1, 2, 3, 4))
    two = replace(two, token_texts=second, token_ids=(1, 2, 5, 6, 4))
    found = compare(same_dictionary(one), same_dictionary(two))
    places = {
        (int(one.nodes["position"][a]), int(two.nodes["position"][b]))
        for a, b in found["pairs"]
        if one.nodes["kind"][a] == ERROR
    }
    assert places == {(0, 0), (1, 1), (2, 3), (3, 4)}
    assert any("the first 2 are the same" in note for note in found["notes"])


def test_other_dictionaries_match_no_features():
    graph = random_graph(0)
    found = compare(same_dictionary(graph, "one"), same_dictionary(graph, "two"))
    kinds = {int(graph.nodes["kind"][a]) for a, _ in found["pairs"]}
    assert FEATURE not in kinds
    assert kinds >= {ERROR, EMBEDDING, TARGET}
    assert any("different dictionaries" in note for note in found["notes"])
    unknown = compare(graph, same_dictionary(graph))
    assert len(unknown["pairs"]) == len(graph)
    assert any("not recorded" in note for note in unknown["notes"])


def test_tokens_by_text_where_numbers_mean_something_else():
    one = same_dictionary(chain())
    two = same_dictionary(chain(token_texts=(" sky", " red")))  # the same numbers for other words
    found = compare(one, two)
    assert any("by their text" in note for note in found["notes"])
    assert not any(one.nodes["kind"][a] == EMBEDDING for a, _ in found["pairs"])


def test_ambiguous_matches_are_counted():
    graph = random_graph(0)
    nodes = graph.nodes.copy()
    nodes["index"][1] = nodes["index"][0]
    double = same_dictionary(replace(graph, nodes=nodes))
    found = compare(double, double)
    assert len(found["pairs"]) == len(graph)
    assert any(note.startswith("2 nodes share") for note in found["notes"])


def test_real_graphs():
    one, two = (load_graph(shared(f"cases/graphs/{name}.json")) for name in ("mit-dallas_ea", "mit-war_ea"))
    found = compare(one, two)
    json.dumps(found, allow_nan=False)
    assert found["pairs"]
    assert len({a for a, _ in found["pairs"]}) == len(found["pairs"])


def test_zero_links():
    graph = same_dictionary(random_graph(0, density=0.0))
    assert compare(graph, graph)["edges"] == []


@pytest.mark.slow
def test_quick_on_large_graphs():
    import time

    graph = same_dictionary(synthetic(10_000, 1_000_000, layers=26, tokens=40))
    small = graph.prune(0.95, 0.99)
    begin = time.process_time()
    found = compare(graph, small)
    assert time.process_time() - begin < 3.0
    assert len(found["edges"]) == 2000
