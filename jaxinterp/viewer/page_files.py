"""The built page: one HTML file, one script, one style sheet, in the folder beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jaxinterp.core.errors import InputError

FOLDER = Path(__file__).parent / "assets"


class Assets(NamedTuple):
    """The texts of index.html, page.js and page.css."""

    html: str
    script: str
    style: str


def assets() -> Assets:
    """The built page. Raises InputError where a file of it is missing."""
    found = []
    for name in ("index.html", "page.js", "page.css"):
        try:
            found.append((FOLDER / name).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"the viewer's page is not complete: {name} is missing or damaged; install jaxinterp again, or run "
                "`npm run build` in jaxinterp/viewer/web"
            ) from error
    return Assets(*found)
