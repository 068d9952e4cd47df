"""Whether a graph can be trusted, in plain words: what was pruned and capped, checks, where it is from."""

from __future__ import annotations

import math
import shlex
from typing import Any

from jaxinterp.graphs import FEATURE, KIND_NAMES, Graph
from jaxinterp.graphs.plain import plain

_ON_TOP = ("pruned", "repairs", "dialect", "convention")
_LONGEST = 400


def checks(graph: Graph) -> list[dict[str, Any]]:
    """The identities and how exactly they hold: [{"name", "text", "value", "ok"}]; null where not measurable."""
    found = graph.checks()
    texts = (
        ("I1", "the replacement model's logits are the model's own", found.identity_1),
        ("I2", "the inputs of every feature add up to its pre-activation", found.identity_2),
        ("I3", "the inputs of every target add up to its logit", found.identity_3),
    )
    whole = " on the whole graph" if graph.pruned else ""
    listed = []
    for name, text, value in texts:
        ok = None if value is None else bool(math.isfinite(value) and value <= found.tolerance)
        how = "not measurable: the file has no pre-activations" if value is None else (
            f"{'holds' if ok else 'FAILS'}{whole}, to {value:.1e} (tolerance {found.tolerance:.0e})"
        )  # fmt: skip
        listed.append({"name": name, "text": f"{text}: {how}", "value": value, "ok": ok})
    return plain(listed, "checks")


def scores(graph: Graph) -> dict[str, float | None]:
    """Scores by name; null where one has no meaning for the graph."""
    found = graph.scores()
    names = (
        "replacement", "completeness", "path_length", "replacement_without_bias", "completeness_without_bias",
        "replacement_with_left_out", "completeness_with_left_out",
    )  # fmt: skip
    listed = {name: getattr(found, name) for name in names}
    pruned = found.pruned
    listed["replacement_pruned"] = None if pruned is None else pruned.merged_replacement
    listed["completeness_pruned"] = None if pruned is None else pruned.merged_completeness
    return plain(listed, "scores")


def error_share(graph: Graph) -> dict[str, Any]:
    """{"total", "by_layer": [[layer, part, share]], "by_position"}."""
    found = graph.error_share()
    worst = sorted(found.worst(k=found.by_layer.size))
    return plain(
        {
            "total": found.total,
            "by_layer": [[layer, part, share] for layer, part, share in worst],
            "by_position": found.by_position,
        },
        "error_share",
    )


def pruned(graph: Graph) -> list[str]:
    """What pruning took away, a line each."""
    lines = []
    record = graph.pruned
    if record:
        hidden = ", ".join(f"{count:,} {kind}s" for kind, count in record["hidden_nodes"].items() if count)
        lines.append(
            f"Pruned to the nodes that carry {100 * record['node_threshold']:.0f} % of influence and the links that "
            f"carry {100 * record['edge_threshold']:.0f} %: {hidden or 'no nodes'} and {record['hidden_edges']:,} "
            "links were left out."
        )
    metadata = (graph.foreign or {}).get("metadata", {})
    given = metadata.get("pruning_settings")
    thresholds = dict(given) if isinstance(given, dict) else {}
    if "node_threshold" not in thresholds and _number(metadata.get("node_threshold")):
        thresholds["node_threshold"] = metadata["node_threshold"]
    said = [f"{key.replace('_', ' ')} {_short(value)}" for key, value in thresholds.items() if _number(value)]
    if said and not record:
        lines.append(
            f"The program that made the file pruned it ({', '.join(said)}); how much it left out is not recorded."
        )
    loose = len((graph.foreign or {}).get("loose_links", []))
    if loose:
        lines.append(
            f"{loose:,} links of the file lead to nodes that are not in it; they are kept but not shown."
        )
    if not lines:
        lines.append("Nothing is recorded as pruned.")
    return lines


def caps(graph: Graph) -> list[str]:
    """Which limits were set when the graph was traced, and whether they were reached, a line each."""
    lines = []
    left = graph.measured.get("left_out")
    most = graph.settings.get("max_feature_nodes")
    if isinstance(left, dict):
        count, share = left.get("features"), left.get("influence")
        lines.append(
            f"Only {_short(most)} features were expanded (max_feature_nodes): {_short(count)} others have no inputs "
            f"here, and through them passes {100 * share:.1f} % of influence."
            if isinstance(share, float)
            else f"Only {_short(most)} features were expanded (max_feature_nodes)."
        )
    elif type(most) is int:
        lines.append(
            f"At most {most:,} features were to be expanded (max_feature_nodes); the limit was not reached."
        )
    metadata = (graph.foreign or {}).get("metadata", {})
    settings = metadata.get("generation_settings")
    cap = settings.get("max_feature_nodes") if isinstance(settings, dict) else None
    if type(cap) is int and graph.foreign is not None and graph.foreign.get("whole"):
        count = graph.counts()[KIND_NAMES[FEATURE]]
        reached = (
            "it was reached, so features are missing"
            if count >= cap
            else "whether it was reached is not recorded"
        )
        lines.append(f"Traced with at most {cap:,} features; {reached}.")
    return lines


def provenance(graph: Graph) -> list[list[str]]:
    """What the graph was made from, as pairs of texts."""
    listed = _pairs(graph.provenance)
    metadata = (graph.foreign or {}).get("metadata", {})
    listed += _pairs({key: metadata[key] for key in ("scan", "info", "transcoder_list") if metadata.get(key)})
    if "dialect" in graph.settings:
        listed.insert(0, ["file written by", _short(graph.settings["dialect"])])
    return listed


def settings(graph: Graph) -> list[list[str]]:
    """How the graph was made, as pairs of texts."""
    listed = [["convention", graph.convention]]
    listed += _pairs(
        {key: value for key, value in graph.settings.items() if key not in _ON_TOP and value is not None}
    )
    metadata = (graph.foreign or {}).get("metadata", {})
    return listed + _pairs(
        {
            key: metadata[key]
            for key in ("generation_settings", "pruning_settings", "node_threshold")
            if key in metadata
        }
    )


def reproduce(graph: Graph, file: str) -> str | None:
    """The command that makes the graph again, or None where the file does not hold what it takes."""
    if not isinstance(graph.provenance.get("record_digest"), str):
        return None
    words = ["jaxinterp", "reproduce", file]
    for key in ("model", "dictionary"):
        value = graph.settings.get(key)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one and not one.startswith("pocket"):
                words += [f"--{key}", one]
    return " ".join(shlex.quote(word) for word in words)


def warnings(graph: Graph) -> list[str]:
    """What a reader should know before believing anything, a line each."""
    repairs = graph.settings.get("repairs")
    lines = (
        [f"The file was repaired: {_short(line)}." for line in repairs] if isinstance(repairs, list) else []
    )
    found = graph.checks()
    if found.measured and not found.ok:
        lines.insert(0, "This graph is not exact: a check fails (see the checks).")
    return lines


def _pairs(values: dict[str, Any], before: str = "") -> list[list[str]]:
    found = []
    for key, value in values.items():
        if isinstance(value, dict):
            found += _pairs(value, f"{before}{key}.")
        else:
            found.append([_short(f"{before}{key}"), _short(value)])
    return found


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 2] + ".."


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
