"""Fields of JSON configs of other programs, checked one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json

_MISSING: Any = object()
_WHAT = {
    bool: "true or false",
    int: "a whole number",
    str: "text",
    dict: "fields",
    float: "a number",
    list: "a list",
}


class Fields:
    """The fields of a JSON object, with the file's name for messages."""

    def __init__(self, values: Any, where: Path) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{where}: expected fields, found {type(values).__name__}")
        self.values, self.where = values, where

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def get(self, name: str, kind: type, default: Any = _MISSING) -> Any:
        """The value of a field of a type; ``default`` where it is missing or null.

        Raises:
          InputError: another type, or missing without a default.
        """
        value = self.values.get(name)
        if value is None:
            if default is _MISSING:
                raise InputError(f"{self.where}: the field {name!r} is missing")
            return default
        right = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not right or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{self.where}: {name} is {value!r}, expected {_WHAT[kind]}")
        return value

    def size(self, name: str, default: Any = _MISSING) -> Any:
        """A whole number of at least one."""
        value = self.get(name, int, default)
        if isinstance(value, int) and value < 1:
            raise InputError(f"{self.where}: {name} is {value}, expected a whole number of at least 1")
        return value

    def inner(self, name: str) -> Fields:
        """The fields inside a field, none where it is missing."""
        return Fields(self.get(name, dict, {}), Path(f"{self.where}: {name}"))


def read_fields(path: Path) -> Fields:
    """The fields of a JSON file."""
    return Fields(read_json(path), path)
