"""Where two plain values differ."""

from __future__ import annotations

from typing import Any


def first_difference(old: Any, new: Any, name: str = "") -> str | None:
    """Where two plain configs differ, as "name: old there, new here"; None when they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            inner = f"{name}.{key}" if name else str(key)
            if (found := first_difference(old.get(key), new.get(key), inner)) is not None:
                return found
        return None
    return None if old == new else f"{name}: {old!r} there, {new!r} here"
