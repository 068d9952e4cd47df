"""Our parameters as the tensors of a family: its table run backwards, one stored tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.checkpoints import placing, rearrange
from jaxinterp.checkpoints.families.base import Tensor
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig

Place = tuple[int, ...]


class Stored(NamedTuple):
    """One tensor to be written.

    Attributes:
      name, shape, dtype: as in the file.
      parts: the lines of the family's table that make it up (one unless it is fused), each with its place in our
        array.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    parts: tuple[tuple[Tensor, Place], ...]


def plan(
    entries: list[Tensor], config: ModelConfig, sizes: Mapping[str, int], dtype_of: Callable[[str], np.dtype]
) -> list[Stored]:
    """Every tensor of a model in the table's order, layer by layer, without any data.

    Args:
      entries: the family's table.
      sizes: the size behind each letter of its patterns.
      dtype_of: our path → the dtype to store.
    """
    fused: dict[str, list[tuple[Tensor, Place]]] = {}
    for entry in entries:
        for place, name in entry.names(config).items():
            fused.setdefault(name, []).append((entry, place))
    found = [_stored(name, parts, sizes, dtype_of) for name, parts in fused.items()]
    return sorted(found, key=lambda stored: stored.parts[0][1][:1])


def _stored(
    name: str,
    parts: list[tuple[Tensor, Place]],
    sizes: Mapping[str, int],
    dtype_of: Callable[[str], np.dtype],
) -> Stored:
    first = parts[0][0]
    shape = rearrange.stored_shape(first.pattern, sizes)
    if first.rows is not None:
        parts = sorted(parts, key=lambda part: part[0].rows or ())
        spans = [entry.rows for entry, _ in parts if entry.rows is not None]
        ends = [0, *(end for _, end, _ in spans)]
        assert [start for start, _, _ in spans] == ends[:-1] and ends[-1] == first.rows[2], name
        shape = (first.rows[2], *shape[1:])
    elif isinstance(first.part, slice):
        parts = sorted(parts, key=lambda part: _first(part[0]))
        ends = [0, *(entry.part.stop for entry, _ in parts if isinstance(entry.part, slice))]
        assert [_first(entry) for entry, _ in parts] == ends[:-1] and ends[-1] == _equal_parts(
            first, sizes
        ), name
    elif first.part is not None:
        parts = sorted(parts, key=lambda part: _first(part[0]))
        assert [entry.part for entry, _ in parts] == list(range(_equal_parts(first, sizes))), name
    else:
        assert len(parts) == 1, name
    dtypes = {dtype_of(entry.ours) for entry, _ in parts}
    # One tensor has one dtype; float32 holds what any of its parts' do.
    return Stored(name, shape, dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32), tuple(parts))


def _first(entry: Tensor) -> int:
    """Where on the first axis of our side its part begins."""
    return entry.part.start if isinstance(entry.part, slice) else entry.part or 0


def _equal_parts(entry: Tensor, sizes: Mapping[str, int]) -> int:
    return sizes[rearrange.parse(entry.pattern).ours[0]]


def build(stored: Stored, leaves: Mapping[str, Any], sizes: Mapping[str, int]) -> np.ndarray:
    """The tensor itself, the only one that the host holds.

    Raises:
      InputError: a number that is not finite or too large for its dtype, or an array of which other processes hold
        parts.
    """
    arrays = [_read(entry, place, stored.dtype, leaves) for entry, place in stored.parts]
    first = stored.parts[0][0]
    if isinstance(first.part, slice):
        return rearrange.to_stored(np.concatenate(arrays), first.pattern, sizes)
    if first.part is not None:
        return rearrange.to_stored(np.stack(arrays), first.pattern, sizes)
    if first.rows is None:
        return rearrange.to_stored(arrays[0], first.pattern, sizes)
    whole = np.empty(stored.shape, stored.dtype)
    for (entry, _), array in zip(stored.parts, arrays, strict=True):
        assert entry.rows is not None
        start, end, _ = entry.rows
        whole[start:end] = rearrange.to_stored(array, entry.pattern, sizes)
    return whole


def _read(entry: Tensor, place: Place, dtype: np.dtype, leaves: Mapping[str, Any]) -> np.ndarray:
    leaf = leaves[entry.ours]
    if not getattr(leaf, "is_fully_addressable", True):
        raise InputError(
            f"the weight {entry.ours!r} lies on several processes: a model is exported from one that holds it all"
        )
    return placing.cast(np.asarray(leaf[place] if place else leaf), dtype, f"the weight {entry.ours!r}")


def shards(tensors: list[Stored], limit: int) -> list[list[Stored]]:
    """``tensors`` in order, in runs of at most ``limit`` bytes; a larger tensor has a run of its own."""
    runs: list[list[Stored]] = []
    used = 0
    for tensor in tensors:
        size = nbytes(tensor)
        if not runs or used + size > limit:
            runs.append([])
            used = 0
        runs[-1].append(tensor)
        used += size
    return runs


def nbytes(tensor: Stored) -> int:
    """Bytes of the tensor's data."""
    return int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize
