"""Files of named arrays (safetensors, npz, what a restricted reader found), read as untrusted data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import atomic

FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
WHOLE = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")
_NAMES = {
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "bool": "BOOL",
    **{f"{long}{bits}": f"{short}{bits}" for long, short in (("int", "I"), ("uint", "U")) for bits in (8, 16, 32, 64)},
}  # fmt: skip
_SHAPES: ContextVar[bool] = ContextVar("shapes", default=False)
_ROW_GAP = 8
"""Rows this close are read in one piece."""


class Backend(Protocol):
    """What a `Reader` needs of a file: every array's name, shape and type, and some of its rows."""

    def names(self) -> Sequence[str]:
        """The names."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape, without reading values."""

    def kind(self, name: str) -> str:
        """The type as safetensors writes it, such as F32."""

    def values(self, name: str, rows: slice | None = None) -> np.ndarray:
        """The values, or those of some rows of the first axis."""


class _Safetensors:
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def names(self) -> list[str]:
        return list(self._handle.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._handle.get_slice(name).get_shape())

    def kind(self, name: str) -> str:
        return str(self._handle.get_slice(name).get_dtype())

    def values(self, name: str, rows: slice | None = None) -> np.ndarray:
        if rows is None:
            return self._handle.get_tensor(name)
        return self._handle.get_slice(name)[rows]


class Arrays:
    """Arrays that are in memory already, or are read one by one by a mapping such as an open npz file."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._read: dict[str, np.ndarray] = {}

    def names(self) -> list[str]:
        return list(self._arrays)

    def _one(self, name: str) -> np.ndarray:
        if name not in self._read:
            self._read[name] = np.asarray(self._arrays[name])
        return self._read[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._one(name).shape

    def kind(self, name: str) -> str:
        dtype = self._one(name).dtype.name
        return _NAMES.get(dtype, dtype)

    def values(self, name: str, rows: slice | None = None) -> np.ndarray:
        return self._one(name) if rows is None else self._one(name)[rows]


class Reader:
    """Arrays that are asked for by name, and all of them must be asked for."""

    def __init__(self, path: Path, backend: Backend, names: Mapping[str, str] | None = None) -> None:
        self.path, self._backend = path, backend
        self._stored = dict(names) if names is not None else {name: name for name in backend.names()}
        self.names = list(self._stored)
        self._taken: set[str] = set()

    def renamed(self, names: Mapping[str, str]) -> Reader:
        """The same file with other names: ``{name in the file: name to ask for}``; those left out keep theirs."""
        return Reader(
            self.path, self._backend, {names.get(n, n): stored for n, stored in self._stored.items()}
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, read from the header."""
        if name not in self._stored:
            raise InputError(f"{self.path}: the tensor {name!r} is missing{near(name, self.names)}")
        return self._backend.shape(self._stored[name])

    def sizes(self, name: str, axes: tuple[str, ...]) -> tuple[int, ...]:
        """The shape of an array that must have these axes, none of length zero."""
        shape = self.shape(name)
        if len(shape) != len(axes) or 0 in shape:
            raise InputError(f"{self.path}: {name} has shape {shape}, expected ({', '.join(axes)})")
        return shape

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The array ``name`` as ``dtype``, after checking that it has ``shape``, a float type and finite values."""
        self._check(name, shape, tuple(FLOATS))
        if shapes_only() and len(shape) > 1:
            return placeholder(shape, dtype)
        return self._finite(name, self._backend.values(self._stored[name]).astype(dtype))

    def take_rows(self, name: str, shape: tuple[int, ...], rows: np.ndarray, dtype: Any) -> np.ndarray:
        """Some ``rows [n]`` of the first axis of ``name``, which has ``shape``: ``[n, *shape[1:]]``.

        What lies between is not read, except where it is shorter than asking again would take.
        """
        self._check(name, shape, tuple(FLOATS))
        wanted, where = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        if wanted.size and not 0 <= wanted[0] <= wanted[-1] < shape[0]:
            raise InputError(
                f"{self.path}: {name} has {shape[0]} rows, asked for {wanted[0]} to {wanted[-1]}"
            )
        found = np.empty((wanted.size, *shape[1:]), dtype)
        breaks = np.flatnonzero(np.diff(wanted) > _ROW_GAP) + 1
        done = 0
        for run in np.split(wanted, breaks) if wanted.size else ():
            piece = self._backend.values(self._stored[name], slice(int(run[0]), int(run[-1]) + 1))
            found[done : done + run.size] = piece[run - run[0]].astype(dtype)
            done += run.size
        return self._finite(name, found)[where.reshape(-1)]

    def whole(self, name: str, least: int = 0) -> int:
        """A whole number, stored as an array without axes or with one entry, of any type."""
        if self.shape(name) not in ((), (1,)):
            raise InputError(f"{self.path}: {name} has shape {self.shape(name)}, expected one number")
        self._check(name, self.shape(name), (*FLOATS, *WHOLE))
        value = float(self._backend.values(self._stored[name]).reshape(()))
        if not value.is_integer() or value < least:
            raise InputError(f"{self.path}: {name} is {value}, expected a whole number of at least {least}")
        return int(value)

    def scalar(self, name: str) -> float:
        """A finite number, stored as an array without axes or with one entry."""
        if self.shape(name) not in ((), (1,)):
            raise InputError(f"{self.path}: {name} has shape {self.shape(name)}, expected one number")
        return float(self.take(name, self.shape(name), np.float64).reshape(()))

    def ignore(self, *names: str) -> None:
        """Count these as asked for, where they exist: counters and the like that a dictionary is complete without."""
        self._taken.update(name for name in names if name in self._stored)

    def finish(self, known: tuple[str, ...] = ()) -> None:
        """Refuse a file with arrays that nobody asked for."""
        for name in self.names:
            if name not in self._taken:
                raise InputError(f"{self.path}: unknown tensor {name!r}{near(name, {*self._taken, *known})}")

    def _check(self, name: str, shape: tuple[int, ...], kinds: tuple[str, ...]) -> None:
        found = self.shape(name)
        if found != shape:
            raise InputError(f"{self.path}: {name} has shape {found}, expected {shape}")
        stored = self._backend.kind(self._stored[name])
        if stored not in kinds:
            raise InputError(f"{self.path}: {name} is of type {stored}, expected one of {', '.join(kinds)}")
        self._taken.add(name)

    def _finite(self, name: str, values: np.ndarray) -> np.ndarray:
        return finite(f"{self.path}: {name}", values)


@contextmanager
def only_shapes() -> Iterator[None]:
    """In the body arrays of several axes are not read: ones of their shape, which take no memory, stand for them."""
    token = _SHAPES.set(True)
    try:
        yield
    finally:
        _SHAPES.reset(token)


def shapes_only() -> bool:
    """Whether `only_shapes` is on."""
    return _SHAPES.get()


def placeholder(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Ones without memory."""
    return np.broadcast_to(np.ones((), dtype), shape)


def finite(what: str, values: np.ndarray) -> np.ndarray:
    """The same values, unless one of them is not finite."""
    wide = values if values.dtype.itemsize >= 4 else values.astype(np.float32)
    if not np.isfinite(wide).all():
        raise InputError(f"{what} holds values that are not finite")
    return values


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Open a safetensors file.

    Raises:
      InputError: it is missing, truncated, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is missing")
    # numpy learns the type bfloat16 from this import.
    import ml_dtypes  # noqa: F401

    try:
        with safe_open(str(path), framework="numpy") as handle:
            yield Reader(path, _Safetensors(handle))
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def peek(path: Path) -> tuple[str, ...]:
    """The names of the arrays in a safetensors file; none where it is missing or damaged."""
    try:
        with reading(path) as file:
            return tuple(file.names)
    except InputError:
        return ()


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file, whole or not at all; the same arrays give the same bytes."""
    from safetensors.numpy import save_file

    with atomic(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, str(temporary))


def host(params: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Parameters as numpy arrays of ``dtype``; a value that it cannot hold is refused by name."""
    import ml_dtypes  # noqa: F401

    wanted = np.dtype(dtype)

    def one(name: str, value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(one(name, v) for v in value)
        full = np.asarray(value)
        with np.errstate(over="ignore"):
            stored = full.astype(wanted)
        if not np.isfinite(stored.astype(np.float64)).all():
            raise InputError(
                f"{name} holds values that {wanted.name} cannot hold (largest {np.abs(full).max():.3g})"
            )
        return stored

    return {name: one(name, value) for name, value in params.items()}
