"""The state of a run on disk, so that a killed one goes on: one file, replaced whole.

What `numpy.savez` writes is a zip file of plain arrays; it is read without pickles.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic
from jaxinterp.interpret.reading import Scratch
from jaxinterp.interpret.tally import Tally

FOLDER = ".progress"


class Saved:
    """The folder of an unfinished run.

    Args:
      out: of the dashboards; the state is in a folder inside.
      facts: what the run depends on; a state of other facts is refused.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = out / FOLDER, dict(facts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write into {out}: {error.strerror or error}") from error
        self.path = self.folder / "state.npz"

    def scratch(self, blocks: int, rows: int) -> Scratch:
        """Where the tokens are kept."""
        return Scratch(self.folder / "tokens.bin", blocks, rows)

    def save(self, done: int, tallies: Sequence[Tally], scratch: Scratch) -> None:
        """Write what the first ``done`` blocks gave."""
        scratch.sync()
        arrays = {f"{i}.{name}": array for i, one in enumerate(tallies) for name, array in one.arrays()}
        header = np.frombuffer(json.dumps({"done": done, "facts": self.facts}).encode(), np.uint8)
        with atomic(self.path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, header=header, **arrays)  # type: ignore[arg-type]

    def load(self, tallies: Sequence[Tally]) -> int:
        """Take back what was saved; returns how many blocks are done.

        Raises:
          InputError: what is there is of other settings, or is damaged.
        """
        if not self.path.exists():
            return 0
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                check_same(header["facts"], self.facts, self.folder)
                for i, one in enumerate(tallies):
                    names = [name for name, _ in one.arrays()]
                    one.restore({name: arrays[f"{i}.{name}"] for name in names})
                return int(header["done"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.path} is damaged; remove {self.folder} to begin again") from error

    def remove(self) -> None:
        """The run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_same(there: Any, wanted: Any, where: Path, name: str = "") -> None:
    """Raises an `InputError` that names the first fact in which two runs differ."""
    if isinstance(there, Mapping) and isinstance(wanted, Mapping):
        for key in dict.fromkeys((*wanted, *there)):
            check_same(there.get(key), wanted.get(key), where, f"{name}.{key}" if name else str(key))
    elif there != wanted:
        raise InputError(
            f"{where} holds dashboards of other settings: {name} is {there!r} there, {wanted!r} now; "
            "give another folder, or remove it"
        )
