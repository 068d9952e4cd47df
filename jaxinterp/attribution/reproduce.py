"""Make a graph again from its own record, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxinterp.attribution.differences import differences
from jaxinterp.attribution.tracing import record_digest, trace
from jaxinterp.attribution.wanted_plain import from_plain
from jaxinterp.core.errors import InputError
from jaxinterp.core.provenance import versions
from jaxinterp.dictionaries.lazy import AnyDictionary
from jaxinterp.graphs.graph import Graph
from jaxinterp.models.model import Model

TOLERANCE = 1e-5
FOLLOWED = {
    "max_feature_nodes": int,
    "rank_every": int,
    "dynamic_tanh": str,
    "mlp": str,
    "first_position": bool,
    "linearisation": str,
    "steps": int,
}
"""Settings that `trace` takes as they are recorded; one that is not recorded had its default."""


@dataclass(frozen=True)
class Comparison:
    """What came of making a graph again.

    Attributes:
      outcome: "identical" (every number), "close" (the same nodes and edges numbers within 1e-5 of the largest
        of their sort, with other library versions or on another platform), or "different".
      differences: one line each: what differs in the record, then the first node, the first number of a node and the
        first edge that do, each with both values.
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


def reproduce(graph: Graph, model: Model, dictionary: AnyDictionary | Sequence[AnyDictionary]) -> Comparison:
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
    given = [dictionary] if hasattr(dictionary, "digest") else list(dictionary)
    for what, digests in (("model", [model.digest()]), ("dictionary", [one.digest() for one in given])):
        digest = ",".join(digests)
        if sorted(str(recorded.get(f"{what}_digest")).split(",")) != sorted(digests):
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
    try:
        again = _again(graph, model, dictionary)
    except InputError as error:
        raise InputError("; ".join([*notes, str(error)])) from error
    largest, found = differences(graph, again)
    notes += found
    if not notes:
        return Comparison("identical", tuple(changed), again)
    # Rounding may differ between versions and platforms, never within one.
    close = changed and not fatal and largest is not None and largest <= TOLERANCE
    return Comparison("close" if close else "different", (*changed, *notes), again)


def _again(graph: Graph, model: Model, dictionary: AnyDictionary | Sequence[AnyDictionary]) -> Graph:
    settings = graph.settings
    targets = settings.get("targets")
    if targets is not None:
        if not isinstance(targets, list):
            raise InputError("this graph's record of its targets is not a list, so it cannot be made again")
        targets = [from_plain(one, f"settings.targets[{i}]") for i, one in enumerate(targets)]
    followed: dict[str, Any] = {key: settings[key] for key in FOLLOWED if settings.get(key) is not None}
    for key, value in followed.items():
        if type(value) is not FOLLOWED[key]:
            raise InputError(f"this graph records {value!r:.60} as its {key}, so it cannot be made again")
    again = trace(
        model, dictionary, [int(i) for i in graph.token_ids], targets=targets, convention=settings["convention"],
        **followed,
    )  # fmt: skip
    pruned = graph.pruned
    if pruned is not None:
        again = again.prune(pruned["node_threshold"], pruned["edge_threshold"])
    return again
