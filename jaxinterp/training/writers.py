"""Metrics in other programs' forms, beside the JSON lines: TensorBoard's event files and Weights & Biases.

The JSON lines are the record; a writer is a copy of it. When a run is resumed, lines after its checkpoint are dropped
and written again by the run, so every writer starts again from the lines that are kept: event files are written anew,
and what Weights & Biases holds already is not sent twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json

LONGEST = 256
"""Lists of more numbers than these are not plotted."""
Line = dict[str, Any]


class Writer(Protocol):
    """Where lines of metrics are copied to."""

    def restart(self, lines: list[Line]) -> None:
        """Hold these lines and no others."""

    def write(self, line: Line) -> None:
        """Add a line."""

    def sync(self) -> None:
        """Bring what was written where it is safe."""

    def close(self) -> None:
        """No line will come any more."""


def scalars(values: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Names and numbers of a line, ``a/b`` for nested fields, ``a/0`` for lists; step, text and null are left out."""
    if isinstance(values, dict):
        for key, value in values.items():
            if name or key != "step":
                yield from scalars(value, f"{name}/{key}" if name else str(key))
    elif isinstance(values, list):
        if len(values) <= LONGEST:
            for index, value in enumerate(values):
                yield from scalars(value, f"{name}/{index}")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield name, float(values)


class TensorBoard:
    """Event files in ``folder``, which is this writer's own: files of events that are there are replaced."""

    def __init__(self, folder: Path) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise InputError(
                "loop.tensorboard: tensorboardX is not installed: pip install 'jaxinterp[tensorboard]'"
            ) from error
        self._make, self.folder = tensorboardX.SummaryWriter, folder
        self._file: Any = None

    def restart(self, lines: list[Line]) -> None:
        """See `Writer.restart`."""
        self.close()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._file = self._make(str(self.folder))
        except OSError as error:
            raise InputError(f"cannot write {self.folder}: {error.strerror or error}") from error
        for line in lines:
            self.write(line)

    def write(self, line: Line) -> None:
        """See `Writer.write`."""
        if self._file is None:
            self.restart([])
        for name, value in scalars(line):
            self._file.add_scalar(name, value, line["step"])

    def sync(self) -> None:
        """See `Writer.sync`."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """See `Writer.close`."""
        if self._file is not None:
            self._file.close()
            self._file = None


class WeightsAndBiases:
    """A run of ``project``; its number is kept in ``folder/wandb.json``, by which a resumed run goes on with it."""

    def __init__(self, project: str, folder: Path, config: Any = None) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("loop.wandb: wandb is not installed: pip install 'jaxinterp[wandb]'") from error
        self._wandb, self.project, self.folder, self.config = wandb, project, folder, config
        self._run: Any = None
        self._next = 0

    def restart(self, lines: list[Line]) -> None:
        """See `Writer.restart`. What was sent of dropped lines stays: a resumed run computes the same numbers."""
        if self._run is None:
            self._begin()
        for line in lines:
            self.write(line)

    def _begin(self) -> None:
        record = self.folder / "wandb.json"
        if record.exists():
            known = read_json(record)
            if not isinstance(known, dict) or not isinstance(known.get("id"), str):
                raise InputError(f"{record} is not the record of a run: expected an id")
            number = known["id"]
        else:
            number = secrets.token_hex(8)
            write_json(record, {"id": number, "project": self.project})
        try:
            self._run = self._wandb.init(
                project=self.project, id=number, name=self.folder.name, dir=str(self.folder), resume="allow",
                config=self.config,
            )  # fmt: skip
        except Exception as error:  # whatever its client raises without a network, a key or a right
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(f"loop.wandb: the run cannot be opened: {reason}") from error
        self._next = int(self._run.step)

    def write(self, line: Line) -> None:
        """See `Writer.write`."""
        if self._run is None:
            self._begin()
        if line["step"] >= self._next:
            self._run.log(dict(scalars(line)), step=line["step"])

    def sync(self) -> None:
        """Nothing: it sends by itself."""

    def close(self) -> None:
        """See `Writer.close`."""
        if self._run is not None:
            self._run.finish()
            self._run = None
