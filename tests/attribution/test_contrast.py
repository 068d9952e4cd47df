"""Two graphs side by side: matched nodes, exact sums, files; features that tell prompts apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxinterp.attribution.align import align_positions
from jaxinterp.attribution.contrast import Contrast, contrast, load_contrast
from jaxinterp.attribution.differences import differences
from jaxinterp.attribution.search import active_only, activity, as_target, overlap
from jaxinterp.core.errors import InputError
from jaxinterp.graphs import EMBEDDING, FEATURE, TARGET, EdgeBuilder, Graph, assemble
from tests.graphs.graph_examples import dense_matrix, random_graph


def varied(graph: Graph, seed: int, *, drop: int = 6) -> Graph:
    """Another graph of the same targets: some features gone, other weights, one other token."""
    rng = np.random.default_rng(seed)
    features = np.flatnonzero(graph.nodes["kind"] == FEATURE)
    gone = rng.choice(features, drop, replace=False)
    keep = np.setdiff1d(np.arange(len(graph)), gone)
    dense = dense_matrix(graph) * rng.uniform(0.5, 1.5, (len(graph), len(graph)))
    dense = dense[np.ix_(keep, keep)]
    nodes = graph.nodes[keep].copy()
    nodes["constant"] *= 1.25
    nodes["left_out"] = np.where(np.isfinite(nodes["value"]), 0.5, 0)
    nodes["value"] = np.where(
        np.isfinite(nodes["value"]), dense.sum(axis=1) + nodes["constant"] + nodes["left_out"], np.nan
    )
    nodes["index"][np.flatnonzero(nodes["kind"] == EMBEDDING)[0]] = 99
    builder = EdgeBuilder(len(keep), "float64")
    builder.add(np.arange(len(keep)), np.arange(len(keep)), dense)
    return assemble(
        nodes, builder.finish(), token_ids=(99, *graph.token_ids[1:]), token_texts=(" other", *graph.token_texts[1:]),
        prompt="another", n_layers=graph.n_layers, labels=tuple(graph.labels[i] for i in keep),
        settings=graph.settings, provenance=graph.provenance,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> tuple[Graph, Graph]:
    a = random_graph(1, parts=(0, 1))
    return a, varied(a, 2)


@pytest.mark.parametrize("inner", [False, True])
def test_differences_of_edges_are_the_difference_of_values(pair: tuple[Graph, Graph], inner: bool) -> None:
    a, b = pair
    found = contrast(a, b, inner=inner)
    assert len(found) == len(a.targets) + inner * (b.nodes["kind"] == FEATURE).sum()
    dense = dense_matrix(a), dense_matrix(b)
    for row, record in enumerate(found.rows):
        pairs = found.nodes[record["node"]]
        assert found.value(row) == a.nodes["value"][pairs["node_a"]] - b.nodes["value"][pairs["node_b"]]
        assert abs(found.remainder(row)) < 1e-12
        for node, change in zip(*found.differences(row), strict=True):
            ends = [int(found.nodes[f"node_{side}"][node]) for side in "ab"]
            one, two = (
                m[t, s] if s >= 0 else 0.0
                for m, s, t in zip(dense, ends, (pairs["node_a"], pairs["node_b"]), strict=True)
            )
            assert change == one - two
    changes = np.abs(found.differences()[1])
    assert (np.diff(changes) <= 0).all()


def test_what_only_one_prompt_has(pair: tuple[Graph, Graph]) -> None:
    a, b = pair
    found = contrast(a, b)
    lost = found.only("a")
    assert len(lost) == 6 and len(found.only("b")) == 0
    assert (np.diff(found.nodes["activation_a"][lost]) <= 0).all()
    assert not found.nodes["activation_b"][lost].any()
    tokens = found.nodes[found.nodes["kind"] == EMBEDDING]
    assert sorted(tokens["index"].tolist()) == [7, 8, 9, 10, 99]
    assert contrast(b, a).value() == -found.value()
    with pytest.raises(InputError, match="side is 'c'"):
        found.only("c")


def test_prompts_of_other_lengths_and_targets_that_are_paired() -> None:
    a, b = random_graph(1, positions=4), random_graph(1, positions=3)
    found = contrast(a, b)
    assert found.facts["positions"] == [[1, 0], [2, 1], [3, 2]]
    assert len(found) == 2 and abs(found.remainder()) < 1e-12
    with pytest.raises(InputError, match="no target of the first graph"):
        contrast(a, b, align="start")
    swapped = contrast(a, b, align="start", targets=[(0, 1)])
    assert swapped.facts["unmatched_targets"] == [
        [" word" + str(a.targets[1])],
        [" word" + str(b.targets[0])],
    ]
    assert abs(swapped.remainder()) < 1e-12
    assert swapped.value() == a.nodes["value"][a.targets[0]] - b.nodes["value"][b.targets[1]]


def test_pruned_graphs_say_what_is_missing(pair: tuple[Graph, Graph]) -> None:
    small = contrast(pair[0].prune(0.6, 0.8), pair[1].prune(0.6, 0.8))
    assert abs(small.remainder()) > 1e-6
    assert f"pruned away {small.remainder():+.4f}" in small.table(width=200)


def test_table(pair: tuple[Graph, Graph]) -> None:
    found = contrast(*pair)
    text = found.table(0, top=4, width=90)
    lines = text.splitlines()
    assert len(lines) == 1 + 1 + 4 + 1
    assert max(map(len, lines)) <= 90
    assert f"difference {found.value():+.4f}" in lines[0]
    nodes, change = found.differences()
    assert lines[2].split()[0] == f"{change[0]:+.4f}"
    assert f"{len(nodes) - 4} more sources {change[4:].sum():+.4f}" in lines[-1]
    assert 'token " other" @0 of B only' in found.table(0, top=len(nodes))
    assert str(found).count("difference") == 2


def test_files(pair: tuple[Graph, Graph], tmp_path: Path) -> None:
    found = contrast(*pair, inner=True)
    found.save(tmp_path / "c.json")
    again = load_contrast(tmp_path / "c.json")
    for name in ("nodes", "rows", "indptr", "indices", "effects"):
        assert (
            getattr(again, name).tobytes()
            == getattr(found, name).astype(getattr(again, name).dtype).tobytes()
        )
    assert (again.labels, again.tokens, again.facts) == (found.labels, found.tokens, found.facts)
    assert again.table(1) == found.table(1)


def test_damaged_files(pair: tuple[Graph, Graph]) -> None:
    good = contrast(*pair).to_dict()
    for key, value, message in (
        ("format", "other", "not a contrast"),
        ("version", 2, "reads up to 1"),
        ("labels", [], "one text for each"),
        ("indices", [1.5], "int64"),
        ("indptr", [0], "do not belong"),
        ("effects", "x", "list of numbers"),
        ("rows", {}, "columns"),
        ("nodes", {**good["nodes"], "kind": [9] * len(good["labels"])}, "numbers below"),
        ("nodes", {**good["nodes"], "layer": [2**40] * len(good["labels"])}, "int32"),
        ("nodes", {**good["nodes"], "position_b": [4] * len(good["labels"])}, "outside the prompt"),
        ("rows", {**good["rows"], "node": [10**6] * 2}, "a node that is not one"),
    ):
        with pytest.raises(InputError, match=message):
            Contrast.from_dict(json.loads(json.dumps({**good, key: value})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 9}, "layers 3 in the first, 9 in the second"),
        ({"settings": {"convention": "circuit-tracer"}}, "convention paper"),
        ({"provenance": {"dictionary_digest": "x"}}, "dictionary None"),
    ],
)
def test_graphs_that_cannot_be_compared(pair: tuple[Graph, Graph], change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        contrast(pair[0], dataclasses.replace(pair[1], **change))


def test_alignments() -> None:
    a, b = [1, 5, 6, 2, 3], [1, 7, 2, 3]
    assert align_positions(a, b).tolist() == [-1, 0, 1, 2, 3]
    assert align_positions(a, b, "start").tolist() == [0, 1, 2, 3, -1]
    assert align_positions(a, b, "tokens").tolist() == [0, -1, 1, 2, 3]
    assert align_positions(a, b, {0: 0, -1: -1}).tolist() == [0, -1, -1, -1, 3]
    for align, message in (
        ("ends", "did you mean end"),
        ([(0, 4)], "position 4 is outside the second prompt of 4"),
        ([(0, 1), (0, 2)], "that another pair has"),
        ([(0, 1), (1, 1)], "that another pair has"),
        ([3], "expected pairs"),
    ):
        with pytest.raises(InputError, match=message):
            align_positions(a, b, align)


def test_features_that_tell_prompts_apart(pair: tuple[Graph, Graph]) -> None:
    a, b = pair
    found = active_only([a], [b])

    def names(graph: Graph, kept: np.ndarray | None = None) -> set[tuple[int, ...]]:
        nodes = graph.nodes[graph.nodes["kind"] == FEATURE]
        nodes = nodes if kept is None else nodes[np.isin(nodes["position"], kept)]
        return set(zip(*(nodes[n].tolist() for n in ("part", "layer", "index")), strict=True))

    def rows(one: object) -> set[tuple[int, ...]]:
        return set(zip(one.part.tolist(), one.layer.tolist(), one.feature.tolist(), strict=True))  # type: ignore[attr-defined]

    assert rows(found) == names(a) - names(b) and len(found) > 0
    assert (np.diff(found.influence[0]) <= 0).all()
    assert rows(active_only([a, b])) == names(a) & names(b)
    assert rows(active_only([a, b], at_least=0.5)) == names(a) | names(b)
    assert rows(active_only([a], [b], at_most=1.0)) == names(a)
    assert rows(activity([a], positions=[-1])) == names(a, np.array([3]))
    layers = [
        len({n for n in names(a) & names(b) if n[1] == layer})
        / len({n for n in names(a) | names(b) if n[1] == layer})
        for layer in range(3)
    ]
    assert overlap(a, b) == pytest.approx(layers)
    for call, message in (
        (lambda: active_only([]), "no graph"),
        (lambda: active_only([a], at_least=2), "at_least is 2"),
        (lambda: activity([a], positions=[4]), "position 4 is outside"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_nodes_as_a_target() -> None:
    graph = random_graph(1, parts=(0, 1))
    nodes = graph.nodes
    found = as_target(graph, "both", (0, 40))
    assert [(m.layer, m.index, m.position, m.part) for m in found.members] == [
        (
            int(nodes["layer"][i]),
            int(nodes["index"][i]),
            int(nodes["position"][i]),
            ("attention", "mlp")[nodes["part"][i]],
        )
        for i in (0, 40)
    ]
    for number in (int(graph.targets[0]), -1, len(graph)):
        with pytest.raises(InputError, match=f"node {number} is no feature"):
            as_target(graph, "x", [number])


def test_activity_takes_the_strongest_position() -> None:
    graph = random_graph(3, per_place=1, layers=1, positions=2)
    nodes = graph.nodes.copy()
    nodes["index"][:2] = 5
    same = dataclasses.replace(graph, nodes=nodes)
    found = activity([same, graph])
    at = found.feature.tolist().index(5)
    assert found.activation[0, at] == nodes["activation"][:2].max()
    assert found.influence[0, at] == pytest.approx(nodes["influence"][:2].sum())
    assert len(found) == 3


def test_the_first_difference_is_named() -> None:
    graph = random_graph(4)
    assert differences(graph, graph) == (0.0, [])

    nodes = graph.nodes.copy()
    nodes["value"][3] += 0.5
    nodes["activation"][5] += 0.5
    apart = differences(graph, dataclasses.replace(graph, nodes=nodes))
    assert apart.largest is not None and apart.largest > 0.05
    value = graph.nodes["value"][3]
    assert (
        f"node 3, L0/{graph.nodes['index'][3]}@1: value is {value:.9g} in the file, {value + 0.5:.9g} now"
        in apart.lines[0]
    )
    assert "2 nodes differ" in apart.lines[0]

    nodes = graph.nodes.copy()
    nodes["index"][7] += 1
    apart = differences(graph, dataclasses.replace(graph, nodes=nodes))
    assert apart.largest is None
    assert (
        f"node 7 is L0/{graph.nodes['index'][7]}@2 in the file, L0/{nodes['index'][7]}@2 now"
        in apart.lines[0]
    )

    weights = graph.weights.copy()
    weights[10] *= 1.5
    weights[20] *= 1 + 1e-9
    apart = differences(graph, dataclasses.replace(graph, weights=weights))
    source, target = graph.edges()[1][10], graph.edges()[0][10]
    assert f"the edge from node {source}, " in apart.lines[0] and f" to node {target}, " in apart.lines[0]
    assert "2 edges differ" in apart.lines[0]

    fewer = varied(graph, 5, drop=1)
    assert differences(graph, fewer).largest is None
    assert f"({len(graph)} nodes in the file, {len(fewer)} now)" in " ".join(differences(graph, fewer).lines)

    dense = dense_matrix(graph)
    target = int(graph.targets[0])
    source = int(graph.indices[graph.indptr[target]])
    dense[target, source] = 0
    builder = EdgeBuilder(len(graph), "float64")
    builder.add(np.arange(len(graph)), np.arange(len(graph)), dense)
    csr = builder.finish()
    gone = dataclasses.replace(graph, indptr=csr.indptr, indices=csr.indices, weights=csr.weights)
    line = differences(graph, gone).lines[0]
    assert f"to node {target}," in line and "in the file and there is none now" in line
    assert "there is none in the file" in differences(gone, graph).lines[0]
    assert (graph.nodes["kind"][target]) == TARGET
