"""What Llamascopium's types share: recognising one, the header of a layer, data scales, thresholds as logarithms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.notes import note

CONFIG, TENSORS = "config.json", "sae_weights.safetensors"
THRESHOLD, AVERAGE = "activation_function.log_jumprelu_threshold", "dataset_average_activation_norm."
ACTIVATIONS = ("relu", "jumprelu", "topk")


def is_type(path: Path, kind: str) -> bool:
    """Whether ``path`` is a folder with this program's two files, of a type."""
    if not ((path / CONFIG).is_file() and (path / TENSORS).is_file()):
        return False
    try:
        values = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("sae_type") == kind


class Header(NamedTuple):
    """What ``config.json`` of one layer says, whatever its type.

    Attributes:
      fields: all of it. activation: the activation function. norm: how inputs are normalised.
      by_length: thresholds and ranking are of activations times length.
      hooks: what is read and written; sites: the same as sites. layer: its number.
    """

    fields: Fields
    activation: str
    norm: str
    by_length: bool
    hooks: tuple[str, str]
    sites: tuple[str, str]
    layer: int


def header(path: Path, kind: str) -> Header:
    """The header of a folder with one layer of the type ``kind``.

    Raises:
      InputError: another type, or an activation function, normalisation or hook that is not understood.
    """
    fields = read_fields(path / CONFIG)
    where = fields.where
    if (found := fields.get("sae_type", str)) != kind:
        raise InputError(f"{where}: sae_type is {found!r}, expected {kind}")
    activation = fields.get("act_fn", str)
    if activation not in ACTIVATIONS:
        raise InputError(f"{where}: act_fn is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    by_length = fields.get("sparsity_include_decoder_norm", bool, False)
    read, written = fields.get("hook_point_in", str), fields.get("hook_point_out", str)
    (read_site, layer), (write_site, other) = (
        hooks.lens_site(name, where, "a hook point") for name in (read, written)
    )
    if layer != other:
        raise InputError(f"{where}: hook points read layer {layer} and write layer {other}")
    return Header(
        fields, activation, norm_of(fields), by_length, (read, written), (read_site, write_site), layer
    )


def norm_of(fields: Fields) -> str:
    """``norm_activation``, refused where no weights can hold it."""
    norm = fields.get("norm_activation", str, "inference")
    if norm not in ("inference", "dataset-wise"):
        raise InputError(f"{fields.where}: norm_activation is {norm!r}, which no weights can hold")
    return norm


def scale(file: tensors.Reader, hook: str, d: int, norm: str) -> float:
    """What the values of a hook point are multiplied by: sqrt(D) over their average length, or 1."""
    if norm == "inference":
        return 1.0
    average = file.scalar(AVERAGE + hook)
    if average <= 0:
        raise InputError(f"{file.path}: {AVERAGE}{hook} is {average}, expected a positive number")
    note("the data's average lengths are folded in; activations are those of the scaled input")
    return float(np.sqrt(d) / average)


def logarithms(threshold: np.ndarray, name: str) -> np.ndarray:
    """Thresholds as they are stored.

    Raises:
      InputError: one is not positive; ``name`` is the format's.
    """
    if not (threshold > 0).all():
        raise InputError(f"a threshold is not positive, which the format {name} (log_threshold) cannot say")
    note("thresholds are stored as logarithms, which changes their last digits")
    return np.log(threshold)


def refuses_sites(config: DictionaryConfig) -> str | None:
    """Why activation function, width or sites cannot be written, or None."""
    if config.activation not in ACTIVATIONS:
        return f"it has no activation {config.activation!r}"
    if config.d_write is not None:
        return f"it has nothing for d_write = {config.d_write}"
    for name in ("read_site", "write_site"):
        if hooks.lens_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return None


def written_fields(config: DictionaryConfig, kind: str, dtype: Any) -> dict[str, Any]:
    """``config.json`` of one layer, without what only this type has."""
    layer = single.layer_of(config)
    fields: dict[str, Any] = {
        "sae_type": kind, "d_model": config.d_model, "expansion_factor": config.n_features / config.d_model,
        "act_fn": config.activation, "norm_activation": "inference", "use_decoder_bias": True,
        "sparsity_include_decoder_norm": config.ranked, "dtype": f"torch.{np.dtype(dtype).name}",
        "hook_point_in": hooks.lens_name(config.read_site, layer),
        "hook_point_out": hooks.lens_name(config.write_site, layer),
    }  # fmt: skip
    return fields | ({"top_k": config.k} if config.activation == "topk" else {})
