"""Opening a graph and walking through it: what is seen first, clicks, inputs and outputs, search, filters, keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxinterp.graphs import ERROR, FEATURE, TARGET, Graph
from tests.viewer.browser.chromium import Page
from tests.viewer.browser.flows import GRAPH, SESSION, free_nodes, graph, open_graph, ready, select, view
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import synthetic

Window = Callable[..., Page]


@pytest.fixture(scope="module")
def example() -> Graph:
    return synthetic(130, 900, layers=6, tokens=8, targets=4, seed=3)


@pytest.fixture(scope="module")
def server(example: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("open")
    example.save(folder / "example.jigraph")
    with Server(folder / "example.jigraph") as found:
        yield found


@pytest.fixture
def page(window: Window, server: Server) -> Page:
    return open_graph(window, server.url)


def plain(text: str) -> str:
    """Without blanks."""
    return "".join(text.split())


def test_first_sight(page: Page, example: Graph) -> None:
    """The top target is open, an automatic subgraph is pinned, the reading and the labels are there."""
    top = int(example.targets[np.argmax(example.nodes["probability"][example.targets])])
    now = view(page)
    assert now["clicked"] == top
    assert top in now["pinned"] and len(now["pinned"]) >= 3
    report = page.js(f"{SESSION}.report.value")
    text = " ".join(page.js("document.body.innerText").split())
    shown, said = page.text(".reading"), report["reading"]["text"]
    assert plain(said) in plain(shown) and " → " in said
    assert example.token_texts[0].strip() in text
    assert page.js(f"{SESSION}.undoName.value") is None  # the automatic subgraph is no change of the user's
    for kind in ("feature", "error", "target"):
        assert kind in page.js("document.querySelector('#pane-graph').innerText").lower(), "the legend"


def test_every_node_is_drawn_or_counted(page: Page, example: Graph) -> None:
    drawn = page.js(
        f"[...Array({len(example)}).keys()].filter((i) => window.jaxinterp.places.graph(i)).length"
    )
    assert drawn + page.js(f"{SESSION}.hiddenCounts.value.all") == len(example)
    assert page.js(f"{SESSION}.hiddenCounts.value.all") == 0


def test_answers_carry_the_policy_and_isolate_the_page(window: Window, server: Server) -> None:
    page = window()
    headers = page.goto(server.url)["headers"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert page.js("window.crossOriginIsolated")
    ready(page)


def test_a_click_opens_a_node_with_its_inputs_and_outputs(page: Page, example: Graph) -> None:
    targets, sources, weights = example.edges()
    node = max(
        free_nodes(page, FEATURE), key=lambda i: int((targets == i).sum() > 2) * int((sources == i).sum())
    )
    select(page, node)
    page.wait("performance.getEntriesByName('jaxinterp:click-drawn').length > 0")
    pane = page.js("document.querySelector('#pane-edges').innerText")
    total = np.abs(weights[targets == node].astype(float)).sum()
    strongest = np.flatnonzero(targets == node)[np.argmax(np.abs(weights[targets == node]))]
    share = weights[strongest] / total
    assert page.js(f"{SESSION}.name({int(sources[strongest])})").strip(" ·") in pane
    assert f"{abs(100 * share):.1f}" in pane.replace("−", "-"), "the share"
    assert f"{abs(weights[strongest]):.2g}"[:3] in pane.replace("−", "-"), "the raw weight"
    assert str(int((targets == node).sum())) in pane and str(int((sources == node).sum())) in pane


def test_search_finds_and_opens(page: Page, example: Graph) -> None:
    """Typing lists what fits; the arrows and Enter open one."""
    word = a_word(example)
    page.click("[data-action=search]")
    page.ask("type", text=word)
    page.wait("document.querySelectorAll('#search-results [data-node]').length > 0")
    found = page.js(
        "[...document.querySelectorAll('#search-results [data-node]')].map((e) => Number(e.dataset.node))"
    )
    assert {i for i, text in enumerate(example.labels) if word in text.split()} <= set(found)
    page.press("ArrowDown")
    page.press("ArrowUp")
    page.press("Enter")
    page.wait(f"{SESSION}.clicked.value === {found[0]}")
    assert page.js(f"{SESSION}.hiddenCounts.value.all") == 0  # searching hides nothing


def test_filtering_counts_what_it_hides_and_one_click_shows_all(page: Page, example: Graph) -> None:
    word = a_word(example)
    page.fill("[data-action=search]", word)
    page.click("[data-action=filter-by-text]")
    page.wait(f"{SESSION}.hiddenCounts.value.all > 0")
    hidden = page.js(f"{SESSION}.hiddenCounts.value.all")
    kept = set(page.js(f"[...{SESSION}.shown.value].flatMap((x, i) => x ? [i] : [])"))
    assert len(kept) + hidden == len(example)
    assert {i for i, text in enumerate(example.labels) if word in text.split()} <= kept
    drawn = page.js(
        f"[...Array({len(example)}).keys()].filter((i) => window.jaxinterp.places.graph(i)).length"
    )
    assert drawn == len(kept)
    assert str(hidden) in page.text("#pane-graph")
    page.press("Escape")
    page.click("[data-action=show-hidden]")
    page.wait(f"{SESSION}.hiddenCounts.value.all === 0")


def a_word(example: Graph) -> str:
    """A word of some feature's label."""
    kinds = example.nodes["kind"]
    return next(
        text for text, kind in zip(example.labels, kinds, strict=True) if text and kind == FEATURE
    ).split()[0]


def test_hiding_a_node_is_counted_and_undone(page: Page) -> None:
    node = free_nodes(page, FEATURE)[0]
    select(page, node)
    page.press("h")
    page.wait(f"{SESSION}.hiddenCounts.value.byHand === 1")
    assert page.js(f"window.jaxinterp.places.graph({node})") is None
    page.press("Control+z")
    page.wait(f"{SESSION}.hiddenCounts.value.byHand === 0")


def test_fewer_and_more_edges(page: Page) -> None:
    page.ask("focus", selector="[data-action=edge-slider]")
    before = page.js(f"{SESSION}.edgeCount.value")
    page.press("Home")
    page.wait(f"{SESSION}.edgeCount.value < {before}")
    page.press("End")
    page.wait(f"{SESSION}.edgeCount.value >= {graph(page, 'm')}")


def test_the_keyboard_alone(page: Page) -> None:
    """From the page as it opens: walk, pin, search, mark, group, undo, maximise, help."""
    targets = graph(page, "targets")
    assert view(page)["clicked"] == targets[0]
    page.press("i")
    first = page.js(f"{SESSION}.clicked.value")
    assert first == graph(page, f"inputs({targets[0]})")[0]["source"]
    page.press("p")
    pinned = first in view(page)["pinned"]
    page.press("p")
    assert (first in view(page)["pinned"]) != pinned
    page.press("ArrowDown")
    page.wait(f"{SESSION}.clicked.value !== {first}")
    page.press("/")
    page.wait("document.activeElement?.dataset.action === 'search'")
    page.ask("type", text="error")
    page.wait("document.querySelectorAll('#search-results [data-node]').length > 0")
    page.press("Enter")
    page.wait(f"{GRAPH}.kind[{SESSION}.clicked.value] === {ERROR}")
    page.press("?")
    page.wait("document.querySelector('dialog[open]') !== null")
    page.press("Escape")
    page.wait("document.querySelector('dialog[open]') === null")
    page.press("f")
    page.wait(f"{SESSION}.maximised.value !== null")
    page.press("Escape")
    page.wait(f"{SESSION}.maximised.value === null")


def test_every_control_has_a_name(page: Page) -> None:
    nameless = page.js("""
      [...document.querySelectorAll("button, input, select, textarea, [role=button], canvas")].filter((e) => {
        const words = [e.innerText, e.ariaLabel, e.title, e.labels?.[0]?.innerText, e.getAttribute("aria-labelledby")];
        const seen = e.getClientRects().length > 0 && !e.closest("[aria-hidden=true]");
        return seen && !words.some((text) => text?.trim());
      }).map((e) => e.outerHTML.slice(0, 160))""")
    assert nameless == []


def test_dark_light_and_paper(page: Page, tmp_path: Path) -> None:
    """Colours follow the system and the button; on paper the page is light and has no controls."""
    brightness = (
        "(getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3)"
        ".reduce((sum, x) => sum + Number(x), 0) / 3)"
    )
    page.wait(f"{brightness} > 200")
    page.ask("emulate", scheme="dark")
    page.wait(f"{brightness} < 80")
    page.click("[data-action=theme]")
    page.wait(f"{brightness} > 200")
    page.click("[data-action=theme]")
    page.wait(f"{brightness} < 80")
    page.ask("emulate", media="print", scheme="dark")
    page.wait(f"{brightness} > 200")
    assert page.js("document.querySelector('[data-action=undo]').getClientRects().length") == 0
    page.ask("pdf", path=str(tmp_path / "page.pdf"))
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_small_window_keeps_everything_within_reach(window: Window, server: Server) -> None:
    page = open_graph(window, server.url, width=1024, height=700)
    wide = page.js("document.documentElement.scrollWidth")
    assert wide <= 1024
    for pane in ("graph", "edges", "subgraph", "feature"):
        box = page.js(f"(() => {{ const r = document.querySelector('#pane-{pane}').getBoundingClientRect();"
                      " return [r.width, r.height]; })()")  # fmt: skip
        assert min(box) > 120, pane


def test_targets_are_listed_with_their_probability(page: Page, example: Graph) -> None:
    for i in np.flatnonzero(example.nodes["kind"] == TARGET):
        assert page.js(f"window.jaxinterp.places.graph({i})") is not None
        assert page.js(f"{SESSION}.name({i})").strip(" ·")
