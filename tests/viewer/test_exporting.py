"""Exports: labels where any viewer finds them, the view with them, schema-valid JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxinterp.graphs import FEATURE, load_graph
from jaxinterp.viewer.exporting import exported
from jaxinterp.viewer.features import Dashboards
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.view import empty
from tests.support import shared
from tests.viewer.graphs_to_view import REAL


@pytest.fixture(params=REAL)
def opened(request, tmp_path):
    place = tmp_path / f"{request.param}.json"
    place.write_bytes(shared(f"cases/graphs/{request.param}.json").read_bytes())
    return Library([place]).open(0)


def test_our_json_opens_everywhere(opened):
    jsonschema = pytest.importorskip("jsonschema")
    features = np.flatnonzero(opened.graph.nodes["kind"] == FEATURE).tolist()
    target = int(opened.graph.targets[0])
    view = {
        **empty(), "pinned": [*features[:3], target], "clicked": target, "hidden": features[5:6],
        "groups": [{"name": "pair", "members": features[:2]}],
        "labels": {str(features[0]): "my label", str(target): "the answer"},
        "positions": {"g:pair": [0.1, 0.2], f"n{features[2]}": [0.3, 0.4], f"n{target}": [0.5, 0.6]},
    }  # fmt: skip
    opened.save(view, 0, into_file=False)
    document = json.loads(exported([opened], "json", Dashboards()))
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(document)
    nodes = {node["node_id"]: node for node in document["nodes"]}
    assert len(nodes) == len(document["nodes"]) == len(opened.graph)
    assert len({node["jsNodeId"] for node in nodes.values()}) == len(nodes)
    assert nodes[opened.names.ids[features[0]]]["clerp"] == "my label"
    for node in nodes.values():
        if node["feature_type"] == "logit":
            assert node["clerp"].split("(p=")[1].split(")")[0]
    params = document["qParams"]
    for key, kind in (("pinnedIds", list), ("supernodes", list), ("clickedId", str), ("sg_pos", str)):
        assert isinstance(params[key], kind)
    assert params["clickedId"] == opened.names.ids[target]
    assert len(params["sg_pos"].split()) == 6
    assert [opened.names.ids[target], "the answer"] in params["clerps"]


def test_the_native_format_and_html_hold_the_view(opened, tmp_path):
    node = int(np.flatnonzero(opened.graph.nodes["kind"] == FEATURE)[0])
    opened.save({**empty(), "pinned": [node]}, 0, into_file=False)
    (tmp_path / "x.jigraph").write_bytes(exported([opened], "jigraph", Dashboards()))
    back = Library([tmp_path / "x.jigraph"]).open(0)
    assert back.current().view["pinned"] == [node]
    assert len(load_graph(tmp_path / "x.jigraph")) == len(opened.graph)
    page = exported([opened, back], "html", Dashboards())
    assert b'id="jaxinterp-data"' in page
    assert b'content="embedded"' in page
