"""Graphs as files to give away: our JSON, the native format, one HTML file. With the newest view in them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import FEATURE, Graph
from jaxinterp.viewer import saving
from jaxinterp.viewer.compare import compare
from jaxinterp.viewer.features import Dashboards
from jaxinterp.viewer.library import Opened
from jaxinterp.viewer.view import View

MOST_BYTES = 16 << 20  # of all dashboards in an HTML file

FORMATS = ("json", "jigraph", "html")


def exported(opened: Sequence[Opened], form: str, dashboards: Dashboards) -> bytes:
    """The bytes of an export. An HTML file may hold several graphs, the other formats one.

    Raises InputError: several graphs, too many links for JSON, an unknown format.
    """
    if form == "html":
        return _page(opened, dashboards).encode()
    if form not in FORMATS:
        raise InputError(f"cannot export as {form!r}: expected one of {', '.join(FORMATS)}")
    if len(opened) != 1:
        raise InputError(
            f"a .{form} file holds one graph, not {len(opened)}: export .html, or one after the other"
        )
    now = opened[0].current()
    graph = labelled(opened[0], dashboards, now.view)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"graph.{form}"
        saving.export(place, graph, opened[0].names, now.view, now.revision)
        return place.read_bytes()


def labelled(opened: Opened, dashboards: Dashboards, view: View) -> Graph:
    """The graph with every label of a feature in it, where any viewer finds it: the user's, else its own, else that
    of its dashboards. Labels of other nodes are made by viewers and stay."""
    graph, source = opened.graph, opened.features(dashboards)
    found = {} if source is None else source.labels(graph)
    changed = {
        int(node): text for node, text in view["labels"].items() if graph.nodes["kind"][int(node)] == FEATURE
    }
    found |= changed
    if not found:
        return graph
    return replace(graph, labels=tuple(found.get(i, text) for i, text in enumerate(graph.labels)))


def _page(opened: Sequence[Opened], dashboards: Dashboards) -> str:
    from jaxinterp.viewer.embed import Shown, known_features, page_html

    shown = []
    for one in opened:
        now = one.current()
        heads = {f"{target},{source}": found for (target, source), found in one.heads().items()}
        view = now.view if now.saved_from != "none" else None
        features, said = known_features(one.graph, one.features(dashboards), MOST_BYTES, now.view["pinned"])
        graph = labelled(one, dashboards, now.view)
        shown.append(Shown(graph, one.path.name, view, now.revision, features or None, heads or None, said))
    both = compare(shown[0].graph, shown[1].graph) if len(shown) > 1 else None
    return page_html(shown, compare=both, title=shown[0].graph.prompt[:80] or "jaxinterp")
