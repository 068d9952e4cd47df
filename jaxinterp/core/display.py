"""How results show themselves in notebooks, without their rooms knowing the viewer's."""

from __future__ import annotations

import importlib
from html import escape
from typing import Any

from jaxinterp.core.errors import InputError


def html(kind: str, shown: Any) -> str:
    """HTML of an object for a notebook, from the function ``kind`` of jaxinterp.viewer.notebook.

    Where the viewer cannot show it: its text, and a line that says why.
    """
    show = getattr(importlib.import_module("jaxinterp.viewer.notebook"), kind)
    try:
        return str(show(shown))
    except InputError as error:
        return f"<pre>{escape(repr(shown))}</pre><div>{escape(str(error))}</div>"
