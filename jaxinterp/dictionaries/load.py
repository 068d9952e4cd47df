"""Dictionaries from and to disk, whatever their format."""

from __future__ import annotations

import os
from pathlib import Path

import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic_folder
from jaxinterp.dictionaries.base import Dictionary, check
from jaxinterp.dictionaries.formats import circuit_tracer

# The bundled dictionaries are package data of a room above; a path is not an import.
_DATA = Path(__file__).resolve().parent.parent / "biology" / "pocket" / "data"
BUNDLED = {"pocket": _DATA / "clt", "pocket-clt": _DATA / "clt", "pocket-plt": _DATA / "plt"}
DTYPES = ("float16", "bfloat16", "float32", "float64")


def load_dictionary(source: str | os.PathLike[str], dtype: str = "float32") -> Dictionary:
    """Load a dictionary from a folder, or a bundled one by name.

    Args:
      source: a folder in circuit-tracer's format, or "pocket" ("pocket-clt") or "pocket-plt".
      dtype: dtype of the parameters in memory.

    Returns:
      The dictionary; its name is the bundled name or the folder's.

    Raises:
      InputError: no such folder, an unknown format, or anything in it that is not understood.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} of a dictionary: expected one of {', '.join(DTYPES)}")
    folder = BUNDLED.get(str(source), Path(source))
    if not folder.is_dir():
        known = f"a folder, or one of {', '.join(BUNDLED)}"
        raise InputError(f"no dictionary at {source}: expected {known}")
    if not circuit_tracer.recognises(folder):
        raise InputError(
            f"{folder} holds no dictionary that is understood: no config.yaml (circuit-tracer's format)"
        )
    config, params = circuit_tracer.read(folder, dtype)
    arrays = {
        name: tuple(jnp.asarray(v) for v in value) if isinstance(value, tuple) else jnp.asarray(value)
        for name, value in params.items()
    }
    name = str(source) if str(source) in BUNDLED else folder.resolve().name
    return check(Dictionary(arrays, config, name))


def save_dictionary(dictionary: Dictionary, folder: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Write a dictionary as a circuit-tracer folder, whole or not at all; an old folder is replaced.

    Args:
      dictionary: what to write.
      folder: where.
      dtype: dtype on disk; None keeps that of the parameters.

    Raises:
      InputError: the place is not writable, or ``dtype`` cannot hold the values.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} of a dictionary: expected one of {', '.join(DTYPES)}")
    check(dictionary)
    stored = dtype or jnp.dtype(dictionary.params["W_enc"].dtype).name
    with atomic_folder(folder) as temporary:
        circuit_tracer.write(temporary, dictionary.config, dictionary.params, stored)
