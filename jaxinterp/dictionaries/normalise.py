"""One scale a layer for what is read and one for what is written, and folding them into the weights."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.dictionaries.config import CHOOSING
from jaxinterp.dictionaries.crosslayer import untie


class Scales(NamedTuple):
    """Factors ``[L]``: training sees ``x * read`` and ``y * write``."""

    read: Array
    write: Array


def measure(x: Array, y: Array) -> Scales:
    """Dataset-wise scales from samples ``x, y [L, R, D]``.

    After scaling, the mean of ``‖x‖²`` is D and the variance of y, summed over its entries, is D, in every
    layer. With the second, a layer's reconstruction loss divided by D is its normalised error.
    """
    d = x.shape[-1]
    read = jnp.sqrt(d / jnp.mean(jnp.sum(x * x, axis=-1), axis=1))
    centred = y - jnp.mean(y, axis=1, keepdims=True)
    write = jnp.sqrt(d / jnp.mean(jnp.sum(centred * centred, axis=-1), axis=1))
    return Scales(read, write)


def unit(n_layers: int, dtype: Any = "float32") -> Scales:
    """Scales that change nothing."""
    return Scales(jnp.ones(n_layers, dtype), jnp.ones(n_layers, dtype))


def fold(dictionary: Dictionary, scales: Scales) -> Dictionary:
    """The dictionary for raw sites that does what ``dictionary`` does for scaled ones.

    Exactly function-preserving: feature activations are the same and
    ``folded(x) = dictionary(x * read) / write``. Tied decoders come apart, because layers have factors of their own.
    Features that are ranked by decoder length need lengths of one first (`unit_decoders`).

    Raises:
      ValueError: ranked features, normalised rows, shared decoders, or a centred input with two different factors.
    """
    if dictionary.config.ranked:
        raise ValueError(
            "folding changes decoder lengths, by which features are ranked: unit_decoders comes first"
        )
    if dictionary.config.normalise_rows != "none":
        raise ValueError("each row is normalised already: there is no scale to fold")
    if dictionary.config.centre and bool(jnp.any(scales.read != scales.write)):
        raise ValueError("an input centred by the decoder bias has the factor of the output")
    if dictionary.config.shared and bool(jnp.any(scales.write != scales.write[0])):
        raise ValueError(
            "shared decoders write the same into every layer: one factor for all layers is needed"
        )
    params, config = untie(dictionary.params, dictionary.config)
    params = kind_of(config).scale_sites(params, config, scales.read, 1 / scales.write)
    return Dictionary(params, config, dictionary.name)


def unit_decoders(dictionary: Dictionary) -> Dictionary:
    """The same function with every feature's joined decoder of length one (methods.md §1.2).

    Activations are multiplied by the old length; features whose decoder is zero are left alone. Features that were
    ranked by length times activation then are by activation alone. Where they compete by activation as it is, that
    would change which win: such a dictionary comes back as it is.
    """
    config = dictionary.config
    if config.activation in CHOOSING and not config.ranked:
        return dictionary
    kind = kind_of(config)
    norms = kind.decoder_norms(dictionary.params, config)
    # Ranked by length, a feature with a decoder of zero came after all others, and must go on doing so.
    scale = jnp.where(norms > 0, norms, jnp.full_like(norms, 1e-30 if config.ranked else 1.0))
    params = kind.scale_features(dictionary.params, config, scale)
    return Dictionary(params, dataclasses.replace(config, ranked=False), dictionary.name)
