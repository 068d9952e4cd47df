"""A view that came over the wire: taken apart and put together again, so that nothing else can be in it."""

from __future__ import annotations

from typing import Any

from jaxinterp.viewer.messages import Refused
from jaxinterp.viewer.view import View, clean, empty, point

MOST_VIEWS = 200
MOST_NAME = 200
MOST_LABEL = 2000


def checked(value: Any, n: int, inner: bool = False) -> View:
    """The view ``value`` of a graph with n nodes. Raises Refused (400) naming the key that does not fit.

    Keys that are left out are empty; groups without members are dropped. inner: a named view, which has no
    named views itself.
    """
    if not isinstance(value, dict):
        raise Refused(400, "view: expected an object")
    known = empty()
    if inner:
        del known["views"]
    unknown = [str(key)[:40] for key in value if key not in known]
    if unknown:
        raise Refused(400, f"view: unknown key {unknown[0]!r}")
    view = {
        **known,
        "pinned": nodes(value.get("pinned"), n, "pinned"),
        "hidden": nodes(value.get("hidden"), n, "hidden"),
    }
    view["groups"] = _groups(value.get("groups"), n)
    labels = value.get("labels") or {}
    if not isinstance(labels, dict):
        raise Refused(400, "view.labels: expected an object")
    for key, text in labels.items():
        view["labels"][str(_number(key, n, "labels"))] = _text(text, "labels", MOST_LABEL)
    if value.get("clicked") is not None:
        view["clicked"] = node(value["clicked"], n, "clicked")
    view["positions"] = _positions(value.get("positions"), n)
    if value.get("link_type") is not None:
        view["link_type"] = _text(value["link_type"], "link_type", 40)
    if value.get("notes") is not None:
        view["notes"] = _text(value["notes"], "notes", 100_000)
    if not inner:
        views = _list(value.get("views"), "views")
        if len(views) > MOST_VIEWS:
            raise Refused(400, f"view.views: {len(views)} named views, at most {MOST_VIEWS}")
        for entry in views:
            if not isinstance(entry, dict) or set(entry) != {"name", "view"}:
                raise Refused(400, "view.views: expected objects of a name and a view")
            view["views"].append(
                {
                    "name": _text(entry["name"], "views", MOST_NAME),
                    "view": checked(entry["view"], n, inner=True),
                }
            )
    return view


def node(value: Any, n: int, where: str) -> int:
    """A node number. Raises Refused (400)."""
    if type(value) is not int or not 0 <= value < n:
        raise Refused(400, f"view.{where}: expected node numbers from 0 to {n - 1}")
    return value


def nodes(value: Any, n: int, where: str) -> list[int]:
    """Node numbers, each once. Raises Refused (400)."""
    return list(dict.fromkeys(node(item, n, where) for item in _list(value, where)))


def _groups(value: Any, n: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    taken: set[int] = set()
    for entry in _list(value, "groups"):
        if not isinstance(entry, dict) or set(entry) != {"name", "members"}:
            raise Refused(400, "view.groups: expected objects of a name and members")
        name, members = _text(entry["name"], "groups", MOST_NAME), nodes(entry["members"], n, "groups")
        if not members:
            continue
        if not taken.isdisjoint(members):
            raise Refused(400, "view.groups: a node is in two groups")
        if any(name == other["name"] for other in found):
            raise Refused(400, "view.groups: two groups have the same name")
        taken.update(members)
        found.append({"name": name, "members": members})
    return found


def _positions(value: Any, n: int) -> dict[str, list[float]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(400, "view.positions: expected an object")
    found = {}
    for key, place in value.items():
        spot = point(place)
        if spot is None:
            raise Refused(400, "view.positions: expected places [x, y]")
        if key.startswith("g:"):
            found[clean(key, MOST_NAME + 2)] = spot
        elif key.startswith("n"):
            found[f"n{_number(key[1:], n, 'positions')}"] = spot
        else:
            raise Refused(400, "view.positions: expected keys 'n<node>' or 'g:<group>'")
    return found


def _number(key: str, n: int, where: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) < 12 and int(key) < n):
        raise Refused(400, f"view.{where}: expected node numbers from 0 to {n - 1}")
    return int(key)


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refused(400, f"view.{where}: expected a list")
    return value


def _text(value: Any, where: str, most: int) -> str:
    if not isinstance(value, str):
        raise Refused(400, f"view.{where}: expected a text")
    if len(value) > most:
        raise Refused(400, f"view.{where}: a text of {len(value)} characters, at most {most}")
    return clean(value)
