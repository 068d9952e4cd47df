"""Metrics as JSON lines, one line a report, in step with the checkpoints."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_bytes


class Metrics:
    """Appends lines to ``metrics.jsonl``. Values that are not finite are written as null."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def truncate(self, step: int) -> None:
        """Drop what a resumed run writes again: lines after ``step``, the final figures, a torn last line."""
        kept = [line for line in _lines(self.path) if line["step"] <= step and "final" not in line]
        write_bytes(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line: the step and its values (numbers, lists of numbers, nested dicts)."""
        line = json.dumps({"step": step, **_plain(values)}, allow_nan=False) + "\n"
        try:
            with self.path.open("a") as stream:
                stream.write(line)
                stream.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def sync(self) -> None:
        """Force what was written to disk."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics file."""
    return _lines(path)


def _lines(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if not path.exists():
        return found
    for line in path.read_text().splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            found.append(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value if isinstance(value, int) or math.isfinite(value) else None
