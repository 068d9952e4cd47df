"""Pins, groups, names and views: made with the mouse and the keyboard, kept through a crash of the server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxinterp.graphs import FEATURE, load_graph
from tests import support
from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import (
    SESSION,
    click_node,
    free_nodes,
    open_graph,
    ready,
    select,
    settled,
    view,
)
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import document, synthetic, write_json

Window = Callable[..., Page]


# Where a box is, once it is drawn there, and a free place beside it: a box that is dropped on another joins it.
FROM_AND_TO = """(() => {
  const at = window.jaxinterp.places.subgraph(%s);
  const box = (x, y) => document.elementFromPoint(x, y)?.closest("[data-box]")?.dataset.box;
  if (!at || box(...at) !== "%s") return null;
  const free = (x, y) => document.elementFromPoint(x, y)?.closest("#pane-subgraph svg") && box(x, y) === undefined;
  for (let dx = 20; dx < 300; dx += 10)
    for (const dy of [0, 10, -10, 25, -25, 40, -40])
      for (const side of [1, -1]) if (free(at[0] + side * dx, at[1] + dy)) return [at, [at[0] + side * dx, at[1] + dy]];
  return null;
})()"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_json(
        tmp_path / "kept.json", document(synthetic(130, 900, layers=6, tokens=8, targets=4, seed=3))
    )


@pytest.fixture
def server(file: Path) -> Iterator[Server]:
    with Server(file) as found:
        yield found


def make_group(page: Page, name: str) -> list[int]:
    """Mark two features with alt-click, group them with g, name the group through its button; its members."""
    nodes = free_nodes(page, FEATURE)[:2]
    for node in nodes:
        click_node(page, node, modifiers=["Alt"])
    page.wait(f"{SESSION}.marked.value.size === 2")
    page.press("g")
    page.wait(
        f"{SESSION}.view.value.groups.some((g) => {json.dumps(nodes)}.every((i) => g.members.includes(i)))"
    )
    select(page, nodes[0])
    page.click("#pane-subgraph [data-action=rename]")
    page.fill("[data-field=rename]", name)
    page.press("Enter")
    page.wait(f"{SESSION}.view.value.groups.some((g) => g.name === {json.dumps(name)})")
    return nodes


def test_pin_group_rename_undo_redo(server: Server, window: Window) -> None:
    page = open_graph(window, server.url)
    first = view(page)
    node = next(i for i in free_nodes(page, FEATURE) if i not in first["pinned"])
    click_node(page, node, modifiers=["Shift"])
    page.wait(f"{SESSION}.view.value.pinned.includes({node})")
    members = make_group(page, "my group")
    after = view(page)
    assert set(members) <= set(after["pinned"])
    while page.js(f"{SESSION}.undoName.value") is not None:
        page.click("[data-action=undo]")
    undone = view(page)
    assert (undone["pinned"], undone["groups"]) == (first["pinned"], first["groups"])
    while page.js(f"{SESSION}.redoName.value") is not None:
        page.click("[data-action=redo]")
    again = view(page)
    assert (again["pinned"], again["groups"]) == (after["pinned"], after["groups"])


def test_named_views_notes_and_places(window: Window, file: Path) -> None:
    """Two views of one graph, a note, a box that was moved: kept with the graph."""
    with Server(file) as server:
        page = open_graph(window, server.url)
        make_group(page, "first")
        ends = page.wait(FROM_AND_TO % (view(page)["groups"][-1]["members"][0], "g:first"))
        page.ask("drag", **{"from": ends[0], "to": ends[1]})
        page.wait(f"{SESSION}.view.value.positions['g:first'] !== undefined")
        page.click("[data-action=views]")
        page.fill("[data-field=view-name]", "one")
        page.click("[data-action=view-save]")
        page.wait(f"{SESSION}.view.value.views.length === 1")
        page.press("Escape")
        page.click("[data-action=notes]")
        page.fill("[data-field=notes]", "a note\nof two lines")
        page.press("Escape")
        page.click("#pane-subgraph [data-action=ungroup]")
        page.wait(f"!{SESSION}.view.value.groups.some((g) => g.name === 'first')")
        settled(page)
        made = view(page)
        server.kill()
    with Server(file) as server:
        page = open_graph(window, server.url)
        assert kept(view(page)) == kept(made)
        page.click("[data-action=views]")
        page.click("[data-view=one]")
        page.wait(f"{SESSION}.view.value.groups.some((g) => g.name === 'first')")
        found = view(page)
        assert "g:first" in found["positions"] and len(found["views"]) == 1
        settled(page)


def test_a_shared_subgraph_opens_elsewhere(server: Server, window: Window, tmp_path: Path) -> None:
    page = open_graph(window, server.url)
    make_group(page, "shared one")
    made = view(page)
    page.click("[data-action=subgraph-more]")
    page.download("[data-action=view-share]", tmp_path / "shared.json")
    page.click("[data-action=subgraph-more]")
    page.click("[data-action=subgraph-reset]")
    page.wait(f"!{SESSION}.view.value.groups.some((g) => g.name === 'shared one')")
    page.click("[data-action=subgraph-more]")
    page.ask("upload", selector="[data-action=view-file]", path=str(tmp_path / "shared.json"))
    page.wait(f"{SESSION}.view.value.groups.some((g) => g.name === 'shared one')")
    found = view(page)
    assert (found["groups"], set(found["pinned"])) == (made["groups"], set(made["pinned"]))
    (tmp_path / "wrong.json").write_text('{"groups": "no"}')
    page.click("[data-action=subgraph-more]")
    page.ask("upload", selector="[data-action=view-file]", path=str(tmp_path / "wrong.json"))
    page.wait(f"{SESSION}.message.value?.error === true")
    assert view(page)["groups"] == made["groups"]
    settled(page)


def test_automatic_groups_are_previewed_and_applied(server: Server, window: Window) -> None:
    page = open_graph(window, server.url)
    before = view(page)
    page.click("[data-action=propose]")
    page.wait("document.querySelector('[data-action=apply-proposal]') !== null")
    assert view(page)["groups"] == before["groups"]  # a preview changes nothing
    page.wait("!document.querySelector('[data-action=apply-proposal]').disabled")
    page.click("[data-action=apply-proposal]")
    page.wait(f"{SESSION}.undoName.value !== null")
    page.press("Control+z")
    page.wait(f"{SESSION}.undoName.value === null")
    assert view(page)["groups"] == before["groups"]
    settled(page)


def test_everything_is_there_after_the_server_was_killed(window: Window, file: Path) -> None:
    """Kept by autosave alone; then saved into the file, killed again: the same, and the file is still a graph."""
    before = load_graph(file)
    with Server(file) as server:
        page = open_graph(window, server.url)
        members = make_group(page, "über „Ölstadt“ <b>")
        settled(page)
        made = view(page)
        server.kill()
    assert file.with_name(file.name + ".view.json").exists()
    with Server(file) as server:
        page = open_graph(window, server.url)
        assert kept(view(page)) == kept(made)
        page.click("[data-action=save]")
        settled(page, "file")
        server.kill()
    assert not file.with_name(file.name + ".view.json").exists()
    with Server(file) as server:
        page = open_graph(window, server.url)
        assert kept(view(page)) == kept(made)
    saved = json.loads(file.read_text())
    assert isinstance(saved["qParams"]["pinnedIds"], list) and isinstance(
        saved["qParams"]["supernodes"], list
    )
    names = [node["node_id"] for node in saved["nodes"]]
    group = next(g for g in saved["qParams"]["supernodes"] if g[0] == "über „Ölstadt“ <b>")
    assert len(group) == 1 + len(members) and set(group[1:]) <= set(names)
    after = load_graph(file)
    assert (after.nodes == before.nodes).all() or (after.nodes["kind"] == before.nodes["kind"]).all()
    assert (after.weights == before.weights).all()


def kept(now: dict) -> dict:
    """What must survive of a view."""
    return {
        key: now[key] for key in ("pinned", "groups", "labels", "hidden", "positions", "clicked", "notes")
    }


def test_a_save_validates_against_the_schema(server: Server, window: Window, file: Path) -> None:
    import jsonschema

    schema = json.loads(support.shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    page = open_graph(window, server.url)
    make_group(page, "one")
    page.press("Control+s")
    settled(page, "file")
    jsonschema.validate(json.loads(file.read_text()), schema)


def test_of_two_windows_neither_overwrites_the_other(server: Server, window: Window) -> None:
    one = open_graph(window, server.url)
    two = open_graph(window, server.url, expected=("409",))
    node = free_nodes(one, FEATURE)[0]
    for page in (one, two):
        select(page, node)
    one.press("p")
    settled(one)
    two.press("h")
    two.wait(f"{SESSION}.conflict.value !== null")
    dialog = two.text("dialog[open]")
    assert "window" in dialog.lower()
    before = view(one)["pinned"]
    two.click("dialog[open] [data-action=take-theirs]")
    two.wait(f"{SESSION}.conflict.value === null && {SESSION}.loading.value === null")
    two.wait(
        f"JSON.stringify({SESSION}.view.value.pinned) === {json.dumps(json.dumps(before, separators=(',', ':')))}"
    )


def test_a_read_only_folder(window: Window, file: Path) -> None:
    """Changes stay in the browser, which says so, and are back the next time."""
    os.chmod(file.parent, 0o555)
    try:
        with Server(file) as server:
            page = open_graph(window, server.url, expected=("423",))
            make_group(page, "kept here")
            page.wait(f"{SESSION}.saveState.value.kind === 'failed'")
            assert page.js(f"{SESSION}.saveState.value.local")
            assert "browser" in page.js("document.body.innerText").lower()
            made = view(page)
            page.ask("reload")
            ready(page)
            assert kept(view(page)) == kept(made)
        assert sorted(p.name for p in file.parent.iterdir()) == [file.name]
    finally:
        os.chmod(file.parent, 0o755)


def test_a_server_that_is_gone_is_said_and_nothing_is_lost(server: Server, window: Window) -> None:
    page = open_graph(
        window, server.url, expected=("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")
    )
    server.kill()
    node = free_nodes(page, FEATURE)[0]
    select(page, node)
    page.press("h")
    page.wait(f"{SESSION}.saveState.value.kind === 'failed' && {SESSION}.saveState.value.local")
    assert "server does not answer" in page.js("document.body.innerText")
