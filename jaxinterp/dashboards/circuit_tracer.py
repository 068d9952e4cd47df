"""circuit-tracer's feature files: a binary file a layer, or a JSON file a feature; in and out.

features/index.json.gz    for each layer {"filename", "offsets": [n + 1]}
features/layer_0.bin …    records one after another: uint32 length, then deflated or gzipped JSON (`details`)
features/NUMBER.json      one a feature, called by the Cantor pairing of layer and index
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic, write_bytes, write_text
from jaxinterp.dashboards import cantor, checked, details
from jaxinterp.dashboards.record import Record

INDEX = "index.json.gz"
MOST_FILES = 2000


class Binary:
    """The binary files of a folder, of which records are read alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        where = folder / INDEX
        index = checked.load(where)
        if isinstance(index, dict):  # by layer
            index = [
                index.get(str(n)) for n in range(1 + max((int(k) for k in index if k.isdigit()), default=-1))
            ]
        if not isinstance(index, list):
            raise InputError(f"{where}: expected a list of layers")
        self._layers: list[tuple[Path, list[int]] | None] = [
            _layer(one, folder, n) for n, one in enumerate(index)
        ]

    def feature(self, layer: int, index: int, part: str = "mlp") -> Record | None:
        """See `record.Features`."""
        if part != "mlp" or not 0 <= layer < len(self._layers) or (found := self._layers[layer]) is None:
            return None
        path, offsets = found
        if not 0 <= index < len(offsets) - 1 or offsets[index + 1] - offsets[index] <= 4:
            return None
        where = f"{path}, feature {index}"
        size = offsets[index + 1] - offsets[index]
        if size > checked.MOST:
            raise InputError(f"{where}: a record of {size} bytes")
        try:
            with path.open("rb") as stream:
                stream.seek(offsets[index])
                data = stream.read(size)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        length = int.from_bytes(data[:4], "little")
        if len(data) < 5 or length > len(data) - 4:
            raise InputError(f"{where} is cut off")
        return details.read(
            checked.parse(checked.inflate(data[4 : 4 + length], where), where), layer, index, part, where
        )


def _layer(one: Any, folder: Path, number: int) -> tuple[Path, list[int]] | None:
    where = f"{folder / INDEX}, layer {number}"
    if one is None or one == {}:
        return None
    given = checked.table(one, where)
    name, offsets = given.get("filename"), given.get("offsets")
    if not name and not offsets:
        return None
    if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
        raise InputError(f"{where}: filename {name!r} is no plain name")
    if not isinstance(offsets, list) or not all(type(n) is int and n >= 0 for n in offsets):
        raise InputError(f"{where}: offsets are no whole numbers")
    if any(a > b for a, b in pairwise(offsets)):
        raise InputError(f"{where}: offsets do not ascend")
    return folder / name, offsets


class Folder:
    """A folder of JSON files, called by numbers: Cantor pairings, or what a graph's nodes have as ``feature``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and entry.name[:-5].isascii() and entry.name[:-5].isdigit():
                    found.append(int(entry.name[:-5]))
                if len(found) >= MOST_FILES:
                    break
        if not found:
            raise InputError(f"{folder} holds no files called NUMBER.json")
        # A number that is no pairing gives a layer that no model has.
        self.paired = all(cantor.unpair(number)[0] < cantor.MOST_LAYERS for number in found)

    def feature(self, layer: int, index: int, part: str = "mlp") -> Record | None:
        """See `record.Features`."""
        if part != "mlp" or layer < 0 or index < 0:
            return None
        numbers = [cantor.pair(layer, index)] if self.paired else [index, layer * 100_000 + index]
        for number in numbers:
            path = self.folder / f"{number}.json"
            if path.is_file():
                return details.read(checked.load(path), layer, index, part, str(path))
        return None


def export_binary(records: Iterable[Record], out: str | os.PathLike[str], scan: str = "") -> Path:
    """Write ``out/features/`` in the binary layout; records come layer by layer, features in order.

    Returns:
      the folder ``features``.
    """
    folder = _folder(out)
    index: list[dict[str, Any] | None] = []
    files: dict[int, list[bytes]] = {}
    for record in _of_mlp(records):
        own = files.setdefault(record["layer"], [])
        own += [b""] * (record["index"] - len(own))
        packed = zlib.compress(_text(details.write(record, scan)), 6)
        own.append(len(packed).to_bytes(4, "little") + packed)
    for layer in range(1 + max(files, default=-1)):
        if layer not in files:
            index.append(None)
            continue
        offsets = [0]
        name = f"layer_{layer}.bin"
        with atomic(folder / name) as temporary, temporary.open("wb") as stream:
            for piece in files[layer]:
                stream.write(piece)
                offsets.append(offsets[-1] + len(piece))
        index.append({"filename": name, "offsets": offsets})
    write_bytes(folder / INDEX, gzip.compress(_text(index), mtime=0))
    return folder


def export_json(records: Iterable[Record], out: str | os.PathLike[str], scan: str = "") -> Path:
    """Write ``out/features/`` with a JSON file a feature. Returns that folder."""
    folder = _folder(out)
    for record in _of_mlp(records):
        number = cantor.pair(record["layer"], record["index"])
        write_text(folder / f"{number}.json", _text(details.write(record, scan)).decode())
    return folder


def _of_mlp(records: Iterable[Record]) -> Iterable[Record]:
    for record in records:
        if record["part"] != "mlp":
            raise InputError(
                f"circuit-tracer's layout has features of MLPs only, not of part {record['part']}"
            )
        yield record


def _folder(out: str | os.PathLike[str]) -> Path:
    folder = Path(out) / "features"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error
    return folder


def _text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )
