"""Neuronpedia's export, in and out: JSON lines, gzipped, in batches of features.

  MODEL/SOURCE/   release.jsonl, model.jsonl, sourceset.jsonl, source.jsonl,
                  features/batch-0.jsonl.gz …, activations/batch-0.jsonl.gz …, explanations/batch-0.jsonl.gz …

A source is one layer: its name begins with the layer's number, as in "6-res-jb".
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_bytes
from jaxinterp.dashboards import checked, neuronpedia_records
from jaxinterp.dashboards.record import Record

BATCH = 128
KEPT = 4
DEEP = 5


def part_of(source: str) -> str:
    """Which part of a layer a source is of, as far as its name says."""
    name = source.lower()
    if re.search(r"att|hook_z|lorsa", name):
        return "attention"
    return "residual" if "res" in name else "mlp"


def sources(folder: Path) -> list[Path]:
    """The folders below with ``features/`` in JSON lines, this one included."""
    found: list[Path] = []
    level = [folder]
    for _ in range(DEEP):
        following: list[Path] = []
        for each in level:
            inner = each / "features"
            if inner.is_dir() and (any(inner.glob("*.jsonl.gz")) or any(inner.glob("*.jsonl"))):
                found.append(each)
            else:
                following += [one for one in sorted(each.iterdir()) if one.is_dir() and not one.is_symlink()]
        level = following
    return found


class Export:
    """An export with one source or several, for different layers; read batch by batch."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._sources: dict[tuple[int, str], Source] = {}
        for folder in folders:
            source = Source(folder)
            if (source.layer, source.part) in self._sources:
                raise InputError(
                    f"{folder}: another source for {source.part} of layer {source.layer}; open one of them"
                )
            self._sources[source.layer, source.part] = source

    def feature(self, layer: int, index: int, part: str = "mlp") -> Record | None:
        """See `record.Features`. Where a layer has one source, its name need not say the part."""
        source = self._sources.get((layer, part))
        if source is None:
            alone = [one for (of, _), one in self._sources.items() if of == layer]
            source = alone[0] if len(alone) == 1 else None
        return None if source is None else source.feature(index, part)


class Source:
    """One folder of an export.

    Attributes:
      layer, part: as its name says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = folder.resolve().name
        first = self._files("features")
        if first and not re.match(r"\d+(-|$)", name):
            name = _named(first[0]) or name
        match = re.match(r"(\d+)(-|$)", name)
        if match is None:
            raise InputError(
                f"{folder}: the name of a source begins with its layer, as in 6-res-jb, not {name!r}"
            )
        self.layer, self.part = int(match[1][:9]), part_of(name)
        self._where: dict[int, str] | None = None
        self._batches: dict[tuple[str, str], dict[int, list[Any]]] = {}

    def _files(self, kind: str) -> list[Path]:
        inner = self.folder / kind
        return sorted([*inner.glob("*.jsonl.gz"), *inner.glob("*.jsonl")])

    def feature(self, index: int, part: str) -> Record | None:
        """The record of a feature."""
        if self._where is None:
            self._where = {}
            for path in self._files("features"):
                name = path.name.partition(".")[0]
                for number in self._batch("features", name):
                    self._where[number] = name
        if index not in self._where:
            return None
        name = self._where[index]
        feature = self._batch("features", name)[index][0]
        rest = [self._batch(kind, name).get(index, []) for kind in ("activations", "explanations")]
        where = f"{self.folder}, feature {index}"
        return neuronpedia_records.read(feature, rest[0], rest[1], self.layer, index, part, where)

    def _batch(self, kind: str, name: str) -> dict[int, list[Any]]:
        """The lines of a batch by feature; the last few batches are kept."""
        key = (kind, name)
        if key not in self._batches:
            found: dict[int, list[Any]] = {}
            for path in self._files(kind):
                if path.name.partition(".")[0] == name:
                    for line in checked.lines(path):
                        found.setdefault(_index(checked.table(line, str(path)), path), []).append(line)
            while len(self._batches) >= 3 * KEPT:
                del self._batches[next(iter(self._batches))]
            self._batches[key] = found
        return self._batches[key]


def _named(path: Path) -> str | None:
    """What the first line of a file calls its source."""
    for line in checked.lines(path)[:1]:
        return checked.text(checked.table(line, str(path)).get("layer"))
    return None


def _index(line: Mapping[str, Any], path: Path) -> int:
    index = line.get("index")
    if isinstance(index, bool) or not re.fullmatch(r"\d{1,12}", str(index)):
        raise InputError(f"{path}: a line has the index {index!r}, expected the number of a feature")
    return int(str(index))


def export(
    records: Iterable[Record], out: str | os.PathLike[str], *, model: str, source_set: str, release: str = "",
    creator: str = "", facts: Mapping[str, Any] | None = None,
) -> list[Path]:  # fmt: skip
    """Write ``out/MODEL/LAYER-SET/`` for every layer; records come layer by layer.

    No times of day and no random ids: the id of an activation is a hash of what it is.

    Args:
      model, source_set: names as Neuronpedia uses them: letters, digits, ``_ . -``.
      release: the name of the release; by default that of the set.
      creator: an id or a name.
      facts: more fields of source.jsonl, as "num_prompts" and "num_tokens_in_prompt".

    Returns:
      the folders of the sources.
    """
    for what, name in (("model", model), ("source set", source_set)):
        if not re.fullmatch(r"[a-zA-Z0-9_.-]+", name) or set(name) <= {"."}:
            raise InputError(f"the {what} {name!r}: expected letters, digits, _ . and - only")
    folders: list[Path] = []
    batch: list[Record] = []
    number, layer = 0, None
    for record in records:
        if record["layer"] != layer or len(batch) == BATCH:
            if layer is not None:
                _write_batch(folders[-1], batch, number, model, creator)
            batch, number = [], (number + 1 if record["layer"] == layer else 0)
        if record["layer"] != layer:
            layer = record["layer"]
            folders.append(Path(out) / model / f"{layer}-{source_set}")
            _write_source(folders[-1], model, source_set, release or source_set, creator, facts or {})
        batch.append(record)
    if batch:
        _write_batch(folders[-1], batch, number, model, creator)
    return folders


def _write_source(
    folder: Path, model: str, source_set: str, release: str, creator: str, facts: Mapping[str, Any]
) -> None:
    try:
        for kind in ("features", "activations", "explanations"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    who = {"creatorId": creator, "visibility": "PUBLIC"}
    lines: dict[str, dict[str, Any]] = {
        "release": {"name": release, "description": release, "creatorName": creator, **who},
        "model": {"id": model, "instruct": False, "displayName": model, "displayNameShort": model, **who},
        "sourceset": {
            "modelId": model, "name": source_set, "releaseName": release, "creatorName": creator, "description": "",
            "type": "", "hasDashboards": True, **who,
        },
        "source": {"id": folder.name, "modelId": model, "setName": source_set, "hasDashboards": True, **who, **facts},
    }  # fmt: skip
    for name, line in lines.items():
        write_bytes(folder / f"{name}.jsonl", _lines([line]))


def _write_batch(folder: Path, batch: list[Record], number: int, model: str, creator: str) -> None:
    features, activations, explanations = [], [], []
    for record in batch:
        who = {"modelId": model, "layer": folder.name, "index": str(record["index"]), "creatorId": creator}
        features.append(
            {**who, "maxActApprox": record["max_activation"] or 0.0, "hasVector": False, "vector": [],
             **neuronpedia_records.feature_of(record)}
        )  # fmt: skip
        for order, one in enumerate(neuronpedia_records.activations_of(record)):
            name = hashlib.sha256(f"{model}/{folder.name}/{record['index']}/{order}".encode()).hexdigest()[
                :24
            ]
            activations.append({
                "id": f"c{name}", **who, "tokens": one["tokens"], "values": one["values"],
                "maxValue": max(one["values"]), "maxValueTokenIndex": one["at"], "minValue": min(one["values"]),
                "binMin": one["low"], "binMax": one["high"], "binContains": one["share"],
                "qualifyingTokenIndex": one["at"], "dfaValues": [], "lossValues": [],
            })  # fmt: skip
        texts = record["explanations"] or (
            [{"text": record["label"], "by": "", "score": None}] if record["label"] else []
        )
        for one in texts:
            explanations.append(
                {**who, "description": one["text"], "typeName": None, "explanationModelName": one["by"] or None,
                 "score": one["score"]}
            )  # fmt: skip
    for kind, lines in (("features", features), ("activations", activations), ("explanations", explanations)):
        if lines or kind != "explanations":
            write_bytes(folder / kind / f"batch-{number}.jsonl.gz", gzip.compress(_lines(lines), 6, mtime=0))


def _lines(values: list[dict[str, Any]]) -> bytes:
    texts = (json.dumps(one, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for one in values)
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "replace")
