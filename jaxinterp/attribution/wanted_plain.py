"""Targets as JSON values and back: for the record of a graph and for files of targets."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.attribution.wanted import SORTS, Feature, Target, TokenLike
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_json

_SORT_OF = {kind: name for name, kind in SORTS.items()}
_FILE_BYTES = 1 << 28


def to_plain(target: Any) -> Any:
    """A target as a JSON value; `from_plain` gives it back. What has its default value is left out."""
    if isinstance(target, bool):
        raise _not_a_target(target)
    if isinstance(target, int | np.integer):
        return int(target)
    if isinstance(target, str):
        return target
    if type(target) not in _SORT_OF:
        raise _not_a_target(target)
    out: dict[str, Any] = {"sort": _SORT_OF[type(target)]}
    for field in dataclasses.fields(target):
        value = getattr(target, field.name)
        if field.name == "vector":
            value = np.asarray(value).astype(np.float64)
        elif field.default is not dataclasses.MISSING and value is field.default:
            continue
        out[field.name] = _plain(value)
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Feature):
        return to_plain(value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    return [_plain(one) for one in value]


def from_plain(value: Any, where: str = "target", folder: str | os.PathLike[str] | None = None) -> Any:
    """The target that a JSON value stands for: a token id, a token's text or an object with a ``sort``.

    Args:
      value: what `to_plain` gives. A direction may name a .npy file instead of listing its ``vector``.
      where: what to call it in errors.
      folder: where such a file is looked for; None refuses files.

    Raises:
      InputError: an unknown sort or key, a missing one, or a value of another type, named with its place.
    """
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a token id, a token's text or an object, not {value!r:.60}")
    if "sort" not in value and "direction" in value:  # as graphs of version 0.3 and before have it
        value = {"sort": "direction", "vector": value["direction"], "label": value.get("label", "")}
    sort = value.get("sort")
    if not isinstance(sort, str) or sort not in SORTS:
        raise InputError(f"{where}: sort is {sort!r}{near(sort, SORTS)}, expected one of {', '.join(SORTS)}")
    given = {key: one for key, one in value.items() if key != "sort"}
    if sort == "direction" and "file" in given and "vector" not in given:
        given["vector"] = _vector(given.pop("file"), folder, where)
    fields = {field.name: field for field in dataclasses.fields(SORTS[sort])}
    for key in given:
        if key not in fields:
            raise InputError(
                f"{where}: a {sort} has no {key!r}{near(key, fields)}: expected {', '.join(fields)}"
            )
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise InputError(f"{where}: a {sort} needs {name!r}")
    return SORTS[sort](**{key: _checked(key, one, f"{where}.{key}") for key, one in given.items()})


def read_targets(path: str | os.PathLike[str]) -> list[Any]:
    """The targets in a JSON file: one value of `from_plain`, or a list of them.

    Raises:
      InputError: naming the file and the place in it.
    """
    found = read_json(path)
    items = found if isinstance(found, list) else [found]
    if not items:
        raise InputError(f"{path}: an empty list, at least one target is needed")
    return [from_plain(item, f"{path}: target {i}", Path(path).parent) for i, item in enumerate(items)]


def _checked(key: str, value: Any, where: str) -> Any:
    if key in ("label", "name", "site", "part"):
        if not isinstance(value, str):
            raise InputError(f"{where}: expected a text, not {value!r:.60}")
        return value
    if key in ("layer", "index", "at_most"):
        return _whole(value, where)
    if key in ("weight", "mass"):
        return _number(value, where)
    if key == "vector":
        return value if isinstance(value, np.ndarray) else _numbers(value, where)
    if key == "weights":
        return tuple(_numbers(value, where))
    if key == "position":
        return tuple(_whole(one, where) for one in value) if isinstance(value, list) else _whole(value, where)
    if key in ("plus", "minus"):
        return tuple(_token(one, where) for one in value) if isinstance(value, list) else _token(value, where)
    if key == "text":
        return tuple(_whole(one, where) for one in value) if isinstance(value, list) else _text(value, where)
    if key == "token":
        return _token(value, where)
    return _members(value, where)


def _members(value: Any, where: str) -> tuple[Feature, ...]:
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list of features")
    found = [
        from_plain({"sort": "feature", **one} if isinstance(one, dict) else one, f"{where}[{i}]")
        for i, one in enumerate(value)
    ]
    for i, one in enumerate(found):
        if not isinstance(one, Feature):
            raise InputError(f"{where}[{i}]: expected a feature")
    return tuple(found)


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 62:
        raise InputError(f"{where}: expected a whole number, not {value!r:.60}")
    return value


def _token(value: Any, where: str) -> TokenLike:
    return value if isinstance(value, str) else _whole(value, f"{where} (a token's text or id)")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a text or a list of token ids, not {value!r:.60}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: expected a finite number, not {value!r:.60}")
    return float(value)


def _numbers(value: Any, where: str) -> list[float]:
    if not isinstance(value, list):
        raise InputError(f"{where}: expected a list of numbers")
    return [_number(one, f"{where}[{i}]") for i, one in enumerate(value)]


def _vector(name: Any, folder: str | os.PathLike[str] | None, where: str) -> np.ndarray:
    if folder is None or not isinstance(name, str):
        raise InputError(f"{where}.file: {name!r:.60}: a direction here has to list its vector")
    return read_vector(Path(folder) / name)


def read_vector(path: str | os.PathLike[str]) -> np.ndarray:
    """A vector of numbers from a .npy file; nothing in it is executed.

    Raises:
      InputError: no such file, no .npy file of numbers, or larger than 256 MiB.
    """
    try:
        if os.path.getsize(path) > _FILE_BYTES:
            raise InputError(f"{path}: more than {_FILE_BYTES >> 20} MiB is no direction")
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a .npy file of numbers") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise InputError(f"{path}: not a .npy file of numbers")
    return found


def _not_a_target(value: Any) -> InputError:
    kinds = ", ".join(kind.__name__ for kind in SORTS.values())
    return InputError(f"a target is a token id, a token's text or one of {kinds}, not {type(value).__name__}")


__all__ = ["Target", "from_plain", "read_targets", "read_vector", "to_plain"]
