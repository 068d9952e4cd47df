"""One scale a layer for what is read and one for what is written, and folding them into the weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, kind_of


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
    ``folded(x) = dictionary(x * read) / write``.
    """
    kind = kind_of(dictionary.config)
    params = kind.scale_sites(dictionary.params, dictionary.config, scales.read, 1 / scales.write)
    return Dictionary(params, dictionary.config, dictionary.name)


def unit_decoders(dictionary: Dictionary) -> Dictionary:
    """The same function with every feature's joined decoder of length one (methods.md §1.2).

    Activations are multiplied by the old length; features whose decoder is zero are left alone.
    """
    kind = kind_of(dictionary.config)
    norms = kind.decoder_norms(dictionary.params, dictionary.config)
    scale = jnp.where(norms > 0, norms, jnp.ones_like(norms))
    return Dictionary(
        kind.scale_features(dictionary.params, dictionary.config, scale), dictionary.config, dictionary.name
    )
