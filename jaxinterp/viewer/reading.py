"""The reading of a graph in one line, and the few nodes to begin with.

Of the most influential features groups are made (`graphs.propose`), and of the most influential tokens short runs of
neighbours. A route is a run of tokens and up to three groups on the way to the target; its share is that of all
influence on the target that passes them in this order (walks.py). Chosen is, among the routes that carry a fair part of
what the best run of tokens carries, the one with the most groups, and of those the one with the largest share.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import EMBEDDING, ERROR, FEATURE, TARGET, Flow, Graph, propose, strongest
from jaxinterp.graphs.summary import target_text
from jaxinterp.viewer.walks import Visits, visits

FEATURES = 40  # compared
TOKENS = 16
AT_LEAST = 0.3  # likeness of the members of a group
FAIR = 0.2  # of the best run's share
SMALL = 0.02
MOST_STOPS = 3
MOST_PINNED = 16
GROUP = 5  # as so many nodes of these counts a group at most
LONGEST_RUN = 3
NAMING = 1 / 3  # share of a group's influence
LONGEST_NAME = 160  # letters; names that are saved may have 200

Group = dict[str, Any]
Label = Callable[[int], str]


@dataclass(frozen=True, eq=False)
class Reading:
    """text: the line. stops: what its arrows join, (name, nodes) each. nodes: a path from a token to the target.

    share: of influence on the target that takes the route; error_share: that ends in error nodes. pinned, groups: the
    automatic subgraph."""

    text: str
    stops: tuple[tuple[str, tuple[int, ...]], ...]
    nodes: tuple[int, ...]
    share: float
    error_share: float
    target: int
    pinned: tuple[int, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True, eq=False)
class _Route:
    run: list[int]
    groups: list[Group]  # token's side first
    share: float


def top_target(graph: Graph) -> int:
    """The most probable target; the first where none has a probability."""
    targets = graph.targets
    chance = np.nan_to_num(graph.nodes["probability"][targets], nan=-1.0)
    return int(targets[int(np.argmax(chance))])


def read(graph: Graph, label: Label | None = None) -> Reading:
    """The reading of a graph for its most probable target.

    label: a feature's label from elsewhere, "" for none. Raises InputError where the graph has a cycle.
    """
    kinds, target = graph.nodes["kind"], top_target(graph)
    flow = Flow.of(graph.csr, kinds == TARGET, graph.convention)
    influence = flow.influence((np.arange(len(graph)) == target).astype(np.float64))
    features = _most(influence, kinds == FEATURE, FEATURES)
    tokens = _most(influence, kinds == EMBEDDING, TOKENS)
    found = visits(flow, np.concatenate([[target], features, tokens]))
    groups = _groups(graph, features, label)
    runs = _runs(graph, tokens, influence, target)
    route = _best(found, runs, groups)
    errors = float(influence[kinds == ERROR].sum())
    nodes = _path(graph, flow, found, route, target)
    pinned = _pinned(graph, route, influence, features, tokens, target)
    chosen = set(pinned)
    shown = [[i for i in group["members"] if i in chosen] for group in groups]
    stops = _stops(graph, route, target)
    return Reading(
        text=_text(graph, stops, route.share, errors),
        stops=stops,
        nodes=nodes,
        share=route.share,
        error_share=errors,
        target=target,
        pinned=pinned,
        # Named by the members that they have here: the others are left out.
        groups=tuple(named_groups(graph, [members for members in shown if len(members) > 1], label)),
    )


def plain_start(graph: Graph) -> tuple[int, ...]:
    """Nodes to begin with where influence cannot be told: the target and its strongest inputs."""
    target = top_target(graph)
    low, high = int(graph.indptr[target]), int(graph.indptr[target + 1])
    order = np.argsort(-np.abs(graph.weights[low:high]), kind="stable")[: MOST_PINNED - 1]
    return (*sorted(int(i) for i in graph.indices[low:high][order] if i != target), target)


def say(graph: Graph, target: int) -> str:
    """A target in words: "say Austin" for a token, its name for anything else."""
    text = target_text(graph, target)
    record = graph.nodes[target]
    if record["index"] < 0 or record["layer"] < graph.n_layers:
        return shown(text)
    return f"say {shown(text)}"


def shown(text: str) -> str:
    """A text inside a line: bare where that can be read, else in quotes."""
    bare = text.strip()
    if bare and bare.isprintable() and not set(bare) & set("\"'“”→,;"):
        return bare
    return "“" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + "”"


def _most(influence: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """Node numbers of the mask, most influential first; none without influence."""
    nodes = np.flatnonzero(mask & (influence > 0))
    return nodes[np.argsort(-influence[nodes], kind="stable")[:count]]


def _groups(graph: Graph, features: np.ndarray, label: Label | None) -> list[Group]:
    """Groups of features that are alike, and the others as groups of one, with names."""
    if not len(features):
        return []
    try:
        preview = propose(graph, features=features.tolist(), at_least=AT_LEAST)
        members = [list(p.supernode.members) for p in preview.proposals] + [[i] for i in preview.single]
    except InputError:
        members = [[int(i)] for i in features]
    return named_groups(graph, members, label)


def named_groups(graph: Graph, members: Sequence[list[int]], label: Label | None) -> list[Group]:
    """Groups of these members; a name that another group has gets a number."""
    names: dict[str, int] = {}
    found = []
    for group in members:
        name = _name(graph, group, label)
        names[name] = names.get(name, 0) + 1
        found.append({"name": name if names[name] == 1 else f"{name} ({names[name]})", "members": group})
    return found


def _name(graph: Graph, members: Sequence[int], label: Label | None) -> str:
    """The label whose members have most of the influence, if labelled ones have a third of the group's ("Texas …" if
    those of this label alone have less); else their layers and tokens."""
    nodes = graph.nodes[list(members)]
    weights = np.nan_to_num(nodes["influence"])
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(len(members), 1 / len(members))
    held: dict[str, float] = {}
    for i, weight in zip(members, weights.tolist(), strict=True):
        text = " ".join((graph.labels[i] or (label(i) if label else "")).split())
        if text:
            held[text] = held.get(text, 0.0) + weight
    found = max(held, key=lambda text: held[text], default="")
    if sum(held.values()) >= NAMING:
        whole = held[found] >= NAMING and len(found) <= LONGEST_NAME
        return found if whole else found[: LONGEST_NAME - 2].rstrip() + " …"
    low, high = int(nodes["layer"].min()), int(nodes["layer"].max())
    places = list(dict.fromkeys(nodes["position"].tolist()))[:3]
    where = " ".join(shown(graph.token_texts[i]) for i in places)
    layers = f"layer {low}" if low == high else f"layers {low}–{high}"
    if len(members) == 1:
        return f"feature {int(nodes['index'][0])} ({layers}, {where})"
    return f"{layers} at {where}"


def _runs(graph: Graph, tokens: np.ndarray, influence: np.ndarray, target: int) -> list[list[int]]:
    """Runs of neighbouring tokens of like influence, around the strongest; tokens that only mark the start and the
    target's own token only where there are no others."""
    place = {int(graph.nodes["position"][i]): int(i) for i in tokens}
    own = int(graph.nodes["position"][target])
    usable = [i for i in tokens.tolist() if not _marks(graph, i) and int(graph.nodes["position"][i]) != own]
    usable = usable or tokens.tolist()
    found: list[list[int]] = []
    free = set(usable)
    for node in usable[:4]:
        if node not in free:
            continue
        run, at = [node], int(graph.nodes["position"][node])
        for step in (-1, 1):
            near = place.get(at + step)
            while near in free and len(run) < LONGEST_RUN and influence[near] >= 0.5 * influence[node]:
                run.append(near)
                near = place.get(int(graph.nodes["position"][near]) + step)
        free -= set(run)
        found.append(sorted(run, key=lambda i: int(graph.nodes["position"][i])))
    return found


def _marks(graph: Graph, token: int) -> bool:
    """Whether a token is one like <bos>."""
    text = graph.token_texts[int(graph.nodes["position"][token])].strip()
    return text.startswith("<") and text.endswith(">") and len(text) > 2


def _best(found: Visits, runs: list[list[int]], groups: list[Group]) -> _Route:
    place = {int(node): i for i, node in enumerate(found.stops)}
    boxes = [[place[i] for i in group["members"]] for group in groups]
    routes: list[_Route] = []
    for run in runs:
        end = [place[i] for i in run]
        whole = found.through([end])
        routes.append(_Route(run, [], whole))
        level: list[tuple[int, ...]] = [()]
        for _ in range(MOST_STOPS):
            longer = []
            for used, at in itertools.product(level, range(len(boxes))):
                if at in used:
                    continue
                stops = (*used, at)  # target's side first
                share = found.through([*(boxes[i] for i in stops), end])
                if share >= max(FAIR * whole, SMALL):
                    longer.append((share, stops))
                    routes.append(_Route(run, [groups[i] for i in reversed(stops)], share))
            level = [stops for _, stops in sorted(longer, key=lambda one: -one[0])[:8]]
    if not routes:
        return _Route([], [], 0.0)
    most = max(route.share for route in routes if not route.groups)
    fair = [route for route in routes if route.share >= FAIR * most]
    return max(fair, key=lambda route: (len(route.groups), route.share))


def _path(graph: Graph, flow: Flow, found: Visits, route: _Route, target: int) -> tuple[int, ...]:
    """The strongest path along the route; where none of the strongest takes it, its strongest members."""
    for path in strongest(graph.csr, graph.nodes["kind"], target, 40, graph.convention, flow):
        sets = [route.run, *(group["members"] for group in route.groups)]
        if all(set(path.nodes) & set(members) for members in sets if members):
            return path.nodes
    place = {int(node): i for i, node in enumerate(found.stops)}
    stops = [
        [place[i] for i in members]
        for members in (*(g["members"] for g in reversed(route.groups)), route.run)
    ]
    chosen = []
    for at, members in enumerate(stops):
        if members:
            best = max(members, key=lambda one: found.through([*stops[:at], [one], *stops[at + 1 :]]))
            chosen.append(int(found.stops[best]))
    return (*reversed(chosen), target)


def _pinned(
    graph: Graph, route: _Route, influence: np.ndarray, features: np.ndarray, tokens: np.ndarray, target: int
) -> tuple[int, ...]:
    """About MOST_PINNED nodes or groups of some: the target, the route, then what is most influential."""
    others = [int(t) for t in graph.targets if t != target]
    chance = np.nan_to_num(graph.nodes["probability"])
    found = [target, *(t for t in others[:1] if chance[t] >= 0.5 * chance[target] > 0), *route.run]
    # A group is one box, so all of it: the box is then what the line names.
    count = len(found) + sum(min(len(group["members"]), GROUP) for group in route.groups)
    for group in route.groups:
        found += group["members"]
    rest = sorted([*features.tolist(), *tokens[:4].tolist()], key=lambda i: -influence[i])
    found += [int(node) for node in rest if node not in found][: max(0, MOST_PINNED - count)]
    return tuple(sorted(dict.fromkeys(found)))


def _stops(graph: Graph, route: _Route, target: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """What the line names: the tokens, the groups, the target; the target alone where no token has influence."""
    last = (say(graph, target), (target,))
    if not route.run:
        return (last,)
    texts = [graph.token_texts[int(graph.nodes["position"][i])] for i in route.run]
    words = "".join(texts) if texts[1:] and texts[1].startswith(" ") else " ".join(t.strip() for t in texts)
    first = shown(texts[0] if len(texts) == 1 else words)
    middle = [(str(group["name"]), tuple(int(i) for i in group["members"])) for group in route.groups]
    return ((first, tuple(int(i) for i in route.run)), *middle, last)


def _text(graph: Graph, stops: Sequence[tuple[str, tuple[int, ...]]], share: float, errors: float) -> str:
    through = f"; {_percent(errors)} through error nodes" if errors > 0 else ""
    names = [name for name, _ in stops]
    if len(names) == 1:
        return f"{names[0]}: no token has influence on it{through}"
    pruned = " in the pruned graph" if graph.pruned else ""
    return f"{' → '.join(names)}, {_percent(share)} of influence{pruned}{through}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
