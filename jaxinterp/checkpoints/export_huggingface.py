"""A model as a Hugging Face folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.checkpoints import export_tensors, placing, tensors
from jaxinterp.checkpoints.export_config import write_config
from jaxinterp.checkpoints.export_pairs import with_pairs
from jaxinterp.checkpoints.families import Family
from jaxinterp.checkpoints.huggingface import axis_sizes
from jaxinterp.checkpoints.native import write_tokenizer_files
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic_folder, write_json
from jaxinterp.core.trees import paths
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights

if TYPE_CHECKING:
    from jaxinterp.models.model import Model

SHARD_BYTES = 5_000_000_000
_DTYPES = ("float16", "bfloat16", "float32")


def export_huggingface(
    model: Model,
    folder: str | os.PathLike[str],
    *,
    family: str | None = None,
    dtype: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> str:
    """Write ``model`` as a Hugging Face folder, whole or not at all; returns the family's ``model_type``.

    ``config.json``, ``model.safetensors`` (or shards and their index), and the tokenizer's files if it has one: a
    ``tokenizer.json`` as it was read, or a llama2.c tokenizer as ``tokenizer.bin``, which only this program reads.
    A host holds one tensor at a time besides the model. Rotary pairs of neighbours (llama2.c) become pairs of halves,
    which is the same computation. The same model gives the same bytes.

    Args:
      folder: a new or an empty folder.
      family: the ``model_type`` to write; None takes the first family that can express the model.
      dtype: storage dtype (float16, bfloat16, float32); None keeps each parameter's own.
      max_shard_bytes: bytes of tensors in a file; a single larger tensor has a file of its own.

    Raises:
      InputError: a model that the family cannot express, a number too large for ``dtype``, parameters that do not
        fit the config, or a folder that holds something.
    """
    folder = Path(folder)
    check_free(folder)
    if max_shard_bytes < 1:
        raise InputError(f"max_shard_bytes is {max_shard_bytes}, expected at least 1")
    weights.check(declare(model.config), model.params, f"model {model.name or 'to be exported'}")
    try:
        found, content = write_config(model.config, family)
    except InputError:
        if model.config.rope_pairs == "half":
            raise
        found, content, model = _in_halves(model, family)
    leaves = dict(paths(model.params))
    sizes = axis_sizes(model.config)
    entries = found.tensors(model.config)
    assert sorted(entry.ours for entry in entries) == sorted(leaves), (
        "the family's table and the decoder differ"
    )

    def dtype_of(name: str) -> np.dtype:
        chosen = placing.as_dtype(leaves[name].dtype if dtype is None else dtype, on_device=False)
        if chosen.name not in _DTYPES:
            raise InputError(
                f"Hugging Face folders hold {', '.join(_DTYPES)}, not the {chosen.name} of {name!r}: give a dtype"
            )
        return chosen

    planned = export_tensors.plan(entries, model.config, sizes, dtype_of)
    names = {tensor.dtype.name for tensor in planned}
    if len(names) == 1:
        content["torch_dtype"] = names.pop()
    tokenizer = model.tokenizer
    # The reference's defaults name tokens that a small vocabulary has not.
    content |= {
        "bos_token_id": None if tokenizer is None else tokenizer.bos,
        "eos_token_id": None if tokenizer is None else tokenizer.eos,
        "pad_token_id": None,
    }
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", dict(sorted(content.items())))
        _write(
            temporary, planned, lambda tensor: export_tensors.build(tensor, leaves, sizes), max_shard_bytes
        )
        write_tokenizer_files(tokenizer, temporary)
    return found.model_type


def _in_halves(model: Model, family: str | None) -> tuple[Family, dict[str, Any], Model]:
    """The same with rotary pairs of halves.

    Raises:
      InputError: the family cannot express the model in either way; what was wrong with the first is said.
    """
    try:
        turned = with_pairs(model, "half")
    except InputError:
        write_config(model.config, family)
        raise
    return *write_config(turned.config, family), turned


def _write(
    folder: Path,
    planned: list[export_tensors.Stored],
    build: Callable[[export_tensors.Stored], np.ndarray],
    limit: int,
) -> None:
    runs = export_tensors.shards(planned, limit)
    place: dict[str, str] = {}
    for number, run in enumerate(runs, 1):
        file = "model.safetensors" if len(runs) == 1 else f"model-{number:05d}-of-{len(runs):05d}.safetensors"
        by_name = {tensor.name: tensor for tensor in run}
        specs = {name: (tensor.dtype, tensor.shape) for name, tensor in by_name.items()}

        def read(name: str, run: dict[str, export_tensors.Stored] = by_name) -> np.ndarray:
            return build(run[name])

        tensors.write_each(folder / file, specs, read, {"format": "pt"})
        place |= dict.fromkeys(by_name, file)
    if len(runs) > 1:
        total = sum(map(export_tensors.nbytes, planned))
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(place.items()))}
        write_json(folder / "model.safetensors.index.json", index)


def check_free(out: Path) -> None:
    """Nothing that is there is written over.

    Raises:
      InputError: ``out`` is a file or a folder that holds something.
    """
    if out.is_dir():
        inside = sorted(entry.name for entry in out.iterdir())
        if inside:
            raise InputError(
                f"cannot write {out}: the folder is in the way, it holds {', '.join(inside[:3])}; give a new one"
            )
    elif out.exists() or out.is_symlink():
        raise InputError(f"cannot write {out}: a file is in the way; give a new name")
