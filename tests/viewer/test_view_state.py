"""What a user makes of a graph survives saving, other programs' forms and changed graphs."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.graphs import FEATURE, load_graph
from jaxinterp.graphs.ids import graph_ids
from jaxinterp.viewer.checking import checked
from jaxinterp.viewer.messages import Refused
from jaxinterp.viewer.view import Names, empty, params_of, stored
from tests.graphs.graph_examples import random_graph
from tests.support import shared
from tests.viewer.graphs_to_view import REAL, chain


def some_view(n, seed=0, views=True):
    """A view with something of everything."""
    draw = random.Random(seed)
    nodes = draw.sample(range(n), min(n, 12))
    a, b, rest = nodes[:3], nodes[3:5], nodes[5:]
    groups = [{"name": 'a "name"', "members": a}, {"name": "<b>", "members": b}]
    view = {
        **empty(),
        "pinned": [*a, *b, *rest],
        "groups": groups,
        "labels": {str(nodes[0]): "mine", str(nodes[-1]): '"'},
        "clicked": nodes[1],
        "positions": {
            **{f"n{i}": [round(draw.random(), 3), round(draw.random(), 3)] for i in rest},
            **{f"g:{group['name']}": [0.25, 0.75] for group in groups},
        },
        "hidden": [nodes[2]],
        "link_type": "input",
        "notes": "why\nnot",
    }
    if views:
        inner = some_view(n, seed + 1, views=False)
        del inner["views"]
        view["views"] = [{"name": "another", "view": inner}]
    return view


@pytest.mark.parametrize("name", REAL)
def test_round_trip_on_real_graphs_through_files(name, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    path = shared(f"cases/graphs/{name}.json")
    graph = load_graph(path)
    names, view = Names(graph), some_view(len(graph))
    graph = replace(graph, view=params_of(view, names, 7, graph.view))
    for ending in ("json", "jigraph"):
        graph.save(tmp_path / f"g.{ending}")
        back = load_graph(tmp_path / f"g.{ending}")
        assert graph_ids(back) == names.ids
        found = stored(back)
        assert found.view == view
        assert (found.revision, found.notes, found.chosen) == (7, (), True)
    document = json.loads((tmp_path / "g.json").read_text())
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(document)
    params = document["qParams"]
    assert params["pinnedIds"] == [names.ids[i] for i in view["pinned"]]
    assert params["supernodes"][0] == ['a "name"', *(names.ids[i] for i in view["groups"][0]["members"])]
    js = [node["jsNodeId"] for node in document["nodes"]]
    assert len(set(js)) == len(js) == len(graph)
    for node in document["nodes"]:
        if node["feature_type"] == "logit":
            assert "(p=" in node["clerp"]
    # every node and link of the file is there still
    before = json.loads(path.read_text())
    assert len(document["links"]) == len(before["links"])


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_any_view_round_trips(seed):
    graph = random_graph(0, layers=2, positions=3)
    names = Names(graph)
    view = checked(some_view(len(graph), seed), len(graph))
    params = json.loads(json.dumps(params_of(view, names, seed, {"gridsnap": 3})))
    assert params["gridsnap"] == 3
    found = stored(graph, params)
    assert found.view == view
    assert found.revision == seed


def test_sg_pos_is_in_the_order_of_the_members_features():
    graph = chain()
    names = Names(graph)
    view = {**empty(), "pinned": [0, 2, 5], "groups": [{"name": "both", "members": [0, 2]}]}
    view["positions"] = {"g:both": [0.1, 0.2], "n5": [0.5, 1.0]}
    params = params_of(view, names, 1)
    # boxes sorted as texts: the target's number "12" before the group's "20,34" (Cantor numbers of (0, 5) and (1, 6))
    assert params["sg_pos"] == "500 1000 100 200"
    foreign = {key: value for key, value in params.items() if key != "jaxinterp"}
    assert stored(graph, foreign).view["positions"] == view["positions"]
    # a box without a place: no list rather than a shifted one
    del view["positions"]["n5"]
    assert params_of(view, names, 1)["sg_pos"] == ""


def test_what_other_viewers_write():
    graph = random_graph(0)
    ids = graph_ids(graph)
    comma = {"pinnedIds": ",".join(ids[:3]), "supernodes": "", "clickedId": ids[1], "linkType": "either"}
    found = stored(graph, comma)
    assert found.view["pinned"] == [0, 1, 2]
    assert found.view["clicked"] == 1
    assert found.view["link_type"] == "either"
    assert not found.notes
    in_text = {
        "pinnedIds": json.dumps(ids[:2]),
        "supernodes": json.dumps([["say", ids[0], ids[3]], ["gone", "99_99_99"]]),
        "clerps": json.dumps([[ids[4], "a label"]]),
        "hiddenIds": ids[5],
    }
    found = stored(graph, in_text)
    assert found.view["groups"] == [{"name": "say", "members": [0, 3]}]
    assert found.view["pinned"] == [0, 1, 3]
    assert found.view["labels"] == {"4": "a label"}
    assert found.view["hidden"] == [5]
    assert found.notes == ("1 members of saved supernodes are not in this graph",)


def test_labels_by_feature_number():
    graph = random_graph(0)
    names = Names(graph)
    node = int(np.flatnonzero(graph.nodes["kind"] == FEATURE)[3])
    same = [
        i
        for i in range(len(graph))
        if names.feature(i) == names.feature(node) and graph.nodes["kind"][i] == 0
    ]
    found = stored(graph, {"clerps": [[names.feature(node), "by number"]]})
    assert found.view["labels"] == {str(i): "by number" for i in same}


def test_ids_that_are_gone_are_counted():
    graph = random_graph(0)
    ids = graph_ids(graph)
    small = graph.prune(0.3, 0.5)
    view = some_view(len(graph))
    params = params_of(view, Names(graph), 3)
    found = stored(small, params)
    kept = {name: i for i, name in enumerate(graph_ids(small))}
    assert found.view["pinned"] == [kept[ids[i]] for i in view["pinned"] if ids[i] in kept]
    lost = sum(ids[i] not in kept for i in view["pinned"])
    assert f"{lost} of {len(view['pinned'])} saved pinned nodes are not in this graph" in found.notes


@pytest.mark.parametrize(
    "params",
    [
        {
            "pinnedIds": 5,
            "supernodes": {"a": 1},
            "clerps": 3,
            "hiddenIds": [[]],
            "clickedId": 4,
            "sg_pos": "x y",
        },
        {"supernodes": [["a"], [], "x", [1, 2], None], "pinnedIds": [None, 3]},
        {"jaxinterp": {"positions": [1], "views": [{"name": 3}, 4], "revision": "a", "notes": []}},
        {"supernodes": "[[[[", "clerps": "{", "pinnedIds": "["},
        {"jaxinterp": 5, "sg_pos": "1 2 3"},
        {"clerps": [["a"], "b", [1, 2, 3], ["q", "r"]]},
        [],
    ],
)
def test_nonsense_in_a_file_is_said_and_left(params):
    graph = random_graph(0)
    found = stored(graph, params)
    assert found.view["pinned"] == found.view["groups"] == []
    assert found.revision == 0


def test_saved_names_that_clash():
    graph = random_graph(0)
    ids = graph_ids(graph)
    found = stored(graph, {"supernodes": [["a", ids[0]], ["a", ids[1]], ["b", ids[0]]]})
    assert found.view["groups"] == [{"name": "a", "members": [0]}, {"name": "a (2)", "members": [1]}]
    assert found.notes == ("1 nodes were in two saved supernodes and stay in the first",)


WRONG = [
    ("x", "expected an object"),
    ({"pinned": [0, 10]}, "0 to 9"),
    ({"pinned": [True]}, "0 to 9"),
    ({"pinned": [1.0]}, "0 to 9"),
    ({"pinned": "0,1"}, "expected a list"),
    ({"groups": [{"name": "a"}]}, "name and members"),
    ({"groups": [{"name": 1, "members": [1]}]}, "expected a text"),
    ({"groups": [{"name": "a", "members": [1]}, {"name": "b", "members": [1]}]}, "in two groups"),
    ({"groups": [{"name": "a", "members": [1]}, {"name": "a", "members": [2]}]}, "same name"),
    ({"labels": {"x": "a"}}, "node numbers"),
    ({"labels": {"1": 5}}, "expected a text"),
    ({"labels": {"1": "a" * 3000}}, "at most 2000"),
    ({"clicked": -1}, "0 to 9"),
    ({"positions": {"n1": [1]}}, "places"),
    ({"positions": {"n1": [float("nan"), 0]}}, "places"),
    ({"positions": {"m1": [0, 0]}}, "keys"),
    ({"views": [{"name": "a"}]}, "name and a view"),
    ({"views": [{"name": "a", "view": {"views": []}}]}, "unknown key 'views'"),
    ({"notes": 3}, "expected a text"),
    ({"__proto__": {}}, "unknown key"),
]


@pytest.mark.parametrize(("value", "text"), WRONG)
def test_views_over_the_wire_are_checked(value, text):
    with pytest.raises(Refused) as refused:
        checked(value, 10)
    assert refused.value.status == 400
    assert text in refused.value.text


def test_checked_views_are_complete_and_clean():
    found = checked({"pinned": [1, 1, 2], "groups": [{"name": "e", "members": []}], "notes": "\ud800x"}, 10)
    assert found == {**empty(), "pinned": [1, 2], "notes": "?x"}


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["0_1_0", "E_7_0", ","]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARAMS = st.dictionaries(
    st.sampled_from(
        [
            "pinnedIds",
            "supernodes",
            "clickedId",
            "sg_pos",
            "linkType",
            "hiddenIds",
            "clerps",
            "jaxinterp",
            "gridsnap",
        ]
    ),
    ANYTHING
    | ANYTHING.map(lambda value: json.dumps(value))
    | st.fixed_dictionaries(
        {"views": st.lists(st.fixed_dictionaries({"name": ANYTHING, "view": ANYTHING})), "notes": ANYTHING}
    ),
)


@given(PARAMS)
@settings(max_examples=100, deadline=None)
def test_whatever_a_file_holds_gives_a_view(params):
    graph = chain()
    found = stored(graph, params)
    again = checked(found.view, len(graph))  # and one that the server would take back
    assert again["pinned"] == found.view["pinned"]
    assert again["groups"] == found.view["groups"]
    written = json.loads(json.dumps(params_of(again, Names(graph), 1)))
    assert stored(graph, written).view == again
