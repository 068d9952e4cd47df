"""Dictionaries from and to disk, whatever their format."""

from __future__ import annotations

import os
from pathlib import Path

import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic_folder
from jaxinterp.dictionaries.base import Dictionary, check
from jaxinterp.dictionaries.formats import registry

# The bundled dictionaries are package data of a room above; a path is not an import.
_DATA = Path(__file__).resolve().parent.parent / "biology" / "pocket" / "data"
BUNDLED = {"pocket": _DATA / "clt", "pocket-clt": _DATA / "clt", "pocket-plt": _DATA / "plt"}
DTYPES = ("float16", "bfloat16", "float32", "float64")


def load_dictionary(
    source: str | os.PathLike[str], dtype: str = "float32", format: str | None = None
) -> Dictionary:
    """Load a dictionary from a folder or file, or a bundled one by name.

    Args:
      source: a folder or file in one of the formats of docs/dictionaries.md, or "pocket" ("pocket-clt") or
        "pocket-plt".
      dtype: dtype of the parameters in memory.
      format: the format's name; None finds it by what is there.

    Returns:
      The dictionary; its name is the bundled name or the folder's.

    Raises:
      InputError: no such folder, an unknown format, or anything in it that is not understood.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} of a dictionary: expected one of {', '.join(DTYPES)}")
    path = BUNDLED.get(str(source), Path(source))
    if not path.exists():
        known = f"a folder, or one of {', '.join(BUNDLED)}"
        raise InputError(f"no dictionary at {source}: expected {known}")
    if format is not None and format not in registry.FORMATS:
        raise InputError(f"dictionary format {format!r}: expected one of {', '.join(registry.FORMATS)}")
    found = registry.detect(path) if format is None else registry.FORMATS[format]
    config, params = found.read(path, dtype)
    arrays = {
        name: tuple(jnp.asarray(v) for v in value) if isinstance(value, tuple) else jnp.asarray(value)
        for name, value in params.items()
    }
    name = str(source) if str(source) in BUNDLED else path.resolve().name
    return check(Dictionary(arrays, config, name))


def save_dictionary(
    dictionary: Dictionary,
    folder: str | os.PathLike[str],
    dtype: str | None = None,
    format: str | None = None,
) -> None:
    """Write a dictionary into a folder, whole or not at all; an old folder is replaced.

    Args:
      dictionary: what to write.
      folder: where.
      dtype: dtype on disk; None keeps that of the parameters.
      format: a format of docs/dictionaries.md; None is circuit-tracer's where it can say everything, else ours.

    Raises:
      InputError: the place is not writable, ``dtype`` cannot hold the values, or the format cannot say what the
        dictionary is.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} of a dictionary: expected one of {', '.join(DTYPES)}")
    check(dictionary)
    chosen = registry.writable(format, dictionary.config)
    assert chosen.write is not None
    stored = dtype or jnp.dtype(dictionary.params["W_enc"].dtype).name
    with atomic_folder(folder) as temporary:
        chosen.write(temporary, dictionary.config, dictionary.params, stored)
