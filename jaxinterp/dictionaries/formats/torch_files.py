"""torch's zip files of tensors, without torch and without running what is in them.

A file holds a pickle that builds tensors from raw buffers beside it. It is read by an unpickler that knows the few
names that tensors need and refuses every other, so that nothing but arrays, numbers, text and dicts can come of it.
What is written is the least of it: ``torch.load(..., weights_only=True)`` reads it.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic
from jaxinterp.dictionaries.formats import tensors

_PICKLE_LIMIT = 1 << 24
_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """What is stored under each name: arrays, numbers, text, or dicts of those.

    Raises:
      InputError: it is missing or truncated, of torch's format before 1.6, or anything in it is not plain data.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        with path.open("rb") as stream:
            if stream.read(2) != b"PK":
                raise InputError(
                    f"{path} is not a zip file of torch 1.6 or later; save it again with a later torch"
                )
        with zipfile.ZipFile(path) as archive:
            found = _Unpickler(path, archive).load()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole torch file: {_line(error)}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can fail anywhere in the machine that reads it
        raise InputError(f"{path} is not a file of plain tensors: {_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{path}: expected tensors by name, found {type(found).__name__}")
    return found


def peek(path: Path) -> tuple[str, ...]:
    """The names that something is stored under, without reading it; none where it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = _Unpickler(path, archive, values=False).load()
    except Exception:  # whatever is wrong, `read` says it
        return ()
    return tuple(name for name in found if isinstance(name, str)) if isinstance(found, dict) else ()


def write(path: Path, values: dict[str, Any]) -> None:
    """Write arrays, numbers, text and dicts of them under their names, whole or not at all.

    The same values give the same bytes.

    Raises:
      InputError: the place is not writable.
    """
    buffers: list[np.ndarray] = []
    data = b"\x80\x02" + _pickled(values, buffers) + b"."
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        entries = [("data.pkl", data), ("byteorder", b"little")]
        for name, content in (
            *entries,
            *((f"data/{i}", b.tobytes()) for i, b in enumerate(buffers)),
            ("version", b"3\n"),
        ):
            # A fixed date: the same dictionary gives the same file.
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}", (1980, 1, 1, 0, 0, 0)), content)


def _pickled(value: Any, buffers: list[np.ndarray]) -> bytes:
    """The opcodes that build a value; arrays are put into ``buffers`` and referred to by their number."""
    if isinstance(value, dict):
        items = b"".join(_pickled(key, buffers) + _pickled(entry, buffers) for key, entry in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(_pickled(entry, buffers) for entry in value) + b"t"
    if isinstance(value, str):
        text = value.encode()
        return b"X" + len(text).to_bytes(4, "little") + text
    if not isinstance(value, np.ndarray):
        return pickle.dumps(value, 2)[2:-1]  # a number: its opcodes alone
    array = value if value.flags.c_contiguous else np.ascontiguousarray(value)
    storage = next(name for name, kind in _STORAGES.items() if kind == array.dtype.name)
    steps = tuple(step // array.itemsize for step in array.strides)
    place = b"(" + _pickled("storage", buffers) + f"ctorch\n{storage}\n".encode()
    place += (
        _pickled(str(len(buffers)), buffers)
        + _pickled("cpu", buffers)
        + _pickled(array.size, buffers)
        + b"tQ"
    )
    buffers.append(array)
    rest = b"".join(_pickled(entry, buffers) for entry in (0, array.shape, steps, False))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + rest + b"ccollections\nOrderedDict\n)RtR"


def _line(error: Exception) -> str:
    text = str(error).strip("'\"")
    return text.splitlines()[0] if text else type(error).__name__


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, archive: zipfile.ZipFile, values: bool = True) -> None:
        self._values = values
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _PICKLE_LIMIT:
            raise InputError(
                f"{path} is not a torch file: it has {len(pickles)} data.pkl of a sane size, expected one"
            )
        self._path, self._archive = path, archive
        self._root = pickles[0].filename.removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise InputError(f"{path}: its byte order is not little")
        super().__init__(io.BytesIO(archive.read(pickles[0])))

    def find_class(self, module: str, name: str) -> Any:
        """The few names that tensors are built of; every other one is refused."""
        # New functions for every file: nothing that a pickle sets on them outlives it.
        if (module, name) == ("collections", "OrderedDict"):
            return lambda pairs=(): _State(pairs)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: self._tensor(storage, offset, size, stride)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in _STORAGES:
            return lambda kind=_STORAGES[name]: kind
        raise InputError(
            f"{self._path}: it asks for {module}.{name}, which is no tensor; only state dicts are read"
        )

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        """A buffer: its type, its entry and its length. Read when a tensor needs it."""
        what, kind, key, _, count = pid
        if what != "storage" or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise InputError(f"{self._path}: a buffer is described in a way that is not understood")
        return kind(), f"{self._root}data/{key}", count

    def _tensor(self, storage: tuple[str, str, int], offset: int, size: Any, stride: Any) -> np.ndarray:
        import ml_dtypes  # noqa: F401 (bfloat16)

        kind, entry, count = storage
        if not self._values:
            return np.empty(0)
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
            raise InputError(f"{self._path}: a tensor of shape {size} and strides {stride} makes no sense")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) > count or (math.prod(size) and last >= count):
            raise InputError(
                f"{self._path}: a tensor of shape {tuple(size)} is larger than its buffer of {count}"
            )
        dtype = np.dtype(kind)
        if tensors.shapes_only() and len(size) > 1:
            return tensors.placeholder(tuple(size), dtype)
        try:
            info = self._archive.getinfo(entry)
        except KeyError:
            raise InputError(f"{self._path}: the buffer {entry} is missing") from None
        if info.file_size != count * dtype.itemsize or info.compress_type != zipfile.ZIP_STORED:
            raise InputError(
                f"{self._path}: the buffer {entry} has {info.file_size} bytes, expected {count * dtype.itemsize}"
            )
        flat = np.frombuffer(self._archive.read(info), dtype)
        steps = tuple(step * dtype.itemsize for step in stride)
        return np.lib.stride_tricks.as_strided(flat[offset:], tuple(size), steps).copy()


class _State(dict):
    """A dict that, as a state dict's does, may carry attributes."""
