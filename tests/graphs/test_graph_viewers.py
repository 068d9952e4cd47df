"""Every file that we save opens in Anthropic's, circuit-tracer's and Neuronpedia's viewers, whoever made the graph."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings

import numpy as np
import pytest

from jaxinterp.graphs import EdgeBuilder, Supernode, assemble, load_graph, supernodes_of, with_supernodes
from jaxinterp.graphs.json_viewers import target_label, with_lists
from jaxinterp.graphs.kinds import EMBEDDING, ERROR, FEATURE, TARGET, node_order, node_table
from jaxinterp.graphs.native import read_native
from jaxinterp.graphs.summary import target_text
from tests.graphs.graph_examples import random_graph, same
from tests.graphs.test_graph_dialects import ANTHROPIC, CLT, CRM, document, node
from tests.support import shared


def opens_in_viewers(path):
    """Read the file as the viewers' code does; the document."""
    found = json.loads(path.read_text())
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(found)
    nodes = found["nodes"]
    assert [n["jsNodeId"] for n in nodes] == [n["node_id"] for n in nodes]
    assert len({n["jsNodeId"] for n in nodes}) == len(nodes)
    for raw in nodes:
        if raw["feature_type"] == "logit" and raw["clerp"]:
            assert raw["clerp"].split('"')[1] is not None
            assert raw["clerp"].split("(p=")[1].split(")")
    params = found["qParams"]
    assert all(isinstance(params.get(key, []), list) for key in ("pinnedIds", "supernodes"))
    assert all(isinstance(pin, str) for pin in params.get("pinnedIds", []))
    return found


def load(tmp_path, data):
    (tmp_path / "in.json").write_text(json.dumps(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_graph(tmp_path / "in.json")


def marks(graph, ids):
    """The graph with pins, supernodes, a label and positions, as a viewer stores them."""
    labels = ('<b>Texas</b> & "co" \'</script>', *graph.labels[1:])
    graph = with_supernodes(dataclasses.replace(graph, labels=labels), [Supernode('say "A" <i>', (1, 2))])
    view = {
        **graph.view,
        "sg_pos": "12 500 33 40",
        "clickedId": ids[3],
        "pinnedIds": [*graph.view["pinnedIds"], ids[0]],
    }
    return dataclasses.replace(graph, view=view)


@pytest.mark.parametrize(
    "name", ["mit-dallas_ea", "mit-gemma2-2b-clthp-night", "mit-war_ea", "own", "crm", "anthropic"]
)
def test_what_a_user_did_survives(tmp_path, name):
    if name in ("crm", "anthropic"):
        graph = load(tmp_path, CRM if name == "crm" else ANTHROPIC)
    elif name == "own":
        graph = random_graph()
    else:
        graph = load_graph(shared(f"cases/graphs/{name}.json"))
    graph.save(tmp_path / "before.json")
    before = opens_in_viewers(tmp_path / "before.json")
    ids = [raw["node_id"] for raw in before["nodes"]]
    marked = marks(graph, ids)
    marked.save(tmp_path / "a.json")
    load_graph(tmp_path / "a.json").save(tmp_path / "b.jigraph")
    read_native(tmp_path / "b.jigraph").save(tmp_path / "c.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "c.json").read_bytes()
    after = opens_in_viewers(tmp_path / "c.json")
    back = load_graph(tmp_path / "c.json")
    assert back.labels[0] == marked.labels[0] and supernodes_of(back) == (Supernode('say "A" <i>', (1, 2)),)
    params = after["qParams"]
    assert params["sg_pos"] == "12 500 33 40" and params["clickedId"] == ids[3]
    assert set(params["pinnedIds"]) >= {ids[0], *params["supernodes"][0][1:]}
    changed = [old["node_id"] for old, new in zip(before["nodes"], after["nodes"], strict=True) if old != new]
    assert len(changed) == 1 and before["links"] == after["links"]


@pytest.mark.parametrize(
    ("label", "probability", "written"),
    [
        ('Output " Austin" (p=0.334)', 0.3, 'Output " Austin" (p=0.334)'),
        ('Output " Austin"', 0.3344, 'Output " Austin" (p=0.334)'),
        ('Output """ (p=0.100)', 0.1, 'Output """ (p=0.100)'),  # reads as empty, but opens
        ("Austin", 0.5, 'Output "Austin" (p=0.500)'),
        ('"', 0.5, "Output \"''\" (p=0.500)"),
        ("Austin (p=0.3)", 0.5, 'Output "Austin" (p=0.3)'),
        ("Austin (maybe)", np.nan, 'Output "Austin (maybe)" (p=?)'),
        ("", 0.5, ""),
    ],
)
def test_labels_of_targets(label, probability, written):
    assert target_label(label, probability) == written
    assert target_label(written, probability) == written


def test_targets_of_foreign_graphs_get_what_viewers_read(tmp_path):
    data = copy.deepcopy(CRM)
    data["nodes"][-1].update(clerp="say x", jsNodeId="L_9-1")
    data["nodes"][0]["jsNodeId"] = "L_9-1"
    data["qParams"] = {
        "pinnedIds": "2_9_1,0_cro_5_1",
        "supernodes": '[["a","0_cro_5_1"]]',
        "linkType": 3,
        "sg_pos": None,
    }
    graph = load(tmp_path, data)
    graph.save(tmp_path / "out.json")
    found = opens_in_viewers(tmp_path / "out.json")
    assert found["nodes"][-1]["clerp"] == 'Output "say x" (p=0.500)'
    assert found["qParams"] == {"pinnedIds": ["2_9_1", "0_cro_5_1"], "supernodes": [["a", "0_cro_5_1"]]}
    back = load_graph(tmp_path / "out.json")
    assert target_text(back, int(back.targets[0])) == "say x"
    assert [group.name for group in supernodes_of(graph)] == ["a"]


def test_an_unknown_probability_stays_unknown(tmp_path):
    data = copy.deepcopy(CRM)
    data["nodes"][-1].update(clerp="say x", token_prob=None)
    load(tmp_path, data).save(tmp_path / "out.json")
    opens_in_viewers(tmp_path / "out.json")
    back = load_graph(tmp_path / "out.json")
    assert np.isnan(back.nodes["probability"][back.targets]).all() and back.nodes["influence"].any()


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ({"pinnedIds": "a,,b"}, {"pinnedIds": ["a", "b"]}),
        ({"pinnedIds": "", "supernodes": ""}, {"pinnedIds": [], "supernodes": []}),
        ({"supernodes": '[["n","a"]]'}, {"supernodes": [["n", "a"]]}),
        ({"supernodes": "n,a"}, {"supernodes": [], "supernodes_unread": "n,a"}),
        ({"supernodes": '[["n",3]]'}, {"supernodes": [], "supernodes_unread": '[["n",3]]'}),
        ({"supernodes": [["n"]], "odd": "x"}, {"supernodes": [["n"]], "odd": "x"}),
    ],
)
def test_texts_that_ought_to_be_lists(stored, found):
    assert with_lists(stored) == found


def test_our_file_as_circuit_tracers_server_saves_it(tmp_path):
    graph = random_graph()
    graph.save(tmp_path / "g.json")
    data = json.loads((tmp_path / "g.json").read_text())
    ids = [raw["node_id"] for raw in data["nodes"]]
    data["qParams"].update(pinnedIds=",".join(ids[:2]), supernodes=json.dumps([["x", ids[0]]]))
    back = load(tmp_path, data)
    assert supernodes_of(back) == (Supernode("x", (0,)),)
    back.save(tmp_path / "h.json")
    assert opens_in_viewers(tmp_path / "h.json")["qParams"]["pinnedIds"] == ids[:2]


def test_odd_tokens_and_labels(tmp_path):
    graph = random_graph(targets=3)
    labels = list(graph.labels)
    for target, label in zip(graph.targets, ['"', " (p=0.9)", "</script><!--"], strict=True):
        labels[target] = label
    texts = ('"', "<img src=x onerror=alert(1)>", "\u2028", " ")
    graph = dataclasses.replace(graph, labels=tuple(labels), token_texts=texts)
    graph.save(tmp_path / "g.json")
    found = opens_in_viewers(tmp_path / "g.json")
    shown = [raw["clerp"] for raw in found["nodes"] if raw["feature_type"] == "logit"]
    assert [text.split('"')[1] for text in shown] == ["''", " (p =0.9)", "</script><!--"]
    for text, p in zip(shown, graph.nodes["probability"][graph.targets], strict=True):
        assert float(text.split("(p=")[1].split(")")[0]) == pytest.approx(p, abs=6e-4)
    assert same(load_graph(tmp_path / "g.json"), graph)


@pytest.mark.parametrize(("layers", "positions"), [(80, 2), (1, 1), (1, 3)])
def test_deep_and_flat_graphs(tmp_path, layers, positions):
    graph = random_graph(layers=layers, positions=positions, per_place=1, density=0.05)
    graph.save(tmp_path / "g.json")
    opens_in_viewers(tmp_path / "g.json")
    graph.save(tmp_path / "g.jigraph")
    assert same(load_graph(tmp_path / "g.json"), graph) and same(load_graph(tmp_path / "g.jigraph"), graph)


def test_no_links_at_all_in_a_foreign_file(tmp_path):
    data = document(
        [node("2_9_1", "logit", 2, 1), node("0_5_0", CLT, "0", 0, feature=20)], [], schema_version=1
    )
    graph = load(tmp_path, data)
    assert len(graph.weights) == 0 and len(graph) == 2
    graph.save(tmp_path / "out.json")
    assert opens_in_viewers(tmp_path / "out.json")["links"] == []
    assert np.isfinite(graph.scores().replacement) and len(graph.prune(0.5, 0.5)) >= 1


@pytest.mark.slow
def test_ten_million_links(tmp_path):
    rng = np.random.default_rng(0)
    kinds = np.repeat([FEATURE, ERROR, EMBEDDING, TARGET], [11_000, 40, 10, 8])
    nodes = node_table(len(kinds))
    nodes["kind"] = kinds
    feature, target = kinds == FEATURE, kinds == TARGET
    nodes["layer"] = np.where(feature, np.arange(len(kinds)) // 550, np.where(target, 20, -1))
    nodes["layer"][kinds == ERROR] = np.arange(40) // 2
    nodes["index"] = np.where(kinds == ERROR, -1, np.arange(len(kinds)))
    nodes["position"] = np.where(kinds == EMBEDDING, np.arange(len(kinds)) % 10, 9)
    nodes["probability"][target] = 0.1
    nodes = nodes[node_order(nodes)]
    builder = EdgeBuilder(len(nodes))
    for layer in range(1, 21):
        takes = np.flatnonzero(
            ((nodes["kind"] == FEATURE) | (nodes["kind"] == TARGET)) & (nodes["layer"] == layer)
        )
        gives = np.flatnonzero((nodes["kind"] != TARGET) & (nodes["layer"] < layer))
        block = rng.standard_normal((len(takes), len(gives)), np.float32)
        block[rng.random(block.shape) > 0.18] = 0
        builder.add(takes, gives, block)
    csr = builder.finish()
    assert len(csr.weights) > 10_000_000
    graph = assemble(
        nodes,
        csr,
        token_ids=tuple(range(10)),
        token_texts=tuple("abcdefghij"),
        prompt="abcdefghij",
        n_layers=20,
    )
    graph.save(tmp_path / "g.jigraph")
    back = load_graph(tmp_path / "g.jigraph")
    assert same(back, graph) and isinstance(back.weights.base, np.memmap)
