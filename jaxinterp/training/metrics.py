"""Metrics as JSON lines, one line a report, in step with the checkpoints; copied to other writers if asked for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_bytes
from jaxinterp.training.writers import TensorBoard, WeightsAndBiases, Writer


class Metrics:
    """Appends lines to ``metrics.jsonl``. Values that are not finite are written as null.

    Args:
      path: of the file.
      writers: what every line is copied to.
    """

    def __init__(self, path: Path, writers: Sequence[Writer] = ()) -> None:
        self.path, self.writers = path, writers
        self._fresh = True

    def truncate(self, step: int) -> None:
        """Drop what a resumed run writes again: lines after ``step``, the final figures, a torn last line."""
        found = _lines(self.path)
        kept = [line for line in found if line["step"] <= step and "final" not in line]
        write_bytes(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        if self._fresh or len(kept) < len(found):
            for writer in self.writers:
                writer.restart(kept)
        self._fresh = False

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line: the step and its values (numbers, lists of numbers, nested dicts)."""
        line = {"step": step, **_plain(values)}
        text = json.dumps(line, allow_nan=False) + "\n"
        try:
            with self.path.open("a") as stream:
                stream.write(text)
                stream.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error
        for writer in self.writers:
            writer.write(line)

    def sync(self) -> None:
        """Force what was written to disk."""
        if self.path.exists():
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())
        for writer in self.writers:
            writer.sync()

    def close(self) -> None:
        """No line will come any more."""
        for writer in self.writers:
            writer.close()


def open_metrics(out: Path, *, tensorboard: bool = False, wandb: str = "") -> Metrics:
    """The metrics of a run in the folder ``out``.

    Args:
      out: ``metrics.jsonl`` is in it.
      tensorboard: write event files into ``out/tensorboard``, too.
      wandb: the project at Weights & Biases that a run is sent to, too; empty for none. ``out/config.yaml``, where it
        is there, becomes the run's configuration.

    Raises:
      InputError: a package that is not installed; the extra that has it is named.
    """
    writers: list[Writer] = []
    if tensorboard:
        writers.append(TensorBoard(out / "tensorboard"))
    if wandb:
        from jaxinterp.training.configs import read

        record = out / "config.yaml"
        writers.append(WeightsAndBiases(wandb, out, read(record) if record.exists() else None))
    return Metrics(out / "metrics.jsonl", writers)


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
