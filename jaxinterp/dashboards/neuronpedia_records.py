"""A feature as Neuronpedia and SAEDashboard write it: tables of numbers under fixed names, and activations.

The two differ in where activations are (apart, or inside the feature) and in how their fields are spelt; both spellings
are read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.dashboards import checked
from jaxinterp.dashboards.details import linear
from jaxinterp.dashboards.record import Record, empty

BARS = 50


def read(
    feature: Any,
    activations: list[Any],
    explanations: list[Any],
    layer: int,
    index: int,
    part: str,
    where: str,
) -> Record:
    """The record of one feature.

    Raises:
      InputError: something is of another kind than it must be.
    """
    given = checked.table(feature, where)
    record = empty("neuronpedia", layer, part, index)
    groups = _groups([_activation(one, where) for one in activations])
    peaks = [one["values"][one["at"]] for group in groups for one in group["examples"]]
    largest, frequency = (checked.number(given.get(name)) for name in ("maxActApprox", "frac_nonzero"))
    record |= {
        "label": checked.text(given.get("vectorLabel")),
        "frequency": frequency,
        "max_activation": largest if largest else max(peaks, default=0.0 if frequency == 0 else largest),
        "histogram": _histogram(given, where),
        "examples": groups,
        "top_logits": _logits(given, "pos", where),
        "bottom_logits": _logits(given, "neg", where),
        "neighbours": [
            {"layer": layer, "index": int(other), "cosine": value, "label": ""}
            for other, value in _pairs(given, "topkCosSimIndices", "topkCosSimValues", where)
        ],
        "coactive": [
            {"layer": layer, "index": int(other), "value": value}
            for other, value in _pairs(
                given, "correlated_features_indices", "correlated_features_pearson", where
            )
        ],
    }
    for one in explanations:
        about = checked.table(one, where)
        by = checked.text(about.get("explanationModelName")) or checked.text(about.get("typeName"))
        record["explanations"].append(
            {
                "text": checked.text(about.get("description")),
                "by": by,
                "score": checked.number(about.get("score")),
            }
        )
    if not record["label"] and record["explanations"]:
        record["label"] = record["explanations"][0]["text"]
    return record


def _logits(given: dict[str, Any], side: str, where: str) -> list[list[Any]]:
    texts = checked.texts(given.get(f"{side}_str"), where, f"{side}_str")
    values: list[Any] = checked.numbers(given.get(f"{side}_values"), where, f"{side}_values")
    values += [None] * (len(texts) - len(values))
    return [[text, value] for text, value in zip(texts, values, strict=False)]


def _pairs(given: dict[str, Any], left: str, right: str, where: str) -> list[tuple[float, float]]:
    return list(
        zip(
            checked.numbers(given.get(left), where, left),
            checked.numbers(given.get(right), where, right),
            strict=False,
        )
    )


def _histogram(given: dict[str, Any], where: str) -> dict[str, Any] | None:
    """From bars around given values: edges lie half-way between them."""
    heights = checked.numbers(given.get("freq_hist_data_bar_heights"), where, "freq_hist_data_bar_heights")
    middles = checked.numbers(given.get("freq_hist_data_bar_values"), where, "freq_hist_data_bar_values")
    if not heights or len(heights) != len(middles) or any(a >= b for a, b in pairwise(middles)):
        return None
    inner = [(a + b) / 2 for a, b in pairwise(middles)]
    half = inner[0] - middles[0] if inner else max(abs(middles[0]), 1.0) / 2
    last = middles[-1] + (middles[-1] - inner[-1] if inner else half)
    return {"edges": [middles[0] - half, *inner, last], "counts": heights, "log": False}


def _activation(one: Any, where: str) -> dict[str, Any]:
    given = checked.table(one, where)
    tokens = checked.texts(given.get("tokens"), where, "tokens")
    values = checked.numbers(given.get("values"), where, "values")
    if not tokens or len(tokens) != len(values):
        raise InputError(f"{where}: an activation has {len(tokens)} tokens and {len(values)} values")
    at = given.get("maxValueTokenIndex")
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(values):
        at = values.index(max(values))
    bins = [checked.number(given.get(a, given.get(b))) for a, b in (
        ("binMin", "bin_min"), ("binMax", "bin_max"), ("binContains", "bin_contains"))]  # fmt: skip
    example = {"tokens": tokens, "values": values, "at": at, "where": None, "repeats": 1}
    return {"bins": bins, "example": example, "values": values, "at": at}


def _groups(activations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The top first, then intervals of activations, the largest first."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for one in activations:
        low, high, share = one["bins"]
        top = low is None or high is None or share is None or share < 0
        found.setdefault((0,) if top else (1, -high, -low), []).append(one["example"])
    groups = []
    for key in sorted(found):
        examples = sorted(found[key], key=lambda one: -one["values"][one["at"]])
        name = "Top" if key == (0,) else f"{-key[2]:.3g} to {-key[1]:.3g}"
        groups.append({"name": name, "examples": examples})
    return groups


def feature_of(record: Record) -> dict[str, Any]:
    """What both layouts say of a feature, apart from its activations."""
    heights = linear(record["histogram"], record["max_activation"] or 0.0, BARS)
    step = (record["max_activation"] or 0.0) / BARS
    near = [one for one in record["neighbours"] if one["layer"] == record["layer"]]
    together = [one for one in record["coactive"] if one["layer"] == record["layer"]]
    return {
        "neuron_alignment_indices": [], "neuron_alignment_values": [], "neuron_alignment_l1": [],
        "correlated_neurons_indices": [], "correlated_neurons_pearson": [], "correlated_neurons_l1": [],
        "correlated_features_indices": [one["index"] for one in together],
        "correlated_features_pearson": [one["value"] for one in together],
        "correlated_features_l1": [],
        "neg_str": [text for text, _ in record["bottom_logits"]],
        "neg_values": [value for _, value in record["bottom_logits"]],
        "pos_str": [text for text, _ in record["top_logits"]],
        "pos_values": [value for _, value in record["top_logits"]],
        "frac_nonzero": record["frequency"] or 0.0,
        "freq_hist_data_bar_heights": heights,
        "freq_hist_data_bar_values": [float(f"{(i + 0.5) * step:.7g}") for i in range(len(heights))],
        "logits_hist_data_bar_heights": [], "logits_hist_data_bar_values": [],
        "decoder_weights_dist": [],
        "topkCosSimIndices": [one["index"] for one in near],
        "topkCosSimValues": [one["cosine"] for one in near],
    }  # fmt: skip


def activations_of(record: Record) -> list[dict[str, Any]]:
    """Examples with the interval that each belongs to: {"tokens", "values", "at", "low", "high", "share"}."""
    found = []
    rest = sum(group["name"] != "Top" for group in record["examples"])
    for group in record["examples"]:
        peaks = [one["values"][one["at"]] for one in group["examples"]]
        top = group["name"] == "Top"
        low, share = (-1.0, -1.0) if top else (min(peaks), 1 / rest)
        for one in group["examples"]:
            found.append({
                "tokens": one["tokens"], "values": one["values"], "at": one["at"], "low": low, "high": max(peaks),
                "share": share,
            })  # fmt: skip
    return found
