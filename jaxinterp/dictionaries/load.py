"""Dictionaries from and to disk, whatever their format."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic_folder
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, check
from jaxinterp.dictionaries.formats import registry
from jaxinterp.dictionaries.lazy import LazyDictionary

# The bundled dictionaries are package data of a room above; a path is not an import.
_DATA = Path(__file__).resolve().parent.parent / "biology" / "pocket" / "data"
BUNDLED = {"pocket": _DATA / "clt", "pocket-clt": _DATA / "clt", "pocket-plt": _DATA / "plt"}
DTYPES = ("float16", "bfloat16", "float32", "float64")


@overload
def load_dictionary(
    source: str | os.PathLike[str], dtype: str = ..., format: str | None = ..., *, lazy: Literal[False] = ...
) -> Dictionary: ...


@overload
def load_dictionary(
    source: str | os.PathLike[str], dtype: str = ..., format: str | None = ..., *, lazy: Literal[True],
    digest: str = ...,
) -> LazyDictionary: ...  # fmt: skip


def load_dictionary(
    source: str | os.PathLike[str], dtype: str = "float32", format: str | None = None, *, lazy: bool = False,
    digest: str = "",
) -> Dictionary | LazyDictionary:  # fmt: skip
    """Load a dictionary from a folder or file, or a bundled one by name.

    Args:
      source: a folder or file in one of the formats of docs/dictionaries.md, or "pocket" ("pocket-clt") or
        "pocket-plt".
      dtype: dtype of the parameters in memory.
      format: the format's name; None finds it by what is there.
      lazy: leave it in its files and read what is needed when it is: encoders layer by layer, decoder rows of active
        features. For tracing with a dictionary larger than memory, in the formats that docs/dictionaries.md marks.
      digest: with ``lazy``, the dictionary's digest if it is known (``jaxinterp info``); else a graph, which records
        it, reads every value once to find it.

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
    name = str(source) if str(source) in BUNDLED else path.resolve().name
    if lazy:
        if found.pieces is None:
            known = ", ".join(one.name for one in registry.FORMATS.values() if one.pieces is not None)
            raise InputError(f"{source}: the format {found.name} is not read lazily; {known} are")
        return LazyDictionary(found.pieces(path, dtype), name, dtype, digest)
    config, params = found.read(path, dtype)
    arrays = {
        name: tuple(_array(v) for v in value) if isinstance(value, tuple) else _array(value)
        for name, value in params.items()
    }
    return check(Dictionary(arrays, config, name))


def _array(value: np.ndarray) -> Array:
    """A copy on the device, for which no program is compiled, as `jnp.asarray` does for every shape."""
    return jax.device_put(np.array(value))


def save_dictionary(
    dictionary: Dictionary,
    folder: str | os.PathLike[str],
    dtype: str | None = None,
    format: str | None = None,
) -> None:
    """Write a dictionary into a folder, whole or not at all; an old folder is replaced.

    Several layers in a format that holds one get a folder each, ``layer_{n}``.

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
    config, params = dictionary.config, dictionary.params
    one = None if format is None else registry.split(format, config)
    chosen = registry.writable(format, one or config)
    assert chosen.write is not None
    stored = dtype or jnp.dtype(jax.tree.leaves(params)[0].dtype).name
    with atomic_folder(folder) as temporary:
        if one is None:
            chosen.write(temporary, config, params, stored)
            return
        for index, layer in enumerate(config.layers or range(config.n_layers)):
            inner = temporary / f"layer_{layer}"
            inner.mkdir()
            alone = {name: value[index : index + 1] for name, value in params.items()}
            chosen.write(inner, dataclasses.replace(one, layers=(layer,)), alone, stored)
