"""Where two graphs of the same prompt first differ."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.summary import node_text

_NAMES = ("kind", "part", "layer", "position", "index")
_NUMBERS = ("activation", "influence", "share", "probability", "value", "constant", "left_out")


class Differences(NamedTuple):
    """How far apart two graphs are.

    Attributes:
      largest: the largest difference of a number, relative to the largest number of its sort; None where nodes or edges
        are not the same ones.
      lines: what differs, the first of each sort.
    """

    largest: float | None
    lines: list[str]


def differences(old: Graph, new: Graph) -> Differences:
    """Compare a graph from a file with one made now: nodes, then their numbers, then edges.

    Of each sort the first is named with both values: the lowest node, and of a node its first column; the edge with the
    lowest target, and of a target the lowest source.
    """
    lines = _texts(old, new)
    if (line := _other_nodes(old, new)) is not None:
        return Differences(None, [*lines, line])
    largest, found, comparable = _numbers(old, new)
    lines += found
    if not comparable:
        return Differences(None, lines)
    edges = _edges(old, new)
    if edges.largest is None:
        return Differences(None, lines + edges.lines)
    return Differences(max(largest, edges.largest), lines + edges.lines)


def _texts(old: Graph, new: Graph) -> list[str]:
    lines = []
    for key in ("dtype", "active_features"):
        was, now = old.settings.get(key), new.settings.get(key)
        if was != now:
            lines.append(f"{key} is {was!r} in the file and {now!r} now")
    for i, (was, now) in enumerate(zip(old.token_texts, new.token_texts, strict=False)):
        if was != now:
            lines.append(f"token {i} reads {was!r} in the file, {now!r} now")
            break
    return lines


def _other_nodes(old: Graph, new: Graph) -> str | None:
    """The first node that is not the same one in both."""
    n = min(len(old), len(new))
    other = np.zeros(n, bool)
    for name in _NAMES:
        other |= old.nodes[name][:n] != new.nodes[name][:n]
    count = f" ({len(old)} nodes in the file, {len(new)} now)" if len(old) != len(new) else ""
    if other.any():
        at = int(np.argmax(other))
        return f"node {at} is {node_text(old, at)} in the file, {node_text(new, at)} now{count}"
    if len(old) == len(new):
        return None
    graph, where = (old, "in the file") if len(old) > n else (new, "now")
    return f"node {n} is {node_text(graph, n)} {where} alone{count}"


def _numbers(old: Graph, new: Graph) -> tuple[float, list[str], bool]:
    """Largest relative difference of the node table, its first one, and whether the same numbers are known."""
    differ, largest, comparable = np.zeros((len(_NUMBERS), len(old)), bool), 0.0, True
    for row, name in zip(differ, _NUMBERS, strict=True):
        a, b = old.nodes[name], new.nodes[name]
        row |= (a != b) & ~((a != a) & (b != b))
        if not row.any():
            continue
        if not np.array_equal(a != a, b != b):
            comparable = False
        # Constants and what is left out are terms of the value; where they are rounding alone, so is their difference.
        terms = (a, old.nodes["value"]) if name in ("constant", "left_out") else (a,)
        scale = max(float(np.nanmax(np.abs(term), initial=0.0)) for term in terms)
        largest = max(largest, float(np.nanmax(np.abs(a - b), initial=0.0) / (scale or 1.0)))
    lines = []
    if differ.any():
        at = int(np.argmax(differ.any(axis=0)))
        name = _NUMBERS[int(np.argmax(differ[:, at]))]
        count = _count(int(differ.any(axis=0).sum()), "node differs", "nodes differ")
        lines.append(
            f"node {at}, {node_text(old, at)}: {name} is {_number(old.nodes[name][at])} in the file, "
            f"{_number(new.nodes[name][at])} now; {count}"
        )
    for at in old.targets.tolist():
        if old.labels[at] != new.labels[at]:
            lines.append(f"target {at} is called {old.labels[at]!r} in the file, {new.labels[at]!r} now")
            break
    return largest, lines, comparable


def _edges(old: Graph, new: Graph) -> Differences:
    n = len(old)
    codes, weights = [], []
    for graph in (old, new):
        targets, sources, weight = graph.edges()
        codes.append(targets.astype(np.int64) * n + sources)
        weights.append(np.asarray(weight, np.float64))
    if not np.array_equal(codes[0], codes[1]):
        alone = np.setxor1d(codes[0], codes[1], assume_unique=True)
        first = int(alone[0])
        side = 0 if np.isin(first, codes[0]) else 1
        value = weights[side][int(np.searchsorted(codes[side], first))]
        where = ("is {} in the file and there is none now", "is {} now and there is none in the file")[side]
        count = f"{len(codes[0])} edges in the file, {len(codes[1])} now"
        return Differences(None, [f"{_edge(old, first)} {where.format(_number(value))}; {count}"])
    change = np.abs(weights[0] - weights[1])
    if not change.any():
        return Differences(0.0, [])
    at = int(np.argmax(change > 0))
    largest = float(change.max() / np.abs(weights[0]).max())
    count = _count(int((change > 0).sum()), "edge differs", "edges differ")
    return Differences(
        largest,
        [
            f"{_edge(old, int(codes[0][at]))} is {_number(weights[0][at])} in the file, {_number(weights[1][at])} now; "
            f"{count}, by at most {largest:.1e} of the largest"
        ],
    )


def _edge(graph: Graph, code: int) -> str:
    target, source = divmod(code, len(graph))
    return f"the edge from node {source}, {node_text(graph, source)}, to node {target}, {node_text(graph, target)},"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _number(value: Any) -> str:
    return f"{value.item() if hasattr(value, 'item') else value:.9g}"
