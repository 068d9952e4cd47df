"""Graph files by name (saving) and by content (loading)."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.native import is_native, read_native, write_native
from jaxinterp.graphs.neuronpedia import read_json_graph, write_json_graph
from jaxinterp.graphs.validate import validated


def save_graph(graph: Graph, path: str | PathLike[str]) -> None:
    """Write a graph: .json is the Neuronpedia dialect, .jigraph the native format.

    Raises InputError on another ending or when the place cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending == ".json":
        write_json_graph(graph, path)
    elif ending == ".jigraph":
        write_native(graph, path)
    else:
        raise InputError(f"cannot save a graph as {path}: expected a name ending in .json or .jigraph")


def load_graph(path: str | PathLike[str]) -> Graph:
    """Read a graph file, native or any JSON dialect, told apart by content.

    Raises InputError naming the file and what was expected.
    """
    try:
        native = is_native(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return validated(read_native(path) if native else read_json_graph(path), str(path))
