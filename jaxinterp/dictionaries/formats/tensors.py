"""safetensors files through numpy, read as untrusted data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import atomic

FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


class Reader:
    """An open safetensors file whose tensors are asked for by name, and all of them must be asked for."""

    def __init__(self, path: Path, handle: Any) -> None:
        self.path, self._handle = path, handle
        self.names = list(handle.keys())
        self._taken: set[str] = set()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, read from the header."""
        if name not in self.names:
            raise InputError(f"{self.path}: the tensor {name!r} is missing{near(name, self.names)}")
        return tuple(self._handle.get_slice(name).get_shape())

    def take(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The tensor ``name`` as ``dtype``, after checking that it has ``shape`` and a float type."""
        found = self.shape(name)
        if found != shape:
            raise InputError(f"{self.path}: {name} has shape {found}, expected {shape}")
        stored = self._handle.get_slice(name).get_dtype()
        if stored not in FLOATS:
            raise InputError(f"{self.path}: {name} is of type {stored}, expected one of {', '.join(FLOATS)}")
        self._taken.add(name)
        values = self._handle.get_tensor(name).astype(dtype)
        if not np.isfinite(values.astype(np.float32, copy=False)).all():
            raise InputError(f"{self.path}: {name} holds values that are not finite")
        return values

    def finish(self, known: tuple[str, ...] = ()) -> None:
        """Refuse a file with tensors that nobody asked for."""
        for name in self.names:
            if name not in self._taken:
                raise InputError(f"{self.path}: unknown tensor {name!r}{near(name, {*self._taken, *known})}")


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
            yield Reader(path, handle)
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a safetensors file, whole or not at all."""
    from safetensors.numpy import save_file

    with atomic(path) as temporary:
        save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, str(temporary))
