"""Edges opened into attention heads: what ``jaxinterp heads --out`` wrote, beside the graph's file.

Looked for are ``<name>.heads.json`` (with and without the graph's own ending) and ``heads.json``. Only edges whose
parts add up to the weight that the graph has are used: a file of another graph shows nothing.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json
from jaxinterp.graphs import Graph

LOG = logging.getLogger("jaxinterp.viewer")
MOST_BYTES = 512 << 20
CLOSE = 1e-3  # of all inputs of the target

Heads = dict[tuple[int, int], dict[str, Any]]


def heads_of(path: Path, graph: Graph) -> Heads:
    """{(target, source): {"heads": [[layer, head, value]], "rest": x, "direct": x}}; empty where no file fits."""
    for place in (
        path.with_name(f"{path.name}.heads.json"),
        path.with_suffix(".heads.json"),
        path.with_name("heads.json"),
    ):
        try:
            if place.is_file() and place.stat().st_size <= MOST_BYTES:
                found = _read(place, graph)
                if found:
                    return found
        except OSError as error:
            LOG.warning("%s: %s", place.name, error)
        except (InputError, ValueError, KeyError, TypeError) as error:
            LOG.warning("%s holds no head loadings: %s", place.name, error)
    return {}


def _read(place: Path, graph: Graph) -> Heads:
    record = graph.provenance.get("record_digest")
    document = read_json(place)
    if document["graph"] and record and document["graph"] != record:
        LOG.warning("%s is of another graph", place.name)
        return {}
    found: Heads = {}
    n = len(graph)
    for edge in document["edges"]:
        source, target = edge["source"], edge["target"]
        if not (type(source) is int and type(target) is int and 0 <= source < n and 0 <= target < n):
            raise ValueError(f"an edge from {source!r} to {target!r}")
        heads = [[int(layer), int(head), _number(value)] for layer, head, value in edge["heads"]]
        direct, rest = _number(edge["direct"]), _number(edge["rest"])
        low, high = int(graph.indptr[target]), int(graph.indptr[target + 1])
        at = low + int(graph.indices[low:high].searchsorted(source))
        if at >= high or graph.indices[at] != source:
            continue  # pruned away since
        total = direct + rest + sum(value for _, _, value in heads)
        size = float(abs(graph.weights[low:high]).sum())
        if abs(total - float(graph.weights[at])) <= CLOSE * max(size, abs(float(graph.weights[at]))):
            found[target, source] = {"heads": heads, "rest": rest, "direct": direct}
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
