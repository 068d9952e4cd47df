"""A dictionary from any format into any other, with what changes in meaning; and what a file or folder is."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import notes, registry
from jaxinterp.dictionaries.load import BUNDLED, load_dictionary, save_dictionary
from jaxinterp.parallel.weights import is_weight

_LAYERS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
DIGEST_BELOW = 1 << 28


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str | None = None,
    *,
    dtype: str | None = None,
    layers: str | None = None,
) -> dict[str, Any]:
    """Write a dictionary in another format; nothing that is there is written over.

    Args:
      source: as of `load_dictionary`.
      out: a new folder, whole or not at all.
      format: as of `save_dictionary`.
      dtype: dtype on disk; None keeps float32.
      layers: of the kind "plt" the model's layers to keep, such as "0-3,7"; None means all.

    Returns:
      JSON values: out, source_format, format, kind, layers, features, parameters, dtype, and notes, one sentence for
      each thing that is put in another way.

    Raises:
      InputError: ``out`` is there, layers that are not, a source that is not understood, or a format that cannot say
        what the dictionary is.
    """
    place = Path(out)
    if place.exists():
        raise InputError(f"{out} is there already; name a new folder")
    with notes.collected() as found:
        dictionary = load_dictionary(source)
        if layers is not None:
            dictionary = only(dictionary, layers)
        save_dictionary(dictionary, place, dtype, format)
    if dtype not in (None, "float32", "float64"):
        found.append(f"values are rounded to {dtype}")
    config = dictionary.config
    return {
        "out": str(out),
        "source_format": registry.detect(BUNDLED.get(str(source), Path(source))).name,
        "format": format or registry.writable(None, config).name,
        **summary(config),
        "dtype": dtype or "float32",
        "notes": found,
    }


def only(dictionary: Dictionary, layers: str) -> Dictionary:
    """The same with some layers only, named by the model's numbers: "0-3,7".

    Raises:
      InputError: not such a list, a layer that is not there, or a kind whose layers depend on each other.
    """
    config = dictionary.config
    if config.kind != "plt":
        raise InputError(f"layers can be chosen of the kind plt; those of a {config.kind} write together")
    if not _LAYERS.fullmatch(layers):
        raise InputError(f"layers are {layers!r}, expected numbers and ranges such as 0-3,7")
    wanted: list[int] = []
    for part in layers.split(","):
        first, _, last = part.partition("-")
        if int(last or first) - int(first) > 100_000:
            raise InputError(f"layers are {layers!r}, which is too many")
        wanted += range(int(first), int(last or first) + 1)
    there = list(config.layers or range(config.n_layers))
    for layer in wanted:
        if layer not in there:
            raise InputError(f"there is no layer {layer}; there are {', '.join(map(str, there))}")
    index = np.asarray([there.index(layer) for layer in sorted(set(wanted))])
    params = jax.tree.map(lambda values: values[index], dictionary.params)
    chosen = dataclasses.replace(config, n_layers=len(index), layers=tuple(sorted(set(wanted))))
    return Dictionary(params, chosen, dictionary.name)


def summary(config: DictionaryConfig) -> dict[str, Any]:
    """Kind, layers, features a layer and the number of parameters."""
    weights = jax.tree.leaves(kind_of(config).declare(config), is_leaf=is_weight)
    return {
        "kind": config.kind,
        "layers": list(config.layers) or config.n_layers,
        "features": config.n_features,
        "parameters": sum(int(np.prod(weight.shape, dtype=np.int64)) for weight in weights),
    }


def describe(source: str | os.PathLike[str], digest: bool | None = None) -> dict[str, Any]:
    """What a dictionary is, as JSON values, from headers and small arrays.

    Args:
      source: as of `load_dictionary`.
      digest: whether to read every value for it; None means where they take less than 256 MiB.

    Raises:
      InputError: no dictionary is there, or it is not understood.
    """
    path = BUNDLED.get(str(source), Path(source))
    if not path.exists():
        raise InputError(f"no dictionary at {source}")
    found, config = registry.describe(path)
    facts = {**config.to_dict(), "parameters": (count := summary(config)["parameters"])}
    facts = {
        "kind": f"dictionary ({facts.pop('kind')})",
        "name": str(source) if str(source) in BUNDLED else path.resolve().name,
        "format": found.name,
        **facts,
    }
    if digest or (digest is None and count * 4 < DIGEST_BELOW):
        lazy = found.pieces is not None
        try:
            facts["digest"] = (
                load_dictionary(source, lazy=True).digest() if lazy else load_dictionary(source).digest()
            )
        except InputError:
            facts["digest"] = load_dictionary(source).digest()
    return facts
