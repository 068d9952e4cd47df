"""Keeping a view: at every change into a file beside the graph, when asked into the graph's file itself.

The sidecar of ``graph.json`` is ``graph.json.view.json``. Both are written whole or not at all. Every save counts one
up from the revision that it was made from; a save made from an older one is refused (409), so of two windows neither
overwrites what it has not seen. A sidecar whose revision is not above the file's is left over and not read.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.graphs import Graph
from jaxinterp.graphs.files import save_graph
from jaxinterp.graphs.native import is_native, write_native
from jaxinterp.graphs.neuronpedia import write_json_graph
from jaxinterp.viewer.messages import Refused
from jaxinterp.viewer.view import Names, Stored, View, params_of, stored

ENDING = ".view.json"
MOST_SIDECAR = 64 << 20
ABANDONED = 600  # seconds
_VERSION = 1


@dataclass(frozen=True)
class Current:
    """The newest view of a graph, where it is from ("file", "sidecar", "none"), and what of it could not be used."""

    view: View
    revision: int
    saved_from: str
    notes: tuple[str, ...]


def sidecar(path: Path) -> Path:
    """Where the view of a graph file is kept."""
    return path.with_name(path.name + ENDING)


def current(path: Path, graph: Graph, names: Names) -> Current:
    """The newest view of a graph, from its file or its sidecar. Never fails: what cannot be read is said."""
    own = stored(graph, names=names)
    beside, note = _read_sidecar(path, graph, names)
    if beside is not None and beside.revision > own.revision:
        return Current(beside.view, beside.revision, "sidecar", beside.notes)
    notes = (*own.notes, *([note] if note else []))
    return Current(own.view, own.revision, "file" if own.chosen else "none", notes)


def writable(path: Path) -> bool:
    """Whether something can be saved beside the file. A folder without any write permission counts as read-only,
    also for a user who could write there all the same."""
    try:
        return bool(path.parent.stat().st_mode & 0o222) and os.access(path.parent, os.W_OK)
    except OSError:
        return False


def autosave(path: Path, graph: Graph, names: Names, view: View, revision: int) -> int:
    """Keep a view in the sidecar; the new revision.

    Raises Refused: 409 when another window saved since, 423 when nothing can be written there.
    """
    now = _next(path, graph, names, revision)
    if not writable(path):
        raise Refused(423, f"the folder of {path.name} is read-only: the view is kept in this browser alone")
    document = {
        "jaxinterp_view": _VERSION,
        "file": path.name,
        "qParams": params_of(view, names, now, graph.view),
    }
    try:
        write_json(sidecar(path), document)
        _keep_mode(sidecar(path), path.stat().st_mode)
    except OSError as error:
        raise Refused(423, f"the view of {path.name} cannot be saved: {error.strerror}") from error
    except InputError as error:
        raise Refused(423, f"the view of {path.name} cannot be saved: {_reason(error)}") from error
    return now


def save(path: Path, graph: Graph, names: Names, view: View, revision: int) -> tuple[int, Graph]:
    """Write a view into the graph's own file, native or JSON, and remove the sidecar; new revision and graph.

    Raises Refused: 409, 423 as `autosave`; 400 where the graph cannot be written in its file's format.
    """
    now = _next(path, graph, names, revision)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Refused(423, f"{path.name} is not there any more: save a copy with Export") from error
    if not writable(path) or not mode & 0o222:
        raise Refused(423, f"{path.name} is read-only: save a copy with Export")
    changed = replace(graph, view=params_of(view, names, now, graph.view))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a graph of many links is slow elsewhere was known before
            (write_native if is_native(path) else write_json_graph)(changed, path)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise Refused(423, f"{path.name} cannot be written: {_reason(error)}") from error
        raise Refused(400, one_line(error, path)) from error
    except OSError as error:
        raise Refused(423, f"{path.name} cannot be written: {error.strerror}") from error
    _keep_mode(path, mode)
    _sweep(path)
    with contextlib.suppress(OSError):  # left over, it is older than the file and not read
        sidecar(path).unlink(missing_ok=True)
    return now, changed


def export(path: Path, graph: Graph, names: Names, view: View, revision: int) -> None:
    """Write the graph with this view as our export, by the ending of ``path``. Raises InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_graph(replace(graph, view=params_of(view, names, revision, graph.view)), path)


def one_line(error: Exception, path: Path) -> str:
    """An error of ours in one line that names the file without its folder."""
    return " ".join(str(error).replace(str(path), path.name).split())[:500]


def _next(path: Path, graph: Graph, names: Names, revision: int) -> int:
    """The revision after ``revision``. Raises Refused (409) where that is not the newest."""
    newest = current(path, graph, names).revision
    if revision != newest:
        raise conflict(newest)
    return newest + 1


def conflict(revision: int) -> Refused:
    """What a page is told whose view is not made from the newest one."""
    return Refused(409, "another window has saved since: reload to see what it saved", revision=revision)


def _sweep(path: Path) -> None:
    """Remove what saves that were killed left half written, once nobody can be at it any more."""
    with contextlib.suppress(OSError):
        for file in path.parent.iterdir():
            ours = file.name.startswith(f".{path.name}.") and file.name.endswith(".tmp")
            if ours and time.time() - file.stat().st_mtime > ABANDONED:
                file.unlink(missing_ok=True)


def _keep_mode(path: Path, mode: int) -> None:
    """A graph that others may not read stays so, and so does its sidecar."""
    with contextlib.suppress(OSError):
        path.chmod(mode & 0o777)


def _read_sidecar(path: Path, graph: Graph, names: Names) -> tuple[Stored | None, str]:
    """The view in the sidecar (None: there is none), and why it could not be read."""
    place = sidecar(path)
    try:
        if not place.is_file():
            return None, ""
        if place.stat().st_size > MOST_SIDECAR:
            return None, f"{place.name} is too large for a saved view and was not used"
        document: Any = json.loads(place.read_bytes().decode("utf-8"))
        if document["jaxinterp_view"] != _VERSION:
            return None, f"{place.name} is of another version and was not used"
        return stored(graph, document["qParams"], names), ""
    except OSError as error:
        return None, f"{place.name} cannot be read ({error.strerror}) and was not used"
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, f"{place.name} is no saved view and was not used"


def _reason(error: InputError) -> str:
    cause = error.__cause__
    return (cause.strerror or "it failed") if isinstance(cause, OSError) else "the place is not writable"
