"""One self-contained HTML file with graphs in it: the page's script and style inside, the data as packed bundles.

Nothing is fetched, from anywhere: the policy in the file allows no source but the script and the style whose hashes
it names. Data is JSON in a block that is no script, with "<" written as an escape, so no text of a graph ends it.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import FEATURE, Graph
from jaxinterp.graphs.plain import plain
from jaxinterp.viewer.bundle import MOST_EDGES, bundle, graph_arrays
from jaxinterp.viewer.page_files import Assets, assets
from jaxinterp.viewer.report import report_of
from jaxinterp.viewer.view import View, stored

if TYPE_CHECKING:
    from jaxinterp.viewer.features import FeatureSource

LOG = logging.getLogger("jaxinterp.viewer")
NOTEBOOK_LIMIT = 3_000_000  # bytes of data in one notebook cell
MOST_FEATURES = 400
_THRESHOLDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
_SCRIPT = re.compile(r'<script type="module"[^>]*\bsrc="/assets/page\.js"[^>]*></script>')
_STYLE = re.compile(r'<link rel="stylesheet"[^>]*\bhref="/assets/page\.css"[^>]*>')
_META = "<!--jaxinterp-meta-->"


@dataclass(frozen=True, eq=False)
class Shown:
    """A graph as a page shows it.

    view, revision: the state to begin with (that of the graph unless given). features: FEATURE by node. heads: the
    heads of edges by "target,source". said: lines that the page shows as warnings.
    """

    graph: Graph
    file: str = "graph"
    view: View | None = None
    revision: int = 0
    features: Mapping[int, Mapping[str, Any]] | None = None
    heads: Mapping[str, Mapping[str, Any]] | None = None
    said: tuple[str, ...] = ()


def page_html(
    graphs: Graph | Shown | Sequence[Graph | Shown],
    *,
    features: Sequence[Mapping[int, Mapping[str, Any]] | None] | None = None,
    compare: Mapping[str, Any] | None = None,
    title: str = "jaxinterp",
) -> str:
    """The page with these graphs as one HTML text.

    Args:
      graphs: one or several.
      features: for each graph what the page shows of its features, by node number.
      compare: the answer of /api/compare for the first two graphs.
      title: of the window.

    Raises:
      InputError: no graph, another number of features than graphs, or the page's files are missing.
    """
    listed = [graphs] if isinstance(graphs, Graph | Shown) else list(graphs)
    entries = [Shown(one) if isinstance(one, Graph) else one for one in listed]
    if not entries:
        raise InputError("a page needs at least one graph")
    if features is not None:
        if len(features) != len(entries):
            raise InputError(f"features for {len(features)} graphs, but there are {len(entries)}")
        entries = [replace(one, features=found) for one, found in zip(entries, features, strict=True)]
    data = {
        "graphs": [_entry(one) for one in entries],
        "compare": None if compare is None else plain(compare),
    }
    return _page(assets(), json.dumps(data, allow_nan=False, separators=(",", ":")), title)


def known_features(
    graph: Graph, source: FeatureSource | None, limit: int, first: Sequence[int] = ()
) -> tuple[dict[int, dict[str, Any]], tuple[str, ...]]:
    """FEATURE by node, those of ``first`` and then the most influential, until ``limit`` bytes are full.

    With a line each where some were left out, and where some cannot be read.
    """
    found: dict[int, dict[str, Any]] = {}
    if source is None:
        return found, ()
    nodes = np.flatnonzero(graph.nodes["kind"] == FEATURE)
    order = nodes[np.argsort(-np.nan_to_num(graph.nodes["influence"][nodes]), kind="stable")]
    size, damaged, lines = 0, [], []
    for node in dict.fromkeys([*first, *order.tolist()]):
        try:
            record = source.record(graph, node)
        except InputError as error:
            damaged.append(error)
            continue
        if record is None:
            continue
        size += len(json.dumps(record))
        if size > limit or len(found) == MOST_FEATURES + len(first):
            lines.append(
                f"Dashboards of {len(found)} features are in this file, those of the others are left out."
            )
            break
        found[node] = record
    if damaged:
        LOG.warning("dashboards of %d features cannot be read: %s", len(damaged), damaged[0])
        lines.append(f"Dashboards of {len(damaged)} features cannot be read and are left out.")
    return found, tuple(lines)


def fitting(shown: Shown, limit: int = NOTEBOOK_LIMIT) -> Shown:
    """The graph pruned so that its data in a page takes at most about ``limit`` bytes, with a line that says so.

    Unchanged where it fits, and where the graph cannot be pruned (a cycle). Features and heads of nodes that stay
    are kept; the view is that of the graph.
    """
    graph = shown.graph
    if _size(graph) <= limit:
        return shown
    numbered = replace(graph, labels=tuple(str(i) for i in range(len(graph))))
    small, used = numbered, 1.0
    for used in _THRESHOLDS:
        try:
            small = numbered.prune(used, min(0.98, used + 0.1))
        except InputError:
            return shown
        if _size(small) <= limit:
            break
    kept = [int(label) for label in small.labels]
    number = {i: at for at, i in enumerate(kept)}
    small = replace(small, labels=tuple(graph.labels[i] for i in kept))
    line = (
        f"Shown are {len(small)} of {len(graph)} nodes and {len(small.weights)} of {len(graph.weights)} edges, those "
        f"that carry {100 * used:.0f} % of the influence: the whole graph is too large for a page without a server. "
        "`jaxinterp view` shows all of it."
    )
    heads: dict[str, Mapping[str, Any]] = {}
    for key, found in (shown.heads or {}).items():
        target, source = (int(part) for part in key.split(","))
        if target in number and source in number:
            heads[f"{number[target]},{number[source]}"] = found
    features = {number[i]: found for i, found in (shown.features or {}).items() if i in number}
    return Shown(small, shown.file, None, shown.revision, features, heads, (*shown.said, line))


def _size(graph: Graph) -> int:
    """About how many bytes a graph takes in a page: packed numbers, in base64."""
    return 90 * len(graph) + 11 * min(len(graph.weights), MOST_EDGES) + 4000


def _entry(shown: Shown) -> dict[str, Any]:
    graph = shown.graph
    names = stored(graph)
    view = names.view if shown.view is None else shown.view
    chosen = names.chosen if shown.view is None else True
    header = {
        "file": shown.file, "has_heads": bool(shown.heads), "has_features": bool(shown.features), "live": False,
        "writable": False, "view": view, "saved_from": "file" if chosen else "none", "revision": shown.revision,
        "view_notes": list(names.notes),
    }  # fmt: skip
    report = report_of(graph, shown.file)
    if shown.said:
        report = {**report, "warnings": [*shown.said, *report.get("warnings", [])]}
    return {
        "bundle": _packed(bundle(graph, header, graph_arrays(graph))),
        "report": plain(report, "report"),
        "features": {str(int(i)): plain(found, "features") for i, found in (shown.features or {}).items()},
        "heads": {str(key): plain(found, "heads") for key, found in (shown.heads or {}).items()},
    }


def _packed(data: bytes) -> str:
    """Raw deflate, in base64."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(packer.compress(data) + packer.flush()).decode("ascii")


def _page(parts: Assets, data: str, title: str) -> str:
    script = _safe_script(parts.script)
    style = re.sub(r"</(style)", r"<\\/\1", parts.style.replace("\r\n", "\n").replace("\r", "\n"), flags=re.I)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    meta = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}" />\n'
        '    <meta name="jaxinterp-mode" content="embedded" />\n'
        '    <meta name="referrer" content="no-referrer" />'
    )
    safe = data.replace("<", "\\u003c").replace(">", "\\u003e")
    block = f'<script type="application/json" id="jaxinterp-data">{safe}</script>'
    page = _once(_SCRIPT, parts.html, "", "script")
    # The policy stands before all that it rules. What is put in last is not searched again.
    charset = re.compile('<meta charset="utf-8" ?/?>')
    page = _once(charset, page.replace(_META, ""), f'<meta charset="utf-8" />\n    {meta}', "charset")
    page = _once(re.compile("<title>.*?</title>"), page, f"<title>{html.escape(title)}</title>", "title")
    page = _once(_STYLE, page, f"<style>{style}</style>", "style sheet")
    code = f'<script type="module">{script}</script>'
    return _once(re.compile("</body>"), page, f"  {block}\n    {code}\n  </body>", "body")


def _once(pattern: re.Pattern[str], text: str, new: str, what: str) -> str:
    """The text with the one place of the pattern replaced."""
    found, count = pattern.subn(lambda _: new, text)
    if count != 1:
        raise InputError(f"the viewer's page has {count} places for its {what}: expected 1; build it again")
    return found


def _safe_script(script: str) -> str:
    """The script without anything that an HTML parser would take for its end: escapes that mean the same in texts."""
    script = script.replace("\r\n", "\n").replace("\r", "\n")
    script = re.sub(r"<(/?script)", lambda found: "\\x3c" + found.group(1), script, flags=re.I)
    return script.replace("<!--", "\\x3c!--")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
