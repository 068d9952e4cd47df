"""A graph as text that fits a terminal."""

from __future__ import annotations

import unicodedata
from typing import Any

from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.summary import summary


def report(graph: Graph, width: int = 100, *, targets: int = 3, features: int = 10, paths: int = 5) -> str:
    """The prompt, targets, scores, checks, strongest features and strongest paths; no line wider than
    ``width``.

    ``width`` counts terminal columns (at least 40). Control characters in texts of the graph are shown
    escaped.
    """
    width = max(width, 40)
    facts = summary(graph, targets=targets, features=features, paths=paths)
    lines = [
        *_tokens(facts, width),
        "",
        *_targets(facts, width),
        "",
        *_scores(facts, width),
        *_wrap(facts["checks"]["text"].split(" "), width, " ", "  "),
        *_errors(facts, width),
        *_counts(facts, width),
    ]
    for target in facts["targets"]:
        if target.get("features"):
            lines += ["", *_features(target, width)]
        if target.get("paths"):
            lines += ["", *_paths(target, width)]
    return "\n".join(line.rstrip() for line in lines)


def columns(text: str) -> int:
    """Terminal columns that a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def clean(text: str) -> str:
    """Text with everything that could move a cursor written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fit(text: str, width: int) -> str:
    """Text cut to ``width`` columns, ".." marking the cut."""
    text = clean(text)
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 2:
        text = text[:-1]
    return (text + "..")[:width]


def table(head: list[str], rows: list[list[str]], right: set[int], last: int) -> list[str]:
    """Aligned columns, those in ``right`` to the right; the last column is cut to fit the line."""
    body = [head, *rows]
    sizes = [max(columns(row[i]) for row in body) for i in range(len(head))]
    rest = last - sum(sizes[:-1]) - 2 * (len(head) - 1)
    lines = []
    for row in body:
        cells = []
        for i, cell in enumerate(row[:-1]):
            gap = " " * (sizes[i] - columns(cell))
            cells.append(gap + cell if i in right else cell + gap)
        cells.append(fit(row[-1], max(rest, 4)))
        lines.append(fit("  ".join(cells), last))
    return lines


def quoted(text: str, width: int) -> str:
    """A token in quotes, cut to ``width`` columns."""
    return f'"{fit(text, width - 2)}"'


def _wrap(words: list[str], width: int, joint: str, indent: str) -> list[str]:
    """Words joined into lines; an empty first word indents the first line too."""
    lines: list[str] = []
    line, fresh = "", True
    for word in words:
        word = fit(word, width - columns(indent) - columns(joint))
        longer = line + word if fresh else line + joint + word
        if not word:
            line = indent
        elif not fresh and columns(longer) > width:
            lines.append(line)
            line = indent + word
        else:
            line, fresh = longer, False
    return lines if fresh else [*lines, line]


def _tokens(facts: dict[str, Any], width: int) -> list[str]:
    words = [f"{token['position']}:{quoted(token['text'], 30)}" for token in facts["tokens"]]
    return ["Prompt", *_wrap(["", *words], width, "  ", "  ")]


def _targets(facts: dict[str, Any], width: int) -> list[str]:
    rows = []
    for target in facts["targets"]:
        probability, value = target["probability"], target["value"]
        shown = "" if probability is None else f"{probability:.3f}"
        rows.append([shown, "" if value is None else f"{value:.3f}", quoted(target["text"], width)])
    return table(["probability", "logit-mean", "target"], rows, {0, 1}, width)


def _scores(facts: dict[str, Any], width: int) -> list[str]:
    scores = facts["scores"]
    words = [
        f"replacement {scores['replacement']:.3f}",
        f"completeness {scores['completeness']:.3f}",
        f"mean path length {scores['path_length']:.2f}",
        f"convention {facts['convention']}",
    ]
    if scores["replacement_without_bias"] is not None:
        bare = f"{scores['replacement_without_bias']:.3f} / {scores['completeness_without_bias']:.3f}"
        words.append(f"without bias nodes {bare}")
    if scores["replacement_with_left_out"] is not None:
        left = f"{scores['replacement_with_left_out']:.3f} / {scores['completeness_with_left_out']:.3f}"
        words.append(f"left-out features as errors {left}")
    if scores["pruned"] is not None:
        pruned = scores["pruned"]
        separate = f"{pruned['separate_replacement']:.3f} / {pruned['separate_completeness']:.3f}"
        merged = f"{pruned['merged_replacement']:.3f} / {pruned['merged_completeness']:.3f}"
        words.append(f"pruned nodes as errors {separate} (separate), {merged} (merged)")
    return _wrap(["scores: " + words[0], *words[1:]], width, ", ", "  ")


def _errors(facts: dict[str, Any], width: int) -> list[str]:
    words = [f"layer {e['layer']} {e['part']} {100 * e['share']:.1f}%" for e in facts["errors"]]
    if not words:
        return []
    start = f"errors take {100 * facts['error_share']:.1f}%, most of it at {words[0]}"
    return _wrap([start, *words[1:]], width, ", ", "  ")


def _counts(facts: dict[str, Any], width: int) -> list[str]:
    plural = {"bias": "biases"}
    kinds = [f"{n} {name if n == 1 else plural.get(name, name + 's')}" for name, n in _some(facts["nodes"])]
    lines = _wrap(["nodes: " + kinds[0], *kinds[1:], f"{facts['edges']} edges"], width, ", ", "  ")
    pruned = facts["pruned"]
    if pruned:
        hidden = [f"{n} {name} nodes" for name, n in _some(pruned["hidden_nodes"])]
        words = [*hidden, f"{pruned['hidden_edges']} edges"]
        ends = f"node threshold {pruned['node_threshold']:g}, edge threshold {pruned['edge_threshold']:g}"
        lines += _wrap(["pruned away: " + words[0], *words[1:], ends], width, ", ", "  ")
    return lines


def _some(counts: dict[str, int]) -> list[tuple[str, int]]:
    return [(name, n) for name, n in counts.items() if n]


def _features(target: dict[str, Any], width: int) -> list[str]:
    rows = []
    several = any(feature["part"] != "mlp" for feature in target["features"])
    for feature in target["features"]:
        rows.append(
            [
                f"{100 * feature['influence']:.1f}%",
                f"{feature['weight']:+.4f}" if feature["weight"] else "-",
                f"{feature['layer']} {feature['part']}" if several else str(feature["layer"]),
                str(feature["position"]),
                quoted(feature["token"], 16),
                str(feature["feature"]),
                feature["label"],
            ]
        )
    head = ["influence", "direct", "layer", "pos", "token", "feature", "label"]
    title = fit(f"Strongest features for {quoted(target['text'], 40)}", width)
    return [title, *table(head, rows, {0, 1, 2, 3, 5}, width)]


def _paths(target: dict[str, Any], width: int) -> list[str]:
    lines = [fit(f"Strongest paths to {quoted(target['text'], 40)}", width)]
    for path in target["paths"]:
        steps = [clean(text) for text in path["text"]]
        first = f"{100 * path['strength']:+6.2f}%  {steps[0]}"
        lines += _wrap([first, *[f"-> {step}" for step in steps[1:]]], width, " ", " " * 10)
    return lines
