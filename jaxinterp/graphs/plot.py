"""Static figures for papers: a part of a graph, tokens across and layers up, with everything left out counted.

Marks: features are circles, supernodes two circles, errors diamonds, biases triangles, tokens and targets squares with
their text in them. An edge is as wide as its share of its target's input (supernodes.py); positive ones are green and
whole, negative ones purple and dashed, so that print without colour tells them apart. Needs matplotlib (extra "plot").
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import choose
from jaxinterp.graphs.kinds import (
    ATTENTION_PART,
    BIAS,
    BIAS_NAMES,
    EMBEDDING,
    ERROR,
    FEATURE,
    MLP_PART,
    TARGET,
)
from jaxinterp.graphs.plot_records import Item
from jaxinterp.graphs.report import clean
from jaxinterp.graphs.summary import target_text
from jaxinterp.graphs.supernodes import Place, Supernode, SupernodeGraph, grouped

if TYPE_CHECKING:
    from jaxinterp.graphs.graph import Graph

WIDTHS = {"single": 3.35, "double": 7.0}  # inches: a column, and two, of common journals
_MARKS = {FEATURE: "feature", ERROR: "error", BIAS: "bias", EMBEDDING: "token", TARGET: "target"}
_TOKEN_ROW, _TOP = -1.0, 1e6
_PLURAL = {"bias": "biases"}


def plot_graph(
    graph: Graph,
    *,
    nodes: str | Sequence[int | Supernode] | None = None,
    width: str | float = "double",
    theme: str = "light",
    least: float = 0.02,
    most_edges: int = 80,
    title: str = "",
    legend: bool = True,
    caption: bool = True,
    size: float = 7.0,
    font: str | Sequence[str] = "DejaVu Sans",
) -> Any:
    """A figure of a part of the graph.

    Args:
      graph: pruned or not; shares are of all inputs that it has.
      nodes: "saved" (the supernodes and pins in the graph's view), "automatic" (choose.automatic), or node numbers
        and supernodes; None: what is saved, if anything, else automatic.
      width: "single" or "double" column, or inches. The height follows from what is shown.
      theme: "light" or "dark".
      least: edges of a smaller share of their target's input are not drawn, but counted.
      most_edges: how many are drawn at most, largest first.
      title: above the figure.
      legend, caption: whether to draw them; the caption counts what is left out.
      size: of letters in points, at most; where the width is not enough they are smaller.
      font: family or families; others than the default are searched for on this machine.

    Returns:
      matplotlib.figure.Figure with a method ``save(path)`` that writes the same bytes every time.

    Raises:
      InputError: matplotlib is missing, nodes that the graph has not, nothing to draw, or options out of range.
    """
    choice = _choice(graph, nodes)
    graph = choose.named(graph, choice)
    shown = grouped(graph, choice.supernodes, choice.singles)
    count = len(choice.supernodes)
    texts = [group.name for group in shown.groups[:count]]
    texts += [_text(graph, group.members[0]) for group in shown.groups[count:]]
    tokens = [_token(text) for text in graph.token_texts]
    edges, left = _edges(shown, least, most_edges)
    lines = _hidden(shown, left, _missed(graph, shown), graph.pruned)
    options = {
        "theme": theme,
        "title": title,
        "legend": legend,
        "caption": caption,
        "size": size,
        "font": font,
    }
    return _draw(_items(shown, texts, True), edges, tokens, width, lines, options)


def plot_supernodes(
    shown: SupernodeGraph,
    *,
    width: str | float = "double",
    theme: str = "light",
    least: float = 0.02,
    most_edges: int = 80,
    title: str = "",
    legend: bool = True,
    caption: bool = True,
    size: float = 7.0,
    font: str | Sequence[str] = "DejaVu Sans",
) -> Any:
    """A figure of all groups of a supernode graph; options as of `plot_graph`. The prompt is not known here, so there
    is no line of tokens along the bottom."""
    edges, left = _edges(shown, least, most_edges)
    lines = _hidden(shown, left, None, None)
    options = {
        "theme": theme,
        "title": title,
        "legend": legend,
        "caption": caption,
        "size": size,
        "font": font,
    }
    texts = [_bare(group.name, place) for group, place in zip(shown.groups, shown.places, strict=False)]
    texts = texts or [group.name for group in shown.groups]
    return _draw(_items(shown, texts, bool(shown.places)), edges, None, width, lines, options)


def save_figure(figure: Any, path: str | PathLike[str], dpi: float = 300) -> None:
    """Write a figure (.svg, .pdf or .png) whole or not at all; equal figures give equal bytes.

    Raises InputError on another ending or when the place cannot be written.
    """
    from jaxinterp.graphs.plot_draw import save

    save(figure, path, dpi)


def _draw(
    items: list[Item],
    edges: list[tuple[int, int, float]],
    tokens: list[str] | None,
    width: str | float,
    lines: list[str],
    options: dict[str, Any],
) -> Any:
    if not items:
        raise InputError("there is nothing to draw: name nodes, or supernodes")
    inches = WIDTHS.get(width) if isinstance(width, str) else width
    if inches is None or isinstance(inches, bool) or not 1 <= inches <= 100:
        raise InputError(f"width {width!r}: expected 'single', 'double' or 1 to 100 inches")
    if options["theme"] not in ("light", "dark"):
        raise InputError(f"theme {options['theme']!r}: expected 'light' or 'dark'")
    if not 4 <= options["size"] <= 40:
        raise InputError(f"size {options['size']!r}: expected letters of 4 to 40 points")
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise InputError(
            "figures need matplotlib, which is not installed: pip install 'jaxinterp[plot]'"
        ) from error
    from jaxinterp.graphs.plot_draw import draw

    return draw(items, edges, tokens, float(inches), lines, **options)


def _choice(graph: Graph, nodes: str | Sequence[int | Supernode] | None) -> choose.Choice:
    if nodes is None or nodes == "saved":
        found = choose.saved(graph)
        if found is None and nodes == "saved":
            raise InputError(
                "the graph's view holds no supernodes and no pinned nodes: use nodes='automatic'"
            )
        return found or choose.automatic(graph)
    if isinstance(nodes, str):
        if nodes != "automatic":
            raise InputError(
                f"nodes {nodes!r}: expected 'saved', 'automatic', or node numbers and supernodes"
            )
        return choose.automatic(graph)
    groups = tuple(one for one in nodes if isinstance(one, Supernode))
    singles = [one for one in nodes if not isinstance(one, Supernode)]
    if not all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in singles):
        raise InputError("nodes: expected node numbers and supernodes")
    return choose.Choice(groups, tuple(int(i) for i in singles), {})


def _items(shown: SupernodeGraph, texts: Sequence[str], placed: bool) -> list[Item]:
    """What is drawn of every group."""
    levels = _levels(shown) if not placed else []
    items = []
    for i, (group, text) in enumerate(zip(shown.groups, texts, strict=True)):
        several = len(group.members) > 1
        text = clean(text) + (f" ×{len(group.members)}" if several else "")
        weight = float(np.nan_to_num(shown.influence[i]))
        if not placed:
            items.append(Item(text, "group" if several else "feature", float(levels[i]), 0, weight))
            continue
        place = shown.places[i]
        row = place.layer + place.part / 10
        if place.kind == EMBEDDING:
            row = _TOKEN_ROW
        elif place.kind == TARGET:
            row = _TOP
        elif place.layer < 0:
            row = _TOKEN_ROW + 0.5
        mark = "group" if several or place.kind is None else _MARKS[place.kind]
        if several and place.kind == TARGET:
            mark = "target"
        items.append(Item(text, mark, row, place.position, weight))
    return items


def _levels(shown: SupernodeGraph) -> list[int]:
    """The length of the longest way up to each group; groups in a circle of edges stay where they are met."""
    count = len(shown.groups)
    level = [0] * count
    for _ in range(count):
        changed = False
        for target, source, _weight in shown.edges():
            if level[target] <= level[source] < count - 1:
                level[target], changed = level[source] + 1, True
        if not changed:
            break
    return level


def _edges(shown: SupernodeGraph, least: float, most: int) -> tuple[list[tuple[int, int, float]], list[str]]:
    """The edges to draw, largest first, and in words what is not drawn."""
    if not 0 <= least <= 1 or most < 0:
        raise InputError(f"least {least}, most_edges {most}: expected a share from 0 to 1 and a count")
    whole = shown.edges()
    strong = [edge for edge in whole if abs(edge[2]) >= least]
    words = []
    if len(strong) < len(whole):
        words.append(f"{_count(len(whole) - len(strong), 'edge')} under {100 * least:g} %")
    if most < len(strong):
        words.append(f"{_count(len(strong) - most, 'edge')} more, the weakest")
    return strong[:most], words


def _missed(graph: Graph, shown: SupernodeGraph) -> float | None:
    """The share of the influence of features that none of the groups holds."""
    features = graph.nodes["kind"] == FEATURE
    influence = np.where(features, np.nan_to_num(graph.nodes["influence"]), 0.0)
    whole = float(influence.sum())
    held = sum(float(influence[list(group.members)].sum()) for group in shown.groups)
    return 1 - held / whole if whole > 0 else None


def _hidden(
    shown: SupernodeGraph, edges: list[str], missed: float | None, pruned: dict[str, Any] | None
) -> list[str]:
    """What the figure leaves out, in sentences."""
    words = [_count(n, name) for name, n in shown.hidden.items()]
    if missed is not None and "feature" in shown.hidden:
        words[list(shown.hidden).index("feature")] += f" ({100 * max(missed, 0.0):.0f} % of their influence)"
    words += edges
    lines = [f"Not drawn: {', '.join(words)}."] if words else ["Every node of the graph is drawn."]
    if shown.inside:
        lines.append(f"{_count(shown.inside, 'edge')} within supernodes.")
    if pruned:
        gone = [_count(n, name) for name, n in pruned["hidden_nodes"].items() if n]
        gone.append(_count(pruned["hidden_edges"], "edge"))
        lines.append(f"Pruned before: {', '.join(gone)}.")
    return lines


def _count(n: int, name: str) -> str:
    return f"{n} {name if n == 1 else _PLURAL.get(name, name + 's')}"


def _text(graph: Graph, node: int) -> str:
    """A node in few characters: where it stands is seen."""
    record = graph.nodes[node]
    kind, layer, index = int(record["kind"]), int(record["layer"]), int(record["index"])
    if kind == FEATURE:
        return graph.labels[node] or f"{layer}/{index}"
    if kind == TARGET:
        chance = float(record["probability"])
        return _token(target_text(graph, node)) + (f"  {100 * chance:.1f} %" if np.isfinite(chance) else "")
    if kind == EMBEDDING:
        return _token(graph.token_texts[int(record["position"])])
    if kind == BIAS:
        return f"{BIAS_NAMES[index]} bias" if 0 <= index < len(BIAS_NAMES) else "bias"
    return graph.labels[node] if graph.labels[node] and not graph.foreign else ""


def _bare(name: str, place: Place) -> str:
    """The name of a group; of a token or a target (as `node_text` writes them) what is between the quotes."""
    if place.kind in (EMBEDDING, TARGET) and name.count('"') >= 2 and name.endswith('"'):
        return _token(name[name.index('"') + 1 : -1])
    return name


def _token(text: str) -> str:
    """A token without the blanks around it; one of blanks alone as that many signs."""
    bare = text.strip(" ")
    return clean(bare) if bare else "␣" * max(len(text), 1)


def row_name(row: float, several_parts: bool) -> str:
    """What stands left of a row: its layer."""
    if row >= _TOP or row <= _TOKEN_ROW:
        return ""
    layer, part = int(row // 1), round(10 * (row % 1))
    if row < 0:
        return ""
    part_name = "attn" if part == ATTENTION_PART else "mlp" if part == MLP_PART else "resid"
    return f"L{layer} {part_name}" if several_parts else f"L{layer}"
