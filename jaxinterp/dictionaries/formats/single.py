"""What readers of one-layer dictionaries share: changes of convention that keep the function, and the config."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats.notes import note
from jaxinterp.dictionaries.formats.tensors import shapes_only

Arrays = dict[str, np.ndarray]
"""One layer in our orientation: W_enc [N, D], W_dec [N, D'], b_enc [N], b_dec [D'] and what the activation needs."""


def build(
    arrays: Arrays,
    activation: str,
    sites: tuple[str, str],
    layer: int,
    *,
    k: int = 0,
    ranked: bool = False,
    centre: bool = False,
    model_name: str = "",
    scan: str = "",
    normalise_rows: str = "none",
) -> tuple[DictionaryConfig, dict[str, Any]]:
    """Config and parameters of a dictionary of the one layer ``layer``."""
    if centre and "W_skip" in arrays:
        arrays, centre = uncentre(arrays), False
    (n, d), out = arrays["W_enc"].shape, arrays["W_dec"].shape[1]
    config = DictionaryConfig(
        "plt", 1, n, d, activation=activation, skip="W_skip" in arrays, read_site=sites[0], write_site=sites[1],
        model_name=model_name, scan=scan, k=k, ranked=ranked, centre=centre, d_write=None if out == d else out,
        layers=(layer,), normalise_rows=normalise_rows,
    )  # fmt: skip
    return config, {name: value[None] for name, value in arrays.items()}


def uncentre(arrays: Arrays) -> Arrays:
    """The same function of an input from which the decoder bias is not taken off."""
    note("the encoder bias takes what the decoder bias takes off the input")
    changed = {**arrays, "b_enc": arrays["b_enc"] - arrays["W_enc"] @ arrays["b_dec"]}
    if "r_mag" in arrays:
        changed["b_mag"] = arrays["b_mag"] - np.exp(arrays["r_mag"]) * (arrays["W_enc"] @ arrays["b_dec"])
    return changed


def centre(arrays: Arrays) -> Arrays:
    """The same function of an input from which the decoder bias is taken off: the inverse of `uncentre`."""
    note("the decoder bias is taken off the input there: the encoder bias takes the difference")
    shift = arrays["W_enc"] @ arrays["b_dec"]
    changed = {**arrays, "b_enc": arrays["b_enc"] + shift}
    if "r_mag" in arrays:  # a gated feature's size is of the pre-activation without b_enc
        changed["b_mag"] = arrays["b_mag"] + np.exp(arrays["r_mag"]) * shift
    return changed


def check_rectified(arrays: dict[str, Any], name: str) -> None:
    """Refuse thresholds below zero, for formats whose activations are rectified as well."""
    if "threshold" in arrays and not (np.asarray(arrays["threshold"]) >= 0).all():
        raise InputError(f"a threshold is below zero, which the format {name} (h > 0 too) cannot say")


def refuses_rows(config: DictionaryConfig) -> str | None:
    """Why a format without normalised rows cannot say what a dictionary is, or None."""
    rows = config.normalise_rows
    return None if rows == "none" else f"it has nothing for normalise_rows = {rows}"


def rectified(threshold: np.ndarray) -> np.ndarray:
    """The thresholds of ``h > threshold`` for those of ``relu(h)`` where ``h > threshold``."""
    if (threshold < 0).any():
        note("thresholds below zero become zero, which is the same where activations are rectified")
    return np.maximum(threshold, np.zeros_like(threshold))


def norms(arrays: Arrays) -> np.ndarray:
    """``[N]``, decoder lengths, computed in float64."""
    return np.sqrt(np.sum(np.square(arrays["W_dec"].astype(np.float64)), axis=1))


def fold_norms(arrays: Arrays) -> Arrays:
    """The same function with decoders of length one and activations (not thresholds) times the old length.

    A feature without a decoder becomes one that never fires: ranked by activation times length it would not.
    """
    note("decoder lengths are folded into the encoder: activations are multiplied by them")
    length = norms(arrays)
    safe = np.where(length > 0, length, 1.0)
    dtype = arrays["W_dec"].dtype
    return {
        **arrays,
        "W_enc": (arrays["W_enc"] * length[:, None]).astype(dtype),
        "b_enc": (arrays["b_enc"] * length).astype(dtype),
        "W_dec": (arrays["W_dec"] / safe[:, None]).astype(dtype),
    }


def scale_input(arrays: Arrays, factor: float) -> Arrays:
    """The dictionary ``x -> old(x * factor) / factor`` of the same activations."""
    note(
        f"the scale {factor:.6g} of what is read and written is folded in; activations are those of the scaled input"
    )
    scaled = {
        "W_enc": arrays["W_enc"] * factor,
        "W_dec": arrays["W_dec"] / factor,
        "b_dec": arrays["b_dec"] / factor,
    }
    return {**arrays, **{name: value.astype(arrays[name].dtype) for name, value in scaled.items()}}


def stack(
    parts: list[tuple[DictionaryConfig, dict[str, Any]]], where: Path
) -> tuple[DictionaryConfig, dict[str, Any]]:
    """One dictionary of several layers from those of one layer each, in the order of their layers.

    Raises:
      InputError: two of the same layer, or layers that differ in anything but their numbers.
    """
    parts = sorted(parts, key=lambda part: part[0].layers)
    first = parts[0][0]
    for config, _ in parts[1:]:
        for field in dataclasses.fields(config):
            one, two = getattr(first, field.name), getattr(config, field.name)
            if field.name != "layers" and one != two:
                raise InputError(
                    f"{where}: layers {first.layers[0]} and {config.layers[0]} differ in {field.name} "
                    f"({one!r}, {two!r}); load them one by one"
                )
    layers = tuple(config.layers[0] for config, _ in parts)
    if len(set(layers)) != len(layers):
        raise InputError(
            f"{where}: several dictionaries of one layer (layers {layers}); load them one by one"
        )
    config = dataclasses.replace(first, n_layers=len(parts), layers=layers)
    if shapes_only():
        return config, {}
    return config, {name: np.concatenate([params[name] for _, params in parts]) for name in parts[0][1]}


def layer_of(config: DictionaryConfig, index: int = 0) -> int:
    """The model's layer that layer ``index`` of a dictionary is."""
    return config.layers[index] if config.layers else index


def layer_arrays(params: dict[str, Any], index: int = 0) -> Arrays:
    """The arrays of one layer of the kind "plt"."""
    return {name: np.asarray(value)[index] for name, value in params.items()}


def autoencoder(config: DictionaryConfig) -> bool:
    """Whether a dictionary of the kind "plt" writes where it reads."""
    return config.read_site == config.write_site
