"""A contrast from JSON values, checked before use."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxinterp.attribution.contrast import FORMAT, PAIR, ROW, VERSION, Contrast
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.kinds import KIND_NAMES, PART_NAMES


def read(data: Any, where: str) -> Contrast:
    """See `Contrast.from_dict`."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{where}: not a contrast of two graphs (format is not {FORMAT!r})")
    version = data.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(f"{where}: version {version!r}; this jaxinterp reads up to {VERSION}")
    nodes, rows = _table(data, "nodes", PAIR, where), _table(data, "rows", ROW, where)
    tokens, labels, facts = data.get("tokens"), data.get("labels"), data.get("facts")
    if not (isinstance(tokens, list) and len(tokens) == 2 and all(_texts(side) for side in tokens)):
        raise InputError(f"{where}: tokens: expected two lists of texts")
    if not isinstance(labels, list) or not _texts(labels) or len(labels) != len(nodes):
        raise InputError(f"{where}: labels: expected one text for each of {len(nodes)} nodes")
    if not isinstance(facts, dict):
        raise InputError(f"{where}: facts: expected an object")
    indptr, indices = (_array(data.get(key), np.int64, f"{where}: {key}") for key in ("indptr", "indices"))
    effects = _array(data.get("effects"), np.float64, f"{where}: effects").reshape(-1, 2)
    right = len(indptr) == len(rows) + 1 and indptr[0] == 0 and indptr[-1] == len(indices) == len(effects)
    if not right or (np.diff(indptr) < 0).any():
        raise InputError(f"{where}: indptr, indices and effects do not belong to {len(rows)} rows")
    for what, numbers in (("indices", indices), ("rows.node", rows["node"])):
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(nodes):
            raise InputError(f"{where}: {what}: a node that is not one of {len(nodes)}")
    for key, top in (("kind", len(KIND_NAMES)), ("part", len(PART_NAMES))):
        if len(nodes) and nodes[key].max() >= top:
            raise InputError(f"{where}: nodes.{key}: expected numbers below {top}")
    for side, texts in zip("ab", tokens, strict=True):
        if len(nodes) and not -1 <= nodes[f"position_{side}"].min() <= nodes[f"position_{side}"].max() < len(
            texts
        ):
            raise InputError(f"{where}: nodes.position_{side}: a position outside the prompt")
    return Contrast(
        nodes, tuple(labels), rows, indptr, indices, effects, (tuple(tokens[0]), tuple(tokens[1])), facts
    )


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _table(data: dict[str, Any], key: str, dtype: np.dtype, where: str) -> np.ndarray:
    columns = data.get(key)
    if not isinstance(columns, dict) or set(columns) != set(dtype.names or ()):
        raise InputError(f"{where}: {key}: expected the columns {', '.join(dtype.names or ())}")
    arrays = {
        name: _array(columns[name], dtype[name], f"{where}: {key}.{name}") for name in dtype.names or ()
    }
    sizes = {len(column) for column in arrays.values()}
    if len(sizes) > 1:
        raise InputError(f"{where}: {key}: columns of different lengths")
    table = np.zeros(sizes.pop() if sizes else 0, dtype)
    for name, column in arrays.items():
        table[name] = column
    return table


def _array(value: Any, dtype: Any, where: str) -> np.ndarray:
    """Numbers of a type; null is nan."""
    dtype = np.dtype(dtype)
    try:
        if not isinstance(value, list):
            raise ValueError
        found = np.asarray(value if value else [], np.float64 if dtype.kind == "f" else None)
        if dtype.kind != "f":
            if found.size and found.dtype.kind not in "iu":
                raise ValueError
            if found.size and not np.iinfo(dtype).min <= found.min() <= found.max() <= np.iinfo(dtype).max:
                raise ValueError
        return found.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{where}: expected a list of numbers of type {dtype.name}") from None
