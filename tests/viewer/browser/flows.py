"""What a user does with the page, for tests: everything through the mouse and the keyboard, read back from the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.viewer.browser.chromium import Page

SESSION = "window.jaxinterp.session"
GRAPH = f"{SESSION}.graph.value"
READY = (
    "performance.getEntriesByName('jaxinterp:first-drawing').length > 0 &&"
    f" {SESSION}.report.value !== null && {SESSION}.loading.value === null"
)
# Nodes that nothing else is drawn near to, and that are inside the pane: [node, x, y].
FREE = """(() => {
  const g = %s; const found = [];
  for (let i = 0; i < g.n; i++) {
    const at = window.jaxinterp.places.graph(i);
    if (at && document.elementFromPoint(at[0], at[1])?.closest("#pane-graph")) found.push([i, ...at]);
  }
  const near = (a, b) => Math.hypot(a[1] - b[1], a[2] - b[2]) < 9;
  return found.filter((a) => !found.some((b) => b[0] !== a[0] && near(a, b)));
})()""" % GRAPH  # fmt: skip  # noqa: UP031


def ready(page: Page, seconds: float = 30) -> Page:
    """Wait until a graph is drawn and its report is there."""
    page.wait(READY, seconds)
    return page


def open_graph(window: Callable[..., Page], url: str, **settings: Any) -> Page:
    """A window in which the first graph is drawn."""
    return ready(window(url, **settings))


def view(page: Page) -> dict[str, Any]:
    """Pins, groups, labels and the rest, as the page holds them."""
    return page.js(f"{SESSION}.view.value")


def graph(page: Page, what: str) -> Any:
    """An expression of the graph in the page, such as "n" or "inputs(3)"."""
    return page.js(f"{GRAPH}.{what}")


def free_nodes(page: Page, kind: int | None = None) -> list[int]:
    """Nodes that can be clicked for certain, of one kind or of any, in the order of their numbers."""
    kinds = page.js(f"Array.from({GRAPH}.kind)")
    return [int(i) for i, *_ in page.js(FREE) if kind is None or kinds[int(i)] == kind]


def click_node(page: Page, node: int, **values: Any) -> None:
    """Click a node's glyph in the graph pane."""
    place = page.js(f"window.jaxinterp.places.graph({node})")
    assert place is not None, f"node {node} is not drawn"
    page.mouse(place, **values)


def select(page: Page, node: int) -> None:
    """Click a node and wait until it is the one that is open."""
    click_node(page, node)
    page.wait(f"{SESSION}.clicked.value === {node}")


def settled(page: Page, where: str = "sidecar") -> None:
    """Wait until all changes are kept, in the file or beside it."""
    page.wait(f"{SESSION}.saveState.value.kind === 'saved' && {SESSION}.saveState.value.where === {where!r}")
