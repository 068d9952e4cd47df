"""Safetensors files that stay open: arrays whose values are read when they are asked for, and counted."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.formats import tensors

_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@dataclass
class Count:
    """Bytes of values that were read so far."""

    bytes: int = 0


class Piece(NamedTuple):
    """A matrix ``[N, D]`` in a file, of which rows can be read.

    Attributes:
      view: the matrix in any memory order, mapped; taking rows of it reads them.
      dtype: what rows are given as.
      what: file and name for messages.
      counter: where bytes are counted.
      file: the mapping that ``view`` is of, None where it is in memory.
      scale: [N, 1] factors of the rows, or None.
      multiply, divide: factors of the values, or None.
    """

    view: np.ndarray
    dtype: np.dtype
    what: str
    counter: Count
    file: mmap.mmap | None = None
    scale: np.ndarray | None = None
    multiply: Any = None
    divide: Any = None

    def rows(self, features: np.ndarray | slice) -> np.ndarray:
        """``[n, D]``, the rows of ``features [n]``.

        Raises:
          InputError: a number that is none of its rows, or values that are not finite.
        """
        some = not isinstance(features, slice)
        if not isinstance(features, slice) and features.size:
            low, high = int(features.min()), int(features.max())
            if low < 0 or high >= len(self.view):
                raise InputError(f"{self.what} has {len(self.view)} rows, asked for {low} to {high}")
        if self.file is not None and hasattr(self.file, "madvise"):
            # Of few rows the system would read far more than is asked for.
            self.file.madvise(mmap.MADV_RANDOM if some else mmap.MADV_NORMAL)
        stored = np.array(self.view[features])
        self.counter.bytes += stored.nbytes
        values = tensors.finite(self.what, stored.astype(self.dtype))
        if self.scale is not None:
            values = values * self.scale[features]
        if self.multiply is not None:
            values = (values * self.multiply).astype(self.dtype)
        return values if self.divide is None else (values / self.divide).astype(self.dtype)


class Mapped:
    """A `tensors.Backend` that reads what is asked for and keeps count."""

    def __init__(self, path: Path, counter: Count) -> None:
        self._path, self._counter = path, counter
        self._stream = path.open("rb")
        length = int.from_bytes(self._stream.read(8), "little")
        header = json.loads(self._stream.read(length))
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        self._start = 8 + length

    def names(self) -> Sequence[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entries[name]["shape"])

    def kind(self, name: str) -> str:
        return str(self._entries[name]["dtype"])

    def values(self, name: str, rows: slice | None = None) -> np.ndarray:
        shape, dtype = self.shape(name), np.dtype(_DTYPES.get(self.kind(name), "uint8"))
        if self.kind(name) not in _DTYPES:
            raise InputError(
                f"{self._path}: {name} is of type {self.kind(name)}, expected numbers with a point"
            )
        row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize if shape else dtype.itemsize
        first, last, _ = (0, shape[0] if shape else 1, 1) if rows is None else rows.indices(shape[0])
        size = max(last - first, 0) * row
        place = self._start + self._entries[name]["data_offsets"][0] + first * row
        data = _read(self._stream.fileno(), size, place)
        if len(data) != size:
            raise InputError(f"{self._path} ends in the middle of {name}")
        self._counter.bytes += size
        shape = shape if rows is None else (last - first, *shape[1:])
        return np.frombuffer(data, dtype).reshape(shape)

    def view(self, name: str) -> tuple[np.ndarray, mmap.mmap]:
        """The array, mapped: nothing is read until values of it are taken."""
        shape, dtype = self.shape(name), np.dtype(_DTYPES[self.kind(name)])
        file = mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ)
        count = int(np.prod(shape, dtype=np.int64))
        offset = self._start + self._entries[name]["data_offsets"][0]
        return np.frombuffer(file, dtype, count, offset).reshape(shape), file


def _read(handle: int, size: int, place: int) -> bytes:
    """As many bytes as there are: one call reads 2 GiB at most."""
    parts = []
    while size > 0 and (part := os.pread(handle, min(size, 1 << 30), place)):
        parts.append(part)
        size, place = size - len(part), place + len(part)
    return b"".join(parts)


class Opened(tensors.Reader):
    """A `tensors.Reader` that also gives pieces of its arrays."""

    def __init__(self, path: Path, backend: Mapped | tensors.Arrays, counter: Count) -> None:
        super().__init__(path, backend)
        self._source, self._counter = backend, counter

    def piece(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: Any,
        at: Any = (),
        *,
        transpose: bool = False,
        scale: np.ndarray | None = None,
        multiply: Any = None,
        divide: Any = None,
    ) -> Piece:
        """The matrix ``name[at]``, after checking the array's ``shape`` and type.

        Args:
          at: indices that leave two axes.
          transpose: the two are the wrong way round in the file.
          scale, multiply, divide: see `Piece`.
        """
        self._check(name, shape, tuple(tensors.FLOATS))
        file = None
        if isinstance(self._source, Mapped):
            view, file = self._source.view(name)
        else:
            view = self._source.values(name)
        view, what = view[at], f"{self.path}: {name}"
        view = view.T if transpose else view
        return Piece(view, np.dtype(dtype), what, self._counter, file, scale, multiply, divide)


def opened(path: Path, counter: Count) -> Opened:
    """A safetensors file that stays open as long as something of it is held.

    Raises:
      InputError: it is missing, truncated, or no safetensors file.
    """
    with tensors.reading(path):  # safetensors' own checks of the header and of the file's length
        pass
    return Opened(path, Mapped(path, counter), counter)
