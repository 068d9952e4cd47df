"""Real graphs of other tools, large graphs, and the live mode: in the browser, slowly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxinterp.graphs import FEATURE, load_graph
from tests import support
from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import (
    SESSION,
    click_node,
    free_nodes,
    graph,
    open_graph,
    ready,
    select,
    settled,
    view,
)
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import synthetic

Window = Callable[..., Page]
NAMES = ("mit-dallas_ea.json", "mit-gemma2-2b-clthp-night.json", "mit-war_ea.json")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_real_graphs_open_whole_and_what_is_saved_is_sound(window: Window, tmp_path: Path, name: str) -> None:
    """Every node accounted for; pins, supernodes, labels and places survive saving; the file follows the schema."""
    import jsonschema

    file = tmp_path / name
    shutil.copyfile(support.shared(f"cases/graphs/{name}"), file)
    raw = json.loads(file.read_text())
    with Server(file) as server:
        page = open_graph(window, server.url)
        size = graph(page, "n")
        drawn = page.js(f"[...Array({size}).keys()].filter((i) => window.jaxinterp.places.graph(i)).length")
        assert drawn == size == len(load_graph(file))
        assert len(set(graph(page, "header.ids"))) == size
        assert size == len({node["node_id"] for node in raw["nodes"]})
        stored = raw["qParams"].get("pinnedIds") or []
        now = view(page)
        if isinstance(stored, list) and stored:
            ids = graph(page, "header.ids")
            assert {ids[i] for i in now["pinned"]} >= {name for name in stored if name in ids}
        node = free_nodes(page, FEATURE)[0]
        click_node(page, node, modifiers=["Shift"])
        page.wait(f"{SESSION}.undoName.value !== null")
        page.press("Control+s")
        settled(page, "file")
        made = view(page)
        server.kill()
    saved = json.loads(file.read_text())
    schema = json.loads(support.shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    jsonschema.validate(saved, schema)
    assert len(saved["nodes"]) == len(raw["nodes"])
    with Server(file) as server:
        again = view(open_graph(window, server.url))
    for key in ("pinned", "groups", "labels", "positions"):
        assert again[key] == made[key]


@pytest.mark.slow
def test_a_graph_of_a_million_links(window: Window, tmp_path: Path) -> None:
    """Opens, opens any node with all its links, keeps below 80 MB; bench_viewer measures how fast."""
    synthetic(10_000, 1_000_000, layers=26, tokens=40, targets=10).save(tmp_path / "large.jigraph")
    with Server(tmp_path / "large.jigraph") as server:
        page = window(server.url)
        ready(page, 60)
        assert (graph(page, "n"), graph(page, "m")) == (10_000, 1_000_000)
        busiest = page.js(
            f"(() => {{ const g = {SESSION}.graph.value; let best = 0;"
            " for (let i = 0; i < g.n; i++) if (g.outStart[i + 1] - g.outStart[i] >"
            " g.outStart[best + 1] - g.outStart[best]) best = i; return best; })()"
        )
        click_node(page, busiest)
        page.wait("performance.getEntriesByName('jaxinterp:click-drawn').length > 0")
        found = page.ask("heap")
        assert found["usedSize"] + found["backingStorageSize"] < 80e6


@pytest.mark.slow
def test_a_prompt_is_traced_from_the_page(window: Window) -> None:
    """Live mode with pocket: a wrong setting is said, one trace is cancelled, the next one opens."""
    with Server("--model", "pocket", "--dictionary", "pocket") as server:
        page = window(server.url, expected=("400", "422"))
        page.wait(f"{SESSION} && {SESSION}.live.value", 60)
        page.click("[data-action=live]")
        page.fill("[data-action=live-prompt]", "the capital of the state containing summer hollow is")
        page.fill("[data-action=live-nodes]", "7")
        page.click("[data-action=trace]")
        page.wait("document.querySelector('#live-said').innerText.trim() !== ''")
        page.fill("[data-action=live-nodes]", "0.8")
        page.click("[data-action=trace]")
        page.click("[data-action=cancel-trace]")
        page.wait("document.querySelector('#live-said').innerText.startsWith('Cancelled')", 200)
        page.click("[data-action=trace]")
        page.wait("document.querySelector('.live-progress progress') !== null")
        page.wait(f"{SESSION}.graph.value !== null && {SESSION}.report.value !== null", 300)
        assert graph(page, "header.prompt") == "the capital of the state containing summer hollow is"
        page.wait("document.querySelector('dialog[open]') === null")
        select(page, free_nodes(page, FEATURE)[0])
        page.press("p")
        settled(page)
