"""Graphs as they should not be: each is shown properly, or answered with one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxinterp.graphs import FEATURE
from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import SESSION, free_nodes, graph, ready, select, view
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import document, synthetic, write_json

Window = Callable[..., Page]
HTML = '<img src="http://elsewhere.example/x.png" onerror="window.__evil=1"><script>window.__evil=1</script>'
TOKENS = (
    '"',
    "</script>",
    "<b>bold</b>",
    "'",
    "\\",
    "\n",
    "\u0000",
    "\u202etfel",
    "",
    "日本",
    "\U0001f600" * 3,
    " " * 40,
)


def spoilt(**parts: Any) -> dict[str, Any]:
    """A small document with some parts replaced."""
    found = document(synthetic(60, 300, layers=4, tokens=6, targets=3, seed=5))
    return {**found, **parts}


def collided(plain: dict[str, Any]) -> dict[str, Any]:
    """The document with a feature of layer 0 that has the id of an error node, as circuit-tracer gives it."""
    one = next(node for node in plain["nodes"] if node["layer"] == "0" and node["feature"] != -1)
    old, new = one["node_id"], f"0_2_{one['ctx_idx']}"
    assert any(node["node_id"] == new and node["layer"] == "2" for node in plain["nodes"])
    named = [{**node, "node_id": new} if node is one else node for node in plain["nodes"]]
    links = [{**link, "source": new} if link["source"] == old else link for link in plain["links"]]
    links = [{**link, "target": new} if link["target"] == old else link for link in links]
    return {**plain, "nodes": named, "links": links}


def write_all(folder: Path) -> None:
    """One file for every sort of trouble."""
    plain = document(synthetic(60, 300, layers=4, tokens=6, targets=3, seed=5))
    features = [
        i for i, node in enumerate(plain["nodes"]) if node["feature_type"] == "cross layer transcoder"
    ]

    def nodes(change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
        return [change(i, dict(node)) for i, node in enumerate(plain["nodes"])]

    marked = nodes(lambda i, node: {**node, "clerp": HTML} if i in features else node)
    view_ = {
        "pinnedIds": [plain["nodes"][features[0]]["node_id"]],
        "supernodes": [[HTML, plain["nodes"][features[1]]["node_id"]]],
    }
    write_json(folder / "html.json", spoilt(nodes=marked, qParams={**plain["qParams"], **view_}))
    synthetic(90, 500, layers=4, tokens=len(TOKENS), targets=3, token_texts=TOKENS, prompt=HTML).save(
        folder / "tokens.jigraph"
    )
    synthetic(300, 2000, layers=80, tokens=12, targets=3).save(folder / "deep.jigraph")
    synthetic(40, 120, layers=1, tokens=5, targets=2).save(folder / "flat.jigraph")
    synthetic(40, 0, layers=3, tokens=5, targets=2).save(folder / "unlinked.jigraph")
    synthetic(260, 1200, layers=6, tokens=150, targets=3).save(folder / "long.jigraph")
    write_json(folder / "twice.json", collided(plain))
    twin = plain["nodes"][features[0]]["node_id"]
    same = nodes(lambda i, node: {**node, "node_id": twin} if i == features[1] else node)
    write_json(folder / "same.json", spoilt(nodes=same))
    loose = [{"source": "0_99999_1", "target": plain["nodes"][-1]["node_id"], "weight": 1.0}] * 3
    write_json(folder / "loose.json", spoilt(links=plain["links"] + loose))
    (folder / "broken.json").write_text(json.dumps(plain)[:5000])
    (folder / "no graph.json").write_text('{"a": [1, 2, 3]}')
    (folder / "short.jigraph").write_bytes((folder / "flat.jigraph").read_bytes()[:200])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bad")
    write_all(folder)
    with Server(folder) as found:
        yield found


def open_named(window: Window, server: Server, name: str) -> Page:
    """A window with the graph of that file name, by the list of files."""
    page = ready(window(server.url))
    entry = next(f for f in page.js(f"{SESSION}.files.value") if f["file"] == name)
    page.click("[data-action=files]")
    page.click(f"[data-file='{entry['id']}']")
    page.wait(f"{SESSION}.graph.value?.header.file === {json.dumps(name)}")
    page.wait(f"{SESSION}.report.value !== null && {SESSION}.loading.value === null")
    return page


def check_shown(page: Page) -> None:
    """Every node is drawn or counted as hidden, one can be opened, nothing was injected."""
    size = graph(page, "n")
    drawn = page.js(f"[...Array({size}).keys()].filter((i) => window.jaxinterp.places.graph(i)).length")
    assert drawn + page.js(f"{SESSION}.hiddenCounts.value.all") == size
    nodes = free_nodes(page)
    if nodes:
        select(page, nodes[len(nodes) // 2])
        page.wait("performance.getEntriesByName('jaxinterp:click-drawn').length > 0")
    assert page.js("window.__evil === undefined")
    assert page.count("#app img, #app script, #app iframe, #app b") == 0


@pytest.mark.parametrize(
    "name",
    [
        "html.json",
        "tokens.jigraph",
        "deep.jigraph",
        "flat.jigraph",
        "unlinked.jigraph",
        "long.jigraph",
        "twice.json",
        "loose.json",
    ],
)
def test_it_opens(window: Window, server: Server, name: str) -> None:
    page = open_named(window, server, name)
    check_shown(page)
    text = page.js("document.body.innerText")
    if name == "html.json":
        assert view(page)["groups"][0]["name"] == HTML
        assert "onerror" in text  # shown as the text that it is
        select(page, free_nodes(page, FEATURE)[0])
        page.wait("document.querySelector('#pane-feature').innerText.includes('onerror')")
    if name in ("twice.json", "loose.json"):
        page.click("[data-action=trust]")
        page.wait("document.querySelector('dialog[open]') !== null")
        wrong = {"twice.json": "1 error nodes had the id of a feature", "loose.json": "3 links lead to nodes"}
        assert wrong[name] in page.text("dialog[open]")


def test_broken_files_are_in_the_list_with_one_line_each(window: Window, server: Server) -> None:
    page = ready(window(server.url))
    page.click("[data-action=files]")
    for name in ("broken.json", "no graph.json", "short.jigraph"):
        entry = next(f for f in page.js(f"{SESSION}.files.value") if f["file"] == name)
        assert entry["error"] and "\n" not in entry["error"] and "Traceback" not in entry["error"]
        assert entry["error"] in page.text(f"[data-file='{entry['id']}']")
    assert "Traceback" not in server.complaints()


def test_what_is_found_broken_when_opened_is_said_and_the_page_goes_on(
    window: Window, server: Server
) -> None:
    page = ready(window(server.url, expected=("400",)))
    before = page.js(f"{SESSION}.current.value")
    entry = next(f for f in page.js(f"{SESSION}.files.value") if f["file"] == "same.json")
    page.click("[data-action=files]")
    page.click(f"[data-file='{entry['id']}']")
    page.wait(f"{SESSION}.message.value?.error === true")
    assert "names two different nodes" in page.js("document.body.innerText")
    assert page.js(f"{SESSION}.current.value") == before
    select(page, free_nodes(page)[0])


def test_a_folder_without_a_usable_graph(window: Window, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty.json").write_text("")
    with Server(tmp_path) as server:
        page = window(server.url)
        page.wait(f"{SESSION}?.files.value.length === 2 && {SESSION}.loading.value === null")
        line = page.js(f"{SESSION}.files.value[0].error")
        page.wait(f"document.body.innerText.includes({json.dumps(line)})")
