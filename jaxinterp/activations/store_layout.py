"""What a store of activations looks like on disk: its header, its arrays, and which file holds which rows.

    store.json             what is stored and what made it, with a checksum of itself
    ledger.jsonl           a line for every shard that is whole: sizes and checksums of its files
    tokens/                zarr3 array [rows, 4] int32: token, position, document, whether it is used
    sites/NAME/            zarr3 array [L, rows, D], and for int8 sites/NAME.scale [L, rows] float32

A row is a token. Rows are divided into shards of ``shard_rows``; a shard is one file in every array (zarr's
sharding codec), made of inner chunks of one layer and ``chunk_rows`` rows, each with its crc32c.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxinterp.activations.store_quantise import DTYPES
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json

FORMAT = "jaxinterp.activations"
VERSION = 1
HEADER, LEDGER, TOKENS = "store.json", "ledger.jsonl", "tokens"
COLUMNS = ("token", "position", "document", "use")
CHUNK_BYTES = 1 << 20
SIZES = {"float32": 4, "bfloat16": 2, "int8": 1, "int32": 4}


@dataclass(frozen=True)
class Site:
    """One stored site.

    Attributes:
      name: of the model's site.
      layers: which layers are stored, in this order.
      width: numbers a token and layer.
    """

    name: str
    layers: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class ArrayInfo:
    """One zarr array of a store: its folder, shape, type, and the axis that rows are on."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    rows_axis: int
    chunk_rows: int


@dataclass(frozen=True)
class Layout:
    """Everything that says where a row is.

    Attributes:
      sites: what is stored.
      dtype: "float32", "bfloat16" or "int8".
      rows: tokens in the store.
      shard_rows, chunk_rows: rows a shard, and a chunk within it.
      length: tokens a sequence; row r is token ``r % length`` of sequence ``r // length``.
      batch_rows: tokens a batch of the text that was read.
    """

    sites: tuple[Site, ...]
    dtype: str
    rows: int
    shard_rows: int
    chunk_rows: int
    length: int
    batch_rows: int

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"store: dtype {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if not self.sites or len({site.name for site in self.sites}) < len(self.sites):
            raise InputError("store: it needs sites, each named once")
        if min(self.rows, self.shard_rows, self.chunk_rows, self.length, self.batch_rows) < 1:
            raise InputError("store: rows, shard_rows, chunk_rows, length and batch_rows must be at least 1")
        if self.shard_rows % self.chunk_rows or self.shard_rows % self.length or self.rows % self.length:
            raise InputError(
                f"store: shards of {self.shard_rows} rows are not whole chunks of {self.chunk_rows} rows and whole "
                f"sequences of {self.length}"
            )
        for site in self.sites:
            if not site.layers or len(set(site.layers)) < len(site.layers) or site.width < 1:
                raise InputError(f"store: {site.name} has layers {site.layers} of width {site.width}")

    @property
    def shards(self) -> int:
        """How many shards."""
        return -(-self.rows // self.shard_rows)

    def span(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the row after its last."""
        return shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows)

    def arrays(self) -> list[ArrayInfo]:
        """All arrays, tokens first."""
        found = [ArrayInfo(TOKENS, (self.rows, len(COLUMNS)), "int32", 0, self.chunk_rows)]
        for site in self.sites:
            shape = (len(site.layers), self.rows, site.width)
            found.append(ArrayInfo(f"sites/{site.name}", shape, self.dtype, 1, self.chunk_rows))
            if self.dtype == "int8":
                found.append(ArrayInfo(f"sites/{site.name}.scale", shape[:2], "float32", 1, self.chunk_rows))
        return found

    def bytes_per_row(self) -> int:
        """Bytes of a token, all arrays together."""
        return sum(SIZES[a.dtype] * math.prod(a.shape) // self.rows for a in self.arrays())

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def file_of(info: ArrayInfo, shard: int) -> str:
    """The file of a shard in an array, relative to the store."""
    place = [str(shard) if axis == info.rows_axis else "0" for axis in range(len(info.shape))]
    return f"{info.name}/" + ".".join(["c", *place])


def spec(folder: Path, info: ArrayInfo, shard_rows: int) -> dict[str, Any]:
    """TensorStore's description of an array.

    Without ``fill_missing_data_reads`` a missing shard is an error, not zeros; ``store_data_equal_to_fill_value`` makes
    true zeros be written, so that nothing is ever missing.
    """
    axes = range(len(info.shape))
    shard = [shard_rows if axis == info.rows_axis else info.shape[axis] for axis in axes]
    chunk = [
        info.chunk_rows if axis == info.rows_axis else (info.shape[axis] if axis > info.rows_axis else 1)
        for axis in axes
    ]
    little: dict[str, Any] = {"name": "bytes"}
    if SIZES[info.dtype] > 1:
        little["configuration"] = {"endian": "little"}
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    codec = {
        "chunk_shape": chunk, "codecs": [little, {"name": "crc32c"}], "index_codecs": index, "index_location": "end",
    }  # fmt: skip
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": os.path.join(folder.resolve(), info.name) + "/"},
        "metadata": {
            "shape": list(info.shape), "data_type": info.dtype, "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
            # One folder for all shards of an array: fewer names to make durable.
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [{"name": "sharding_indexed", "configuration": codec}],
        },
        "store_data_equal_to_fill_value": True,
        "fill_missing_data_reads": False,
    }  # fmt: skip


def chunk_rows(shard_rows: int, width: int, dtype: str) -> int:
    """Rows a chunk: the largest divisor of ``shard_rows`` that keeps a chunk of one layer below `CHUNK_BYTES`."""
    limit = max(1, CHUNK_BYTES // (width * SIZES[dtype]))
    parts = max(1, -(-shard_rows // limit))
    while shard_rows % parts:
        parts += 1
    return shard_rows // parts


def write_header(folder: Path, layout: Layout, made_by: dict[str, Any]) -> None:
    """Write ``store.json``: the layout, what made the store, and a checksum of both."""
    content = {"format": FORMAT, "version": VERSION, "layout": layout.to_dict(), "made_by": made_by}
    write_json(folder / HEADER, {**content, "sha256": _checksum(content)})


def read_header(folder: Path) -> tuple[Layout, dict[str, Any]]:
    """The layout and what made the store.

    Raises:
      InputError: no store, a damaged header, or one of another version.
    """
    path = folder / HEADER
    if not path.is_file():
        raise InputError(f"{folder} is no store of activations: it has no {HEADER}")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: format is not {FORMAT!r}, this is no store of activations")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: version {content.get('version')!r}, this version reads and writes {VERSION}"
        )
    if content.pop("sha256", None) != _checksum(content):
        raise InputError(f"{path} is damaged: its content does not match its checksum")
    try:
        values = dict(content["layout"])
        sites = tuple(
            Site(str(s["name"]), tuple(map(int, s["layers"])), int(s["width"])) for s in values.pop("sites")
        )
        layout, made_by = Layout(sites=sites, **values), content["made_by"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the layout is not understood ({error})") from error
    for site in layout.sites:
        if "/" in site.name or site.name.startswith("."):
            raise InputError(f"{path}: a site is named {site.name!r}")
    return layout, made_by


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
