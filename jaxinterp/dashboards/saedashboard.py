"""SAEDashboard's files, in and out: ``batch-0.json`` … with up to 128 features of one layer each.

{"model_id", "layer", "sae_set", "sae_id_suffix", "features": [{"feature_index", tables of numbers,
 "activations": [{"bin_min", "bin_max", "bin_contains", "qualifying_token_index", "tokens", "values"}]}]}
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_bytes
from jaxinterp.dashboards import checked, neuronpedia_records
from jaxinterp.dashboards.neuronpedia import BATCH, part_of
from jaxinterp.dashboards.record import Record


def batches(folder: Path) -> list[Path]:
    """The files ``batch-N.json`` in a folder and in its folders."""
    return sorted([*folder.glob("batch-*.json"), *folder.glob("*/batch-*.json")])


class Batches:
    """Batches of one or several layers, each read when a feature of it is asked for; a few are kept."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._where: dict[tuple[int, int], tuple[Path, int]] | None = None
        self._kept: dict[Path, dict[str, Any]] = {}

    def feature(self, layer: int, index: int, part: str = "mlp") -> Record | None:
        """See `record.Features`."""
        if self._where is None:
            self._where = {}
            for path in self.paths:
                found = self._load(path)
                for place, one in enumerate(found["features"]):
                    self._where[found["layer"], _index(one, path)] = (path, place)
        if (layer, index) not in self._where:
            return None
        path, place = self._where[layer, index]
        batch = self._load(path)
        if part != part_of(checked.text(batch.get("sae_set"))) and part != "mlp":
            return None
        feature = batch["features"][place]
        activations = feature.get("activations")
        if not isinstance(activations, list):
            raise InputError(f"{path}, feature {index}: activations is no list")
        return neuronpedia_records.read(
            feature, activations, [], layer, index, part, f"{path}, feature {index}"
        )

    def _load(self, path: Path) -> dict[str, Any]:
        if path not in self._kept:
            found = checked.table(checked.load(path), str(path))
            layer, features = found.get("layer"), found.get("features")
            if isinstance(layer, str) and layer.isascii() and layer.isdigit():
                found["layer"] = layer = int(layer[:9])
            if type(layer) is not int or not isinstance(features, list):
                raise InputError(f"{path} is no batch of SAEDashboard: layer or features is missing")
            while len(self._kept) >= 4:
                del self._kept[next(iter(self._kept))]
            self._kept[path] = found
        return self._kept[path]


def _index(feature: Any, path: Path) -> int:
    index = checked.table(feature, str(path)).get("feature_index")
    if type(index) is not int or index < 0:
        raise InputError(f"{path}: a feature has the feature_index {index!r}")
    return index


def export(
    records: Iterable[Record], out: str | os.PathLike[str], *, model: str, source_set: str, sequences: int = 0,
    length: int = 0, dataset: str = "",
) -> list[Path]:  # fmt: skip
    """Write ``out/MODEL_SET_LAYER/batch-N.json``; records come layer by layer.

    Args:
      model, source_set: names.
      sequences, length, dataset: what the examples were taken from.

    Returns:
      the folders.
    """
    name = "_".join(re.sub(r"[^a-zA-Z0-9.-]+", "-", text) or "none" for text in (model, source_set))
    folders: list[Path] = []
    batch: list[dict[str, Any]] = []
    layer, number = None, 0

    def write() -> None:
        value = {
            "model_id": model,
            "layer": layer,
            "sae_set": source_set,
            "sae_id_suffix": None,
            "features": batch,
        }
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        write_bytes(folders[-1] / f"batch-{number}.json", text.encode("utf-8", "replace"))

    for record in records:
        if batch and (record["layer"] != layer or len(batch) == BATCH):
            write()
            batch, number = [], (number + 1 if record["layer"] == layer else 0)
        if record["layer"] != layer:
            layer = record["layer"]
            folders.append(Path(out) / f"{name}_{layer}")
            try:
                folders[-1].mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot write into {folders[-1]}: {error.strerror or error}") from error
        tables = neuronpedia_records.feature_of(record)
        # The names that SAEDashboard's own reader knows; neighbours have none.
        tables = {key: value for key, value in tables.items() if not key.startswith("topk")}
        activations = [
            {
                "bin_min": one["low"], "bin_max": one["high"], "bin_contains": one["share"],
                "qualifying_token_index": one["at"], "tokens": one["tokens"], "values": one["values"],
            }
            for one in neuronpedia_records.activations_of(record)
        ]  # fmt: skip
        batch.append({
            "feature_index": record["index"], **tables, "n_prompts_total": sequences, "n_tokens_in_prompt": length,
            "dataset": dataset, "activations": activations,
        })  # fmt: skip
    if batch:
        write()
    return folders
