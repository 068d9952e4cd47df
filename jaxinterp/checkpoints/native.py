"""Our own model folder: ``config.json``, ``model.safetensors`` with dotted names, the tokenizer if any."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.checkpoints import placing, tensors
from jaxinterp.checkpoints.llama2c_tokenizer import Llama2cTokenizer, read_tokenizer, write_tokenizer
from jaxinterp.checkpoints.sentencepiece_tokenizer import (
    SentencePieceTokenizer,
    read_sentencepiece,
    write_sentencepiece,
)
from jaxinterp.checkpoints.tokenizers import (
    JsonTokenizer,
    Tokenizer,
    read_tokenizer_json,
    write_tokenizer_json,
)
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

FORMAT = "jaxinterp-model"
VERSION = 1


def is_native(config: Any) -> bool:
    """Whether the content of a ``config.json`` is that of a native model folder."""
    return isinstance(config, dict) and "format" in config


def save_model(model: Model, folder: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Write ``model`` as a native folder, whole or not at all. The same model gives the same bytes.

    Args:
      model: parameters, config and tokenizer.
      folder: is replaced if it is a model folder already.
      dtype: storage dtype of the weights (float16, bfloat16, float32, float64); None keeps theirs.

    Raises:
      InputError: parameters that do not fit the config, a number too large for ``dtype``, a folder that
        holds something else, or one that cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder):
        raise InputError(f"{folder} holds something that is not a model of ours: give a new folder")
    arrays = host_arrays(model, dtype)
    with atomic_folder(folder) as temporary:
        content = {"format": FORMAT, "version": VERSION, "config": model.config.to_dict()}
        write_json(temporary / "config.json", content)
        tensors.write(temporary / "model.safetensors", arrays)
        write_tokenizer_files(model.tokenizer, temporary)


def host_arrays(model: Model, dtype: str | None) -> dict[str, np.ndarray]:
    """Dotted path → weight on this host, in ``dtype`` or, where that is None, its own.

    Raises:
      InputError: parameters that do not fit the config, or a number too large for ``dtype``.
    """
    weights.check(declare(model.config), model.params, f"model {model.name or 'to be saved'}")
    arrays = {}
    for name, leaf in paths(model.params):
        host = np.asarray(leaf)
        target = placing.as_dtype(host.dtype if dtype is None else dtype, on_device=False)
        arrays[name] = placing.cast(host, target, f"the weight {name!r}")
    return arrays


def _is_ours(folder: Path) -> bool:
    file = folder / "config.json"
    try:
        return file.is_file() and is_native(read_json(file))
    except InputError:
        return False


def write_tokenizer_files(tokenizer: Tokenizer | None, folder: Path) -> None:
    """Write a tokenizer into a model folder under the name by which `read_tokenizer_files` finds it."""
    if isinstance(tokenizer, JsonTokenizer):
        write_tokenizer_json(tokenizer, folder)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        write_sentencepiece(tokenizer, folder)
    elif isinstance(tokenizer, Llama2cTokenizer):
        write_tokenizer(folder / "tokenizer.bin", tokenizer)
    elif tokenizer is not None:
        raise InputError(f"a tokenizer of type {type(tokenizer).__name__} has no file format to be saved in")


def read_tokenizer_files(folder: Path) -> Tokenizer | None:
    """The tokenizer of a model folder, None if it has none. A tokenizer.json wins over a tokenizer.model."""
    if (folder / "tokenizer.json").is_file():
        return read_tokenizer_json(folder / "tokenizer.json")
    if (folder / "tokenizer.model").is_file():
        return read_sentencepiece(folder / "tokenizer.model")
    if (folder / "tokenizer.bin").is_file():
        return read_tokenizer(folder / "tokenizer.bin")
    return None


def read_model(
    folder: str | os.PathLike[str],
    dtype: Any = "float32",
    mesh: Mesh | None = None,
    rules: Rules | None = None,
) -> tuple[Tree, ModelConfig]:
    """Read the parameters and config of a native folder; every name and shape must match exactly once.

    Raises:
      InputError: another format or version, an unknown config field, a missing, unknown or differently
        shaped weight, a damaged file.
    """
    folder = Path(folder)
    file = folder / "config.json"
    content = read_json(file)
    if not is_native(content) or content["format"] != FORMAT:
        found = content.get("format") if isinstance(content, dict) else content
        raise InputError(f"{file}: format is {found!r}, expected {FORMAT!r}")
    if content.get("version") != VERSION:
        raise InputError(f"{file}: version is {content.get('version')!r}, this program reads {VERSION}")
    for key in content:
        if key not in ("format", "version", "config"):
            raise InputError(f"{file}: unknown field {key!r}{near(key, ('format', 'version', 'config'))}")
    if not isinstance(content.get("config"), dict):
        raise InputError(f"{file}: the field 'config' is missing or not an object")
    config = ModelConfig.from_dict(content["config"], str(file))

    source = tensors.TensorFile(folder / "model.safetensors")
    declared = weights.leaves(declare(config))
    for name in source.entries:
        if name not in declared:
            raise InputError(f"{source.path}: unknown weight {name!r}{near(name, declared)}")
    target = placing.as_dtype(dtype)
    placements = placing.shardings(config, mesh, rules)
    leaves = {}
    for name, weight in declared.items():
        found = source.entry(name).shape
        if found != weight.shape:
            raise InputError(f"{source.path}: the weight {name!r} has shape {found}, expected {weight.shape}")

        def read(_: Any, spans: placing.Spans | None, name: str = name) -> np.ndarray:
            index = ... if spans is None else tuple(slice(*span) for span in spans)
            return placing.cast(source.read(name, index), target, f"{source.path}: the weight {name!r}")

        leaves[name] = placing.stacked(weight.shape, target, [()], read, placements[name])
    return unflatten(leaves), config
