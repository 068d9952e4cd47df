"""Files and folders of graphs: what is listed, what is broken, what is loaded."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import FEATURE, load_graph
from jaxinterp.viewer.features import Dashboards, FeatureSource, record_of
from jaxinterp.viewer.heads import heads_of
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.messages import Refused
from jaxinterp.viewer.pages import viewer_app
from jaxinterp.viewer.peek import peek
from tests.graphs.graph_examples import random_graph
from tests.support import shared
from tests.viewer.graphs_to_view import PORT, REAL, TOKEN, app_for, ask, parsed, told


@pytest.fixture
def folder(tmp_path):
    random_graph(0).save(tmp_path / "a.json")
    random_graph(1).save(tmp_path / "b.jigraph")
    (tmp_path / "broken.json").write_text('{"metadata": {')
    (tmp_path / "other.json").write_text('{"name": "no graph"}')
    (tmp_path / "cut.jigraph").write_bytes((tmp_path / "b.jigraph").read_bytes()[:200])
    (tmp_path / "tail.jigraph").write_bytes((tmp_path / "b.jigraph").read_bytes()[:-40])
    (tmp_path / "graph-metadata.json").write_text('{"graphs": []}')
    (tmp_path / "a.json.view.json").write_text("{}")
    (tmp_path / ".a.json.x.tmp").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "inner.json").mkdir()
    return tmp_path


def test_a_folder(folder):
    listed = Library([folder]).listed()
    assert [one["file"] for one in listed] == [
        "a.json",
        "b.jigraph",
        "broken.json",
        "cut.jigraph",
        "other.json",
        "tail.jigraph",
    ]
    assert [one["error"] is None for one in listed] == [True, True, False, False, False, False]
    for one, seed in zip(listed, (0, 1), strict=False):
        graph = random_graph(seed)
        assert (one["nodes"], one["edges"], one["prompt"]) == (len(graph), len(graph.weights), graph.prompt)
    for one in listed[2:]:
        assert "\n" not in one["error"]
        assert str(folder) not in one["error"]
        assert one["file"] in one["error"]


def test_broken_files_are_refused_and_the_others_open(folder):
    library = Library([folder])
    assert len(library.open(0).graph) == len(random_graph(0))
    for number in (2, 3, 4, 5):
        with pytest.raises(Refused) as refused:
            library.open(number)
        assert refused.value.status == 400
        assert str(folder) not in refused.value.text
    with pytest.raises(Refused) as refused:
        library.open(6)
    assert refused.value.status == 404


def test_a_file_that_is_mended_or_goes(folder):
    library = Library([folder / "broken.json"])
    assert library.listed()[0]["error"]
    random_graph(2).save(folder / "broken.json")
    assert library.listed()[0]["error"] is None
    assert library.open(0)
    (folder / "broken.json").unlink()
    assert "No such file" in library.listed()[0]["error"]
    with pytest.raises(Refused, match=r"cannot read broken\.json"):
        library.open(0)


def test_names_that_occur_twice(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        random_graph(0).save(tmp_path / name / "g.json")
    library = Library(
        [tmp_path / "one" / "g.json", tmp_path / "two", tmp_path / "one" / ".." / "one" / "g.json"]
    )
    assert [one["file"] for one in library.listed()] == ["one/g.json", "two/g.json"]
    assert library.add(tmp_path / "two" / "g.json") == 1


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    random_graph(0).save(outside / "secret.json")
    (inside / "link.json").symlink_to(outside / "secret.json")
    (inside / "passwd.json").symlink_to("/etc/passwd")
    app = app_for(inside)
    listed = told(ask(app, "/api/files"))["files"]
    assert len(listed) == 2
    assert all("link out of its folder" in one["error"] for one in listed)
    for number in (0, 1):
        for what in ("file", "bundle", "report", "export"):
            assert ask(app, f"/api/graph/{number}/{what}").status == 400
    assert told(ask(app_for(inside / "link.json"), "/api/files"))["files"][0]["error"] is None


def test_what_is_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Library([tmp_path / "gone.json"])
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        Library([tmp_path / "pipe.json"])
    assert Library([tmp_path]).listed() == []


def test_few_graphs_stay_in_memory(tmp_path):
    for i in range(4):
        random_graph(i).save(tmp_path / f"{i}.jigraph")
    library = Library([tmp_path], kept=2)
    first = library.open(0)
    assert library.open(0) is first
    for i in (1, 2, 3):
        library.open(i)
    assert library.open(3) is library.open(3)
    assert library.open(0) is not first


@pytest.mark.parametrize("name", REAL)
def test_glance_at_real_files(name):
    path = shared(f"cases/graphs/{name}.json")
    document = json.loads(path.read_text())
    found = peek(path)
    assert (found.nodes, found.edges) == (len(document["nodes"]), len(document["links"]))
    assert found.slug == document["metadata"]["slug"]


def test_duplicate_ids_and_links_to_nowhere(tmp_path):
    source = json.loads(shared("cases/graphs/mit-war_ea.json").read_text())
    error = next(n for n in source["nodes"] if "error" in n["feature_type"])
    feature = next(n for n in source["nodes"] if n["feature_type"] == "cross layer transcoder")
    source["nodes"].append({**error, "node_id": feature["node_id"], "ctx_idx": 0})
    source["links"] += [{"source": "0_0_0_0", "target": feature["node_id"], "weight": 1.0}] * 3
    (tmp_path / "g.json").write_text(json.dumps(source))
    with pytest.warns(UserWarning, match="renamed"):
        graph = load_graph(tmp_path / "g.json")
    app = app_for(tmp_path)
    with pytest.warns(UserWarning, match="renamed"):
        warnings = told(ask(app, "/api/graph/0/report"))["warnings"]
    assert any("renamed" in line for line in warnings)
    assert any("3 links lead to nodes" in line for line in warnings)
    assert len(graph) == len(source["nodes"])


class Source:
    def __init__(self, wrong=None):
        self.wrong = wrong

    def feature(self, layer, index, part="mlp"):
        if self.wrong:
            raise self.wrong
        if index % 2:
            return None
        return {
            "layer": layer,
            "index": index,
            "part": part,
            "label": f"label {index}",
            "frequency": float("nan"),
        }


def test_dashboards_of_nodes():
    graph = random_graph(0, parts=(0, 1, 2))
    source = FeatureSource(Source())
    for node in range(len(graph)):
        place = graph.nodes[node]
        if place["kind"] != FEATURE or place["index"] % 2:
            assert record_of(source, graph, node) is None
            continue
        found = record_of(source, graph, node)
        assert found["part"] == ("attention", "mlp", "residual")[place["part"]]
        assert found["frequency"] is None  # no number: null on the wire
        assert source.label(graph, node) == f"label {place['index']}"
    assert record_of(None, graph, 0) is None
    with pytest.raises(Refused, match="cannot be read") as refused:
        record_of(FeatureSource(Source(InputError("/secret/place is damaged"))), graph, 0)
    assert "secret" not in refused.value.text
    assert FeatureSource(Source(ValueError("x"))).label(graph, 0) == ""


def test_dashboards_that_are_not_there(tmp_path):
    random_graph(0).save(tmp_path / "g.json")
    with pytest.raises(InputError):
        Dashboards(str(tmp_path / "gone"))
    (
        tmp_path / "features"
    ).mkdir()  # beside the graph, but nothing that is understood: as if it were not there
    found = ask(app_for(tmp_path / "g.json"), "/api/feature?graph=0&node=0")
    assert (found.status, found.body) == (200, b"null")


def test_heads_beside_a_graph(tmp_path):
    graph = random_graph(0)
    graph.save(tmp_path / "g.json")
    targets, sources, weights = (column.tolist() for column in graph.edges())
    edges = [
        {"source": s, "target": t, "direct": w - 0.5, "heads": [[0, 1, 0.25], [2, 3, 0.5]], "rest": -0.25}
        for t, s, w in zip(targets, sources, weights, strict=True)
    ]
    edges[3]["direct"] += 100.0  # of another graph: does not add up
    edges.append({"source": 0, "target": 0, "direct": 0.0, "heads": [], "rest": 0.0})  # no edge
    document = {"by": "last", "graph": "", "shape": [4, 4], "off": 0.0, "edges": edges}
    (tmp_path / "g.heads.json").write_text(json.dumps(document))
    found = heads_of(tmp_path / "g.json", graph)
    assert len(found) == len(graph.weights) - 1
    app = app_for(tmp_path / "g.json")
    answer = told(ask(app, f"/api/graph/0/heads?target={targets[0]}&source={sources[0]}"))
    assert answer["heads"] == [[0, 1, 0.25], [2, 3, 0.5]]
    assert answer["rest"] == -0.25
    assert ask(app, f"/api/graph/0/heads?target={targets[3]}&source={sources[3]}").body == b"null"
    for wrong in ('{"edges": 4}', "[]", "{", '{"graph": "", "edges": [{"source": 1e9}]}'):
        (tmp_path / "g.heads.json").write_text(wrong)
        assert heads_of(tmp_path / "g.json", graph) == {}


def test_labels_of_dashboards_fill_the_gaps(tmp_path):
    from jaxinterp.dashboards.labels import Labels

    graph = random_graph(0)
    graph.save(tmp_path / "g.json")
    source = Source()
    source.labels = Labels(tmp_path)
    place = graph.nodes[3]
    source.labels.set(int(place["layer"]), int(place["index"]), label="three")
    assert FeatureSource(source).labels(graph) == {3: "three"}
    opened = Library([tmp_path / "g.json"]).open(0)
    header, _ = parsed(opened.bundle({3: "three", int(graph.targets[0]): "not this"}))
    assert header["labels"]["3"] == "three"
    assert header["labels"][str(graph.targets[0])] == graph.labels[int(graph.targets[0])]
    assert FeatureSource(Source()).labels(graph) == {}


def test_a_list_asked_for_while_another_is_made_is_whole(folder, monkeypatch):
    def slow(path):
        time.sleep(0.02)
        return peek(path)

    monkeypatch.setattr("jaxinterp.viewer.library.peek", slow)
    found = Library([folder])
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda _: found.listed(), range(8)))
    assert all(listed == lists[0] for listed in lists)
    assert all(one["error"] or one["nodes"] for one in lists[0])


def test_the_list_is_the_same_before_and_after_loading(tmp_path, monkeypatch):
    from jaxinterp.viewer import library as library_module

    for i in range(3):
        random_graph(i).save(tmp_path / f"{i}.jigraph")
    before = Library([tmp_path])
    listed = before.listed()
    for i in range(3):
        before.open(i)
    assert before.listed() == listed
    # a large file that was loaded is not read a second time
    monkeypatch.setattr(library_module, "LARGE", 0)
    monkeypatch.setattr(library_module, "peek", lambda path: pytest.fail(f"{path} was read again"))
    after = Library([tmp_path])
    for i in range(3):
        after.open(i)
    assert after.listed() == listed


def test_the_first_that_can_be_shown(folder):
    assert Library([folder / "broken.json", folder]).first().path.name == "a.json"
    assert Library([folder / "broken.json"]).first() is None


def test_the_page_says_what_it_asks_for_next(tmp_path):
    """A small graph that is known is sent ahead; a large one, a broken one and one not yet looked at are not."""
    random_graph(0).save(tmp_path / "b.jigraph")
    (tmp_path / "a.json").write_text("{")
    library = Library([tmp_path])
    app = viewer_app(library, token=TOKEN, port=PORT)
    assert library.at_hand(1000) is None
    assert "bundle" not in ask(app, "/").headers["Link"]
    ask(app, "/api/files")
    assert library.at_hand(1000) == 1 and library.at_hand(0) is None
    link = ask(app, "/").headers["Link"]
    assert "</api/files>; rel=preload" in link and "</api/graph/1/bundle>; rel=preload" in link
