"""How results show themselves in notebooks, without their rooms knowing the viewer's."""

from __future__ import annotations

import importlib
from typing import Any

from jaxinterp.core.errors import InputError


def html(kind: str, shown: Any) -> str | None:
    """HTML of an object for a notebook, from the function ``kind`` of jaxinterp.viewer.notebook.

    None where the viewer is not here or cannot show the object: notebooks then print its text.
    """
    try:
        show = getattr(importlib.import_module("jaxinterp.viewer.notebook"), kind)
    except (ImportError, AttributeError):
        return None
    try:
        return str(show(shown))
    except InputError:
        return None
