"""Make a graph again from its own record, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxinterp.attribution.targets import Direction
from jaxinterp.attribution.tracing import record_digest, trace
from jaxinterp.core.errors import InputError
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.lazy import AnyDictionary
from jaxinterp.graphs.graph import Graph
from jaxinterp.models.model import Model

TOLERANCE = 1e-5
_COMPARED = ("kind", "part", "layer", "position", "index", "activation", "influence", "probability", "value")


@dataclass(frozen=True)
class Comparison:
    """What came of making a graph again.

    Attributes:
      outcome: "identical" (every number), "close" (the same nodes and edges numbers within 1e-5 of the largest
        of their sort, with other library versions or on another platform), or "different".
      differences: one line each, the first of each sort.
      graph: the graph as made now.
    """

    outcome: str
    differences: tuple[str, ...]
    graph: Graph

    def __str__(self) -> str:
        head = {
            "identical": "identical: every node, edge and score is the same",
            "close": f"close: the same nodes and edges, weights within {TOLERANCE:g} of the largest",
            "different": "DIFFERENT",
        }[self.outcome]
        return "\n".join([head, *(f"  {line}" for line in self.differences)])


def reproduce(graph: Graph, model: Model, dictionary: AnyDictionary) -> Comparison:
    """Trace again what ``graph`` records and compare.

    Args:
      graph: made by `trace`, pruned or not, from either file format.
      model, dictionary: what it was made from, to be checked against its digests.

    Raises:
      InputError: the graph was not made by this package, or its settings cannot be followed.
    """
    settings, recorded = graph.settings, graph.provenance
    for key in ("convention", "dtype"):
        if key not in settings:
            raise InputError(f"this graph does not record its {key}, so it cannot be made again")
    if "model_digest" not in recorded:
        raise InputError("this graph records no digest of a model: it was not made by jaxinterp trace")
    notes: list[str] = []
    fatal = False
    for what, digest in (("model", model.digest()), ("dictionary", dictionary.digest())):
        if recorded.get(f"{what}_digest") != digest:
            fatal = True
            notes.append(
                f"the {what} is another: recorded digest {str(recorded.get(f'{what}_digest'))[:16]}, "
                f"given {digest[:16]}"
            )
    now = versions()
    changed = [
        f"{name} {was} then, {now.get(name)} now"
        for name, was in recorded.get("versions", {}).items()
        if now.get(name) != was
    ]
    if recorded.get("platform") != (here := jax.devices()[0].platform):
        changed.append(f"platform {recorded.get('platform')} then, {here} now")
    if recorded.get("record_digest") != record_digest(graph.settings, graph.token_ids):
        notes.append("the settings or tokens in the file are not those it was traced with")
        fatal = True
    again = _again(graph, model, dictionary)
    largest, found = _differences(graph, again)
    notes += found
    if not notes:
        return Comparison("identical", tuple(changed), again)
    # Rounding may differ between versions and platforms, never within one.
    close = changed and not fatal and largest is not None and largest <= TOLERANCE
    return Comparison("close" if close else "different", (*changed, *notes), again)


def _again(graph: Graph, model: Model, dictionary: AnyDictionary) -> Graph:
    settings = graph.settings
    targets = settings.get("targets")
    if targets is not None:
        targets = [
            Direction(np.asarray(t["direction"]), t["label"]) if isinstance(t, dict) else t for t in targets
        ]
    again = trace(
        model, dictionary, [int(i) for i in graph.token_ids], targets=targets,
        max_feature_nodes=settings.get("max_feature_nodes"), convention=settings["convention"],
        rank_every=settings.get("rank_every"), dynamic_tanh=settings.get("dynamic_tanh", "secant"),
    )  # fmt: skip
    pruned = graph.pruned
    if pruned is not None:
        again = again.prune(pruned["node_threshold"], pruned["edge_threshold"])
    return again


def _differences(old: Graph, new: Graph) -> tuple[float | None, list[str]]:
    """Largest relative difference of a number (None when nodes or edges are not the same ones), and what differs."""
    found: list[str] = []
    for key in ("dtype", "active_features"):
        was, now = old.settings.get(key), new.settings.get(key)
        if was != now:
            found.append(f"{key} is {was!r} in the file and {now!r} now")
    if old.token_texts != new.token_texts:
        first = next(
            i for i, (a, b) in enumerate(zip(old.token_texts, new.token_texts, strict=True)) if a != b
        )
        found.append(
            f"token {first} reads {old.token_texts[first]!r} in the file, {new.token_texts[first]!r} now"
        )
    if len(old) != len(new):
        return None, [*found, f"{len(old)} nodes in the file, {len(new)} now"]
    largest = 0.0
    for name in _COMPARED:
        a, b = old.nodes[name], new.nodes[name]
        same = (a == b) | ((a != a) & (b != b))
        if not same.all():
            node = int(np.flatnonzero(~same)[0])
            found.append(f"node {node}: {name} is {_number(a[node])} in the file, {_number(b[node])} now")
            if name in ("kind", "part", "layer", "position", "index") or not np.array_equal(a != a, b != b):
                return None, found
            largest = max(largest, float(np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(a))))
    if not (np.array_equal(old.indptr, new.indptr) and np.array_equal(old.indices, new.indices)):
        return None, [*found, f"other edges: {len(old.weights)} in the file, {len(new.weights)} now"]
    change = np.abs(np.asarray(old.weights, np.float64) - np.asarray(new.weights, np.float64))
    if change.any():
        edge = int(np.argmax(change))
        target = int(np.searchsorted(old.indptr, edge, side="right")) - 1
        found.append(
            f"{int((change > 0).sum())} edges differ, most the one from node {int(old.indices[edge])} to node "
            f"{target}: {_number(old.weights[edge])} in the file, {_number(new.weights[edge])} now"
        )
        largest = max(largest, float(change.max() / np.abs(old.weights).max()))
    return largest, found


def _number(value: Any) -> str:
    return f"{value.item():.9g}" if hasattr(value, "item") else str(value)
