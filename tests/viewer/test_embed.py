"""The single HTML file and the notebook: what a browser's parser finds in them, policy, data, and what is pruned."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import load_graph, propose
from jaxinterp.viewer import embed, notebook, page_files
from jaxinterp.viewer.embed import Shown, fitting, known_features, page_html
from tests.graphs.graph_examples import random_graph
from tests.graphs.test_graph_dialects import CRM

EVIL = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(1)>',
    "'&quot; \u2028",
]
PAGE = """<!doctype html><html lang="en"><head>
<meta charset="utf-8" /><!--jaxinterp-meta--><title>jaxinterp</title>
<script type="module" crossorigin src="/assets/page.js"></script>
<link rel="stylesheet" crossorigin href="/assets/page.css">
</head><body><div id="app"></div></body></html>"""


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A page whose script and style try to end their elements."""
    (tmp_path / "index.html").write_text(PAGE)
    script = 'let a = "</script><!-- <SCRIPT> \u00e9 </body>";\r\nlet b = `<title>x</title><meta charset="utf-8">`;'
    (tmp_path / "page.js").write_bytes(script.encode())
    (tmp_path / "page.css").write_bytes(b'a::after { content: "</style><p>"; }\r\n')
    monkeypatch.setattr(page_files, "FOLDER", tmp_path)


class Elements(HTMLParser):
    """Every element with its attributes; the text of scripts and styles, as HTML's rules for them have it."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found, self.texts = [], []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.inside = tag in ("script", "style", "title")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.texts.append((*self.found[-1], data))

    def named(self, tag):
        return [attributes for name, attributes in self.found if name == tag]

    def text(self, tag, **wanted):
        return "".join(
            data
            for name, have, data in self.texts
            if name == tag and all(have.get(k) == v for k, v in wanted.items())
        )


def evil_graph():
    graph = random_graph(positions=4)
    labels = [EVIL[i % 4] if i % 3 == 0 else text for i, text in enumerate(graph.labels)]
    view = {"pinnedIds": [], "supernodes": [[EVIL[0]]], "odd": EVIL[1]}
    return dataclasses.replace(
        graph, labels=tuple(labels), token_texts=tuple(EVIL), prompt="".join(EVIL), view=view
    )


def sha(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def unpacked(page):
    """(header, data) of the first graph."""
    data = json.loads(Elements(page).text("script", id="jaxinterp-data"))
    whole = zlib.decompress(base64.b64decode(data["graphs"][0]["bundle"]), -zlib.MAX_WBITS)
    assert whole[:8] == b"JIPAGE01"
    (length,) = struct.unpack("<I", whole[8:12])
    return json.loads(whole[16 : 16 + length]), data


def test_no_text_gets_out_of_its_place(built):
    graph = evil_graph()
    page = page_html(graph, title=EVIL[0], features=[{0: {"label": EVIL[0]}}])
    elements = Elements(page)
    scripts = elements.named("script")
    assert scripts == [{"type": "application/json", "id": "jaxinterp-data"}, {"type": "module"}]
    assert [tag for tag, _ in elements.found if tag in ("img", "p", "link")] == []
    assert elements.text("title") == EVIL[0] and len(elements.named("title")) == 1
    # Within the script element nothing may look like its end, or like the start of a comment.
    inside = page.split('<script type="module">')[1].rpartition("</script>")[0]
    assert not re.search(r"<!--|</?script", inside, re.I) and "\r" not in page
    header, data = unpacked(page)
    assert header["tokens"] == EVIL and data["graphs"][0]["features"] == {"0": {"label": EVIL[0]}}
    assert header["has_features"] and not header["writable"] and not header["live"]


def test_the_policy_allows_the_script_and_the_style_and_nothing_else(built):
    page = page_html(evil_graph())
    elements = Elements(page)
    names = [tag for tag, _ in elements.found]
    meta = next(m for m in elements.named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    # The charset may stand before the policy, nothing that loads.
    assert elements.named("meta").index(meta) == 1 and names.index("style") > names.index("meta") + 1
    rules = dict(rule.strip().split(" ", 1) for rule in meta["content"].split(";"))
    assert rules.pop("default-src") == "'none'" and rules.pop("img-src") == "data: blob:"
    assert rules.pop("script-src") == sha(elements.text("script", type="module"))
    assert rules.pop("style-src") == sha(elements.text("style"))
    assert rules == {"base-uri": "'none'", "form-action": "'none'"}
    assert {"name": "jaxinterp-mode", "content": "embedded"} in elements.named("meta")
    assert not any(
        key.startswith("on") or key in ("src", "style") for _, have in elements.found for key in have
    )


def test_the_page_as_it_is_built_can_be_inlined():
    parts = page_files.assets()
    page = page_html(random_graph())
    elements = Elements(page)
    # Byte for byte the script and the style that the hashes are of; nothing in them had to be escaped.
    assert elements.text("script", type="module") == parts.script and elements.text("style") == parts.style
    assert len(elements.named("script")) == 2 and not re.search(r"url\(|@import", parts.style)


def test_the_data_is_the_graph():
    graph = random_graph(dtype="float32", layers=4)
    header, data = unpacked(
        page_html([graph, Shown(graph, "b.json")], compare={"pairs": [[0, 0]], "notes": []})
    )
    assert [sorted(one) for one in data["graphs"]] == [["bundle", "features", "heads", "report"]] * 2
    assert data["compare"] == {"pairs": [[0, 0]], "notes": []}
    assert header["prompt"] == graph.prompt and header["n_edges"] == len(graph.weights)
    assert data["graphs"][0]["report"]["reading"]["text"]
    assert header["saved_from"] == "none" and header["view"]["pinned"] == []


def test_bad_calls():
    with pytest.raises(InputError, match="at least one graph"):
        page_html([])
    with pytest.raises(InputError, match="features for 2 graphs, but there are 1"):
        page_html(random_graph(), features=[None, None])
    with pytest.raises(InputError, match="height is 5"):
        notebook.graph(random_graph(), height=5)


def test_without_its_files_the_page_is_refused_and_notebooks_print(tmp_path, monkeypatch):
    graph = random_graph()
    monkeypatch.setattr(page_files, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"index\.html is missing"):
        page_html(graph)
    assert repr(graph) in html.unescape(graph._repr_html_())  # its text, and why it is no more than that
    assert "index.html is missing" in graph._repr_html_()
    (tmp_path / "index.html").write_text("<html></html>")
    for name in ("page.js", "page.css"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match="0 places for its script: expected 1"):
        page_html(graph)


def test_a_notebook_shows_the_page_in_a_sandbox(built):
    shown = evil_graph()._repr_html_()
    outer = Elements(shown)
    frame = outer.named("iframe")
    assert len(frame) == 1 and frame[0]["sandbox"] == "allow-scripts allow-downloads" and frame[0]["title"]
    assert not outer.named("script") and not outer.named("img")
    inner = Elements(frame[0]["srcdoc"])
    assert [m for m in inner.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert unpacked(frame[0]["srcdoc"])[0]["tokens"] == EVIL
    assert "Strongest paths" in shown  # the same as text
    assert repr(notebook.View(random_graph(), 300)).startswith("Graph(")
    assert "height:300px" in notebook.View(random_graph(), 300)._repr_html_()


def test_large_graphs_are_pruned_for_display_and_it_is_said(built):
    graph = random_graph(layers=6, positions=6, per_place=6, dtype="float32")
    whole = Shown(graph, features={i: {"index": int(graph.nodes["index"][i])} for i in range(len(graph))})
    assert fitting(whole) is whole
    small = fitting(whole, 40_000)
    assert len(small.graph) < len(graph) and embed._size(small.graph) <= 40_000
    assert small.features is not None
    for i, found in small.features.items():
        assert found["index"] == small.graph.nodes["index"][i]
    assert small.graph.labels[-1] == graph.labels[-1]
    line = small.said[0]
    assert f"{len(small.graph)} of {len(graph)} nodes" in line and "jaxinterp view" in line
    shown = notebook.graph(graph, limit=40_000)
    assert html.escape(f"{len(small.graph.weights)} of {len(graph.weights)} edges") in shown
    header, data = unpacked(Elements(shown).named("iframe")[0]["srcdoc"])
    assert data["graphs"][0]["report"]["warnings"][0] == line
    assert header["pruned"]["hidden_nodes"]["feature"] > 0
    assert len(base64.b64decode(data["graphs"][0]["bundle"])) < 40_000


def test_the_estimate_of_size_holds():
    graph = random_graph(layers=8, positions=6, per_place=8, dtype="float32", density=0.9)
    _, data = unpacked(page_html(graph))
    assert len(data["graphs"][0]["bundle"]) < 1.3 * embed._size(graph)


def test_a_graph_with_a_cycle_shows_itself(tmp_path):
    data = json.loads(json.dumps(CRM))
    for target, source in (("0_cro_5_1", "0_lor_6_1"), ("0_lor_6_1", "0_cro_5_1")):
        data["links"].append({"source": source, "target": target, "weight": 1e9})
    (tmp_path / "g.json").write_text(json.dumps(data))
    graph = load_graph(tmp_path / "g.json")
    assert "cycle" in notebook.graph(graph, limit=100)


def test_tables():
    graph = random_graph(left_out=True)
    small = graph.prune(0.7, 0.9)
    labels = (EVIL[0], *small.labels[1:])
    named = dataclasses.replace(small, labels=labels)
    shown = [
        graph.scores(), small.scores(), graph.checks(), dataclasses.replace(graph.checks(), identity_2=1.0, ok=False),
        propose(named, at_least=0.0), propose(named, at_least=0.0).shown,
    ]  # fmt: skip
    for one in shown:
        text = one._repr_html_()
        assert text.count("<table") == text.count("</table>") >= 1
        tags = {tag for tag, _ in Elements(text).found}
        assert tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "div"}
        assert text.count("<th ") == text.count("</th>") and text.count("<td ") == text.count("</td>")
    assert "FAILS" in shown[3]._repr_html_() and "holds" in shown[2]._repr_html_()
    assert f"{shown[0].replacement:.3f}" in shown[0]._repr_html_()
    assert html.escape(EVIL[0]) in shown[5]._repr_html_()
    many = dataclasses.replace(shown[5], weights=np.ones_like(shown[5].weights))
    assert "more</div>" in many._repr_html_()


class Dashboard:
    """A source that knows features with an even number; those divisible by 10 are damaged."""

    def record(self, graph, node):
        index = int(graph.nodes["index"][node])
        if index % 10 == 0:
            raise InputError("damaged")
        return {"label": EVIL[0], "index": index} if index % 2 == 0 else None


def test_the_most_influential_features_come_along():
    graph = random_graph(layers=5)
    found, said = embed.known_features(graph, Dashboard(), 10**6)
    assert found and all(graph.nodes["index"][i] == one["index"] for i, one in found.items())
    assert len(said) == 1 and "cannot be read" in said[0]
    influence = graph.nodes["influence"][list(found)]
    assert (np.diff(influence) <= 0).all()
    some, said = embed.known_features(graph, Dashboard(), 200)
    assert (
        0 < len(some) < len(found)
        and list(some) == list(found)[: len(some)]
        and f"of {len(some)} features" in said[0]
    )
    assert embed.known_features(graph, None, 10) == ({}, ())


def test_a_view_that_is_given_is_shown(built):
    graph = random_graph()
    view = {
        **random_view(),
        "pinned": [1, 2],
        "groups": [{"name": EVIL[1], "members": [1, 2]}],
        "notes": EVIL[0],
    }
    header, _ = unpacked(
        page_html(Shown(graph, "g.json", view, 7, heads={"3,1": {"heads": [[0, 1, 0.5]], "rest": 0.1}}))
    )
    assert header["view"] == view and header["revision"] == 7 and header["saved_from"] == "file"
    assert header["file"] == "g.json" and header["has_heads"] and not header["writable"]


def random_view():
    from jaxinterp.viewer.view import empty

    return empty()


def test_dashboards_that_cannot_be_read_are_counted():
    class Source:
        def record(self, graph, node):
            if node == 0:
                raise InputError("the file is damaged")
            return {"label": "x" * 100}

    graph = random_graph()
    found, said = known_features(graph, Source(), 10**6)
    assert 0 not in found and len(found) == graph.counts()["feature"] - 1
    assert said == ("Dashboards of 1 features cannot be read and are left out.",)
    last = max(found)
    found, said = known_features(graph, Source(), 250, first=[last])
    assert last in found and len(found) == 2 and "those of the others are left out" in said[0]
