"""Several dictionaries a layer: order, names, files and reports of nodes that differ in their part."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import BIAS, ERROR, FEATURE, TARGET, assemble, load_graph, node_order, report, summary
from jaxinterp.graphs.ids import node_ids
from jaxinterp.graphs.neuronpedia import json_document
from tests.graphs.graph_examples import random_graph, same
from tests.support import shared

PARTS = (0, 1, 2)


def test_nodes_of_one_place_stand_in_the_order_of_their_parts():
    nodes = random_graph(layers=2, positions=2, per_place=2, parts=PARTS).nodes
    for kind in (FEATURE, ERROR, BIAS):
        found = nodes[nodes["kind"] == kind]
        assert (np.diff(3 * found["layer"] + found["part"]) >= 0).all() and set(found["part"]) == {0, 1, 2}
    shuffled = nodes[np.random.default_rng(0).permutation(len(nodes))]
    again = shuffled[node_order(shuffled)]
    inner = nodes["kind"] != TARGET
    assert again[inner].tobytes() == nodes[inner].tobytes()


@pytest.mark.parametrize("parts", [PARTS, (2,), (0, 1)])
@pytest.mark.parametrize("prune", [False, True])
def test_parts_come_back_from_every_file(tmp_path, parts, prune):
    graph = random_graph(parts=parts, left_out=True)
    graph = graph.prune(0.8, 0.95) if prune else graph
    for ending in ("json", "jigraph"):
        graph.save(tmp_path / f"g.{ending}")
        assert same(load_graph(tmp_path / f"g.{ending}"), graph)
    ids = [node["node_id"] for node in json_document(graph)["nodes"]]
    assert len(set(ids)) == len(graph)


def test_nodes_of_several_parts_may_agree_in_everything_else():
    graph = random_graph(layers=1, positions=1, per_place=1, parts=PARTS)
    nodes = graph.nodes.copy()
    nodes["index"][nodes["kind"] == FEATURE] = 5
    assert node_ids(nodes, 1)[:6] == [
        *("0_attn_5_0", "0_5_0", "0_resid_5_0"),
        *("0_error_attn_0", "0_error_mlp_0", "0_error_resid_0"),
    ]


def test_the_attention_part_bears_the_dialects_names_and_the_schema_holds():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    graph = random_graph(parts=PARTS)
    document = json.loads(json.dumps(json_document(graph)))
    jsonschema.Draft7Validator(schema).validate(document)
    names = {"lorsa": (FEATURE, 0), "lorsa error": (ERROR, 0)}
    for raw, node in zip(document["nodes"], graph.nodes, strict=True):
        place = (int(node["kind"]), int(node["part"]))
        assert names.get(raw["feature_type"]) == (place if place in names.values() else None)
    assert document["jaxinterp"]["version"] == 2


def test_a_graph_of_mlp_dictionaries_is_written_as_before_there_were_parts():
    document = json_document(random_graph())
    assert document["jaxinterp"]["version"] == 1 and "part" not in json.dumps(document["nodes"])


def test_a_report_names_parts_only_where_there_are_several():
    plain, several = random_graph(), random_graph(parts=PARTS, per_place=1)
    assert "attention" not in report(plain) and " residual" not in report(plain)
    assert " attention/" in report(several, 200) or " residual/" in report(several, 200)
    feature = summary(several)["targets"][0]["features"][0]
    assert feature["part"] == ("attention", "mlp", "residual")[several.nodes["part"][feature["node"]]]


def at_another_place(targets):
    """A graph whose targets stand at these (layer, part, position, index)."""
    graph = random_graph(parts=(1, 2), targets=len(targets), positions=3, layers=2)
    nodes = graph.nodes.copy()
    for node, place in zip(graph.targets, targets, strict=True):
        for name, value in zip(("layer", "part", "position", "index"), place, strict=True):
            nodes[name][node] = value
    return dataclasses.replace(graph, nodes=nodes)


def test_targets_may_stand_anywhere_and_keep_their_order(tmp_path):
    graph = at_another_place([(2, 1, 0, 70), (1, 2, 1, 70), (1, 1, 1, 70), (0, 1, 2, 3), (2, 1, 2, -1)])
    parts = {
        name: getattr(graph, name) for name in ("token_ids", "token_texts", "prompt", "n_layers", "labels")
    }
    assert assemble(graph.nodes, graph.csr, **parts).nodes["layer"][graph.targets].tolist() == [2, 1, 1, 0, 2]
    for ending in ("json", "jigraph"):
        graph.save(tmp_path / f"g.{ending}")
        assert same(load_graph(tmp_path / f"g.{ending}"), graph)
    ids = node_ids(graph.nodes, 2)[-5:]
    assert ids == ["3_70_0", "3_1.resid.70_1", "3_1.70_1", "3_0.3_2", "3_direction_2"]


def test_a_part_that_does_not_exist_is_refused(tmp_path):
    graph = random_graph()
    nodes = graph.nodes.copy()
    nodes["part"][-1] = 3
    with pytest.raises(InputError, match=r"part 3: expected 0 .attention., 1 .mlp. or 2 .residual."):
        assemble(
            nodes, graph.csr, token_ids=graph.token_ids, token_texts=graph.token_texts, prompt="", n_layers=3
        )
    dataclasses.replace(graph, nodes=nodes).save(tmp_path / "g.jigraph")
    with pytest.raises(InputError, match="holds part 3"):
        load_graph(tmp_path / "g.jigraph")
