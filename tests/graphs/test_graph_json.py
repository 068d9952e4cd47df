"""JSON that we write: the schema, the writer rules, and reading it back as the same graph."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import FEATURE, TARGET, load_graph
from jaxinterp.graphs.ids import cantor, safe_name, uncantor
from jaxinterp.graphs.neuronpedia import json_document
from tests.graphs.graph_examples import random_graph, same
from tests.support import shared


def no_nan(name):
    raise AssertionError(f"{name} in JSON")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["float32", "float64"]), st.booleans(), st.booleans())
def test_our_json_comes_back_as_the_same_graph(tmp_path_factory, seed, dtype, prune, left_out):
    folder = tmp_path_factory.mktemp("json")
    graph = random_graph(seed, dtype=dtype, left_out=left_out)
    graph = graph.prune(0.7, 0.9) if prune else graph
    graph.save(folder / "a.json")
    back = load_graph(folder / "a.json")
    assert same(graph, back)
    back.save(folder / "b.json")
    back.save(folder / "b.jigraph")
    graph.save(folder / "a.jigraph")
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    assert (folder / "a.jigraph").read_bytes() == (folder / "b.jigraph").read_bytes()


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
@pytest.mark.parametrize("prune", [False, True])
def test_what_we_write_validates_against_the_schema(tmp_path, convention, prune):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    graph = random_graph(convention=convention, left_out=True)
    (graph.prune() if prune else graph).save(tmp_path / "g.json")
    jsonschema.Draft7Validator(schema).validate(json.loads((tmp_path / "g.json").read_text()))


def test_the_writer_rules(tmp_path):
    graph = random_graph(layers=3, dtype="float32").prune(0.7, 0.9)
    graph.save(tmp_path / "g.json")
    text = (tmp_path / "g.json").read_text()
    document = json.loads(text, parse_constant=no_nan)
    assert list(document) == ["metadata", "qParams", "nodes", "links", "jaxinterp"]
    metadata = document["metadata"]
    for key in ("slug", "scan"):
        assert re.fullmatch(r"[a-zA-Z0-9_.-]{2,}", metadata[key])
    assert metadata["scan"] == "a-model-x" and metadata["schema_version"] == 1
    assert metadata["prompt_tokens"] == list(graph.token_texts) and metadata["node_threshold"] == 0.7
    assert metadata["info"]["neuronpedia_source_set"] == "own-set"
    assert metadata["info"]["generator"] == {"name": "jaxinterp", "version": "9.8.7"}
    assert metadata["feature_details"]["neuronpedia_source_set"] == "own-set"
    assert metadata["pruning_settings"]["hidden_nodes"] == graph.pruned["hidden_nodes"]
    assert metadata["generation_settings"]["max_feature_nodes"] == 9
    assert isinstance(document["qParams"]["pinnedIds"], list)
    assert isinstance(document["qParams"]["supernodes"], list)

    nodes = document["nodes"]
    ids = [node["node_id"] for node in nodes]
    assert len(set(ids)) == len(ids) == len(graph)
    for i, (node, record) in enumerate(zip(nodes, graph.nodes, strict=True)):
        assert list(node) == list(nodes[0]) and node["jsNodeId"] == node["node_id"]
        layer, position, index = int(record["layer"]), int(record["position"]), int(record["index"])
        assert node["ctx_idx"] == position
        kind = node["feature_type"]
        if kind == "cross layer transcoder":
            assert node["node_id"] == f"{layer}_{index}_{position}"
            assert node["feature"] == cantor(layer, index)
            assert 0 < node["influence"] <= 1 and node["layer"] == str(layer)
        elif kind == "mlp reconstruction error":
            assert node["node_id"] == f"{layer}_error_mlp_{position}"
        elif kind == "bias":
            assert node["node_id"] == f"{layer}_bias_decoder_{position}"
        elif kind == "embedding":
            assert node["node_id"] == f"E_{index}_{position}" and node["layer"] == "E"
        else:
            assert kind == "logit" and node["node_id"] == f"4_{index}_{position}" and node["layer"] == "4"
            assert node["influence"] is None and node["token_prob"] == record["probability"]
            assert float(node["clerp"].split("(p=")[1].split(")")[0]) == round(node["token_prob"], 3)
            assert node["clerp"].split('"')[1] == graph.labels[i]
    targets = [node for node in nodes if node["feature_type"] == "logit"]
    assert document["qParams"]["clickedId"] == targets[0]["node_id"]
    assert [t["is_target_logit"] for t in targets] == [True, False]
    known = set(ids)
    for link, weight in zip(document["links"], graph.weights, strict=True):
        assert link["source"] in known and link["target"] in known
        assert np.float32(link["weight"]) == weight


def test_tokens_that_break_viewers_are_written_safely(tmp_path):
    graph = random_graph(targets=2)
    odd = ['say "hi"', "\n\u0000\u2028(p="]
    labels = list(graph.labels)
    for target, label in zip(graph.targets, odd, strict=True):
        labels[target] = label
    texts = ('"', "\x1b[31m", "é", " 日本")
    graph = dataclasses.replace(graph, labels=tuple(labels), token_texts=texts)
    graph.save(tmp_path / "g.json")
    assert same(load_graph(tmp_path / "g.json"), graph)
    clerps = [n["clerp"] for n in json_document(graph)["nodes"] if n["feature_type"] == "logit"]
    assert clerps[0].split('"')[1] == "say ''hi''"


def test_targets_that_are_no_tokens_get_distinct_ids(tmp_path):
    graph = random_graph(targets=3)
    nodes = graph.nodes.copy()
    nodes["index"][graph.targets] = -1
    graph = dataclasses.replace(graph, nodes=nodes)
    graph.save(tmp_path / "g.json")
    assert same(load_graph(tmp_path / "g.json"), graph)


def test_what_others_add_to_our_file_is_kept(tmp_path):
    path = tmp_path / "g.json"
    graph = random_graph()
    graph.save(path)
    document = json.loads(path.read_text())
    document["metadata"]["title_prefix"] = "mine"
    document["nodes"][3]["vis_link"] = "x"
    document["links"][5]["note"] = [1]
    document["qk_only_nodes"] = {}
    document["extra"] = {"deep": [1, None]}
    pins = [document["nodes"][0]["node_id"]]
    document["qParams"].update(pinnedIds=pins, supernodes=[["a", *pins]], gridsnap=4)
    path.write_text(json.dumps(document))
    back = load_graph(path)
    assert back.view == {"pinnedIds": pins, "supernodes": [["a", *pins]], "gridsnap": 4}
    back.save(path)
    assert json.loads(path.read_text()) == document
    back.save(tmp_path / "g.jigraph")
    load_graph(tmp_path / "g.jigraph").save(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == document
    assert load_graph(path).prune(0.5, 0.5).foreign["metadata"] == {"title_prefix": "mine"}


def test_too_many_links_for_json(tmp_path, monkeypatch):
    graph = random_graph()
    monkeypatch.setattr("jaxinterp.graphs.json_write.LINK_WARNING", 10)
    with pytest.warns(UserWarning, match="links as JSON"):
        graph.save(tmp_path / "g.json")
    (tmp_path / "g.json").unlink()
    monkeypatch.setattr("jaxinterp.graphs.json_write.LINK_LIMIT", 20)
    with pytest.raises(InputError, match="too many for JSON"):
        graph.save(tmp_path / "g.json")
    assert not list(tmp_path.iterdir())


def test_labels_that_a_user_sets_are_written():
    graph = random_graph()
    labels = list(graph.labels)
    labels[0] = "Texas"
    nodes = json_document(dataclasses.replace(graph, labels=tuple(labels)))["nodes"]
    assert nodes[0]["clerp"] == "Texas" and graph.nodes["kind"][0] == FEATURE


@given(st.integers(0, 200), st.integers(0, 2**30))
def test_paired_feature_numbers_can_be_taken_apart(layer, index):
    assert uncantor(cantor(layer, index)) == (layer, index)


@given(st.text(max_size=200))
def test_slugs_are_safe(text):
    assert re.fullmatch(r"[a-z0-9_.-]{2,60}", safe_name(text, "graph"))


def damaged(document, change):
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("nodes"), "key 'nodes' is missing"),
        (lambda d: d.update(links={}), "links: a dict, expected a list"),
        (lambda d: d.update(nodes=[]), "nodes: the graph is empty"),
        (lambda d: d["nodes"].append(3), r"nodes\[\d+\]: a int, expected an object"),
        (lambda d: d["nodes"][0].pop("ctx_idx"), r"nodes\[0\]: key 'ctx_idx' is missing"),
        (
            lambda d: d["nodes"][0].update(ctx_idx=99),
            r"nodes\[0\]\.ctx_idx: 99: the prompt has positions 0 to 3",
        ),
        (lambda d: d["nodes"][0].update(feature="x"), r"nodes\[0\]\.feature"),
        (lambda d: d["nodes"][0].update(feature=-5), r"nodes\[0\]\.feature"),
        (lambda d: d["nodes"][1].update(node_id=d["nodes"][0]["node_id"]), r"nodes\[1\]\.node_id.*twice"),
        (lambda d: d["nodes"][0].update(feature_type="neuron"), r"feature_type: 'neuron'"),
        (
            lambda d: d["nodes"][0].update(activation="high"),
            r"nodes\[0\]\.activation: 'high': expected a number",
        ),
        (lambda d: d["links"][0].update(source="nobody"), r"links\[0\]\.source: 'nobody' is no node"),
        (lambda d: d["links"][0].update(weight=None), r"links\[0\]\.weight: None: expected a number"),
        (lambda d: d["links"].append(d["links"][0]), "links: the edge .* twice"),
        (lambda d: d["jaxinterp"].update(version=3), "jaxinterp.version: 3: this jaxinterp reads 1 and 2"),
        (
            lambda d: d["nodes"][0]["jaxinterp"].update(part=3),
            r"nodes\[0\]\.jaxinterp\.part: 3: expected 0 to 2",
        ),
        (lambda d: d["jaxinterp"].update(dtype="int8"), "jaxinterp.dtype"),
        (lambda d: d["jaxinterp"]["token_ids"].pop(), "token_ids"),
        (lambda d: d["metadata"].pop("prompt_tokens"), "prompt_tokens"),
    ],
)
def test_bad_values_are_named(tmp_path, change, message):
    document = json.loads(json.dumps(json_document(random_graph())))
    change(document)
    path = tmp_path / "g.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as caught:
        load_graph(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', "nonsense", "[" * 100_000, '{"nodes": NaN}', "\xff"]
)
def test_json_that_is_no_graph(tmp_path, text):
    path = tmp_path / "g.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"g\.json"):
        load_graph(path)


def test_influence_in_the_file_is_a_running_share():
    graph = random_graph()
    shares = [n["influence"] for n in json_document(graph)["nodes"] if n["feature_type"] != "logit"]
    influence = graph.nodes["influence"][graph.nodes["kind"] != TARGET]
    order = np.argsort(-influence)
    assert (np.diff(np.array(shares)[order]) >= 0).all() and math.isclose(max(shares), 1.0)
