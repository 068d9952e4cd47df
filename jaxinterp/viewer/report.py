"""What the page says of a graph beside drawing it: the reading, the automatic subgraph, the trust card.

No part can fail the whole: what cannot be computed is left empty and a line says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import Graph
from jaxinterp.viewer import trust
from jaxinterp.viewer.reading import Label, plain_start, read, say, top_target

LOG = logging.getLogger("jaxinterp.viewer")
_NO_SCORES = {"replacement": None, "completeness": None, "path_length": None}
_NO_ERRORS: dict[str, Any] = {"total": None, "by_layer": [], "by_position": []}


def report_of(graph: Graph, file: str = "graph.json", label: Label | None = None) -> dict[str, Any]:
    """REPORT of docs/viewer.md, as JSON values. ``file``: the name for the command that makes the graph again;
    ``label``: a feature's label from elsewhere."""
    warnings: list[str] = []

    def attempt(what: str, make: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return make()
        except InputError as error:
            warnings.append(f"{what} cannot be told: {' '.join(str(error).split())[:300]}.")
        except Exception:  # a report that fails must not keep the graph from being seen
            LOG.exception("%s of a graph", what)
            warnings.append(f"{what} could not be computed; see the terminal.")
        return otherwise

    target = top_target(graph)
    reading: dict[str, Any] = {
        "text": f"{say(graph, target)}: its influence cannot be followed back (see the warnings)",
        "stops": [], "nodes": [target], "share": None, "error_share": None, "target": target,
    }  # fmt: skip
    automatic: dict[str, Any] = {"pinned": list(plain_start(graph)), "groups": []}
    found = attempt("Influence", lambda: read(graph, label), None)
    if found is not None:
        reading = {
            "text": found.text, "stops": [[name, list(nodes)] for name, nodes in found.stops],
            "nodes": list(found.nodes), "share": found.share, "error_share": found.error_share, "target": found.target,
        }  # fmt: skip
        automatic = {"pinned": list(found.pinned), "groups": list(found.groups)}
    errors = _NO_ERRORS
    if found is not None or graph.measured.get("scores"):
        errors = attempt("The error share", lambda: trust.error_share(graph), _NO_ERRORS)
    result = {
        "reading": reading,
        "automatic": automatic,
        "scores": attempt("The scores", lambda: trust.scores(graph), _NO_SCORES),
        "checks": attempt("The checks", lambda: trust.checks(graph), []),
        "error_share": errors,
        "pruned": attempt("Pruning", lambda: trust.pruned(graph), []),
        "caps": attempt("Limits", lambda: trust.caps(graph), []),
        "provenance": attempt("The provenance", lambda: trust.provenance(graph), []),
        "settings": attempt("The settings", lambda: trust.settings(graph), []),
        "reproduce": attempt("How to make it again", lambda: trust.reproduce(graph, file), None),
    }
    told = attempt("Repairs", lambda: trust.warnings(graph), [])
    return {**result, "warnings": list(dict.fromkeys([*told, *warnings]))}
