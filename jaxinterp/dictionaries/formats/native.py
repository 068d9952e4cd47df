"""Our own format: every kind of dictionary, nothing left out.

A folder with ``config.json`` (``"format": "jaxinterp dictionary"``, ``"version": 1`` and every field of
`DictionaryConfig`) and ``dictionary.safetensors`` with the parameters under our own names; the decoders of a
cross-layer transcoder, one array a target layer, are ``W_dec.0``, ``W_dec.1``, ... The same dictionary gives the same
bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import tensors
from jaxinterp.dictionaries.formats.mapped import Count, Piece, opened
from jaxinterp.dictionaries.formats.pieces import Pieces

NAME = "native"
MARK = "jaxinterp dictionary"
VERSION = 1
CONFIG, TENSORS = "config.json", "dictionary.safetensors"


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's tensor file."""
    return (path / TENSORS).is_file()


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a folder of ours.

    Raises:
      InputError: a missing, unknown or wrong field or tensor, another version, or a damaged file.
    """
    from jaxinterp.dictionaries.base import kind_of

    config = _config(path)
    with tensors.reading(path / TENSORS) as file:

        def take(name: str, node: Any) -> Any:
            if isinstance(node, tuple) and not hasattr(node, "shape"):
                return tuple(take(f"{name}.{i}", part) for i, part in enumerate(node))
            return file.take(name, node.shape, np.dtype(dtype))

        params = {name: take(name, node) for name, node in kind_of(config).declare(config).items()}
        file.finish()
    return config, params


def pieces(path: Path, dtype: Any = "float32") -> Pieces:
    """A dictionary of the kind plt or clt, read when it is asked for."""
    from jaxinterp.dictionaries.base import kind_of

    config, count = _config(path), Count()
    if config.kind not in ("plt", "clt"):
        raise InputError(
            f"{path}: a dictionary of the kind {config.kind} is not read in pieces, load it whole"
        )
    file = opened(path / TENSORS, count)
    declared = {
        name: node.shape
        for name, node in kind_of(config).declare(config).items()
        if name not in ("W_enc", "W_dec")
    }
    file.ignore("W_enc", *declared, *(name for name in file.names if name.split(".")[0] == "W_dec"))
    file.finish(tuple(declared))
    apart = config.kind == "clt" and not config.tied

    def layer(index: int) -> dict[str, np.ndarray]:
        one = np.array([index])
        return {
            name: file.take_rows(name, shape, one, np.dtype(dtype))[0] for name, shape in declared.items()
        }

    def decoder(source: int, target: int) -> Piece:
        shape = (target + 1 if apart else config.n_layers, config.n_features, config.d_out)
        return file.piece(f"W_dec.{target}" if apart else "W_dec", shape, dtype, source)

    def encoder(index: int) -> Piece:
        return file.piece("W_enc", (config.n_layers, config.n_features, config.d_model), dtype, index)

    return Pieces(config, layer, encoder, decoder, count)


def _config(path: Path) -> DictionaryConfig:
    where = path / CONFIG
    values = read_json(where)
    if not isinstance(values, dict) or values.get("format") != MARK:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{where}: format is {found!r}, expected {MARK!r}")
    if values.get("version") != VERSION:
        raise InputError(f"{where}: version is {values.get('version')!r}, this program reads {VERSION}")
    fields = {name: value for name, value in values.items() if name not in ("format", "version")}
    _check_types(fields, where)
    return DictionaryConfig.from_dict(fields, str(where))


def _check_types(fields: dict[str, Any], where: Path) -> None:
    """Types that the config itself takes for granted."""
    for names, kind, what in (
        (("skip", "ranked", "centre", "tied"), bool, "true or false"),
        (("model_name", "scan"), str, "text"),
        (("layers",), list, "a list of layer numbers"),
    ):
        for name in names:
            if name in fields and not isinstance(fields[name], kind):
                raise InputError(f"{where}: {name} is {fields[name]!r}, expected {what}")
    for layer in fields.get("layers", ()):
        if not isinstance(layer, int) or isinstance(layer, bool) or layer < 0:
            raise InputError(f"{where}: layers holds {layer!r}, expected layer numbers")


def refuses(config: DictionaryConfig) -> str | None:
    """None: it can say everything."""
    del config
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a dictionary into ``folder``, which must exist.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    flat: dict[str, np.ndarray] = {}
    for name, value in tensors.host(params, dtype).items():
        if isinstance(value, tuple):
            flat |= {f"{name}.{i}": part for i, part in enumerate(value)}
        else:
            flat[name] = value
    tensors.write(folder / TENSORS, flat)
    write_json(folder / CONFIG, {"format": MARK, "version": VERSION, **config.to_dict()})
