"""Any dictionary on whole sequences, and whether it fits a model's sites.

Letters: L layers, G groups of features, N features, B sequences, T positions, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, kind_of


def encode(dictionary: Dictionary, x: Array, positions: Array, segments: Array) -> Array:
    """Feature activations [G, B, T, N] of ``x [L, B, T, D]``; positions and documents [B, T] of its tokens."""
    kind, config = kind_of(dictionary.config), dictionary.config
    if kind.sequences:
        from jaxinterp.dictionaries.attention import Places

        lorsa: Any = kind.encode
        return lorsa(dictionary.params, config, x, Places(positions, segments))
    return kind.encode(dictionary.params, config, x)


def decode(dictionary: Dictionary, a: Array, x: Array) -> Array:
    """Reconstructions [L, B, T, D'] of activations ``a [G, B, T, N]`` at inputs ``x [L, B, T, D]``."""
    return kind_of(dictionary.config).decode(dictionary.params, dictionary.config, a, x)


def width(model_config: Any, site: str) -> int:
    """Entries of a site of a model."""
    if site == "attn_z" and hasattr(model_config, "n_heads"):
        return int(model_config.n_heads * model_config.d_value)
    return int(model_config.d_model)


def check_fit(dictionary: Dictionary, model_config: Any) -> tuple[int, ...]:
    """The model's layers that a dictionary's are, after comparing widths and layers.

    Args:
      dictionary: of any kind, at any sites.
      model_config: a `ModelConfig`, or the config of a `FlaxSource`.

    Raises:
      InputError: naming what differs and both numbers.
    """
    config, name = dictionary.config, dictionary.name or "the dictionary"
    for verb, site, has in (
        ("reads", config.read_site, config.d_model),
        ("writes", config.write_site, config.d_out),
    ):
        needs = width(model_config, site)
        if has != needs:
            raise InputError(
                f"{name} does not fit the model: it {verb} {site} of width {has}, which in the model has {needs}"
            )
    total = model_config.n_layers
    if config.layers:
        wrong = [layer for layer in config.layers if not 0 <= layer < total]
        if wrong:
            raise InputError(
                f"{name} does not fit the model: made for layer {wrong[0]}, the model has layers 0 to {total - 1}"
            )
        return config.layers
    if config.n_layers != total:
        raise InputError(
            f"{name} does not fit the model: made for layers: {config.n_layers}, the model has {total} (n_layers), and "
            "it does not say which of them"
        )
    return tuple(range(total))


def at_layers(dictionary: Dictionary, layers: Sequence[int]) -> Dictionary:
    """The same dictionary, said to be of these layers of the model.

    Raises:
      InputError: another number of layers than it has.
    """
    if len(layers) != dictionary.config.n_layers:
        raise InputError(
            f"{dictionary.name or 'the dictionary'} has {dictionary.config.n_layers} layers, not {len(layers)} as given"
        )
    return dataclasses.replace(
        dictionary, config=dataclasses.replace(dictionary.config, layers=tuple(layers))
    )
