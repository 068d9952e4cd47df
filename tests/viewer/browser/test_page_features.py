"""A node's own panel: examples, histogram, logits and neighbours from dashboards; edges opened into heads; walking."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxinterp.dashboards import bundled
from jaxinterp.graphs import FEATURE, Graph
from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import SESSION, free_nodes, open_graph, ready, select
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import synthetic

Window = Callable[..., Page]
WIDTH = 1024  # of pocket's dictionary


@pytest.fixture(scope="module")
def example() -> Graph:
    """A graph that says it was made with pocket's dictionary."""
    return synthetic(
        110, 700, layers=4, tokens=8, targets=3, seed=2, width=WIDTH, settings={"dictionary": "pocket"}
    )


@pytest.fixture(scope="module")
def edge(example: Graph) -> tuple[int, int, float]:
    """The strongest edge: target, source, weight."""
    targets, sources, weights = example.edges()
    at = int(np.argmax(np.abs(weights)))
    return int(targets[at]), int(sources[at]), float(weights[at])


@pytest.fixture(scope="module")
def server(
    example: Graph, edge: tuple[int, int, float], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("features")
    example.save(folder / "example.jigraph")
    target, source, weight = edge
    heads = [[0, 1, weight / 2], [1, 0, weight / 4]]
    record = {"source": source, "target": target, "heads": heads, "direct": weight / 8, "rest": weight / 8}
    (folder / "example.heads.json").write_text(json.dumps({"graph": "", "edges": [record]}))
    with Server(folder / "example.jigraph") as found:
        yield found


def test_the_record_of_a_feature_is_shown(window: Window, server: Server, example: Graph) -> None:
    page = open_graph(window, server.url)
    source = bundled("pocket")
    shown = 0
    for node in free_nodes(page, FEATURE)[:12]:
        place = example.nodes[node]
        record = source.feature(int(place["layer"]), int(place["index"]), "mlp")
        if not record or not record["examples"]:
            continue
        select(page, node)
        text = "document.querySelector('#pane-feature').innerText"
        best = record["examples"][0]["examples"][0]
        peak = json.dumps(best["tokens"][best["at"]].strip())
        page.wait(
            f"{text}.includes({peak}) && {text}.includes({json.dumps(record['top_logits'][0][0].strip())})"
        )
        assert record["bottom_logits"][0][0].strip() in page.text("#pane-feature")
        assert page.count("#pane-feature svg") > 0, "the histogram"
        shown += 1
    assert shown >= 3


def test_a_single_file_takes_its_features_along(
    window: Window, server: Server, example: Graph, tmp_path: Path
) -> None:
    page = open_graph(window, server.url)
    source = bundled("pocket")
    for node in free_nodes(page, FEATURE):
        record = source.feature(int(example.nodes["layer"][node]), int(example.nodes["index"][node]), "mlp")
        if record and record["examples"]:
            break
    page.click("[data-action=export]")
    page.download("[data-action=export-html]", tmp_path / "page.html")
    alone = window(offline=True)
    alone.open_file(tmp_path / "page.html")
    ready(alone)
    select(alone, node)
    peak = json.dumps(record["top_logits"][0][0].strip())
    alone.wait(f"document.querySelector('#pane-feature').innerText.includes({peak})")


def test_an_edge_opens_into_its_heads(window: Window, server: Server, edge: tuple[int, int, float]) -> None:
    target, source, _ = edge
    page = open_graph(window, server.url)
    page.js(f"{SESSION}.click({target})")
    row = f"#pane-edges [role=row][data-node='{source}']"
    page.wait(f"document.querySelector({json.dumps(row)}) !== null")
    page.click(f"{row} [data-action=open-edge]")
    page.wait("document.querySelector('.edge-heads')?.innerText.includes('head 0.1')")
    said = page.text(".edge-heads")
    assert said.index("0.1") < said.index("1.0"), "strongest head first"


def test_rows_are_walked_by_keyboard_and_mouse(window: Window, server: Server) -> None:
    """Inputs and outputs: tabs, grouping, back; a row selects its node."""
    page = open_graph(window, server.url)
    first = page.js(f"{SESSION}.clicked.value")
    page.wait("document.querySelector('#pane-edges [role=row][data-node]') !== null")
    node = page.js("Number(document.querySelector('#pane-edges [role=row][data-node]').dataset.node)")
    page.click(f"#pane-edges [role=row][data-node='{node}']")
    page.wait(f"{SESSION}.clicked.value === {node}")
    page.click("[data-action=tab-outputs]")
    page.wait(f"document.querySelector(\"#pane-edges [role=row][data-node='{first}']\") !== null")
    page.click("[data-action=back]")
    page.wait(f"{SESSION}.clicked.value === {first}")


def test_zoom_move_and_click_still_meet(window: Window, server: Server) -> None:
    """After zooming and moving with the mouse a click finds the node that is drawn there."""
    page = open_graph(window, server.url)
    node = free_nodes(page, FEATURE)[0]
    before = page.js(f"window.jaxinterp.places.graph({node})")
    places = {i: page.js(f"window.jaxinterp.places.graph({i})") for i in free_nodes(page)}
    other = next(i for i, at in places.items() if abs(at[0] - before[0]) > 40)
    at_other = f"(window.jaxinterp.places.graph({other})?.[0] ?? 1e5)"
    between = f"Math.abs(window.jaxinterp.places.graph({node})[0] - {at_other})"
    wide = page.js(between)
    page.mouse(before, click=False)
    page.ask("wheel", dy=-400)
    page.wait(f"{between} > {1.2 * wide}")
    page.ask("drag", **{"from": [before[0] - 60, before[1] + 25], "to": [before[0] - 20, before[1] + 45]})
    after = page.js(f"window.jaxinterp.places.graph({node})")
    assert after is not None and (abs(after[0] - before[0]) > 10 or abs(after[1] - before[1]) > 5)
    time.sleep(
        0.5
    )  # the browser may take this long until it no longer holds the next click for the end of the drag
    select(page, node)
    page.press("0")
    page.wait(
        f"(() => {{ const at = window.jaxinterp.places.graph({node}); return at && Math.abs(at[0] - {before[0]}) < 2"
        f" && Math.abs(at[1] - {before[1]}) < 2; }})()"
    )


def test_hovering_shows_what_a_node_is(window: Window, server: Server) -> None:
    page = open_graph(window, server.url)
    node = free_nodes(page, FEATURE)[0]
    page.mouse(page.js(f"window.jaxinterp.places.graph({node})"), click=False)
    page.wait(f"{SESSION}.hovered.value === {node}")
    name = page.js(f"{SESSION}.name({node})")
    page.wait(
        f"[...document.querySelectorAll('[role=tooltip]')].some((e) => e.innerText.includes({json.dumps(name)}))"
    )
    page.mouse((5, 890), click=False)
    page.wait(f"{SESSION}.hovered.value === null")
