"""Automatic supernodes: planted groups are found, signals count as they should, the preview is right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import (
    EMBEDDING,
    FEATURE,
    TARGET,
    EdgeBuilder,
    assemble,
    grouped,
    node_order,
    node_table,
    propose,
    supernodes_of,
    with_supernodes,
)
from jaxinterp.graphs.signatures import similarities
from tests.graphs.graph_examples import dense_matrix, random_graph

POSITIONS, COPIES = 4, 3


def planted(seed: int, noise: float, flip: bool = False):
    """Two layers; at every position two features of each layer, each divided into copies that differ by noise.

    Returns the graph and for every feature the number of the one that it is a copy of. With ``flip`` one copy
    of each has outputs of the other sign.
    """
    rng = np.random.default_rng(seed)
    base = [(layer, position) for layer in range(2) for position in range(POSITIONS) for _ in range(2)]
    nodes = node_table(len(base) * COPIES + POSITIONS + 2)
    f = len(base) * COPIES
    nodes["kind"][:f] = FEATURE
    nodes["layer"][:f], nodes["position"][:f] = np.repeat(np.array(base), COPIES, axis=0).T
    nodes["index"][:f] = rng.permutation(f)
    nodes["kind"][f:] = [EMBEDDING] * POSITIONS + [TARGET] * 2
    nodes["layer"][f:], nodes["index"][f:] = [-1] * POSITIONS + [2, 2], np.arange(POSITIONS + 2)
    nodes["position"][f:] = [*range(POSITIONS), POSITIONS - 1, POSITIONS - 1]
    nodes["probability"][-2:] = 0.6, 0.3
    origin = np.r_[np.repeat(np.arange(len(base)), COPIES), len(base) + np.arange(POSITIONS + 2)]
    inner = rng.normal(size=(origin[-1] + 1, origin[-1] + 1))
    dense = inner[np.ix_(origin, origin)] * (1 + noise * rng.normal(size=(len(nodes), len(nodes))))
    if flip:
        dense[:, :f:COPIES] *= -1
    layer, position = nodes["layer"], nodes["position"]
    dense *= (layer[:, None] > layer[None, :]) & (position[:, None] >= position[None, :])
    dense *= ((nodes["kind"] == FEATURE) | (nodes["kind"] == TARGET))[:, None]
    order = node_order(nodes)
    builder = EdgeBuilder(len(nodes), "float64")
    builder.add(np.arange(len(nodes)), np.arange(len(nodes)), dense[np.ix_(order, order)])
    graph = assemble(
        nodes[order], builder.finish(), token_ids=tuple(range(POSITIONS)),
        token_texts=tuple(f" t{i}" for i in range(POSITIONS)), prompt="", n_layers=2,
    )  # fmt: skip
    return graph, origin[order][:f]


@pytest.mark.parametrize("seed", range(4))
def test_copies_of_one_feature_are_put_together(seed):
    graph, origin = planted(seed, 0.05)
    before = graph.nodes.tobytes(), graph.weights.tobytes(), dict(graph.view)
    found = propose(graph, at_least=0.95)
    assert sorted(sorted(g.members) for g in found.supernodes) == sorted(
        np.flatnonzero(origin == i).tolist() for i in np.unique(origin)
    )
    assert found.single == () and found.hidden_influence == pytest.approx(0, abs=1e-12)
    assert all(p.cohesion >= p.weakest >= 0.95 for p in found.proposals)
    assert (graph.nodes.tobytes(), graph.weights.tobytes(), dict(graph.view)) == before


def test_copies_with_opposite_effects_are_kept_apart_whatever_their_decoders_say():
    graph, origin = planted(0, 0.02, flip=True)
    vectors = np.eye(len(np.unique(origin)))[origin]
    for group in propose(graph, vectors, at_least=0.5, weights={"decoders": 100.0}).supernodes:
        assert len(set(origin[list(group.members)])) == 1 and len(group.members) == COPIES - 1


def test_decoders_decide_when_they_alone_count():
    graph, origin = planted(1, 0.0)
    vectors = np.random.default_rng(0).normal(size=(len(origin), 32))
    one = np.flatnonzero(origin == 5)
    vectors[one[1]] = vectors[one[0]] * 3
    found = propose(graph, vectors, at_least=0.9, weights={"inputs": 0, "outputs": 0})
    assert [g.members for g in found.supernodes] == [(int(one[0]), int(one[1]))]
    alike = similarities(graph, one, vectors, {"inputs": 0, "outputs": 0})
    assert alike[0, 1] == pytest.approx(1) and abs(alike[0, 2]) < 0.9


def test_likeness_is_the_mean_of_the_plain_cosines():
    graph = random_graph(3, layers=2, positions=2, per_place=3)
    features = np.flatnonzero(graph.nodes["kind"] == FEATURE)[::2]
    dense = dense_matrix(graph)
    size = np.abs(dense).sum(1)
    share = dense / np.where(size > 0, size, 1)[:, None]
    weight = graph.nodes["influence"] + np.nan_to_num(graph.nodes["probability"])

    def cosine(a, b):
        return a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)

    found = similarities(graph, features, weights={"inputs": 2})
    for i, a in enumerate(features):
        for j, b in enumerate(features):
            out = cosine(share[:, a] * weight, share[:, b] * weight)
            mean = (out + 2 * cosine(share[a], share[b])) / 3
            expected = 1.0 if i == j else min(out, mean) if out < 0 else mean
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_groups_keep_to_one_position_unless_told_otherwise():
    graph, _ = planted(2, 0.05)
    position = graph.nodes["position"]
    assert all(len(set(position[list(g.members)])) == 1 for g in propose(graph, at_least=0.0).supernodes)
    across = propose(graph, at_least=0.0, across_positions=True).supernodes
    assert any(len(set(position[list(g.members)])) > 1 for g in across)


def test_the_preview_shows_what_applying_gives():
    graph, origin = planted(3, 0.05)
    strong = np.flatnonzero((np.arange(48) < 29) | (origin == 15))
    strong = strong[origin[strong] != 2]
    strong = np.sort(np.r_[strong, np.flatnonzero(origin == 2)[0]])  # its copies are not compared
    preview = propose(graph, at_least=0.9, features=strong)
    assert set(preview.compared) == set(strong) and len(preview.single) >= 1
    members = [i for g in preview.supernodes for i in g.members]
    assert sorted([*members, *preview.single]) == sorted(strong.tolist())
    assert preview.shown.hidden == {"feature": 48 - len(members)}
    held = graph.nodes["influence"][members].sum() / graph.nodes["influence"][:48].sum()
    assert preview.hidden_influence == pytest.approx(1 - held)
    applied = with_supernodes(graph, preview.supernodes)
    singles = np.flatnonzero(graph.nodes["kind"] != FEATURE)
    again = grouped(applied, supernodes_of(applied), singles)
    np.testing.assert_array_equal(again.weights, preview.shown.weights)
    influence = [p.influence for p in preview.proposals]
    assert influence == sorted(influence, reverse=True)
    assert len({g.name for g in preview.supernodes}) == len(preview.supernodes)
    text = str(preview)
    assert (
        preview.proposals[0].supernode.name in text and f"hidden: {48 - len(members)} feature nodes" in text
    )


def test_a_group_takes_the_name_that_its_members_bear():
    graph, origin = planted(0, 0.01)
    labels = ["Texas" if i == 3 else "" for i in origin] + [""] * (len(graph) - len(origin))
    names = {
        g.members[0]: g.name
        for g in propose(dataclasses.replace(graph, labels=tuple(labels)), at_least=0.9).supernodes
    }
    for first, name in names.items():
        assert (name == "Texas") == (origin[first] == 3)
        assert name == "Texas" or "@" in name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at_least": 1.5}, "at_least is 1.5: expected a likeness from 0 to 1"),
        ({"most": 0}, "most is 0: expected 1 to 5000"),
        ({"features": []}, "0 features to compare"),
        ({"features": [0, 10**6]}, "node 1000000 is no feature"),
        ({"weights": {"output": 1}}, "unknown signal 'output' .did you mean outputs"),
        ({"weights": {"outputs": -1}}, "weight of signal 'outputs' is -1"),
        ({"weights": {"outputs": 0, "inputs": 0}}, "every signal has weight 0"),
        (
            {"vectors": np.zeros((3, 2))},
            r"vectors of shape \(3, 2\): expected one row for each of 36 features",
        ),
        ({"vectors": np.full((36, 2), np.nan)}, "no finite number"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        propose(random_graph(), **settings)


def test_one_feature_has_no_partner():
    graph = random_graph(layers=1, positions=1, per_place=1)
    preview = propose(graph)
    assert preview.proposals == () and preview.single == (0,) and "hidden: 1 feature" in str(preview)
