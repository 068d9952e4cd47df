"""Feature details as Anthropic's and circuit-tracer's viewers read them (JSON), in and out.

index, examples_quantiles: [{quantile_name, examples: [{tokens, tokens_acts_list, train_token_ind,
is_repeated_datapoint}]}], top_logits, bottom_logits; circuit-tracer adds transcoder_id, act_min, act_max,
quantile_values, histogram and activation_frequency.
"""

from __future__ import annotations

from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.dashboards import checked
from jaxinterp.dashboards.record import Record, empty


def read(value: Any, layer: int, index: int, part: str, where: str) -> Record:
    """The record of one feature's JSON.

    Raises:
      InputError: what must be there is not, or is of another kind.
    """
    given = checked.table(value, where)
    groups = given.get("examples_quantiles")
    if not isinstance(groups, list):
        raise InputError(f"{where}: examples_quantiles is missing or no list: no feature details")
    ours = any(
        name in given for name in ("transcoder_id", "activation_frequency", "act_max", "quantile_values")
    )
    record = empty("circuit-tracer" if ours else "anthropic", layer, part, index)
    record["examples"] = [_group(group, where) for group in groups]
    record["examples"] = [group for group in record["examples"] if group["examples"]]
    for name in ("top", "bottom"):
        tokens = checked.texts(given.get(f"{name}_logits"), where, f"{name}_logits")
        values: list[Any] = checked.numbers(given.get(f"{name}_logit_values"), where, f"{name}_logit_values")
        values += [None] * (len(tokens) - len(values))
        record[f"{name}_logits"] = [[token, value] for token, value in zip(tokens, values, strict=False)]
    frequency = checked.number(given.get("activation_frequency"))
    quantiles = checked.numbers(given.get("quantile_values"), where, "quantile_values")
    peaks = [
        example["values"][example["at"]] for group in record["examples"] for example in group["examples"]
    ]
    record |= {
        "frequency": frequency,
        "max_activation": max(peaks, default=checked.number(given.get("act_max"))),
        "quantiles": quantiles if len(quantiles) == 100 else None,
        "histogram": _histogram(given, where),
        "label": checked.text(given.get("label", given.get("clerp"))),
    }
    return record


def _group(group: Any, where: str) -> dict[str, Any]:
    given = checked.table(group, f"{where}: a group of examples")
    examples = given.get("examples")
    if not isinstance(examples, list):
        raise InputError(f"{where}: the examples of {given.get('quantile_name')!r} are no list")
    return {
        "name": checked.text(given.get("quantile_name")),
        "examples": [one for one in (_example(each, where) for each in examples) if one is not None],
    }


def _example(value: Any, where: str) -> dict[str, Any] | None:
    given = checked.table(value, f"{where}: an example")
    tokens = checked.texts(given.get("tokens"), where, "tokens")
    values = checked.numbers(given.get("tokens_acts_list"), where, "tokens_acts_list")
    if len(tokens) != len(values):
        raise InputError(f"{where}: an example has {len(tokens)} tokens and {len(values)} activations")
    if not tokens:
        return None
    # Written as train_token_ind; EleutherAI's attribute writes train_token_index, and there the last token's place.
    at = given.get("train_token_ind", given.get("train_token_index"))
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(values) or values[at] <= 0:
        at = values.index(max(values))
    repeated = given.get("is_repeated_datapoint") is True
    return {"tokens": tokens, "values": values, "at": at, "where": None, "repeats": 2 if repeated else 1}


def _histogram(given: dict[str, Any], where: str) -> dict[str, Any] | None:
    counts = checked.numbers(given.get("histogram"), where, "histogram")
    low, high = checked.number(given.get("act_min"), 0.0) or 0.0, checked.number(given.get("act_max"))
    if not counts or high is None or high <= low:
        return None
    step = (high - low) / len(counts)
    return {"edges": [low + i * step for i in range(len(counts) + 1)], "counts": counts, "log": False}


def write(record: Record, scan: str = "") -> dict[str, Any]:
    """One feature's JSON, with what Anthropic's and circuit-tracer's viewers read; keys in a fixed order.

    Repeated texts are said to be repeated; labels, explanations, neighbours have no place in this layout.
    """
    groups = [
        {
            "quantile_name": group["name"],
            "examples": [
                {
                    "tokens": one["tokens"],
                    "tokens_acts_list": one["values"],
                    "train_token_ind": one["at"],
                    "is_repeated_datapoint": one["repeats"] > 1,
                }
                for one in group["examples"]
            ],
        }
        for group in record["examples"]
    ]
    high = record["max_activation"] or 0.0
    return {
        "index": record["index"],
        "transcoder_id": scan,
        "examples_quantiles": groups,
        "top_logits": [token for token, _ in record["top_logits"]],
        "top_logit_values": [value for _, value in record["top_logits"]],
        "bottom_logits": [token for token, _ in record["bottom_logits"]],
        "bottom_logit_values": [value for _, value in record["bottom_logits"]],
        "act_min": 0.0,
        "act_max": high,
        "quantile_values": record["quantiles"] or [],
        "histogram": linear(record["histogram"], high),
        "activation_frequency": record["frequency"] or 0.0,
    }


def linear(histogram: dict[str, Any] | None, high: float, bins: int = 50) -> list[float]:
    """A histogram of any bins on ``bins`` equal ones from 0 to ``high``; within a bin counts are spread evenly."""
    import numpy as np

    if histogram is None or high <= 0:
        return []
    edges, counts = np.minimum(histogram["edges"], high), np.asarray(histogram["counts"], np.float64)
    reached = np.concatenate([[0.0], np.cumsum(counts)])
    below = np.interp(np.linspace(0, high, bins + 1), edges, reached)
    below[-1] = reached[-1]
    return [float(f"{x:.7g}") for x in np.diff(below)]
