"""Records as plain JSON values, so that equal graphs give equal bytes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError


def plain(value: Any, where: str = "settings") -> Any:
    """The value with numpy numbers, arrays and tuples made into JSON's own types; numbers that are none
    become null.

    Raises InputError naming a value that JSON cannot hold.
    """
    if isinstance(value, dict):
        return {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, where) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), where)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise InputError(f"{where}: a value of type {type(value).__name__} cannot be written to a file")


def ordered(value: Any) -> Any:
    """The value with the keys of nested objects sorted."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return value


def dumps(value: Any) -> str:
    """Compact JSON text, keys in the order given."""
    return _encode(value)


def float_texts(values: np.ndarray) -> list[str]:
    """JSON numbers with the fewest digits that still give back the same finite float32 or float64."""
    values = np.asarray(values)
    if values.dtype == np.float64:
        return list(map(repr, values.tolist()))
    texts = map(str, values.astype(np.float32))
    return [text if "e" not in text else repr(float(text)) for text in texts]  # as Python writes exponents


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
