"""Checked look-ups in JSON objects."""

from __future__ import annotations

import math
from typing import Any

from jaxinterp.core.errors import InputError, near

_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}


def expect(holder: dict[str, Any], key: str, kind: type, where: str) -> Any:
    """holder[key], which must be there and of this kind. Raises InputError naming file and key."""
    if key not in holder:
        raise InputError(f"{where}: key {key!r} is missing{near(key, holder)}: expected {_NAMES[kind]}")
    value = holder[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{where}.{key}: a {type(value).__name__}, expected {_NAMES[kind]}")
    return value


def number(value: Any, where: str) -> float:
    """A finite number. Raises InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where}: {value!r}: expected a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise InputError(f"{where}: {value!r}: expected a finite number")
    return found


def optional_number(holder: dict[str, Any], key: str, where: str) -> float:
    """A finite number, or nan where the key is absent or null."""
    value = holder.get(key)
    return math.nan if value is None else number(value, f"{where}.{key}")
