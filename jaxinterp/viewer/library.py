"""The graphs that a viewer shows: the files given and those of the folders given, loaded when asked for."""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import Graph, load_graph
from jaxinterp.viewer import saving
from jaxinterp.viewer.bundle import bundle, graph_arrays
from jaxinterp.viewer.features import Dashboards, FeatureSource
from jaxinterp.viewer.heads import Heads, heads_of
from jaxinterp.viewer.messages import Refused
from jaxinterp.viewer.peek import Peek, peek
from jaxinterp.viewer.reading import Label
from jaxinterp.viewer.report import report_of
from jaxinterp.viewer.saving import Current, one_line
from jaxinterp.viewer.view import Names, View

ENDINGS = (".json", ".jigraph")
NOT_GRAPHS = ("graph-metadata.json",)
KEPT = 4  # graphs in memory
EPOCH = 1 << 32
LARGE = 4 << 20  # bytes

Mark = tuple[int, int, int]  # of a file: when changed, size, inode


@dataclass
class Opened:
    """A loaded graph and what has been made of it.

    epoch counts how often the file came to hold another graph while the server ran. Pages speak of nodes by number, so
    a page that was loaded before must not save: the revisions that pages see have the epoch in them.
    """

    path: Path
    mark: Mark
    graph: Graph
    names: Names
    epoch: int = 0
    # Saving and what is made of the graph do not wait for each other, nor the first drawing for the report.
    lock: threading.RLock = field(default_factory=threading.RLock)
    _drawing: threading.Lock = field(default_factory=threading.Lock)
    _reporting: threading.Lock = field(default_factory=threading.Lock)
    _beside: threading.Lock = field(default_factory=threading.Lock)
    _arrays: dict[str, tuple[str, np.ndarray]] | None = None
    _report: dict[str, Any] | None = None
    _heads: Heads | None = None
    _features: tuple[FeatureSource | None] | None = None

    def current(self) -> Current:
        """The newest view, read anew: another program may have saved it."""
        with self.lock:
            return saving.current(self.path, self.graph, self.names)

    def prepare(self) -> dict[str, tuple[str, np.ndarray]]:
        """The bundle's arrays, made once."""
        with self._drawing:
            if self._arrays is None:
                self._arrays = graph_arrays(self.graph)
            return self._arrays

    def bundle(self, labels: dict[int, str] | None = None, **more: Any) -> bytes:
        """The bytes of bundle.py with the newest view; ``labels`` from elsewhere, ``more`` for the header."""
        arrays, now = self.prepare(), self.current()
        header = {
            "file": self.path.name, "has_heads": False, "has_features": False, "live": False, **more,
            "writable": saving.writable(self.path), "view": now.view, "saved_from": now.saved_from,
            "revision": self._seen(now.revision), "view_notes": list(now.notes),
        }  # fmt: skip
        return bundle(self.graph, header, arrays, labels)

    def report_now(self, label: Label | None = None) -> dict[str, Any]:
        """REPORT, made once; ``label``: a feature's label from elsewhere."""
        with self._reporting:
            if self._report is None:
                self._report = report_of(self.graph, self.path.name, label)
            return self._report

    def heads(self) -> Heads:
        """Edges opened into heads, read once."""
        with self._beside:
            if self._heads is None:
                self._heads = heads_of(self.path, self.graph)
            return self._heads

    def features(self, dashboards: Dashboards) -> FeatureSource | None:
        """The dashboards of this graph, looked for once."""
        with self._beside:
            if self._features is None:
                self._features = (dashboards.of(self.path, self.graph),)
            return self._features[0]

    def save(self, view: View, revision: int, into_file: bool) -> int:
        """Keep a view; the new revision. Raises Refused as saving.py says."""
        with self.lock:
            epoch, given = divmod(revision, EPOCH)
            if epoch != self.epoch:
                raise saving.conflict(self._seen(self.current().revision))
            try:
                if into_file:
                    now, self.graph = saving.save(self.path, self.graph, self.names, view, given)
                    self.names.graph, self.mark = self.graph, mark(self.path)
                else:
                    now = saving.autosave(self.path, self.graph, self.names, view, given)
            except Refused as refused:
                if "revision" in refused.more:
                    raise saving.conflict(self._seen(refused.more["revision"])) from refused
                raise
            return self._seen(now)

    def _seen(self, revision: int) -> int:
        """A revision as pages see it."""
        return self.epoch * EPOCH + revision


@dataclass
class Entry:
    """One file of the list; error: one line where it cannot be shown."""

    id: int
    path: Path
    name: str
    error: str | None = None
    glance: Peek | None = None
    mark: Mark | None = None
    barred: bool = False  # never opened, whatever its content
    identity: int | None = None  # of the nodes of the graph that was opened last
    epoch: int = 0
    glancing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)


class Library:
    """Files by number. Thread-safe; at most ``kept`` graphs are in memory, those used last."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]] = (), kept: int = KEPT) -> None:
        self._lock = threading.RLock()
        self._loading: dict[int, threading.Lock] = {}
        self._opened: OrderedDict[int, Opened] = OrderedDict()
        self._kept = kept
        self.entries: list[Entry] = []
        for path in paths:
            self._take(Path(path))
        self._rename()

    def add(self, path: str | os.PathLike[str]) -> int:
        """Add one file; its number (that which it had, if it is in the list already)."""
        with self._lock:
            number = self._append(Path(path))
            self._rename()
            return number

    def listed(self) -> list[dict[str, Any]]:
        """Every file as the page lists it; what cannot be read has one line that says why."""
        with self._lock:
            entries = list(self.entries)
        found = []
        for entry in entries:
            self._glance(entry)
            glance = entry.glance or Peek("", "", 0, 0)
            found.append({"id": entry.id, "file": entry.name, **glance._asdict(), "error": entry.error})
        return found

    def open(self, number: int) -> Opened:
        """A graph, loaded if it is not, or again if its file has changed. Raises Refused: 404, or 400 with what is
        wrong with the file."""
        with self._lock:
            if not 0 <= number < len(self.entries):
                raise Refused(404, "there is no such graph")
            entry = self.entries[number]
        if entry.barred:
            raise Refused(400, entry.error or "this file is not opened")
        with self._gate(number):
            with self._lock:
                found = self._opened.get(number)
            try:
                now = mark(entry.path)
                if found is None or found.mark != now:
                    graph = load_graph(entry.path)
                    names = Names(graph)
                    identity = hash(tuple(names.ids))
                    entry.epoch += entry.identity not in (None, identity)
                    entry.identity = identity
                    found = Opened(entry.path, now, graph, names, entry.epoch)
            except (OSError, InputError) as error:
                text = (
                    f"cannot read {entry.path}: {error.strerror}"
                    if isinstance(error, OSError)
                    else str(error)
                )
                entry.error = one_line(InputError(text), entry.path)
                with self._lock:
                    self._opened.pop(number, None)
                raise Refused(400, entry.error) from error
            entry.error = None
            if entry.mark != found.mark or entry.glance is None:
                entry.glance, entry.mark = _looked(found), found.mark
            with self._lock:
                self._opened[number] = found
                self._opened.move_to_end(number)
                while len(self._opened) > self._kept:
                    self._opened.popitem(last=False)
            return found

    def first(self) -> Opened | None:
        """The first graph that can be shown, loaded."""
        with self._lock:
            numbers = range(len(self.entries))
        for number in numbers:
            try:
                return self.open(number)
            except Refused:
                continue  # the list says why
        return None

    def at_hand(self, most_edges: int) -> int | None:
        """The number of the first graph that can be shown, if it is known by now and has at most so many edges."""
        with self._lock:
            for entry in self.entries:
                if entry.error is None:
                    known = entry.glance is not None and entry.glance.edges <= most_edges
                    return entry.id if known else None
        return None

    def _gate(self, number: int) -> threading.Lock:
        """Held while a file is being loaded."""
        with self._lock:
            return self._loading.setdefault(number, threading.Lock())

    def _take(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder")
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"{path}: neither a file nor a folder")
            entry = self.entries[self._append(path)]
            if entry.barred:
                entry.barred, entry.error = False, None
            return
        inside = path.resolve()
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
        for file in files:
            if file.name.startswith(".") or file.name in NOT_GRAPHS or file.name.endswith(saving.ENDING):
                continue
            before = len(self.entries)
            entry = self.entries[self._append(file)]
            if file.resolve().parent != inside and entry.id == before:
                entry.error = f"{file.name} is a link out of its folder: name the file itself to open it"
                entry.barred = True

    def _append(self, path: Path) -> int:
        real = path.resolve()  # a save through a link is to change the file, not to replace the link
        for entry in self.entries:
            if entry.path == real:
                return entry.id
        self.entries.append(Entry(len(self.entries), real, path.name))
        return len(self.entries) - 1

    def _rename(self) -> None:
        """Names that occur twice get as much of their folder as tells them apart."""
        again = Counter(entry.path.name for entry in self.entries)
        for entry in self.entries:
            if again[entry.path.name] > 1:
                full = entry.path
                others = [e.path for e in self.entries if e.path.name == full.name and e is not entry]
                size = 2
                while size < len(full.parts) and any(o.parts[-size:] == full.parts[-size:] for o in others):
                    size += 1
                entry.name = "/".join(full.parts[-size:])

    def _glance(self, entry: Entry) -> None:
        if entry.barred:
            return
        with entry.glancing:  # another thread that is at it is waited for
            try:
                now = mark(entry.path)
                if entry.mark != now and now[1] > LARGE:
                    with self._gate(entry.id):
                        pass  # it may be loading, after which there is nothing left to find out
                if entry.mark != now:
                    entry.glance, entry.error, entry.mark = None, None, now
                    entry.glance = peek(entry.path)
            except (OSError, InputError) as error:
                text = (
                    f"cannot read {entry.path.name}: {error.strerror}"
                    if isinstance(error, OSError)
                    else str(error)
                )
                entry.error, entry.glance = one_line(InputError(text), entry.path), None
                entry.mark = None if isinstance(error, OSError) else entry.mark


def _looked(opened: Opened) -> Peek:
    """What a glance at a loaded graph's file would have found."""
    graph = opened.graph
    slug = (graph.foreign or {}).get("metadata", {}).get("slug") or graph.settings.get("slug")
    return Peek(str(slug or opened.path.stem), graph.prompt, len(graph), len(graph.weights))


def mark(path: Path) -> Mark:
    """What tells whether a file has changed. Raises OSError."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
