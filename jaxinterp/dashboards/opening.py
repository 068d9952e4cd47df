"""Whose files are these? Found by content."""

from __future__ import annotations

import os
from pathlib import Path

from jaxinterp.core.errors import InputError
from jaxinterp.dashboards import circuit_tracer, neuronpedia, own, saedashboard
from jaxinterp.dashboards.record import Features

# The bundled dashboards are package data of a room above; a path is not an import.
_DATA = Path(__file__).resolve().parent.parent / "biology" / "pocket" / "data" / "dashboards"
BUNDLED = {"pocket": _DATA / "clt", "pocket-clt": _DATA / "clt", "pocket-plt": _DATA / "plt"}
LOOKED_FOR = "manifest.json, features/index.json.gz, files NUMBER.json, features/*.jsonl.gz, batch-*.json"


def open_features(path: str | os.PathLike[str], *, scan: str | None = None) -> Features:
    """Open feature files, lazily: reading one feature of ours or circuit-tracer's reads a few kilobytes.

    Args:
      path: a folder of ours; of circuit-tracer's, with ``features/index.json.gz`` and binary files, or with files
        ``NUMBER.json`` as Anthropic's and EleutherAI's viewers have them too, in it, in ``features/`` or in
        ``features/SCAN/``; Neuronpedia's export (JSON lines, gzipped or not), of one source or many; SAEDashboard's
        batches. Or a file that such a folder is known by.
      scan: which of several sets in ``features/``.

    Raises:
      InputError: nothing there that is understood; one line that says what was looked for.
    """
    path = Path(path)
    if path.is_file() and path.name in (own.MANIFEST, circuit_tracer.INDEX):
        path = path.parent
    if path.is_file() and path.name.endswith((".jsonl", ".jsonl.gz")) and path.parent.name == "features":
        return neuronpedia.Export([path.parent.parent])
    if not path.is_dir():
        what = "is a file" if path.is_file() else "does not exist"
        raise InputError(f"{path} {what}; expected a folder of feature files: {LOOKED_FOR}")
    try:
        found = _open(path, scan)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if found is None:
        raise InputError(f"{path} holds no feature files: looked for {LOOKED_FOR}")
    return found


def _open(path: Path, scan: str | None) -> Features | None:
    if (path / own.MANIFEST).is_file():
        return own.Dashboards(path)
    places = [path, path / "features"]
    if scan and Path(scan).name == scan:
        places = [path / scan, path / "features" / scan, *places]
    for place in places:
        if (place / circuit_tracer.INDEX).is_file():
            return circuit_tracer.Binary(place)
    if found := neuronpedia.sources(path):
        return neuronpedia.Export(found)
    if path.name == "features" and (any(path.glob("*.jsonl.gz")) or any(path.glob("*.jsonl"))):
        return neuronpedia.Export([path.parent])
    if batches := saedashboard.batches(path):
        return saedashboard.Batches(batches)
    sets = [
        inner for place in places if place.is_dir() for inner in sorted(place.iterdir()) if inner.is_dir()
    ]
    for place in places:
        if place.is_dir() and _numbered(place):
            return circuit_tracer.Folder(place)
    numbered = [inner for inner in sets if _numbered(inner)]
    if len(numbered) > 1:
        names = ", ".join(inner.name for inner in numbered[:5])
        raise InputError(f"{path} holds several sets of features: {names}; say which")
    return circuit_tracer.Folder(numbered[0]) if numbered else None


def _numbered(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(
            e.name.endswith(".json") and e.name[:-5].isascii() and e.name[:-5].isdigit() for e in entries
        )


def bundled(name: str = "pocket") -> own.Dashboards | None:
    """The dashboards that come with the package: "pocket" ("pocket-clt") or "pocket-plt"; None where there are none."""
    folder = BUNDLED.get(name)
    return own.Dashboards(folder) if folder is not None and (folder / own.MANIFEST).is_file() else None
