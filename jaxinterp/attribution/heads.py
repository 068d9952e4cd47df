"""Head loadings: which attention heads carry an edge.

An edge is a sum over paths along the residual stream and through heads. It is divided exactly: paths without a head,
and for each head of each layer the paths that pass it last before the target, or first after the source. For paths
through one layer that is the head loading of Kamath et al. 2025, "Tracing Attention Computation Through Feature
Interactions".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxinterp.attribution.heads_open import Reading, opened
from jaxinterp.attribution.heads_record import SIDES, HeadLoadings
from jaxinterp.attribution.prepare import prepare
from jaxinterp.attribution.readings import FINAL
from jaxinterp.attribution.replaced import Replaced, keys_of, replace
from jaxinterp.attribution.targets import resolve
from jaxinterp.attribution.wanted import Token
from jaxinterp.attribution.wanted_plain import from_plain
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.kinds import FEATURE, KIND_NAMES, TARGET
from jaxinterp.models.model import Model
from jaxinterp.replacement.parts import JUNCTIONS, Place, site_width

WRONG = 1e-2
"""Difference of sums and edges, relative to all edges of a target, above which the graph is another model's."""
MOST_BYTES = 4 << 30


def head_loadings(
    model: Model,
    dictionary: Any,
    graph: Graph,
    edges: Sequence[tuple[int, int]] | None = None,
    *,
    by: str = "last",
) -> HeadLoadings:
    """Open edges of a graph into the heads that carry them.

    Args:
      model, dictionary: what the graph was traced from.
      graph: pruned or not.
      edges: pairs (source, target) of node numbers; None opens every edge of the graph, but for those into features of
        a Lorsa, which are heads of their own. A pair without an edge is opened too.
      by: "last": a path counts for the last head before the target; "first": for the first after the source.

    Returns:
      `HeadLoadings`, edges in the order given.

    Raises:
      InputError: a node that does not exist, that is no source or reads nothing; a target that is a feature of a Lorsa;
        a graph of another model or dictionary, or of another linearisation than the frozen one.
    """
    if by not in SIDES:
        raise InputError(f"by is {by!r}, expected one of {', '.join(SIDES)}")
    settings = graph.settings
    if settings.get("linearisation", "frozen") != "frozen":
        raise InputError(
            f"the graph is of {settings['linearisation']} effects: trace it frozen, where patterns are given"
        )
    at = replace(
        model, dictionary, list(graph.token_ids), dynamic_tanh=settings.get("dynamic_tanh", "secant"),
        mlp=settings.get("mlp", "constant"),
    )  # fmt: skip
    if edges is None:
        target, source, _ = graph.edges()
        open_ = ~np.isin(target, _through_heads(at, graph))
        target, source = target[open_], source[open_]
    else:
        source, target = np.asarray(edges, np.int64).reshape(-1, 2).T
    if not len(source):
        raise InputError("there is no edge to open")
    if min(source.min(), target.min()) < 0 or max(source.max(), target.max()) >= len(graph):
        raise InputError(f"an edge names a node that is not there: the graph has nodes 0 to {len(graph) - 1}")
    needed = (
        len(source)
        * at.operator.config.n_layers
        * at.operator.config.n_heads
        * np.dtype(at.operator.dtype).itemsize
    )
    if needed > MOST_BYTES:
        raise InputError(
            f"the heads of {len(source)} edges need {needed / 2**30:.1f} GiB, at most {MOST_BYTES / 2**30:.0f} are "
            "allowed: prune the graph or name edges"
        )
    numbers = _sources(at, graph, source)
    readings, sums = _readings(at, model, graph, np.unique(target))

    # An edge into a sum of readings is opened for each of them.
    pieces = [
        (edge, number, factor) for edge, node in enumerate(target) for number, factor in sums[int(node)]
    ]
    which, reading, factors = (np.asarray(column) for column in zip(*pieces, strict=True))
    found, rest = opened(at, numbers[which], readings, reading, by)
    factor = factors.astype(found.dtype)
    heads, direct = np.zeros((len(source), *found.shape[1:]), found.dtype), np.zeros(len(source), rest.dtype)
    np.add.at(heads, which, found * factor[:, None, None])
    np.add.at(direct, which, rest * factor)
    off = _difference(graph, source, target, direct + heads.sum(axis=(1, 2)))
    if not off <= WRONG:
        raise InputError(
            f"these loadings differ from the graph's edges by {off:.1e} of what their targets sum up: was it traced "
            "from this model and dictionary?"
        )
    digest = str(graph.provenance.get("record_digest", ""))
    return HeadLoadings(by, np.asarray(source), np.asarray(target), direct, heads, off, digest)


def _through_heads(at: Replaced, graph: Graph) -> np.ndarray:
    """Nodes that are features of a Lorsa."""
    lorsas = [JUNCTIONS.index(place.junction) for place in at.operator.places if _is_lorsa(at, place)]
    return np.flatnonzero((graph.nodes["kind"] == FEATURE) & np.isin(graph.nodes["part"], lorsas))


def _is_lorsa(at: Replaced, place: Place) -> bool:
    return (
        place.dictionary is not None
        and kind_of(at.setup.parts.dictionaries[place.dictionary].config).sequences
    )


def _sources(at: Replaced, graph: Graph, source: np.ndarray) -> np.ndarray:
    """The number of each edge's source among the sources of the prompt."""
    place = {key: number for number, key in enumerate(keys_of(at.sources))}
    numbers = np.full(len(graph), -1)
    few = np.unique(source)
    for node, key in zip(few, keys_of(graph.nodes[few]), strict=True):
        if key[0] == TARGET:
            raise InputError(f"node {node} is a target and the source of no edge")
        if key not in place:
            raise InputError(
                f"node {node} (a {KIND_NAMES[key[0]]} of layer {key[2]} at position {key[3]}) is no source on this "
                "prompt: was the graph traced from this model and dictionary?"
            )
        numbers[node] = place[key]
    return numbers[source]


def _readings(
    at: Replaced, model: Model, graph: Graph, nodes: np.ndarray
) -> tuple[list[Reading], dict[int, list[tuple[int, float]]]]:
    """What target nodes read, and each of them as a sum: node → (number of a reading, factor)."""
    readings: list[Reading] = []
    sums: dict[int, list[tuple[int, float]]] = {}
    wanted = _targets(at, model, graph) if (graph.nodes["kind"][nodes] == TARGET).any() else None
    order = {int(node): number for number, node in enumerate(graph.targets)}
    for node in nodes.tolist():
        row = graph.nodes[node]
        if row["kind"] == FEATURE:
            sums[node] = [(len(readings), 1.0)]
            readings.append(
                _feature(at, int(row["part"]), *(int(row[name]) for name in ("layer", "position", "index")))
            )
        elif row["kind"] == TARGET:
            assert wanted is not None
            combine, own = wanted.combine[order[node]], wanted.readings
            sums[node] = []
            for number in np.flatnonzero(combine):
                sums[node].append((len(readings), float(combine[number])))
                part, layer, position, feature = (
                    int(column[number]) for column in (own.part, own.layer, own.position, own.feature)
                )
                if feature >= 0:
                    readings.append(_feature(at, part, layer, position, feature))
                else:
                    place = -1 if part == FINAL else _place(at, part)
                    site = "final_norm" if place < 0 else str(at.operator.places[place].read_site)
                    vector = own.vectors[number, : site_width(model.config, site)]
                    readings.append(Reading(place, layer, position, vector))
        else:
            raise InputError(f"node {node} is a source ({KIND_NAMES[row['kind']]}): no edge goes to it")
    return readings, sums


def _targets(at: Replaced, model: Model, graph: Graph) -> Any:
    """The graph's targets as combinations of readings."""
    nodes, recorded = graph.nodes[graph.targets], graph.settings.get("targets")
    if recorded is None:
        wanted: list[Any] = [Token(int(n["index"]), int(n["position"])) for n in nodes]
    else:
        wanted = [from_plain(one) for one in recorded]
    ready = prepare(wanted, at.setup.ids, model.config, model.tokenizer, at.setup.parts.junctions())
    found = resolve(ready, at.setup.logits, model.params, model.config)
    if len(found) != len(nodes):
        raise InputError(f"the graph has {len(nodes)} targets, but records {len(found)}")
    return found


def _feature(at: Replaced, part: int, layer: int, position: int, feature: int) -> Reading:
    place = _place(at, part)
    reader = at.setup.readers[place]
    assert reader is not None
    if _is_lorsa(at, at.operator.places[place]):
        raise InputError(
            f"feature {feature} of layer {layer} is a head of its own ({reader.config.kind}): what it reads at other "
            "positions comes through it, not through heads of the model"
        )
    own = at.operator.places[place].layers.index(layer)
    return Reading(place, layer, position, reader.encoder(own, np.asarray([feature]))[0])


def _place(at: Replaced, part: int) -> int:
    for number, place in enumerate(at.operator.places):
        if JUNCTIONS.index(place.junction) == part and place.dictionary is not None:
            return number
    raise InputError(f"a target reads at the {JUNCTIONS[part]} junction, where no dictionary was given")


def _difference(graph: Graph, source: np.ndarray, target: np.ndarray, sums: np.ndarray) -> float:
    """The largest difference of sums and the graph's edges, relative to the absolute edges of their targets."""
    targets, sources, weights = graph.edges()
    key = targets.astype(np.int64) * len(graph) + sources
    wanted = np.asarray(target, np.int64) * len(graph) + source
    at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
    there = key[at] == wanted if len(key) else np.zeros(len(wanted), bool)
    sizes = np.bincount(targets, np.abs(weights), minlength=len(graph))
    off = np.abs(sums[there] - weights[at[there]]) / np.maximum(sizes[np.asarray(target)[there]], 1e-30)
    return float(off.max(initial=0.0))
