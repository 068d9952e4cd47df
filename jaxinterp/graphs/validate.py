"""Checks on graphs from files: everything that later code relies on, so that a bad file fails here."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.checks import Checks
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.kinds import CONVENTIONS, FEATURE, KIND_NAMES
from jaxinterp.graphs.scores import Scores

_FOREIGN = {
    "whole": bool,
    "top": dict,
    "metadata": dict,
    "nodes": dict,
    "links": dict,
    "node_order": list,
    "link_order": list,
    "loose_links": list,
}


def validated(graph: Graph, where: str) -> Graph:
    """The graph itself, if its records have the form that this package gives them.

    Raises InputError naming the file and the key otherwise.
    """
    settings = graph.settings
    if settings.get("convention") not in CONVENTIONS:
        found = settings.get("convention")
        raise InputError(f"{where}: settings.convention: {found!r}: expected one of {CONVENTIONS}")
    outside = (graph.nodes["position"] < 0) | (graph.nodes["position"] >= len(graph.token_ids))
    if outside.any():
        at = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{where}: node {at} is at position {graph.nodes['position'][at]}, outside the prompt"
        )
    if graph.foreign is None or not graph.foreign.get("whole"):
        features = graph.nodes[graph.nodes["kind"] == FEATURE]
        if (features["index"] < 0).any() or (features["layer"] < 0).any():
            raise InputError(f"{where}: a feature node has a negative layer or feature number")
    _pruned(settings.get("pruned"), where)
    _measured(graph.measured, where)
    if graph.foreign is not None:
        _foreign(graph.foreign, len(graph.nodes), len(graph.weights), where)
    return graph


def _pruned(pruned: Any, where: str) -> None:
    if pruned is None:
        return
    try:
        numbers = [pruned["node_threshold"], pruned["edge_threshold"], pruned["hidden_edges"]]
        hidden = pruned["hidden_nodes"]
        right = set(hidden) <= set(KIND_NAMES) and all(_number(x) for x in (*numbers, *hidden.values()))
    except (KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise InputError(f"{where}: settings.pruned: expected two thresholds, hidden_nodes and hidden_edges")


def _measured(measured: dict[str, Any], where: str) -> None:
    identity = measured.get("identity_1")
    if identity is not None and not _number(identity):
        raise InputError(f"{where}: measured.identity_1: {identity!r}: expected a number")
    for key, kind, numbers in (
        ("scores", Scores, ("replacement", "completeness", "path_length")),
        ("checks", Checks, ("tolerance",)),
    ):
        stored = measured.get(key)
        if stored is None:
            continue
        try:
            found = kind.from_dict(stored)  # type: ignore[attr-defined]
            right = all(_number(getattr(found, name)) for name in numbers)
            str(found)
        except (TypeError, ValueError, KeyError, AttributeError):
            right = False
        if not right:
            raise InputError(f"{where}: measured.{key}: not the {key} of a graph")


def _foreign(foreign: dict[str, Any], n: int, edges: int, where: str) -> None:
    for key, kind in _FOREIGN.items():
        if not isinstance(foreign.get(key), kind):
            raise InputError(f"{where}: foreign.{key}: expected a {kind.__name__}")
    for key, count in (("nodes", n), ("links", edges)):
        for at, raw in foreign[key].items():
            if not (at.isdecimal() and int(at) < count and isinstance(raw, dict)):
                raise InputError(f"{where}: foreign.{key}[{at!r}]: expected an object for one of {count}")
    for key, count in (("node_order", n), ("link_order", edges)):
        order = foreign[key]
        if order and (not all(type(i) is int for i in order) or sorted(order) != list(range(count))):
            raise InputError(f"{where}: foreign.{key}: expected every number below {count} once")
    for item in foreign["loose_links"]:
        if not (
            isinstance(item, list) and len(item) == 2 and type(item[0]) is int and isinstance(item[1], dict)
        ):
            raise InputError(f"{where}: foreign.loose_links: expected pairs of a place and a link")
    if foreign["whole"]:
        missing = [
            i for i in range(n) if not isinstance(foreign["nodes"].get(str(i), {}).get("node_id"), str)
        ]
        if missing:
            raise InputError(f"{where}: foreign.nodes: node {missing[0]} has no node_id")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
