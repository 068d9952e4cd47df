"""A model as an Orbax checkpoint: our ``config.json`` and, beside it, the tree of parameters under ``params``."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.checkpoints import placing
from jaxinterp.checkpoints.native import host_arrays, write_tokenizer_files
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import atomic_folder, read_json, write_json
from jaxinterp.core.letters import Tree
from jaxinterp.core.trees import paths, unflatten
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxinterp.models.model import Model
    from jaxinterp.parallel.rules import Rules

FORMAT = "jaxinterp-orbax"
VERSION = 1
_PARAMS = "params"


def is_orbax(config: Any) -> bool:
    """Whether the content of a ``config.json`` is that of a folder of this form."""
    return isinstance(config, dict) and config.get("format") == FORMAT


def save(model: Model, folder: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Write ``config.json``, the Orbax checkpoint ``params`` and the tokenizer, whole or not at all.

    ``params`` is a nested dict of arrays that ``orbax.checkpoint.StandardCheckpointer().restore`` reads anywhere.

    Args:
      folder: a new or empty folder, which the caller has made sure of.
      dtype: storage dtype; None keeps each parameter's own.

    Raises:
      InputError: parameters that do not fit the config, a number too large for ``dtype``, or a folder that cannot be
        written.
    """
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    arrays = host_arrays(model, dtype)
    with atomic_folder(folder) as temporary:
        content = {"format": FORMAT, "version": VERSION, "config": model.config.to_dict()}
        write_json(temporary / "config.json", content)
        try:
            with ocp.StandardCheckpointer() as writer:
                writer.save((temporary / _PARAMS).resolve(), unflatten(arrays))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise InputError(f"cannot write {folder}: {_reason(error)}") from error
        write_tokenizer_files(model.tokenizer, temporary)


def read_model(
    folder: str | os.PathLike[str],
    dtype: Any = "float32",
    mesh: Mesh | None = None,
    rules: Rules | None = None,
) -> tuple[Tree, ModelConfig]:
    """Read (parameters, config); on a mesh every host reads its own shards.

    Raises:
      InputError: another version, an unknown config field, a missing, unknown or differently shaped weight, one that is
        no floating-point array, or a damaged checkpoint.
    """
    import jax
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    folder = Path(folder)
    file, place = folder / "config.json", (folder / _PARAMS).resolve()
    content = read_json(file)
    if content.get("version") != VERSION:
        raise InputError(f"{file}: version is {content.get('version')!r}, this program reads {VERSION}")
    for key in content:
        if key not in ("format", "version", "config"):
            raise InputError(f"{file}: unknown field {key!r}{near(key, ('format', 'version', 'config'))}")
    if not isinstance(content.get("config"), dict):
        raise InputError(f"{file}: the field 'config' is missing or not an object")
    config = ModelConfig.from_dict(content["config"], str(file))
    if not place.is_dir():
        raise InputError(f"{folder} lacks the Orbax checkpoint {_PARAMS}")
    target = placing.as_dtype(dtype)
    declared = declare(config)
    try:
        with ocp.StandardCheckpointer() as reader:
            saved = reader.metadata(place)
            tree = getattr(getattr(saved, "item_metadata", saved), "tree", saved)
            if not isinstance(tree, dict):
                raise InputError(f"{place} cannot be read: its metadata describe no tree of arrays")
            found = dict(paths(tree))
            _compare(place, found, weights.leaves(declared))
            placements = placing.shardings(config, mesh, rules)
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            wanted = unflatten({
                name: jax.ShapeDtypeStruct(weight.shape, found[name].dtype, sharding=placements[name] or here)
                for name, weight in weights.leaves(declared).items()
            })  # fmt: skip
            params = reader.restore(place, wanted)
    except InputError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise InputError(f"{place} cannot be read: {_reason(error)}") from error
    leaves = {}
    for name, leaf in paths(params):
        cast = leaf if leaf.dtype == target else leaf.astype(target)
        if not bool(jax.numpy.isfinite(cast).all()):
            raise InputError(
                f"{place}: the weight {name!r} holds numbers that are not finite in {target.name}"
            )
        leaves[name] = cast
    return unflatten(leaves), config


def _compare(place: Path, found: dict[str, Any], declared: dict[str, weights.Weight]) -> None:
    for name, entry in found.items():
        if name not in declared:
            raise InputError(f"{place}: unknown weight {name!r}{near(name, declared)}")
        if tuple(entry.shape) != declared[name].shape:
            raise InputError(
                f"{place}: the weight {name!r} has shape {tuple(entry.shape)}, expected {declared[name].shape}"
            )
        placing.as_dtype(entry.dtype, on_device=np.dtype(entry.dtype).name == "float64")
    for name in declared:
        if name not in found:
            raise InputError(f"{place} lacks the weight {name!r}{near(name, found)}")


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return text.splitlines()[0][:200]
