"""Where the model and dictionaries that come with the package are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jaxinterp.core.errors import InputError

NAMES = ("model", "clt", "plt")


def path(name: str = "model") -> Path:
    """The folder of a bundled artefact: ``model``, ``clt`` or ``plt`` of pocket.

    Raises:
      InputError: no such artefact, or this installation came without it.
    """
    if name not in NAMES:
        raise InputError(f"nothing bundled is called {name!r}: there are {', '.join(NAMES)}")
    folder = Path(str(resources.files("jaxinterp"))) / "biology" / "pocket" / "data" / name
    if not folder.is_dir():
        raise InputError(f"this installation has no bundled pocket {name}: {folder} is missing")
    return folder
