"""The formats there are, in the order in which a file is tried against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxinterp.core.errors import InputError, near
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import (
    circuit_tracer,
    clt_forge,
    clt_training,
    crosslayer_coding,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    llamascopium,
    llamascopium_lorsa,
    llamascopium_molt,
    native,
    openai,
    qwen_scope,
    saelens,
    single,
    sparsify,
    tensors,
    torch_published,
)
from jaxinterp.dictionaries.formats.pieces import Pieces


class Format(NamedTuple):
    """One format.

    Attributes:
      name: what `save_dictionary` calls it.
      recognises: ``(path)`` → whether a file or folder looks like this format; reads little, never raises.
      read: ``(path, dtype)`` → config and parameters as numpy arrays, everything checked but their shapes together.
      refuses: ``(config)`` → why such a dictionary cannot be written, or None; None where nothing can.
      write: ``(folder, config, params, dtype)``; the folder exists and is empty.
      pieces: ``(path, dtype)`` → the dictionary to be read in pieces; None where that is not done.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Any], tuple[DictionaryConfig, dict[str, Any]]]
    refuses: Callable[[DictionaryConfig], str | None] | None = None
    write: Callable[[Path, DictionaryConfig, dict[str, Any], Any], None] | None = None
    pieces: Callable[[Path, Any], Pieces] | None = None


def _of(module: ModuleType) -> Format:
    own = {name: getattr(module, name, None) for name in ("refuses", "write", "pieces")}
    return Format(module.NAME, module.recognises, module.read, **own)


_MODULES = (
    native,
    circuit_tracer,
    clt_forge,
    crosslayer_coding,
    saelens,
    llama_scope,
    llamascopium_lorsa,
    llamascopium_molt,
    llamascopium,
    clt_training,
    sparsify,
    dictionary_learning,
    openai,
    qwen_scope,
    torch_published,
    gemma_scope_2,
    gemma_scope,
)
FORMATS = {f.name: f for f in map(_of, _MODULES)}


def detect(path: Path) -> Format:
    """The format of a file or folder, by what is in it.

    Raises:
      InputError: none fits.
    """
    for one in FORMATS.values():
        if one.recognises(path):
            return one
    if path.is_dir() and (found := _by_layer(path)) is not None:
        return found
    raise InputError(
        f"{path} holds no dictionary that is understood: no config.yaml (circuit-tracer's format), and none of "
        f"the files of the other formats ({', '.join(name for name in FORMATS if name != circuit_tracer.NAME)})"
    )


def _by_layer(path: Path) -> Format | None:
    """The format of a folder whose folders each hold one layer in the same format, or None."""
    try:
        inner = sorted(place for place in path.iterdir() if place.is_dir())
        first = next((one for one in FORMATS.values() if inner and one.recognises(inner[0])), None)
        if first is None or not all(first.recognises(place) for place in inner):
            return None
    except OSError:
        return None

    def read(folder: Path, dtype: Any) -> tuple[DictionaryConfig, dict[str, Any]]:
        parts = [first.read(place, dtype) for place in inner]
        if any(config.kind != "plt" or len(config.layers) != 1 for config, _ in parts):
            raise InputError(f"{folder}: its folders hold more than one layer each; load them one by one")
        return single.stack(parts, folder)

    return Format(first.name, first.recognises, read)


def split(name: str, config: DictionaryConfig) -> DictionaryConfig | None:
    """What one layer of a dictionary of several is, where a format takes them only one by one; else None."""
    found = FORMATS.get(name)
    if config.kind != "plt" or config.n_layers == 1 or found is None or found.refuses is None:
        return None
    one = dataclasses.replace(config, n_layers=1, layers=(single.layer_of(config),))
    return one if found.refuses(config) is not None and found.refuses(one) is None else None


def describe(path: Path, format: str | None = None) -> tuple[Format, DictionaryConfig]:
    """The format and the config of a file or folder, from headers and small arrays.

    Raises:
      InputError: none fits, or what is there is not understood.
    """
    found = detect(path) if format is None else FORMATS[format]
    if found.pieces is not None:
        # A format in pieces may hold one layer whole; then, and for messages, the reader itself is asked.
        with suppress(InputError):
            return found, found.pieces(path, "float32").config
    with tensors.only_shapes():
        return found, found.read(path, "float32")[0]


def writable(name: str | None, config: DictionaryConfig) -> Format:
    """The format to write a dictionary in.

    Args:
      name: None means circuit-tracer's, which most tools read, where it can say everything, and ours elsewhere.

    Raises:
      InputError: no such format, one that is only read, or one that cannot say what the dictionary is.
    """
    if name is None:
        ours = circuit_tracer.refuses(config) is not None
        return FORMATS[native.NAME if ours else circuit_tracer.NAME]
    known = [f.name for f in FORMATS.values() if f.write is not None]
    if name not in known:
        read_only = f"; {name} is only read" if name in FORMATS else near(name, known)
        raise InputError(f"dictionary format {name!r}: expected one of {', '.join(known)}{read_only}")
    found = FORMATS[name]
    reason = found.refuses(config) if found.refuses is not None else None
    if reason is not None:
        raise InputError(f"a dictionary cannot be written in the format {name}: {reason}; {native.NAME} can")
    return found
