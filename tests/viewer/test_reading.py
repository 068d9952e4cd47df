"""The one-line reading, the automatic subgraph and the trust card."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.graphs import EMBEDDING, ERROR, FEATURE, TARGET, Flow, load_graph
from jaxinterp.viewer import report as report_module
from jaxinterp.viewer.bundle import bundle
from jaxinterp.viewer.reading import named_groups, read, say, shown, top_target
from jaxinterp.viewer.report import report_of
from jaxinterp.viewer.walks import visits
from tests.graphs.graph_examples import dense_matrix, dense_normalised, random_graph
from tests.support import shared
from tests.viewer.graphs_to_view import REAL, chain, cyclic, parsed
from tests.viewer.synthetic import synthetic

KEYS = {
    "reading", "automatic", "scores", "checks", "error_share", "pruned", "caps", "provenance", "settings", "reproduce",
    "warnings",
}  # fmt: skip


def walk_shares(graph, start, groups):
    """The share of walks that pass the groups in order, by following every walk."""
    step = dense_normalised(dense_matrix(graph))

    def from_(node, left):
        if not left:
            return 1.0
        if node in left[0]:
            return from_(node, left[1:])
        return sum(step[node, s] * from_(s, left) for s in np.flatnonzero(step[node]))

    return from_(start, [set(group) for group in groups])


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_routes_are_those_of_all_walks(seed):
    graph = random_graph(seed, layers=3, positions=2, per_place=2, targets=1)
    rng = np.random.default_rng(seed)
    target = int(graph.targets[0])
    flow = Flow.of(graph.csr, graph.nodes["kind"] == TARGET, graph.convention)
    stops = np.concatenate([[target], rng.permutation(target)[:9]])
    found = visits(flow, stops)
    for groups in (
        [[1]],
        [[1, 2, 3]],
        [[1, 2], [3, 4, 5]],
        [[1], [2], [3, 4]],
        [[5, 6, 7], [1, 2]],
        [[1, 2], [2, 3]],
    ):
        expected = walk_shares(graph, target, [stops[group] for group in groups])
        np.testing.assert_allclose(found.through(groups), expected, atol=1e-12)


def test_a_graph_whose_reading_is_known():
    found = read(chain())
    # 3/4 of the walks go to b and on to a, half of those end in each token
    assert found.text == "red → first → second → say blue, 38 % of influence"
    np.testing.assert_allclose(found.share, 0.375)
    assert found.stops == (("red", (3,)), ("first", (0,)), ("second", (2,)), ("say blue", (5,)))
    assert found.nodes == (3, 0, 2, 5)
    assert found.target == 5
    assert found.error_share == 0
    assert set(found.pinned) == {0, 2, 3, 4, 5}


def test_labels_from_dashboards_name_the_stops():
    bare = chain(labels=("", "", "", "", "", " blue"))
    assert read(bare).text.startswith("red → feature 5 (layer 0, red) → feature 6 (layer 1, sky) → say blue")
    named = read(bare, lambda node: {0: "colour words", 2: "say a colour"}.get(node, ""))
    assert named.text.startswith("red → colour words → say a colour → say blue")
    long = read(bare, lambda node: "many\nwords " * 60)
    assert all(len(name) <= 170 and "\n" not in name for name, _ in long.stops)
    blank = read(bare, lambda node: " \n")
    assert blank.text == read(bare).text


@pytest.mark.parametrize("name", REAL)
def test_real_graphs(name):
    graph = load_graph(shared(f"cases/graphs/{name}.json"))
    found = report_of(graph, name)
    assert set(found) == KEYS
    json.dumps(found, allow_nan=False)
    reading, automatic = found["reading"], found["automatic"]
    kinds = graph.nodes["kind"]
    assert kinds[reading["nodes"][0]] == EMBEDDING
    assert reading["text"].startswith(" → ".join(name for name, _ in reading["stops"]))
    assert all(set(nodes) & set(reading["nodes"]) for _, nodes in reading["stops"])
    assert reading["nodes"][-1] == reading["target"] == top_target(graph)
    assert 0 < reading["share"] <= 1
    # errors of this target as all walks have it
    step = dense_normalised(dense_matrix(graph))
    start = np.zeros(len(graph))
    start[reading["target"]] = 1
    total, current = np.zeros(len(graph)), start
    while current.any():
        current = current @ step
        total += current
    np.testing.assert_allclose(reading["error_share"], total[kinds == ERROR].sum(), rtol=1e-6)
    assert f"{100 * reading['error_share']:.0f} % through error nodes" in reading["text"]
    assert reading["target"] in automatic["pinned"]
    assert 5 <= len(automatic["pinned"]) <= 30
    boxes = {group["name"]: group["members"] for group in automatic["groups"]}
    for name, nodes in reading["stops"][1:-1]:  # what the line names is one box of the subgraph
        assert boxes[name] == list(nodes) if len(nodes) > 1 else nodes[0] in automatic["pinned"]
    for group in automatic["groups"]:
        assert len(group["members"]) > 1
        assert set(group["members"]) <= set(automatic["pinned"])
        assert (kinds[group["members"]] == FEATURE).all()
        layers = graph.nodes["layer"][group["members"]]
        if group["name"].startswith("layers "):  # of these members, not of those that were left out
            assert group["name"].startswith(f"layers {layers.min()}–{layers.max()} at ")
    assert any("pruned" in line for line in found["pruned"])
    assert found["reproduce"] is None
    assert 0 < found["scores"]["replacement"] < 1
    np.testing.assert_allclose(
        found["error_share"]["total"],
        sum(share for _, _, share in found["error_share"]["by_layer"]),
        rtol=1e-9,
    )


def test_our_graphs_say_how_to_make_them_again():
    graph = random_graph(0)
    graph = replace(
        graph,
        settings={**graph.settings, "dictionary": "a folder"},
        provenance={**graph.provenance, "record_digest": "f"},
    )
    small = graph.prune(0.6, 0.9)
    found = report_of(small, "my graph.json")
    assert (
        found["reproduce"]
        == "jaxinterp reproduce 'my graph.json' --model 'a/Model x' --dictionary 'a folder'"
    )
    assert "60 %" in found["pruned"][0]
    assert [check["ok"] for check in found["checks"]] == [True, True, True]
    assert "in the pruned graph" in found["reading"]["text"]
    assert ["versions.jaxinterp", "9.8.7"] in found["provenance"]
    assert ["max_feature_nodes", "9"] in found["settings"]
    assert report_of(replace(graph, provenance={}))["reproduce"] is None


def test_failed_checks_come_first():
    graph = random_graph(0)
    broken = replace(graph, measured={"identity_1": 0.5})
    found = report_of(broken)
    assert found["checks"][0]["ok"] is False
    assert "FAILS" in found["checks"][0]["text"]
    assert found["warnings"][0].startswith("This graph is not exact")


def test_a_cycle_is_said_and_the_rest_works():
    graph = cyclic()
    found = report_of(graph)
    assert any("cycle" in line for line in found["warnings"])
    assert found["reading"]["share"] is None
    assert found["error_share"]["total"] is None
    assert found["scores"]["replacement"] is None
    assert found["automatic"]["pinned"] == [0, int(graph.targets[0])]
    assert found["settings"]


def test_a_failure_inside_never_reaches_the_page(monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(report_module, "read", broken)
    found = report_of(random_graph(0))
    assert "secret" not in json.dumps(found)
    assert any("could not be computed" in line for line in found["warnings"])
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "shape",
    [{"density": 0.0}, {"layers": 1}, {"positions": 1}, {"layers": 80, "per_place": 1, "positions": 1}],
)
def test_odd_shapes(shape):
    graph = random_graph(2, **shape)
    found = report_of(graph)
    json.dumps(found, allow_nan=False)
    if shape.get("density") == 0.0:
        assert "no token has influence" in found["reading"]["text"]
        assert found["automatic"]["pinned"] == [int(graph.targets[0])] or found["automatic"]["pinned"]


def test_texts_in_a_line():
    assert shown(" Austin") == "Austin"
    assert shown('"') == '“"”'
    assert shown("\n") == "“\\n”"
    assert shown("a → b") == "“a → b”"
    graph = chain(labels=("", "", "", "", "", '"'))
    assert say(graph, 5) == 'say “"”'


def test_quick_on_a_large_graph():
    import time

    graph = synthetic(3000, 200_000, layers=20, tokens=20)
    begin = time.process_time()
    found = report_of(graph)
    assert time.process_time() - begin < 2.0
    assert not found["warnings"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS_OF_FILES = st.sampled_from(
    ["max_feature_nodes", "model", "dictionary", "repairs", "dialect", "source_set", "slug", "left_out",
     "record_digest", "scan", "info", "pruning_settings", "generation_settings", "node_threshold", "transcoder_list"]
)  # fmt: skip
RECORD = st.dictionaries(KEYS_OF_FILES, JSON, max_size=5)


@given(RECORD, RECORD, RECORD, RECORD)
@settings(max_examples=60, deadline=None)
def test_whatever_the_records_of_a_file_hold(given_settings, provenance, measured, metadata):
    """Files are untrusted: no value in them makes the report or the header fail."""
    graph = chain()
    foreign = {"whole": True, "metadata": metadata, "nodes": {}, "loose_links": [], "top": {}, "links": {}}
    graph = replace(
        graph,
        settings={**given_settings, "convention": "paper"},
        provenance=provenance,
        measured=measured,
        foreign=foreign,
    )
    found = report_of(graph)
    json.dumps(found, allow_nan=False)
    assert not any("could not be computed" in line for line in found["warnings"])
    header, _ = parsed(bundle(graph, {}))
    assert all(isinstance(header[key], str) for key in ("slug", "scan", "prompt", "convention"))
    assert all(isinstance(line, str) for line in header["repairs"])


def test_a_group_has_the_label_that_holds_its_influence():
    graph = random_graph(0)
    members = np.flatnonzero(graph.nodes["kind"] == FEATURE)[:4].tolist()
    nodes = graph.nodes.copy()
    nodes["influence"][members] = [0.5, 0.2, 0.2, 0.1]
    graph = replace(graph, nodes=nodes, labels=("",) * len(graph))

    def name(*labels):
        given = dict(zip(members, labels, strict=True))
        return named_groups(graph, [members], given.__getitem__)[0]["name"]

    assert name("Texas", "", "", "") == "Texas"
    assert name("", "Texas", "Austin", "") == "Texas …"
    assert name("", "Texas", "Texas", "Austin") == "Texas"
    assert name("", "", "", "Texas").startswith("layer")
