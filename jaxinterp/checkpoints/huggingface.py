"""Hugging Face model folders: a strict config, sharded safetensors, every tensor matched exactly once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinterp.checkpoints import matching, placing, quantised
from jaxinterp.checkpoints.families import FAMILIES, dynamic_tanh
from jaxinterp.checkpoints.families.base import REQUIRED, Family, read_fields
from jaxinterp.checkpoints.tensors import TensorFile
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_json
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.trees import unflatten
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxinterp.parallel.rules import Rules

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth")


def read_config(content: Any, where: str) -> tuple[Family, ModelConfig]:
    """The family and our config from the content of a Hugging Face ``config.json``.

    Raises:
      InputError: a family that is not supported, or a field that is not understood; see `read_fields`.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where} is not a model's config: not a JSON object")
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        what = "there is no model_type" if kind is None else f"the model_type {kind!r} is not supported"
        raise InputError(
            f"{where}: {what}{near(kind, FAMILIES)}; supported are {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[kind]
    architectures = content.get("architectures")
    if not isinstance(architectures, list | None):
        raise InputError(f"{where}: architectures is {architectures!r}, expected a list of names")
    for name in architectures or []:
        if name != family.architecture:
            raise InputError(
                f"{where}: the architecture {name!r} is not supported; "
                f"of {kind} models {family.architecture} is"
            )
    quantised.read_quantisation(content.get("quantization_config"), kind, where)
    content = {name: value for name, value in content.items() if name != "quantization_config"}
    if family.inner is not None:
        content = _inner(family, content, where)
    values = read_fields(family, content, where)
    try:
        return family, family.config(values, where)
    except InputError as error:
        # What the sizes do not allow together is said by our own config, which does not know the file.
        raise error if where in str(error) else InputError(f"{where}: {error}") from error


def _inner(family: Family, content: dict[str, Any], where: str) -> dict[str, Any]:
    """The text model's own config, after the fields around it have been accounted for."""
    inner = family.inner
    assert inner is not None
    around = family._replace(fields={inner: REQUIRED})
    # Fields of the text model that the outer config repeats must say the same.
    repeated = {name: value for name, value in content.items() if name in family.fields and name != inner}
    own = read_fields(around, {k: v for k, v in content.items() if k not in repeated}, where)[inner]
    if not isinstance(own, dict):
        raise InputError(f"{where}: {inner} is {own!r}, expected the fields of the text model")
    for name, value in repeated.items():
        if own.setdefault(name, value) != value:
            raise InputError(f"{where}: {name} is {value!r}, but {own[name]!r} in {inner}")
    return own


class Store:
    """The tensors of a folder, whichever of its files they are in.

    Raises:
      InputError: no safetensors, a missing or damaged file, a tensor in two files, or an index that does
        not say what the files hold.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, TensorFile] = {}
        index = folder / _INDEX
        if index.is_file():
            self._sharded(index)
        elif (folder / _SINGLE).is_file():
            file = TensorFile(folder / _SINGLE)
            self.files = dict.fromkeys(file.entries, file)
        else:
            pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
            found = (
                f" but {', '.join(pickles[:3])}: pickles are never executed, convert them" if pickles else ""
            )
            raise InputError(f"{folder} has neither {_SINGLE} nor {_INDEX}{found}")

    def _sharded(self, index: Path) -> None:
        content = read_json(index)
        table = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
            raise InputError(f"{index}: the field 'weight_map' is missing or not a table of file names")
        for shard in sorted(set(table.values())):
            if Path(shard).name != shard:
                raise InputError(f"{index}: {shard!r} is not the name of a file in this folder")
            if not (self.folder / shard).is_file():
                raise InputError(f"{self.folder} lacks the shard {shard} that {_INDEX} names")
            file = TensorFile(self.folder / shard)
            for name in file.entries:
                if name in self.files:
                    raise InputError(
                        f"the tensor {name!r} is in both {self.files[name].path} and {file.path}"
                    )
                if table.get(name) != shard:
                    raise InputError(
                        f"{index}: the tensor {name!r} of {shard} is listed under {table.get(name)!r}"
                    )
                self.files[name] = file
        for name, shard in table.items():
            if name not in self.files:
                raise InputError(
                    f"{self.folder / shard} lacks the tensor {name!r} that {_INDEX} places there"
                )


def read_model(
    folder: str | os.PathLike[str],
    dtype: Any = "float32",
    mesh: Mesh | None = None,
    rules: Rules | None = None,
) -> tuple[Tree, ModelConfig]:
    """Read a Hugging Face folder into (parameters, config).

    Tensors are read one at a time, turned into numbers where they are quantised and into our layout, stacked over
    layers and placed: besides its own part of the model a host holds one stored tensor at most (of experts that lie in
    one tensor, one expert).

    Args:
      folder: with ``config.json`` and ``model.safetensors`` or shards and their index.
      dtype: dtype of the parameters, whatever the stored one.
      mesh, rules: where the parameters go; none means the default device.

    Raises:
      InputError: naming the file, the key and what was expected and found.
    """
    config, arrays = leaves(folder, dtype)
    placements = placing.shardings(config, mesh, rules)
    target = placing.as_dtype(dtype)
    placed: dict[str, Array] = {
        name: placing.stacked(leaf.shape, target, leaf.places, leaf.read, placements[name])
        for name, leaf in arrays.items()
    }
    return unflatten(placed), config


def leaves(folder: str | os.PathLike[str], dtype: Any) -> tuple[ModelConfig, dict[str, matching.Leaf]]:
    """A folder's config and, by dotted path, how each of our arrays is read, after everything has been matched.

    Raises:
      InputError: as `read_model`.
    """
    folder = Path(folder)
    file = folder / "config.json"
    content = read_json(file)
    family, config = read_config(content, str(file))
    store = Store(folder)
    entries = family.tensors(config)
    if dynamic_tanh.stored_in(store.files):
        config, entries = dynamic_tanh.config(config), dynamic_tanh.tensors(entries)
    sizes = axis_sizes(config)
    quantisation = quantised.read_quantisation(
        content.get("quantization_config"), family.model_type, str(file)
    )
    found = quantised.sources(store.files, quantisation)
    left_out = family.left_out(content, config) if family.left_out else ()
    stored = matching.match(family, config, entries, found, sizes, folder, left_out)
    if config.tied:
        matching.check_tied(family, stored, entries, folder)
    target = placing.as_dtype(dtype)
    declared = weights.leaves(declare(config))
    assert sorted(declared) == sorted(entry.ours for entry in entries), (
        "the family's table and the decoder differ"
    )
    return config, {
        entry.ours: matching.leaf(entry, declared[entry.ours].shape, config, stored, sizes, target)
        for entry in entries
    }


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    """The size behind each letter of a `rearrange` pattern."""
    sizes = {
        "v": config.vocab_size, "d": config.d_model, "h": config.n_heads, "k": config.n_kv_heads,
        "e": config.d_head, "m": config.d_mlp, "c": config.context, "o": 1, "w": 2, "p": 3,
    }  # fmt: skip
    if config.experts is not None:
        sizes |= {"x": config.experts.n, "f": config.experts.d_expert, "s": config.experts.d_shared}
    if config.latent is not None:
        latent = config.latent
        both = latent.d_plain + latent.d_value
        sizes |= {
            "a": latent.kv_rank,
            "u": latent.d_turned,
            "y": latent.d_value,
            "z": both,
            "r": latent.q_rank or 0,
        }
    return sizes
