"""What is carried away from the page: pictures, a single file that works without us, the graph itself; comparing."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxinterp.graphs import FEATURE, load_graph
from tests import support
from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import SESSION, free_nodes, graph, open_graph, ready, select, settled, view
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import synthetic

Window = Callable[..., Page]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("export")
    synthetic(130, 900, layers=6, tokens=8, targets=4, seed=3).save(found / "a.jigraph")
    synthetic(130, 900, layers=6, tokens=8, targets=4, seed=4).save(found / "b.jigraph")
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with Server(folder / "a.jigraph", folder / "b.jigraph") as found:
        yield found


@pytest.fixture
def page(window: Window, server: Server) -> Page:
    return open_graph(window, server.url)


def export(page: Page, form: str, to: Path) -> str:
    """Open the menu and choose a form; the name of the download."""
    page.click("[data-action=export]")
    return page.download(f"[data-action=export-{form}]", to)


def test_svg_is_a_picture_of_its_own(page: Page, tmp_path: Path) -> None:
    name = export(page, "svg", tmp_path / "out.svg")
    assert name.endswith(".svg")
    text = (tmp_path / "out.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for element in root.iter():
        assert element.tag.rsplit("}")[-1] not in ("script", "image", "foreignObject")
        for key, value in element.attrib.items():
            assert not key.rsplit("}")[-1].startswith("on")
            assert not re.search(r"(?i)https?:|url\((?!#)", value), (key, value)
    texts = " ".join(root.itertext())
    groups, node = view(page)["groups"], view(page)["pinned"][0]
    shown = [group["name"] for group in groups if node in group["members"]] or [
        page.js(f"{SESSION}.name({node})")
    ]
    assert shown[0].strip(" ·")[:8] in texts


def test_png_has_the_size_of_a_picture(page: Page, tmp_path: Path) -> None:
    name = export(page, "png", tmp_path / "out.png")
    data = (tmp_path / "out.png").read_bytes()
    assert name.endswith(".png") and data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width >= 600 and height >= 300


def test_json_validates_and_reads_back(page: Page, tmp_path: Path, folder: Path) -> None:
    import jsonschema

    name = export(page, "json", tmp_path / "out.json")
    assert name.endswith(".json")
    found = json.loads((tmp_path / "out.json").read_text())
    again, before = load_graph(tmp_path / "out.json"), load_graph(folder / "a.jigraph")
    assert len(again) == len(before) and np.array_equal(again.weights, before.weights)
    names = [node["jsNodeId"] for node in found["nodes"]]
    assert len(set(names)) == len(names)
    for node in found["nodes"]:
        if node["is_target_logit"]:
            assert re.search(r"\(p=\d?\.\d+\)", node["clerp"])
    schema = support.shared("cases/graphs/schema/neuronpedia-graph-schema.json")
    jsonschema.validate(found, json.loads(schema.read_text()))


def test_single_file_works_without_server_and_network(page: Page, window: Window, tmp_path: Path) -> None:
    node = next(i for i in free_nodes(page, FEATURE) if i not in view(page)["pinned"])
    select(page, node)
    page.press("p")
    settled(page)
    made = view(page)
    assert export(page, "html", tmp_path / "out.html").endswith(".html")
    text = (tmp_path / "out.html").read_text()
    assert "Content-Security-Policy" in text and "unsafe" not in text
    alone = window(offline=True)
    alone.open_file(tmp_path / "out.html")
    ready(alone)
    assert alone.js(f"{SESSION}.source.mode") == "embedded"
    assert graph(alone, "n") == graph(page, "n")
    now = view(alone)
    assert (now["pinned"], now["groups"]) == (made["pinned"], made["groups"])
    other = free_nodes(alone, FEATURE)[0]
    select(alone, other)
    alone.wait("performance.getEntriesByName('jaxinterp:click-drawn').length > 0")
    alone.press("p")
    alone.wait(f"{SESSION}.undoName.value !== null")
    assert alone.count("[data-action=save]") == 0 or alone.js(
        "document.querySelector('[data-action=save]').disabled"
    )


def test_compare_matches_nodes_of_two_graphs(page: Page) -> None:
    page.click("[data-action=compare]")
    page.click("[data-compare]")
    page.wait(f"{SESSION}.other.value !== null")
    found = page.js(f"({{n: {SESSION}.other.value.graph.n, c: {SESSION}.other.value.comparison}})")
    pairs, size = found["c"]["pairs"], graph(page, "n")
    assert len(pairs) + len(found["c"]["only_a"]) == size
    assert len(pairs) + len(found["c"]["only_b"]) == found["n"]
    for a, b in pairs:
        for field in ("kind", "layer", "index"):
            ours, theirs = graph(page, f"{field}[{a}]"), page.js(f"{SESSION}.other.value.graph.{field}[{b}]")
            assert ours == theirs
    assert len(pairs) > 8
    assert page.count(".compare-overlay canvas, .compare-overlay svg") > 0
    page.click("[data-action=compare-close]")
    page.wait(f"{SESSION}.other.value === null && document.querySelector('.compare-overlay') === null")
