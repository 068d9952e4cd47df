"""The state of a page (VIEW: node numbers) from and to what files hold (qParams of the JSON dialect: node ids).

What the dialect has keys for goes there in the form that its schema asks for: pinnedIds and supernodes as arrays,
clickedId, linkType, hiddenIds, clerps and, where every box has a place, sg_pos. The rest (named views, places by name,
notes, the revision) is under one more key, "jaxinterp". Read is everything that other viewers write: comma strings, and
JSON inside strings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jaxinterp.graphs import Graph
from jaxinterp.graphs.ids import cantor, graph_ids
from jaxinterp.graphs.kinds import EMBEDDING, ERROR, FEATURE

View = dict[str, Any]
OWN_KEY = "jaxinterp"
_OURS = ("pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos", "hiddenIds", "clerps", OWN_KEY)


def empty() -> View:
    """A view in which nothing is chosen."""
    return {
        "pinned": [], "groups": [], "labels": {}, "clicked": None, "positions": {}, "hidden": [], "link_type": "both",
        "views": [], "notes": "",
    }  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A view from a file: its revision (0: never saved by us), what of it could not be used (one line each), and
    whether the file holds any choice at all."""

    view: View
    revision: int
    notes: tuple[str, ...]
    chosen: bool


class Names:
    """Node ids of a graph and the numbers that they stand for."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ids = graph_ids(graph)
        self.number = {name: i for i, name in enumerate(self.ids)}
        self._others: dict[str, int] | None = None

    def find(self, name: str) -> int | None:
        """The node of an id, or of a jsNodeId that no other node has."""
        if name in self.number:
            return self.number[name]
        if self._others is None:
            self._others = {}
            for at, raw in (self.graph.foreign or {}).get("nodes", {}).items():
                other = raw.get("jsNodeId")
                if isinstance(other, str):
                    self._others[other] = -1 if other in self._others else int(at)
        found = self._others.get(name, -1)
        return None if found < 0 else found

    def feature(self, node: int) -> str:
        """The text of the number that other viewers sort a node by (their key "feature")."""
        raw = (self.graph.foreign or {}).get("nodes", {}).get(str(node), {})
        if "feature" in raw:
            return "null" if raw["feature"] is None else str(raw["feature"])
        record = self.graph.nodes[node]
        kind, layer, index = int(record["kind"]), int(record["layer"]), int(record["index"])
        if kind == FEATURE:
            return str(cantor(layer, index))
        if kind == EMBEDDING:
            return str(int(record["position"]))
        return "-1" if kind == ERROR else str(index) if index >= 0 else "null"


def stored(graph: Graph, params: Any = None, names: Names | None = None) -> Stored:
    """The view that ``params`` (the graph's own qParams unless given) describes. Never fails: what cannot be used
    is said in notes."""
    params = graph.view if params is None else params
    names = names or Names(graph)
    if not isinstance(params, dict):
        return Stored(empty(), 0, ("the saved view is no object and was not used",), False)
    notes: list[str] = []
    own = params.get(OWN_KEY)
    own = own if isinstance(own, dict) else {}
    view = _read(params, own, names, notes)
    for entry in own.get("views", []) if isinstance(own.get("views"), list) else []:
        if (
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("view"), dict)
        ):
            inner = entry["view"]
            inner_own = inner.get(OWN_KEY)
            found = _read(inner, inner_own if isinstance(inner_own, dict) else {}, names, notes)
            del found["views"]
            view["views"].append({"name": entry["name"], "view": found})
    revision = own.get("revision", 0)
    revision = revision if type(revision) is int and 0 <= revision < 2**53 else 0
    chosen = bool(own) or any(view[key] for key in ("pinned", "groups", "labels", "hidden"))
    return Stored(view, revision, tuple(dict.fromkeys(notes)), chosen)


def params_of(
    view: View, names: Names, revision: int, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """qParams of a view (which `checking.checked` has seen); keys of ``before`` that are not ours are kept."""
    others = {key: value for key, value in (before or {}).items() if key not in _OURS}
    found = {**others, **_written(view, names)}
    found[OWN_KEY] |= {"version": 1, "revision": revision}
    if view.get("views"):
        found[OWN_KEY]["views"] = [
            {"name": entry["name"], "view": _written(entry["view"], names)} for entry in view["views"]
        ]
    return found


def _written(view: View, names: Names) -> dict[str, Any]:
    ids = names.ids
    positions = {
        f"n:{ids[int(key[1:])]}" if key.startswith("n") else key: value
        for key, value in view["positions"].items()
    }
    own: dict[str, Any] = {}
    if positions:
        own["positions"] = positions
    if view.get("notes"):
        own["notes"] = view["notes"]
    members = [i for group in view["groups"] for i in group["members"]]
    found: dict[str, Any] = {
        "pinnedIds": [ids[i] for i in dict.fromkeys([*view["pinned"], *members])],
        "supernodes": [[group["name"], *(ids[i] for i in group["members"])] for group in view["groups"]],
        "linkType": view["link_type"],
        "clickedId": "" if view["clicked"] is None else ids[view["clicked"]],
        "sg_pos": _sg_pos(view, names),
    }
    if view["hidden"]:
        found["hiddenIds"] = [ids[i] for i in view["hidden"]]
    if view["labels"]:
        found["clerps"] = [[ids[int(key)], text] for key, text in view["labels"].items()]
    return {**found, OWN_KEY: own}


def _boxes(view: View, names: Names) -> list[str]:
    """Keys of what the subgraph pane shows, in the order of sg_pos: by the sorted feature numbers of their members,
    as texts."""
    pinned = set(view["pinned"])
    grouped: set[int] = set()
    found = []
    for group in view["groups"]:
        members = [i for i in group["members"] if i in pinned]
        grouped.update(members)
        if members:
            found.append((",".join(sorted(names.feature(i) for i in members)), f"g:{group['name']}"))
    found += [(names.feature(i), f"n{i}") for i in view["pinned"] if i not in grouped]
    return [key for _, key in sorted(found, key=lambda box: box[0])]


def _sg_pos(view: View, names: Names) -> str:
    boxes = _boxes(view, names)
    if not boxes or not all(key in view["positions"] for key in boxes):
        return ""
    return " ".join(str(round(1000 * x)) for key in boxes for x in view["positions"][key])


def _read(params: dict[str, Any], own: dict[str, Any], names: Names, notes: list[str]) -> View:
    view = empty()
    view["pinned"] = _nodes(params.get("pinnedIds"), names, "pinned nodes", notes)
    view["hidden"] = _nodes(params.get("hiddenIds"), names, "hidden nodes", notes)
    view["groups"] = _groups(params.get("supernodes"), names, notes)
    view["labels"] = _labels(params.get("clerps"), names, notes)
    clicked = params.get("clickedId")
    if isinstance(clicked, str) and clicked:
        view["clicked"] = names.find(clicked)
        if view["clicked"] is None:
            notes.append("the node that was open is not in this graph")
    if isinstance(params.get("linkType"), str) and params["linkType"]:
        view["link_type"] = clean(params["linkType"], 40)
    if isinstance(own.get("notes"), str):
        view["notes"] = clean(own["notes"])
    pinned = set(view["pinned"])
    missing = [i for group in view["groups"] for i in group["members"] if i not in pinned]
    view["pinned"] += missing  # viewers draw pinned nodes alone
    view["positions"] = _positions(own.get("positions"), names, view)
    if not view["positions"]:
        _from_sg_pos(params.get("sg_pos"), view, names, notes)
    return view


def _listed(value: Any) -> list[Any] | None:
    """A list, given as one, as JSON in a text, or with commas between; None where it is none of these."""
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        else:
            value = [part.strip() for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else None


def _nodes(value: Any, names: Names, what: str, notes: list[str]) -> list[int]:
    if value is None or value == "":
        return []
    listed = _listed(value)
    if listed is None:
        notes.append(f"the saved {what} are no list and were not used")
        return []
    found = [names.find(name) if isinstance(name, str) else None for name in listed]
    lost = sum(node is None for node in found)
    if lost:
        notes.append(f"{lost} of {len(found)} saved {what} are not in this graph")
    return list(dict.fromkeys(node for node in found if node is not None))


def _groups(value: Any, names: Names, notes: list[str]) -> list[dict[str, Any]]:
    if value is None or value == "":
        return []
    listed = _listed(value)
    if listed is None:
        notes.append("the saved supernodes are no list and were not used")
        return []
    found, taken, used = [], set[int](), set[str]()
    lost = twice = 0
    for entry in listed:
        entry = _listed(entry) if isinstance(entry, str) else entry
        if not (isinstance(entry, list) and entry and all(isinstance(x, str) for x in entry)):
            notes.append("a saved supernode is no list of a name and ids and was not used")
            continue
        known = [names.find(name) for name in entry[1:]]
        lost += sum(node is None for node in known)
        members = list(dict.fromkeys(node for node in known if node is not None))
        twice += sum(node in taken for node in members)
        members = [node for node in members if node not in taken]
        taken.update(members)
        if members:
            found.append({"name": _free(clean(entry[0], 200), used), "members": members})
    if lost:
        notes.append(f"{lost} members of saved supernodes are not in this graph")
    if twice:
        notes.append(f"{twice} nodes were in two saved supernodes and stay in the first")
    return found


def _free(name: str, used: set[str]) -> str:
    """The name, with a number behind it where it is taken: places and edits go by name."""
    found, count = name, 2
    while found in used:
        found, count = f"{name} ({count})", count + 1
    used.add(found)
    return found


def _labels(value: Any, names: Names, notes: list[str]) -> dict[str, str]:
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        notes.append("the saved labels are no list and were not used")
        return {}
    found: dict[str, str] = {}
    by_feature: dict[str, list[int]] | None = None
    lost = 0
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[1], str)):
            lost += 1
            continue
        node = names.find(str(pair[0]))
        nodes = [] if node is None else [node]
        if node is None:  # some viewers name the feature, not the node
            if by_feature is None:
                by_feature = {}
                for i in range(len(names.ids)):
                    if names.graph.nodes["kind"][i] == FEATURE:
                        by_feature.setdefault(names.feature(i), []).append(i)
            nodes = by_feature.get(str(pair[0]), [])
        lost += not nodes
        found |= {str(i): clean(pair[1], 2000) for i in nodes}
    if lost:
        notes.append(f"{lost} saved labels belong to no node of this graph")
    return found


def _positions(value: Any, names: Names, view: View) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    groups = {group["name"] for group in view["groups"]}
    for key, place in value.items() if isinstance(value, dict) else ():
        spot = point(place)
        node = names.find(key[2:]) if key.startswith("n:") else None
        if spot is not None and node is not None:
            found[f"n{node}"] = spot
        elif spot is not None and key.startswith("g:") and key[2:] in groups:
            found[key] = spot
    return found


def _from_sg_pos(value: Any, view: View, names: Names, notes: list[str]) -> None:
    """Fill in, in place, the places that another viewer saved."""
    words = value.split() if isinstance(value, str) else []
    if not words:
        return
    boxes = _boxes(view, names)
    try:
        numbers = [float(word) / 1000 for word in words]
    except ValueError:
        numbers = []
    places = [point([x, y]) for x, y in zip(numbers[::2], numbers[1::2], strict=False)]
    if len(numbers) != 2 * len(boxes) or any(place is None for place in places):
        notes.append("the saved places (sg_pos) do not fit the pinned nodes and were not used")
        return
    view["positions"] = {key: place for key, place in zip(boxes, places, strict=True) if place is not None}


def point(value: Any) -> list[float] | None:
    """A place [x, y] in the pane, or None where it is none."""
    if not (isinstance(value, list | tuple) and len(value) == 2):
        return None
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= 100 for x in value):
        return None
    return [round(float(x), 5) for x in value]


def clean(text: str, most: int = 100_000) -> str:
    """Text that every file can hold: cut to ``most`` characters, halves of surrogate pairs replaced."""
    return text[:most].encode("utf-8", "replace").decode("utf-8")
