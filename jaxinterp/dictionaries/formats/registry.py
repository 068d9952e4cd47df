"""The formats there are, in the order in which a file is tried against them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxinterp.core.errors import InputError, near
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import (
    circuit_tracer,
    clt_forge,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llamascopium,
    native,
    saelens,
    sparsify,
    torch_published,
)


class Format(NamedTuple):
    """One format.

    Attributes:
      name: what `save_dictionary` calls it.
      recognises: ``(path)`` → whether a file or folder looks like this format; reads little, never raises.
      read: ``(path, dtype)`` → config and parameters as numpy arrays, everything checked but their shapes together.
      refuses: ``(config)`` → why such a dictionary cannot be written, or None; None where nothing can.
      write: ``(folder, config, params, dtype)``; the folder exists and is empty.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Any], tuple[DictionaryConfig, dict[str, Any]]]
    refuses: Callable[[DictionaryConfig], str | None] | None = None
    write: Callable[[Path, DictionaryConfig, dict[str, Any], Any], None] | None = None


def _of(module: ModuleType) -> Format:
    writes = hasattr(module, "write")
    return Format(
        module.NAME, module.recognises, module.read, *((module.refuses, module.write) if writes else ())
    )


_MODULES = (
    native,
    circuit_tracer,
    clt_forge,
    saelens,
    llamascopium,
    sparsify,
    dictionary_learning,
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
    raise InputError(
        f"{path} holds no dictionary that is understood: no config.yaml (circuit-tracer's format), and none of "
        f"the files of the other formats ({', '.join(name for name in FORMATS if name != circuit_tracer.NAME)})"
    )


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
