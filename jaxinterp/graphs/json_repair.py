"""Ids and links of imported graphs: ids that occur twice are told apart, links that lead nowhere are set
aside.

circuit-tracer up to 0.4 names the error node of (layer l, position c) "0_{l}_{c}", which is also the name of
feature l
of layer 0 at c. Its links are written target by target with sources in node order, which tells most of them
apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.json_values import expect, number
from jaxinterp.graphs.kinds import ERROR, TARGET

if TYPE_CHECKING:
    from jaxinterp.graphs.json_quick import PlainLinks

_LINK_KEYS = {"source", "target", "weight"}


def unique_nodes(where: str, raws: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The nodes with distinct ids, and one line for each repair made.

    A repaired error node keeps its old id under "_old_id" until `links` has used it.
    """
    found: list[dict[str, Any]] = []
    first: dict[str, int] = {}
    renamed = dropped = 0
    for i, raw in enumerate(raws):
        name = expect(raw, "node_id", str, f"{where}: nodes[{i}]")
        if name not in first:
            first[name] = len(found)
            found.append(raw)
            continue
        other = first[name]
        if raw == found[other]:
            dropped += 1
            continue
        if not _is_error(raw) and _is_error(found[other]):
            found[other] = _renamed(found[other])
        elif _is_error(raw):
            raw = _renamed(raw)
        else:
            raise InputError(
                f"{where}: nodes[{i}].node_id: {name!r} names two different nodes: expected distinct ids"
            )
        renamed += 1
        found.append(raw)
    names = [raw["node_id"] for raw in found]
    if len(set(names)) < len(names):
        raise InputError(f"{where}: nodes: ids occur more than twice: expected distinct ids")
    repairs = []
    if renamed:
        repairs.append(f"{renamed} error nodes had the id of a feature and were renamed")
    if dropped:
        repairs.append(f"{dropped} repeated nodes were dropped")
    return found, repairs


def _is_error(raw: dict[str, Any]) -> bool:
    return "error" in str(raw.get("feature_type"))


def _renamed(raw: dict[str, Any]) -> dict[str, Any]:
    name = f"{raw.get('layer')}_error_mlp_{raw.get('ctx_idx')}"
    return {**raw, "node_id": name, "jsNodeId": name, "_old_id": raw["node_id"]}


def links(
    where: str,
    raws: list[dict[str, Any]] | PlainLinks,
    nodes_raw: list[dict[str, Any]],
    nodes: np.ndarray,
    repairs: list[str],
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, dict[int, dict[str, Any]], list[list[Any]]]:
    """((targets, sources), weights, extra keys by link, links to unknown nodes with their places)."""
    at = {raw["node_id"]: i for i, raw in enumerate(nodes_raw)}
    twins = {raw.pop("_old_id"): i for i, raw in enumerate(nodes_raw) if "_old_id" in raw}
    extras: dict[int, dict[str, Any]] = {}
    if isinstance(raws, list):
        targets, sources, weights, loose = _ends(where, raws, at, extras)
    else:
        targets, sources, weights, loose = raws.arrays(at)
    if twins:
        _tell_apart(targets, sources, at, twins, nodes, repairs)
    if loose:
        repairs.append(f"{len(loose)} links lead to nodes that are not in the file; kept aside")
    return (targets, sources), weights, extras, loose


def _ends(
    where: str, raws: list[dict[str, Any]], at: dict[str, int], extras: dict[int, dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[Any]]]:
    """Targets, sources, weights and loose links; what else links hold goes into ``extras``."""
    ends: list[tuple[int, int]] = []
    weights: list[float] = []
    loose: list[list[Any]] = []
    for i, raw in enumerate(raws):
        here = f"{where}: links[{i}]"
        source, target = expect(raw, "source", str, here), expect(raw, "target", str, here)
        weight = number(raw.get("weight"), f"{here}.weight")
        if source not in at or target not in at:
            loose.append([i, raw])
            continue
        if len(raw) > len(_LINK_KEYS):
            extras[len(ends)] = {k: v for k, v in raw.items() if k not in _LINK_KEYS}
        ends.append((at[target], at[source]))
        weights.append(weight)
    pairs = np.array(ends, np.int64).reshape(-1, 2).T.copy()
    return pairs[0], pairs[1], np.array(weights, np.float64), loose


def _tell_apart(
    targets: np.ndarray,
    sources: np.ndarray,
    at: dict[str, int],
    twins: dict[str, int],
    nodes: np.ndarray,
    repairs: list[str],
) -> None:
    """Decide, in place, which of two nodes of one old id a link leaves."""
    error_of = {at[name]: twin for name, twin in twins.items()}
    seen: set[tuple[int, int]] = set()
    guessed, end = 0, len(sources)
    for i in np.flatnonzero(np.isin(sources, list(error_of))).tolist():
        target, source = int(targets[i]), int(sources[i])
        error = error_of[source]
        feature_fits, error_fits = _fits(nodes, target, source), _fits(nodes, target, error)
        if feature_fits != error_fits:
            choice = source if feature_fits else error
        elif (target, source) in seen:
            choice = error
        else:
            # Within one target sources ascend: the error stands where its neighbours stand around it.
            before = sources[i - 1] if i and targets[i - 1] == target else -1
            after = sources[i + 1] if i + 1 < end and targets[i + 1] == target else len(nodes)
            in_place = [c for c in (source, error) if before < c and (c < after or after == source)]
            guessed += len(in_place) != 1
            choice = in_place[0] if in_place else source
        seen.add((target, source))
        sources[i] = choice
    if guessed:
        repairs.append(f"{guessed} links could belong to either and were given to the feature")


def _fits(nodes: np.ndarray, target: int, source: int) -> bool:
    """Whether an edge goes up a layer and not back in the text."""
    if nodes["kind"][target] == ERROR:
        return False
    later = nodes["position"][source] <= nodes["position"][target]
    places = [(int(nodes["layer"][i]), int(nodes["part"][i])) for i in (source, target)]
    higher = nodes["kind"][target] == TARGET or places[0] < places[1]
    return bool(later and higher)
