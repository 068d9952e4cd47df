"""Two graphs side by side: which nodes are the same, and which edges between them differ most.

Nodes are the same by kind, part, layer, number and place; tokens by their number (or text, where numbers mean something
else in the other graph) and place; targets by number or text alone. Places are counted from the end of the prompt, but
from its start for the tokens with which both begin: models that read forward do the same there. Features of different
dictionaries have nothing in common but their numbers and are not matched.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxinterp.graphs import EMBEDDING, FEATURE, KIND_NAMES, TARGET, Graph
from jaxinterp.graphs.build import rows_of
from jaxinterp.graphs.influence import target_weights
from jaxinterp.graphs.order import row_sums
from jaxinterp.graphs.summary import target_text

MOST = 2000
LOOKED = 300_000  # edges of each graph, the strongest, among which the differences are sought


def compare(a: Graph, b: Graph, most: int = MOST) -> dict[str, Any]:
    """The answer of GET /api/compare: {"pairs", "only_a", "only_b", "edges", "notes"}.

    edges: [[target a, source a, target b, source b, weight a, weight b]], at most ``most``, largest difference first:
    of how much of the influence on the targets runs along them, |A[t, s]| / Σ_s |A[t, s]| (q_t + p_t) with the sign of
    the weight. 0 stands for an edge that one of the two has not.
    """
    notes: list[str] = []
    features = _same_features(a, b, notes)
    by_number = _same_tokens(a, b, notes)
    shared = _shared(a, b, by_number)
    first, second, again = _matched(*(_keys(graph, features, by_number, shared) for graph in (a, b)))
    order = np.argsort(first, kind="stable")
    first, second = first[order], second[order]
    if again:
        notes.append(
            f"{again} nodes share their place and number with another; they were matched in their order."
        )
    if a.n_layers != b.n_layers:
        notes.append(
            f"The models have {a.n_layers} and {b.n_layers} layers; layers are counted from the first."
        )
    if len(a.token_ids) != len(b.token_ids):
        start = f"; the first {shared} are the same and matched from the start" if shared else ""
        sizes = f"{len(a.token_ids)} and {len(b.token_ids)}"
        notes.append(f"The prompts have {sizes} tokens{start}; positions are counted from the end.")
    if any(graph.pruned or (graph.foreign or {}).get("whole") for graph in (a, b)):
        notes.append("What is in one graph alone may have been pruned from the other.")
    edges, flow = _edges(a, b, first, second, most)
    if not flow:
        notes.append("Influence is unknown in one of the graphs; links are ordered by their share of inputs.")
    notes += _counted(a, b, first)
    only_a = np.setdiff1d(np.arange(len(a)), first, assume_unique=True)
    only_b = np.setdiff1d(np.arange(len(b)), second)
    return {
        "pairs": np.stack([first, second], axis=1).tolist(),
        "only_a": only_a.tolist(),
        "only_b": only_b.tolist(),
        "edges": edges,
        "notes": notes,
    }


def _same_features(a: Graph, b: Graph, notes: list[str]) -> bool:
    """Whether features of the two graphs are of one dictionary, as far as the files say."""
    one, two = _dictionary(a), _dictionary(b)
    if one and two and one[0] == two[0] and one[1] != two[1]:
        notes.append("The graphs are of different dictionaries, so features were not matched.")
        return False
    if not (one and two and one == two):
        notes.append(
            "Whether both graphs are of one dictionary is not recorded; features were matched by number."
        )
    return True


def _dictionary(graph: Graph) -> tuple[str, str] | None:
    """What tells dictionaries apart: (sort of name, name)."""
    digest = graph.provenance.get("dictionary_digest")
    if isinstance(digest, str) and digest:
        return "digest", digest
    metadata = (graph.foreign or {}).get("metadata", {})
    info = metadata.get("info") if isinstance(metadata.get("info"), dict) else {}
    for holder, key in ((info, "transcoder_set"), (info, "neuronpedia_source_set"), (metadata, "scan")):
        if isinstance(holder.get(key), str) and holder[key]:
            return key, holder[key]
    return None


def _same_tokens(a: Graph, b: Graph, notes: list[str]) -> bool:
    """Whether token numbers mean the same in both graphs; else texts are compared."""
    known = all(i >= 0 for graph in (a, b) for i in graph.token_ids)
    texts = [dict(zip(graph.token_ids, graph.token_texts, strict=True)) for graph in (a, b)]
    clash = any(texts[0][i] != texts[1][i] for i in texts[0].keys() & texts[1].keys())
    one, two = (graph.provenance.get("model_digest") for graph in (a, b))
    if not known or clash or (one and two and one != two):
        notes.append("Tokens were matched by their text.")
        return False
    return True


def _shared(a: Graph, b: Graph, by_number: bool) -> int:
    """With how many tokens both prompts begin; 0 where they are equally long, so that it makes no difference."""
    if len(a.token_ids) == len(b.token_ids):
        return 0
    one, two = ((graph.token_ids if by_number else graph.token_texts) for graph in (a, b))
    length = min(len(one), len(two))
    return next((i for i in range(length) if one[i] != two[i]), length)


def _keys(graph: Graph, features: bool, by_number: bool, shared: int) -> list[tuple[Any, ...] | None]:
    """What each node is known by, None for one that is not to be matched."""
    nodes, length = graph.nodes, len(graph.token_ids)
    columns = [nodes[name].tolist() for name in ("kind", "part", "layer", "position", "index")]
    found: list[tuple[Any, ...] | None] = []
    for i, (kind, part, layer, position, index) in enumerate(zip(*columns, strict=True)):
        place = -1 - position if position < shared else length - position
        if kind == TARGET:
            token = index >= 0 and layer >= graph.n_layers
            read_at = () if token or layer >= graph.n_layers else (part, layer)
            name: Any = index if (token and by_number) or read_at else target_text(graph, i).strip()
            found.append((kind, name, *read_at))
        elif kind == EMBEDDING:
            found.append((kind, index if by_number else graph.token_texts[position], place))
        elif kind == FEATURE and (not features or index < 0):
            found.append(None)
        else:
            found.append((kind, part, layer, index, place))
    return found


def _matched(
    a: list[tuple[Any, ...] | None], b: list[tuple[Any, ...] | None]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Pairs of places with the same key, and how many nodes had a key that was not theirs alone."""
    places: dict[tuple[Any, ...], list[int]] = {}
    for i, key in enumerate(b):
        if key is not None:
            places.setdefault(key, []).append(i)
    first, second, seen = [], [], dict[tuple[Any, ...], int]()
    for i, key in enumerate(a):
        if key is None or key not in places:
            continue
        at = seen.get(key, 0)
        seen[key] = at + 1
        if at < len(places[key]):
            first.append(i)
            second.append(places[key][at])
    again = sum(max(seen[key], len(places[key])) for key in seen if seen[key] > 1 or len(places[key]) > 1)
    return np.array(first, np.int64), np.array(second, np.int64), again


def _edges(
    a: Graph, b: Graph, first: np.ndarray, second: np.ndarray, most: int
) -> tuple[list[list[Any]], bool]:
    """The edges between matched nodes that differ most, and whether by the influence along them."""
    count = max(len(first), 1)
    known = all(np.isfinite(g.nodes["influence"]).any() for g in (a, b))
    sides = [_Side(graph, nodes, known) for graph, nodes in ((a, first), (b, second))]
    keys = np.union1d(*(side.strongest(LOOKED) for side in sides))
    targets, sources = np.divmod(keys, count)
    (flow_a, weight_a), (flow_b, weight_b) = (side.look(targets, sources) for side in sides)
    difference = np.abs(flow_a - flow_b)
    order = np.argsort(-difference, kind="stable")[:most]
    order = order[difference[order] > 0]
    targets, sources = targets[order], sources[order]
    columns = [
        first[targets],
        first[sources],
        second[targets],
        second[sources],
        weight_a[order],
        weight_b[order],
    ]
    return [list(row) for row in zip(*(column.tolist() for column in columns), strict=True)], known


class _Side:
    """One of the two graphs; nodes (P,): the node of every pair."""

    def __init__(self, graph: Graph, nodes: np.ndarray, known: bool) -> None:
        self.graph, self.nodes = graph, nodes
        total = row_sums(graph.csr)
        matter = (
            np.nan_to_num(graph.nodes["influence"] + target_weights(graph.nodes))
            if known
            else np.ones(len(graph))
        )
        self.factor = matter / np.where(total > 0, total, 1.0)

    def strongest(self, most: int) -> np.ndarray:
        """The edges between matched nodes as target's pair · P + source's pair, at most ``most``, the strongest."""
        pair = np.full(len(self.graph), -1, np.int64)
        pair[self.nodes] = np.arange(len(self.nodes))
        rows, columns = rows_of(self.graph.csr), self.graph.indices
        found = np.flatnonzero((pair >= 0)[rows] & (pair >= 0)[columns])
        if len(found) > most:
            strength = np.abs(self.graph.weights[found]) * self.factor.astype(np.float32)[rows[found]]
            found = found[np.argpartition(strength, len(found) - most)[len(found) - most :]]
        return pair[rows[found]] * len(self.nodes) + pair[columns[found]]

    def look(self, targets: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed flow and weight of the edges between these pairs, 0 where there is none."""
        n, weights = len(self.graph), self.graph.weights
        if not len(weights) or not len(targets):
            return np.zeros(len(targets)), np.zeros(len(targets))
        edges = rows_of(self.graph.csr).astype(np.int64) * n + self.graph.indices  # ascending
        rows = self.nodes[targets]
        wanted = rows * n + self.nodes[sources]
        at = np.minimum(np.searchsorted(edges, wanted), len(edges) - 1)
        weight = np.where(edges[at] == wanted, weights[at].astype(np.float64), 0.0)
        return weight * self.factor[rows], weight


def _counted(a: Graph, b: Graph, first: np.ndarray) -> list[str]:
    matched = np.bincount(a.nodes["kind"][first], minlength=len(KIND_NAMES))
    lines = []
    for kind, name in enumerate(KIND_NAMES):
        sizes = [int((graph.nodes["kind"] == kind).sum()) for graph in (a, b)]
        if any(sizes):
            plural = name + ("es" if name.endswith("s") else "s")
            lines.append(f"{plural}: {int(matched[kind])} in both, of {sizes[0]} and {sizes[1]}.")
    return lines
