"""safetensors files: the header is checked before a byte of data is used, tensors are read one by one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import atomic

FLOATS: dict[str, np.dtype] = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
_WIDTHS = {code: dtype.itemsize for code, dtype in FLOATS.items()}
_WIDTHS |= {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2}
_WIDTHS |= {"I32": 4, "U32": 4, "I64": 8, "U64": 8, "C64": 8}
# Codes of quantised numbers.
_BYTES = ("U8", "F8_E4M3")
_MAX_HEADER = 100_000_000


class Entry(NamedTuple):
    """One tensor of a file: its dtype as the header spells it, its shape and its first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class TensorFile:
    """A safetensors file, opened lazily.

    Attributes:
      path: the file.
      entries: name → `Entry`, in the header's order.
      metadata: the header's free text fields.

    Raises:
      InputError: unreadable, not safetensors, a header that does not fit the file (expected and found
        bytes are named), or tensors that overlap.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as stream:
                prefix = stream.read(8)
                length = int.from_bytes(prefix, "little")
                if size < 8 or length > min(size - 8, _MAX_HEADER):
                    raise InputError(
                        f"{self.path} is not a whole safetensors file: its header claims {length} bytes, "
                        f"{max(size - 8, 0)} follow"
                    )
                text = stream.read(length)
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror or error}") from error
        try:
            header = json.loads(text.decode())
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{self.path} is not a safetensors file: its header is not JSON") from error
        if not isinstance(header, dict):
            raise InputError(f"{self.path} is not a safetensors file: its header is not a JSON object")
        self.metadata: dict[str, Any] = header.pop("__metadata__", None) or {}
        self.entries = _entries(self.path, header, 8 + length, size)

    def entry(self, name: str) -> Entry:
        """The entry called ``name``, or an `InputError` with near matches."""
        if name not in self.entries:
            raise InputError(f"{self.path} has no tensor {name!r}{near(name, self.entries)}")
        return self.entries[name]

    def read(self, name: str, index: Any = ...) -> np.ndarray:
        """The tensor called ``name``, or the part of it that ``index`` picks, as a fresh array.

        Raises:
          InputError: no such tensor, or its dtype is not a floating-point one that is supported.
        """
        entry = self.entry(name)
        if entry.dtype not in FLOATS:
            raise InputError(
                f"{self.path}: the tensor {name!r} has dtype {entry.dtype}, "
                f"expected one of {', '.join(FLOATS)}"
            )
        return self._read(name, FLOATS[entry.dtype], index)

    def read_codes(self, name: str, index: Any = ...) -> np.ndarray:
        """As `read`, for a tensor of codes: its bytes, uint8.

        Raises:
          InputError: no such tensor, or its dtype is not U8 or F8_E4M3.
        """
        entry = self.entry(name)
        if entry.dtype not in _BYTES:
            raise InputError(
                f"{self.path}: the tensor {name!r} has dtype {entry.dtype}, expected {' or '.join(_BYTES)}"
            )
        return self._read(name, np.dtype(np.uint8), index)

    def _read(self, name: str, dtype: np.dtype, index: Any) -> np.ndarray:
        entry = self.entries[name]
        if not math.prod(entry.shape):
            return np.zeros(entry.shape, dtype)[index]
        try:
            view = np.memmap(self.path, dtype, "r", entry.start, entry.shape)
            return np.array(view[index], copy=True, subok=False)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the tensor {name!r} of {self.path}: {error}") from error


def _entries(path: Path, header: dict[str, Any], begin: int, size: int) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, value in header.items():
        try:
            dtype, shape, (start, stop) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"{path}: the header's entry for {name!r} is not one of a tensor") from error
        numbers = (*shape, start, stop)
        if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
            raise InputError(f"{path}: the header's entry for {name!r} holds something that is not a size")
        width = _WIDTHS.get(dtype) if isinstance(dtype, str) else None
        if width is None:
            raise InputError(f"{path}: the tensor {name!r} has the unknown dtype {dtype!r}")
        if stop - start != width * math.prod(shape):
            raise InputError(
                f"{path}: the tensor {name!r} of shape {shape} and dtype {dtype} needs "
                f"{width * math.prod(shape)} bytes, its header gives {stop - start}"
            )
        spans.append((start, stop, name))
        found[name] = Entry(dtype, shape, begin + start)
    end = 0
    for start, stop, name in sorted(spans):
        if start != end and stop > start:
            raise InputError(
                f"{path}: the tensor {name!r} begins at byte {start} of the data, expected {end}"
            )
        end = max(end, stop)
    if begin + end != size:
        raise InputError(f"{path} has {size} bytes, its header describes {begin + end}: truncated or damaged")
    return found


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write ``tensors`` as a safetensors file: whole or not at all, the same bytes for the same tensors.

    Names are sorted and the data follow in that order; the header is padded to a multiple of 8 bytes.

    Raises:
      InputError: a dtype that `FLOATS` does not hold, or the file cannot be written.
    """
    specs = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    write_each(path, specs, tensors.__getitem__)


def write_each(
    path: str | os.PathLike[str],
    specs: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """`write` for tensors that are made one at a time, as ``read(name)``, of the dtypes and shapes in ``specs``.

    Args:
      metadata: the header's free text fields.

    Raises:
      InputError: as `write`.
    """
    codes = {dtype: code for code, dtype in FLOATS.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    names = sorted(specs)
    for name in names:
        dtype, shape = specs[name]
        if dtype not in codes:
            raise InputError(f"cannot write {path}: the weight {name!r} has dtype {dtype}")
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            array = np.asarray(read(name), order="C")
            assert (array.dtype, array.shape) == specs[name], name
            stream.write(array.tobytes())
