"""The file that arrays lie in: a header of JSON, then columns, each with a checksum; any part is read alone.

  bytes 0-7    JIDASH01
  bytes 8-11   uint32, length H of the header
  bytes 12-15  uint32, crc32 of the header
  H bytes      header, JSON in UTF-8: what the file says, and "arrays": {name: {"dtype", "shape", "offset", "crc32"}}
  then         arrays, each at a multiple of 8; offsets count from the first multiple of 8 after the header

Little-endian throughout. The file ends with its last array.
"""

from __future__ import annotations

import json
import math
import os
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic

MAGIC = b"JIDASH01"
DTYPES = ("u1", "u2", "u4", "u8", "i4", "i8", "f4")
MOST_HEADER = 16 << 20


def write(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and what is said about them, whole or not at all."""
    listed, offset, pieces = {}, 0, []
    for name, array in arrays.items():
        kind = array.dtype.str[1:]
        if kind not in DTYPES:
            raise TypeError(f"{name} is of {array.dtype}, a dashboards file holds {', '.join(DTYPES)}")
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        listed[name] = {
            "dtype": kind, "shape": list(array.shape), "offset": offset, "crc32": zlib.crc32(data),
        }  # fmt: skip
        pieces.append((offset, data))
        offset = _aligned(offset + len(data))
    text = json.dumps({**header, "arrays": listed}, ensure_ascii=False, allow_nan=False).encode()
    base = _aligned(16 + len(text))
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(MAGIC + np.array([len(text), zlib.crc32(text)], "<u4").tobytes() + text)
        for begin, data in pieces:
            stream.write(bytes(base + begin - stream.tell()))
            stream.write(data)


def _aligned(offset: int) -> int:
    return -(-offset // 8) * 8


class Container:
    """An open file. Opening reads the header alone and checks that everything it names lies within the file.

    Attributes:
      path: where.
      header: what the file says, without "arrays".
      bytes_read: how many bytes were read so far.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.bytes_read = Path(path), 0
        try:
            self._file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        start = self._read(0, 16) if size >= 16 else b""
        if start[:8] != MAGIC:
            raise InputError(f"{path} is no dashboards file: it does not begin with {MAGIC.decode()}")
        length, crc = (int(n) for n in np.frombuffer(start[8:], "<u4"))
        if length > min(MOST_HEADER, size - 16):
            raise InputError(f"{path} is damaged: a header of {length} bytes in a file of {size}")
        text = self._read(16, length)
        if zlib.crc32(text) != crc:
            raise InputError(f"{path} is damaged: the checksum of its header does not fit")
        try:
            self.header = json.loads(text)
            arrays = self.header.pop("arrays")
            self._arrays = {name: self._checked(name, one) for name, one in arrays.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is damaged: its header is not understood") from error
        self._base = _aligned(16 + length)
        end = max((begin + size for _, _, begin, size, _ in self._arrays.values()), default=0)
        if self._base + end > size:
            raise InputError(f"{path} is cut off: {size} bytes of {self._base + end}")

    def _checked(self, name: str, one: Any) -> tuple[np.dtype, tuple[int, ...], int, int, int]:
        dtype, shape, offset, crc = one["dtype"], one["shape"], one["offset"], one["crc32"]
        numbers = [*shape, offset, crc]
        if dtype not in DTYPES or not all(type(n) is int and 0 <= n < 1 << 60 for n in numbers):
            raise InputError(f"{self.path} is damaged: the array {name} is {one}")
        kind = np.dtype(dtype).newbyteorder("<")
        return kind, tuple(shape), offset, math.prod(shape) * kind.itemsize, crc

    def _read(self, offset: int, length: int) -> bytes:
        pieces, begin = [], offset
        while length > 0:
            data = os.pread(self._file, min(length, 1 << 30), begin)
            if not data:
                raise InputError(f"{self.path} is cut off at byte {begin}")
            pieces.append(data)
            begin, length = begin + len(data), length - len(data)
        self.bytes_read += begin - offset
        return b"".join(pieces)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array; an `InputError` where there is none of that name."""
        return self._find(name)[1]

    def _find(self, name: str) -> tuple[np.dtype, tuple[int, ...], int, int, int]:
        if name not in self._arrays:
            raise InputError(f"{self.path} is damaged: it has no array {name}")
        return self._arrays[name]

    def array(self, name: str) -> np.ndarray:
        """A whole array, its checksum compared."""
        dtype, shape, offset, size, crc = self._find(name)
        data = self._read(self._base + offset, size)
        if zlib.crc32(data) != crc:
            raise InputError(f"{self.path} is damaged: the checksum of {name} does not fit")
        return np.frombuffer(data, dtype).reshape(shape)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Entries of an array's first axis; nothing else is read, and no checksum compared."""
        dtype, shape, offset, _, _ = self._find(name)
        if not 0 <= start <= stop <= shape[0]:
            raise InputError(f"{self.path} is damaged: {name} has {shape[0]} entries, not {start} to {stop}")
        width = math.prod(shape[1:]) * dtype.itemsize
        data = self._read(self._base + offset + start * width, (stop - start) * width)
        return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])

    def verify(self) -> None:
        """Compare every checksum."""
        for name in self._arrays:
            self.array(name)
