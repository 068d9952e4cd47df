"""JSON made by others: three real graphs, and small files in each dialect."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import BIAS, FEATURE, load_graph, report, summary
from tests.support import shared

REAL = {
    "mit-dallas_ea": ("circuit-tracer", 26),
    "mit-gemma2-2b-clthp-night": ("neuronpedia", 26),
    "mit-war_ea": ("circuit-tracer", 26),
}


@pytest.mark.parametrize("name", REAL)
def test_real_graphs_come_out_as_they_went_in(tmp_path, name):
    path = shared(f"cases/graphs/{name}.json")
    original = json.loads(path.read_text())
    # Marks of a user: they must survive as well.
    ids = [n["node_id"] for n in original["nodes"]]
    original["qParams"].update(pinnedIds=ids[:3], supernodes=[["group", *ids[1:3]]], odd={"a": 1})
    original["nodes"][0].update(clerp="a label", note="n")
    original["links"][7]["note"] = 3
    original["metadata"]["own"] = [None, True]
    original["more"] = "text"
    (tmp_path / "in.json").write_text(json.dumps(original))
    graph = load_graph(tmp_path / "in.json")
    assert (graph.settings["dialect"], graph.n_layers) == REAL[name]
    assert len(graph) == len(original["nodes"]) and len(graph.weights) == len(original["links"])
    graph.save(tmp_path / "out.json")
    assert any(n["jsNodeId"] != n["node_id"] for n in original["nodes"])
    for raw in original["nodes"]:  # viewers need these to be unique; circuit-tracer's are not
        raw["jsNodeId"] = raw["node_id"]
    assert json.loads((tmp_path / "out.json").read_text()) == original
    graph.save(tmp_path / "out.jigraph")
    load_graph(tmp_path / "out.jigraph").save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "out.json").read_bytes()
    kinds = {"cross layer transcoder": 0, "mlp reconstruction error": 1, "embedding": 3, "logit": 4}
    at = {n["node_id"]: n for n in original["nodes"]}
    for i, raw in enumerate(graph.foreign["nodes"][str(i)] for i in range(len(graph))):
        node = graph.nodes[i]
        assert node["kind"] == kinds[at[raw["node_id"]]["feature_type"]]
        assert node["position"] == raw["ctx_idx"]
        if node["kind"] == FEATURE:
            assert raw["node_id"] == f"{node['layer']}_{node['index']}_{node['position']}"


@pytest.mark.parametrize("name", REAL)
def test_what_becomes_of_a_real_graph_still_validates(tmp_path, name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    graph = load_graph(shared(f"cases/graphs/{name}.json"))
    small = graph.prune(0.6, 0.8)
    labelled = dataclasses.replace(small, labels=("mine", *small.labels[1:]))
    for version in (graph, small, labelled):
        version.save(tmp_path / "g.json")
        document = json.loads((tmp_path / "g.json").read_text())
        jsonschema.Draft7Validator(schema).validate(document)
        again = load_graph(tmp_path / "g.json")
        assert again.nodes["index"].tobytes() == version.nodes["index"].tobytes()
        assert again.weights.tobytes() == version.weights.tobytes()
    assert document["nodes"][0]["clerp"] == "mine"
    assert document["metadata"]["pruning_settings"]["hidden_edges"] == small.pruned["hidden_edges"]


def node(name, kind, layer, at, **more):
    plain = {"node_id": name, "feature": None, "layer": layer, "ctx_idx": at, "feature_type": kind}
    return {**plain, "jsNodeId": name, "clerp": "", **more}


def document(nodes, links, **metadata):
    return {
        "metadata": {"slug": "s", "scan": "m", "prompt_tokens": ["a", "b"], "prompt": "ab", **metadata},
        "qParams": {},
        "nodes": nodes,
        "links": [{"source": s, "target": t, "weight": w} for s, t, w in links],
    }


CLT = "cross layer transcoder"
CRM = document(
    [
        node("0_cro_5_1", CLT, 0, 1, feature=5),
        node("0_lor_6_1", "lorsa", 0, 1, feature=6),
        node("0_error_mlp_1", "mlp reconstruction error", 0, 1),
        node("0_error_attn_1", "lorsa error", 0, 1),
        node("0_bias_norm_0", "bias", 0, 0),
        node("E_3_1", "embedding", "E", 1),
        node("2_9_1", "logit", 2, 1, token_prob=0.5, clerp='"x" (p=0.5)'),
    ],
    [
        ("0_cro_5_1", "2_9_1", 1.0),
        ("E_3_1", "0_cro_5_1", 2.0),
        ("0_lor_6_1", "2_9_1", -1.0),
        ("E_3_1", "0_lor_6_1", 1),
    ],
)
ANTHROPIC = document(
    [
        node("1_77_0", CLT, "1", 0, feature=77, isLogit=False, nodeId="1_77_0"),
        node("q_1", "unexplored node", "0", 1),
        node("E_4_0", "embedding", "E", 0),
        node("3_8_1", "logit", "3", 1, isLogit=True, clerp='Output " y" (p=0.25)'),
    ],
    [("1_77_0", "3_8_1", 3.0), ("E_4_0", "1_77_0", 1.5)],
)
ANTHROPIC["qParams"] = {"pinnedIds": "1_77_0,3_8_1", "linkType": "either", "clickedId": None}


def load(tmp_path, data):
    (tmp_path / "g.json").write_text(json.dumps(data))
    return load_graph(tmp_path / "g.json")


def test_the_crm_dialect(tmp_path):
    graph = load(tmp_path, CRM)
    assert graph.settings["dialect"] == "crm" and graph.n_layers == 2
    features = graph.nodes[graph.nodes["kind"] == FEATURE]
    assert features["index"].tolist() == [6, 5]  # within a layer attention comes before the MLP
    assert features["part"].tolist() == [0, 1]
    assert graph.nodes["index"][graph.nodes["kind"] == BIAS].tolist() == [2]
    assert graph.counts() == {"feature": 2, "error": 2, "bias": 1, "embedding": 1, "target": 1}
    assert graph.token_ids == (-1, 3)
    assert graph.scores().replacement == 1.0
    graph.save(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == CRM


def test_the_anthropic_dialect(tmp_path):
    graph = load(tmp_path, ANTHROPIC)
    assert graph.settings["dialect"] == "anthropic"
    assert sorted(graph.nodes["index"][:2].tolist()) == [-1, 77] and graph.counts()["feature"] == 2
    assert graph.nodes["probability"][graph.targets].tolist() == [0.25]
    graph.save(tmp_path / "h.json")
    written = json.loads((tmp_path / "h.json").read_text())
    assert written["qParams"] == {"pinnedIds": ["1_77_0", "3_8_1"], "linkType": "either"}
    # An unexplored node is a feature, as viewers draw it.
    assert written["nodes"] == ANTHROPIC["nodes"] and written["links"] == ANTHROPIC["links"]


def test_ids_that_circuit_tracer_gives_twice_are_told_apart(tmp_path):
    # Feature 2 of layer 0 and the error of layer 2, both at position 1, are both called 0_2_1.
    err = "mlp reconstruction error"
    nodes = [
        node("0_2_1", CLT, "0", 1, feature=5, token_prob=0.0, run_idx=0),
        node("1_4_1", CLT, "1", 1, feature=19, token_prob=0.0, run_idx=0),
        node("3_4_1", CLT, "3", 1, feature=32, token_prob=0.0, run_idx=0),
        node("0_2_1", err, "2", 1, feature=-1, token_prob=0.0, run_idx=0),
        node("E_4_1", "embedding", "E", 1, token_prob=0.0, run_idx=0),
        node("5_8_1", "logit", "5", 1, token_prob=0.5, run_idx=0),
    ]
    links = [
        ("E_4_1", "0_2_1", 1.0),
        ("0_2_1", "1_4_1", 2.0),  # below the error's layer: the feature
        ("1_4_1", "3_4_1", 3.0),
        ("0_2_1", "3_4_1", 4.0),  # after feature 1_4_1 in node order: the error
        ("0_2_1", "5_8_1", 5.0),  # twice: the feature first
        ("3_4_1", "5_8_1", 6.0),
        ("0_2_1", "5_8_1", 7.0),
    ]
    with pytest.warns(UserWarning, match="1 error nodes had the id of a feature"):
        graph = load(tmp_path, document(nodes, links, schema_version=1, transcoder_list=[]))
    assert graph.settings["dialect"] == "circuit-tracer" and len(graph.settings["repairs"]) == 1
    assert graph.nodes["kind"].tolist() == [0, 0, 0, 1, 3, 4]
    dense = graph.matrix()
    assert dense[0, 4] == 1 and dense[1, 0] == 2 and dense[2, 1] == 3
    assert dense[2, 3] == 4 and dense[2, 0] == 0
    assert dense[5, 0] == 5 and dense[5, 2] == 6 and dense[5, 3] == 7
    graph.save(tmp_path / "h.json")
    names = [n["node_id"] for n in json.loads((tmp_path / "h.json").read_text())["nodes"]]
    assert names == ["0_2_1", "1_4_1", "3_4_1", "2_error_mlp_1", "E_4_1", "5_8_1"]
    again = load_graph(tmp_path / "h.json")
    np.testing.assert_array_equal(again.matrix(), dense)


def test_links_to_nowhere_are_kept_and_said(tmp_path):
    data = copy.deepcopy(CRM)
    data["links"].insert(1, {"source": "gone", "target": "2_9_1", "weight": 1.0})
    with pytest.warns(UserWarning, match="1 links lead to nodes that are not in the file"):
        graph = load(tmp_path, data)
    graph.save(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == data


def test_a_cycle_in_a_foreign_file_does_not_stop_reading(tmp_path):
    data = copy.deepcopy(CRM)
    for target, source in (("0_cro_5_1", "0_lor_6_1"), ("0_lor_6_1", "0_cro_5_1")):
        data["links"].append({"source": source, "target": target, "weight": 1e9})
    data["links"] = [link for link in data["links"] if link["source"] != "E_3_1"]
    graph = load(tmp_path, data)
    assert "cycle" in graph.settings["repairs"][0]
    assert np.isnan(graph.nodes["influence"]).all()
    with pytest.raises(InputError, match="cycle"):
        graph.scores()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["nodes"][0].update(feature_type="logits"), r"'logits' \(did you mean logit"),
        (lambda d: d["nodes"][0].update(layer="top"), r"nodes\[0\]\.layer: 'top'"),
        (lambda d: d["nodes"][0].update(layer=1.5), r"nodes\[0\]\.layer: 1.5"),
        (lambda d: d["nodes"][0].update(layer=10**12), "beyond any model"),
        (lambda d: d["nodes"][0].update(feature=2**70, node_id="x"), "beyond any model"),
        (lambda d: d["nodes"][0].update(feature=True), r"nodes\[0\]\.feature: True"),
        (lambda d: d["nodes"][0].update(ctx_idx=2), r"ctx_idx: 2: the prompt has positions 0 to 1"),
        (lambda d: d["nodes"][0].update(clerp=4), r"nodes\[0\]\.clerp: a int"),
        (lambda d: d["nodes"][1].update(node_id="0_cro_5_1"), "names two different nodes"),
        (lambda d: d["nodes"].pop(), "none has feature_type 'logit'"),
        (lambda d: d["links"][0].update(weight="1"), r"links\[0\]\.weight: '1'"),
        (lambda d: d["links"][0].update(weight=float("inf")), r"links\[0\]\.weight: inf: expected a finite"),
        (lambda d: d["links"][0].pop("source"), r"links\[0\]: key 'source' is missing"),
        (lambda d: d["links"].append(dict(d["links"][0])), "links: the edge .* given twice"),
        (lambda d: d["metadata"].update(prompt_tokens=["a", 2]), "prompt_tokens: expected a list of texts"),
        (lambda d: d["metadata"].update(slug=3), "slug: a int"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, change, message):
    data = copy.deepcopy(CRM)
    change(data)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, data)
    assert "g.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_report_of_a_foreign_graph(tmp_path):
    graph = load(tmp_path, ANTHROPIC)
    assert '" y"' in report(graph, 60)
    assert summary(graph)["targets"][0]["paths"][0]["node_ids"] == ["E_4_0", "1_77_0", "3_8_1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("metadata"), "foreign.metadata"),
        (lambda f: f["nodes"].pop("0"), "foreign.nodes: node 0 has no node_id"),
        (lambda f: f["nodes"].update({"99": {}}), r"foreign.nodes\['99'\]"),
        (lambda f: f["node_order"].pop(), "foreign.node_order"),
        (lambda f: f["link_order"].append(0), "foreign.link_order"),
        (lambda f: f["loose_links"].append(3), "foreign.loose_links"),
    ],
)
def test_a_native_file_with_odd_imported_parts_is_refused(tmp_path, change, message):
    graph = load(tmp_path, CRM)
    change(graph.foreign)
    graph.save(tmp_path / "g.jigraph")
    with pytest.raises(InputError, match=message):
        load_graph(tmp_path / "g.jigraph")
