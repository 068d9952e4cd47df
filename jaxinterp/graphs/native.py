"""The native graph file, .jigraph: a header and raw little-endian arrays, opened as memory maps.

    bytes 0-7    magic, "\\x89JIGRAPH"
    8-11         version, uint32            12-15  CRC-32 of the header text, uint32
    16-23        length of the header, uint64
    24-          header, JSON (UTF-8), keys in a fixed order
    then         the arrays, each starting at a multiple of 64 bytes; the file ends with the last one

The header lists each array's dtype, shape, offset (from the first multiple of 64 after the header) and
CRC-32.
The file holds nothing that differs between two runs: no time, host or path. Files are untrusted when read.
Version 1 had no ``part`` in its nodes; it is read, every part being the MLP's.
"""

from __future__ import annotations

import json
import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.kinds import KIND_NAMES, NODE, PART_NAMES, TARGET, node_order, node_table
from jaxinterp.graphs.plain import dumps, ordered, plain

MAGIC = b"\x89JIGRAPH"
VERSION = 2
ALIGN = 64
_PREFIX = struct.Struct("<8sIIQ")
_WEIGHTS = ("<f4", "<f8")
_ARRAYS = ("nodes", "indptr", "indices", "weights")
_NODE_1 = np.dtype([(name, NODE[name]) for name in NODE.names or () if name != "part"])


def write_native(graph: Graph, path: str | PathLike[str]) -> None:
    """Write the graph as a .jigraph file, whole or not at all. Equal graphs give equal bytes."""
    arrays = {
        "nodes": np.ascontiguousarray(graph.nodes, NODE),
        "indptr": np.ascontiguousarray(graph.indptr, "<i8"),
        "indices": np.ascontiguousarray(graph.indices, "<i4"),
        "weights": np.ascontiguousarray(graph.weights, graph.weights.dtype.newbyteorder("<")),
    }
    layout: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, array in arrays.items():
        offset = _aligned(offset)
        layout[name] = {
            "dtype": "node" if name == "nodes" else array.dtype.str,
            "shape": list(array.shape),
            "offset": offset,
            "crc32": _crc(array),
        }
        offset += array.nbytes
    header = {
        "arrays": layout,
        "foreign": plain(graph.foreign, "foreign"),
        "labels": {str(i): text for i, text in enumerate(graph.labels) if text},
        "measured": ordered(plain(graph.measured, "measured")),
        "n_layers": graph.n_layers,
        "prompt": graph.prompt,
        "provenance": ordered(plain(graph.provenance, "provenance")),
        "settings": ordered(plain(graph.settings)),
        "token_ids": list(graph.token_ids),
        "token_texts": list(graph.token_texts),
        "view": plain(graph.view, "view"),
    }
    text = dumps(header).encode("utf-8", "surrogatepass")
    with atomic(path) as temporary, temporary.open("wb") as out:
        out.write(_PREFIX.pack(MAGIC, VERSION, zlib.crc32(text), len(text)))
        out.write(text)
        base = _aligned(_PREFIX.size + len(text))
        for name, array in arrays.items():
            out.write(bytes(base + layout[name]["offset"] - out.tell()))
            out.write(array.view(np.uint8).data)


def is_native(path: str | PathLike[str]) -> bool:
    """Whether the file starts like a .jigraph file."""
    with Path(path).open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def read_native(path: str | PathLike[str]) -> Graph:
    """Open a .jigraph file; the arrays are read-only memory maps.

    Raises InputError naming the file and what is wrong with it: not such a file, a newer version, cut short,
    changed bytes, arrays that are no graph.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(_PREFIX.size)
            if prefix[: len(MAGIC)] != MAGIC:
                raise InputError(f"{path}: not a .jigraph file (it does not start with its mark)")
            if len(prefix) < _PREFIX.size:
                raise InputError(f"{path}: cut short: {size} bytes hold no header")
            _, version, crc, length = _PREFIX.unpack(prefix)
            if version > VERSION:
                raise InputError(
                    f"{path}: graph file version {version}; this jaxinterp reads up to {VERSION}"
                )
            if version < 1:
                raise InputError(f"{path}: graph file version {version}: expected 1 to {VERSION}")
            if length > size - _PREFIX.size:
                raise InputError(f"{path}: cut short: a header of {length} bytes in a file of {size}")
            text = stream.read(length)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if zlib.crc32(text) != crc:
        raise InputError(f"{path}: damaged: the header does not match its checksum")
    try:
        header = json.loads(text.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged: the header is not JSON ({error})") from error
    return _graph(path, size, _aligned(_PREFIX.size + length), header, _NODE_1 if version == 1 else NODE)


def _graph(path: Path, size: int, base: int, header: Any, node: np.dtype) -> Graph:
    expected = {
        "arrays": dict,
        "foreign": dict | None,
        "labels": dict,
        "measured": dict,
        "n_layers": int,
        "prompt": str,
        "provenance": dict,
        "settings": dict,
        "token_ids": list,
        "token_texts": list,
        "view": dict,
    }
    if not isinstance(header, dict) or set(header) != set(expected):
        found = sorted(header) if isinstance(header, dict) else type(header).__name__
        raise InputError(f"{path}: header holds {found}: expected {sorted(expected)}")
    for key, kind in expected.items():
        if not isinstance(header[key], kind) or isinstance(header[key], bool):
            raise InputError(f"{path}: header key {key!r} is a {type(header[key]).__name__}: expected {kind}")
    arrays, end = {}, base
    for name in _ARRAYS:
        arrays[name], last = _array(path, size, base, header["arrays"], name, node)
        end = max(end, last)
    if end != size:
        raise InputError(f"{path}: {size} bytes, but its arrays end at byte {end}")
    if node != NODE:
        arrays["nodes"] = _with_defaults(arrays["nodes"])
    nodes = arrays["nodes"]
    _check_rows(path, arrays)
    _check_nodes(path, nodes)
    ids, texts = header["token_ids"], header["token_texts"]
    if (
        not all(type(i) is int for i in ids)
        or not all(isinstance(t, str) for t in texts)
        or len(ids) != len(texts)
    ):
        raise InputError(f"{path}: token_ids and token_texts: expected as many numbers as texts")
    labels = [""] * len(nodes)
    for key, text in header["labels"].items():
        if not key.isdecimal() or int(key) >= len(nodes) or not isinstance(text, str):
            raise InputError(f"{path}: labels[{key!r}]: expected the text of a node below {len(nodes)}")
        labels[int(key)] = text
    return Graph(
        **arrays,
        token_ids=tuple(ids),
        token_texts=tuple(texts),
        prompt=header["prompt"],
        n_layers=header["n_layers"],
        labels=tuple(labels),
        settings=header["settings"],
        provenance=header["provenance"],
        measured=header["measured"],
        view=header["view"],
        foreign=header["foreign"],
    )


def _with_defaults(old: np.ndarray) -> np.ndarray:
    """The node table of an older version, with defaults in the fields that it lacks."""
    nodes = node_table(len(old))
    for name in old.dtype.names or ():
        nodes[name] = old[name]
    return nodes


def _array(
    path: Path, size: int, base: int, layout: dict[str, Any], name: str, node: np.dtype
) -> tuple[np.ndarray, int]:
    """The memory map of one array and the byte where it ends."""
    entry = layout.get(name)
    allowed = {"nodes": ("node",), "indptr": ("<i8",), "indices": ("<i4",), "weights": _WEIGHTS}[name]
    if not isinstance(entry, dict) or entry.get("dtype") not in allowed:
        raise InputError(f"{path}: array {name}: expected one of dtype {' or '.join(allowed)}")
    shape, offset = entry.get("shape"), entry.get("offset")
    if not (isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and shape[0] >= 0):
        raise InputError(f"{path}: array {name}: shape {shape}: expected one length")
    if type(offset) is not int or offset < 0 or offset % ALIGN:
        raise InputError(f"{path}: array {name}: offset {offset}: expected a multiple of {ALIGN}")
    dtype = node if name == "nodes" else np.dtype(entry["dtype"])
    start, count = base + offset, shape[0]
    end = start + count * dtype.itemsize
    if end > size:
        raise InputError(f"{path}: cut short: array {name} ends at byte {end} of {size}")
    array = np.memmap(path, dtype, "r", start, (count,)) if count else np.zeros(0, dtype)
    if _crc(array) != entry.get("crc32"):
        raise InputError(f"{path}: damaged: array {name} does not match its checksum")
    return array.view(np.ndarray), end


def _check_rows(path: Path, arrays: dict[str, np.ndarray]) -> None:
    n, indptr, indices = len(arrays["nodes"]), arrays["indptr"], arrays["indices"]
    if len(indptr) != n + 1 or indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise InputError(f"{path}: array indptr does not divide {len(indices)} edges into {n} rows")
    if len(arrays["weights"]) != len(indices):
        raise InputError(f"{path}: {len(arrays['weights'])} weights for {len(indices)} edges")
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise InputError(f"{path}: array indices names a node outside 0..{n - 1}")
    if indices.size > 1:
        inner = np.ones(len(indices), bool)
        inner[indptr[:-1][np.diff(indptr) > 0]] = False
        if (np.diff(indices)[inner[1:]] <= 0).any():
            raise InputError(f"{path}: array indices is not ascending within its rows")
    if not np.isfinite(arrays["weights"]).all():
        raise InputError(f"{path}: array weights holds a value that is no finite number")


def _check_nodes(path: Path, nodes: np.ndarray) -> None:
    if nodes.size and nodes["kind"].max() >= len(KIND_NAMES):
        raise InputError(
            f"{path}: array nodes holds kind {nodes['kind'].max()}: expected 0..{len(KIND_NAMES) - 1}"
        )
    if nodes.size and nodes["part"].max() >= len(PART_NAMES):
        raise InputError(
            f"{path}: array nodes holds part {nodes['part'].max()}: expected 0..{len(PART_NAMES) - 1}"
        )
    if not np.array_equal(node_order(nodes), np.arange(len(nodes))):
        raise InputError(
            f"{path}: array nodes is not in the order features, errors, biases, embeddings, targets"
        )
    if not (nodes["kind"] == TARGET).any():
        raise InputError(f"{path}: the graph has no target node")


def _aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(array.view(np.uint8).data)
