"""What viewers of the JSON dialect need of a file, and how a graph from elsewhere is given it when written.

Anthropic's, circuit-tracer's and Neuronpedia's viewers
- tell nodes apart by jsNodeId, which circuit-tracer gives to several nodes: it is written as the node's id;
- take a target's token from between the first two double quotes of its label and its probability from behind "(p=",
  and stop at a label that lacks them (an empty one they bear): they are added;
- want lists in qParams, where circuit-tracer's server stores texts: these are taken apart.
"""

from __future__ import annotations

import json
import math
from typing import Any

QPARAMS: dict[str, Any] = {
    "pinnedIds": [],
    "supernodes": [],
    "linkType": "both",
    "clickedId": "",
    "sg_pos": "",
}


def target_label(label: str, probability: float) -> str:
    """A target's label with a token between double quotes and "(p=" behind it; an empty one stays so.

    An unknown probability is written as "?".
    """
    if not label:
        return ""
    start, mark, end = label.rpartition("(p=")
    text = start if mark else label
    if text.count('"') < 2:
        text = 'Output "' + text.strip().replace('"', "''") + '" '
    if mark:
        return f"{text}(p={end}"
    shown = f"{probability:.3f}" if math.isfinite(probability) else "?"
    return f"{text.rstrip()} (p={shown})"


def quoted_token(text: str) -> str:
    """A token as it can stand between the double quotes of a target's label."""
    return text.replace('"', "''").replace("(p=", "(p =")


def with_lists(view: dict[str, Any]) -> dict[str, Any]:
    """A viewer's state with lists of pins and supernodes, where a program stored them as texts."""
    view = dict(view)
    pins, groups = view.get("pinnedIds"), view.get("supernodes")
    if isinstance(pins, str):
        view["pinnedIds"] = [part for part in pins.split(",") if part]
    if isinstance(groups, str):
        found = _groups(groups)
        if found is None:
            view["supernodes_unread"] = groups
        view["supernodes"] = found or []
    return view


def writable(view: dict[str, Any]) -> dict[str, Any]:
    """The state without what the schema does not allow: known keys with values of another type."""
    view = with_lists(view)
    view = {key: value for key, value in view.items() if isinstance(value, type(QPARAMS.get(key, value)))}
    if not all(isinstance(pin, str) for pin in view.get("pinnedIds", [])):
        view["pinnedIds"] = [pin for pin in view["pinnedIds"] if isinstance(pin, str)]
    return view


def _groups(text: str) -> list[list[str]] | None:
    """Supernodes from a text: JSON, as in links to these viewers. None where it is something else."""
    if not text.strip():
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    right = isinstance(found, list) and all(
        isinstance(group, list) and group and all(isinstance(x, str) for x in group) for group in found
    )
    return found if right else None
