"""What graphs and what is computed from them look like in Jupyter, Colab and VS Code. No server, no network.

A graph is the whole page in an iframe with ``srcdoc``, in a sandbox: its scripts reach nothing of the notebook. Its
text stands below, for screen readers and for places that show no iframes. The rest are small tables.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import Checks, Graph, Preview, Scores, SupernodeGraph, report
from jaxinterp.viewer.embed import NOTEBOOK_LIMIT, Shown, fitting, known_features, page_html
from jaxinterp.viewer.features import bundled_features

HEIGHT = 640
_MOST_ROWS = 40
_CELL = "padding:2px 12px 2px 0;text-align:left;vertical-align:top"
_NUMBER = "padding:2px 12px 2px 0;text-align:right;vertical-align:top;font-variant-numeric:tabular-nums"


def graph(shown: Graph, height: int = HEIGHT, limit: int = NOTEBOOK_LIMIT) -> str:
    """HTML of a graph: the page, ``height`` pixels high until its lower edge is dragged, and the text report.

    Above about ``limit`` bytes of data the graph is pruned for display and a line says so. Raises InputError where
    the page's files are missing.
    """
    if not (isinstance(height, int) and 100 <= height <= 10_000):
        raise InputError(f"height is {height!r}: expected 100 to 10000 pixels")
    source = bundled_features(shown)
    if source is not None:
        known = source.labels(shown)
        shown = replace(shown, labels=tuple(known.get(i, text) for i, text in enumerate(shown.labels)))
    features, said = known_features(shown, source, limit // 3)
    entry = fitting(Shown(shown, features=features, said=said), limit)
    page = page_html(entry, title=shown.prompt[:80] or "graph")
    name = html.escape(f"Attribution graph of {shown.prompt!r}", quote=True)
    lines = "".join(f"<div>{html.escape(line)}</div>" for line in entry.said)
    try:
        text = report(entry.graph, 100)
    except InputError as error:  # a cycle: there is no influence to report
        text = f"{shown!r}\n{error}"
    return (
        f'<div style="resize:vertical;overflow:hidden;height:{height}px;min-height:160px;padding-bottom:6px">'
        f'<iframe title="{name}" srcdoc="{html.escape(page, quote=True)}" sandbox="allow-scripts allow-downloads" '
        'style="width:100%;height:100%;border:1px solid rgba(128,128,128,.4);border-radius:4px;box-sizing:border-box">'
        f"</iframe></div>{lines}"
        "<details><summary>The graph as text</summary>"
        f'<pre style="overflow:auto">{html.escape(text)}</pre></details>'
    )


class View:
    """A graph to display at another height than a notebook's own: the last line of a cell, or display(...)."""

    def __init__(self, shown: Graph, height: int = HEIGHT, limit: int = NOTEBOOK_LIMIT) -> None:
        self.html = graph(shown, height, limit)
        self.text = repr(shown)

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def scores(shown: Scores) -> str:
    """HTML of scores."""
    rows = [
        ("replacement", shown.replacement, "share of influence from tokens rather than errors"),
        ("completeness", shown.completeness, "share of inputs that are no errors"),
        ("mean path length", shown.path_length, "edges from tokens to targets"),
        ("replacement, without bias nodes", shown.replacement_without_bias, ""),
        ("completeness, without bias nodes", shown.completeness_without_bias, ""),
        ("replacement, left-out features as errors", shown.replacement_with_left_out, ""),
        ("completeness, left-out features as errors", shown.completeness_with_left_out, ""),
    ]
    if shown.pruned is not None:
        pruned = shown.pruned
        rows += [
            ("replacement, pruned nodes as errors", pruned.separate_replacement, "one by one"),
            ("completeness, pruned nodes as errors", pruned.separate_completeness, "one by one"),
            ("replacement, pruned nodes as errors", pruned.merged_replacement, "added at their place"),
            ("completeness, pruned nodes as errors", pruned.merged_completeness, "added at their place"),
        ]
    body = [[name, _figure(value), note] for name, value, note in rows if value is not None]
    return _table("Scores of a graph", ["score", "", ""], body, {1})


def checks(shown: Checks) -> str:
    """HTML of identity checks."""
    names = {
        "identity_1": "the replacement model gives the model's logits",
        "identity_2": "edges into features add up to what they receive",
        "identity_3": "edges into targets add up to their logits",
    }
    body = []
    for key, text in names.items():
        value = getattr(shown, key)
        verdict = "not measured" if value is None else "holds" if value <= shown.tolerance else "FAILS"
        body.append([text, "" if value is None else f"{value:.1e}", verdict])
    return _table(str(shown), ["identity", "relative residual", ""], body, {1})


def supernodes(shown: SupernodeGraph) -> str:
    """HTML of a graph of supernodes: groups, the strongest edges between them, and what is hidden."""
    groups = [
        [group.name, str(len(group.members)), _figure(float(activation)), _figure(float(influence))]
        for group, activation, influence in zip(shown.groups, shown.activation, shown.influence, strict=True)
    ]
    edges = [
        [shown.groups[source].name, shown.groups[target].name, f"{weight:+.3f}"]
        for target, source, weight in shown.edges()
    ]
    hidden = ", ".join(f"{n} {name}" for name, n in shown.hidden.items()) or "no"
    return (
        _table("Groups", ["group", "nodes", "activation", "influence"], groups, {1, 2, 3})
        + _table("Strongest edges", ["from", "to", "weight"], edges, {2})
        + f"<div>Hidden: {html.escape(hidden)} nodes; {shown.inside} edges within groups.</div>"
    )


def preview(shown: Preview) -> str:
    """HTML of proposed supernodes and of the graph as they would leave it."""
    body = [
        [
            proposal.supernode.name, str(len(proposal.supernode.members)), f"{proposal.cohesion:.2f}",
            f"{proposal.weakest:.2f}", _figure(proposal.influence),
        ]
        for proposal in shown.proposals
    ]  # fmt: skip
    head = ["proposed supernode", "features", "cohesion", "weakest pair", "influence"]
    line = f"{100 * shown.hidden_influence:.1f} % of the influence of features is in no group."
    return _table("Proposals", head, body, {1, 2, 3, 4}) + f"<div>{line}</div>" + supernodes(shown.shown)


def _figure(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], right: set[int]) -> str:
    """A table; rows beyond the first 40 are counted in a line."""
    rows = list(rows)

    def line(cells: Sequence[str], tag: str) -> str:
        found = (
            f'<{tag} style="{_NUMBER if i in right else _CELL}">{html.escape(cell)}</{tag[:2]}>'
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(found)}</tr>"

    more = f"<div>and {len(rows) - _MOST_ROWS} more</div>" if len(rows) > _MOST_ROWS else ""
    body = "".join(line(row, "td") for row in rows[:_MOST_ROWS])
    return (
        '<table style="border-collapse:collapse"><caption style="text-align:left;font-weight:600">'
        f"{html.escape(title)}</caption><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>{more}"
    )
