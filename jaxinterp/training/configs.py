"""Configurations: YAML files into frozen dataclasses, every key understood, every override checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxinterp.core.differences import first_difference
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_bytes

__all__ = ["first_difference", "parse", "read", "to_dict"]


def read(path: str | Path | None, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """A YAML file as a dict (None: an empty one), with overrides such as ``train.steps=200`` applied in order.

    An override's value is YAML too: ``a.b=3``, ``a.b=[1, 2]``, ``a.b=null``.

    Raises:
      InputError: the file is missing or no YAML mapping, or an override has no ``=``.
    """
    import yaml

    try:
        values = {} if path is None else yaml.safe_load(read_bytes(path).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected fields such as 'task: dictionary', found {type(values).__name__}")
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise InputError(f"override {override!r}: expected key=value, as in steps=200")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"override {override!r}: the value is not YAML") from error
        _set(values, name.split("."), value, override)
    return values


def _set(values: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise InputError(f"override {override!r}: {key} is a value and has no fields")
    values[keys[-1]] = value


def parse(cls: type, values: Any, where: str) -> Any:
    """An instance of the dataclass ``cls`` from a dict, its fields' types taken from the annotations.

    Understood types: int, float (whole numbers are accepted), bool, str, None in unions, tuples,
    ``dict``, nested dataclasses.

    Raises:
      InputError: an unknown or missing field or a value of another type, with its dotted name.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected fields, found {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for name in values:
        if name not in fields:
            raise InputError(f"{where}: unknown field {name!r}{near(name, fields)}")
    found = {}
    for name, field in fields.items():
        if name in values:
            found[name] = _value(hints[name], values[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: the field {name!r} is missing")
    return cls(**found)


def _value(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return parse(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [a for a in arguments if a is not type(None)]
        for option in options[:-1]:
            try:
                return _value(option, value, where)
            except InputError:
                continue
        return _value(options[-1], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} is {value!r}, expected a list")
        inner = arguments[0] if arguments else Any
        return tuple(_value(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is Any:
        return value
    if kind is dict or origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}, expected fields")
        return value
    if kind is float:
        value = _number(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(kind, type) and isinstance(value, kind):
        return value
    name = getattr(kind, "__name__", str(kind))
    raise InputError(f"{where} is {value!r}, expected {_NAMES.get(name, name)}")


_NAMES = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


def _number(value: Any) -> Any:
    # YAML reads 1e-3 (no point) as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain YAML-ready values, defaults included."""
    return {k: _plain(v) for k, v in dataclasses.asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
