"""What a list of files says of each: slug, prompt, how many nodes and edges, without loading the graph."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import load_graph
from jaxinterp.graphs.native import ALIGN, MAGIC

_PREFIX = struct.Struct("<8sIIQ")
_MOST_HEADER = 1 << 30


class Peek(NamedTuple):
    """What a graph file says of itself at a glance."""

    slug: str
    prompt: str
    nodes: int
    edges: int


class _Metadata(msgspec.Struct):
    slug: str = ""
    prompt: str = ""


class _Document(msgspec.Struct):
    metadata: _Metadata
    nodes: list[msgspec.Raw]
    links: list[msgspec.Raw]


def _end(array: dict[str, Any]) -> int:
    """The byte, from the first array's on, where this one ends."""
    return int(array["offset"]) + int(array["shape"][0]) * int(str(array["dtype"])[-1])


def peek(path: Path) -> Peek:
    """A glance at a graph file, native or JSON. Raises InputError, in the words of `load_graph`, where it is none."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_PREFIX.size)
            if start[: len(MAGIC)] == MAGIC and len(start) == _PREFIX.size:
                length = _PREFIX.unpack(start)[3]
                header: Any = json.loads(
                    stream.read(min(length, _MOST_HEADER)).decode("utf-8", "surrogatepass")
                )
                arrays = header["arrays"]
                base = -(-(_PREFIX.size + length) // ALIGN) * ALIGN
                if base + _end(arrays["weights"]) != path.stat().st_size:
                    raise ValueError("the last array does not end where the file does")
                nodes, edges = int(arrays["nodes"]["shape"][0]), int(arrays["weights"]["shape"][0])
                return Peek(path.stem, str(header["prompt"]), nodes, edges)
            data = start + stream.read()
        found = msgspec.json.decode(data, type=_Document)
        return Peek(
            found.metadata.slug or path.stem, found.metadata.prompt, len(found.nodes), len(found.links)
        )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, msgspec.MsgspecError):
        graph = load_graph(path)  # says what is wrong; or it is right after all
        return Peek(path.stem, graph.prompt, len(graph), len(graph.weights))
