"""Small dashboards of ours, written without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dashboards import histogram, own, packing

TEXTS = ["<bos>", " the", '"', "<0xE2>", "<script>alert(1)</script>", "日本", "\n", "", " end"]
GROUPS = ["Top", "Quantile 1", "Quantile 2"]


def fields(seed: int, real: str = "f4") -> tuple[dict[str, Any], int, float]:
    """The entry of a feature, on how many tokens it is active, its largest activation."""
    random = np.random.default_rng(seed)
    sizes = [3, 2, 1]
    lengths = random.integers(1, 7, sum(sizes))
    examples = [random.integers(0, 8, n) / 8 for n in lengths]
    at = [int(values.argmax()) for values in examples]
    for i, (values, place) in enumerate(zip(examples, at, strict=True)):  # the largest activation comes first
        values *= 1 - i / 8
        values[place] = 1 - i / 8
    largest = 2.5
    active = random.uniform(0.01, largest, 200).astype(np.float32)
    counts = np.bincount(histogram.bins(active), minlength=histogram.BINS)
    first, last = np.flatnonzero(counts)[[0, -1]]
    flat = np.concatenate(examples)
    return {
        "first_bin": [first], "counts": counts[first : last + 1], "groups": sizes, "lengths": lengths, "at": at,
        "place": random.integers(0, 10**6, sum(sizes)), "repeats": random.integers(1, 4, sum(sizes)),
        "tokens": random.integers(0, len(TEXTS), len(flat)), "active": [int((v > 0).sum()) for v in examples],
        "where": np.concatenate([np.flatnonzero(v) for v in examples]), "values": flat[flat > 0],
        "logits": [1, 2, 3, 4], "logit_values": [2.0, 1.0, -3.0, -2.0], "norms": [0.5, 0.25],
        "neighbour_layers": [0, 1], "neighbours": [1, 0], "cosines": [0.75, 0.5], "coactive_layers": [1],
        "coactive": [2], "coactive_values": [0.25],
    }, 200, largest  # fmt: skip


def clear(run: Callable[[], Any], start: str) -> Any:
    """What a reader gives, or None where it refuses in one line that begins so."""
    try:
        return run()
    except InputError as error:
        message = str(error)
    assert message.startswith(start) and "\n" not in message
    return None


def write(folder: Path, layers: int = 2, features: int = 5, part: str = "mlp", real: str = "f4") -> Path:
    """A folder of dashboards; feature 0 of every layer is dead."""
    folder.mkdir(parents=True, exist_ok=True)
    own.write_tokens(folder / own.TOKENS, TEXTS)
    names = []
    for layer in range(layers):
        made = [fields(10 * layer + i) for i in range(features)]
        made[0] = ({"logits": [1, 2], "logit_values": [1.0, -1.0], "norms": [0.5, 0.25]}, 0, 0.0)
        header = {
            "part": part, "layer": layer, "tokens": 1000, "length": 64, "groups": GROUPS, "writes": [layer, layer + 1],
            "token": "u2", "float": real,
        }  # fmt: skip
        name = f"{part}_{layer:02d}.jidash"
        entries = [packing.pack(one, "u2", real) for one, _, _ in made]
        count, largest = np.array([n for _, n, _ in made]), np.array([x for _, _, x in made])
        own.write_layer(folder / name, header, entries, count, largest)
        names.append((name, part, layer, features))
    facts = {"provenance": {"model": {"name": "m/1"}, "dictionary": {"name": "set"}, "text": {"length": 64}}}
    own.write_manifest(folder, names, facts)
    return folder
