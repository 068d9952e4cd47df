"""What every kind shares: one encoder a layer, biases, the optional skip."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.activations import activate
from jaxinterp.dictionaries.base import DictionaryConfig
from jaxinterp.parallel.weights import Weight, constant, uniform


def declare(config: DictionaryConfig) -> dict[str, Any]:
    """Encoder, biases, thresholds and skip; encoders start uniform in ±1/sqrt(N) (methods.md §1.2)."""
    layers, n, d = config.n_layers, config.n_features, config.d_model
    tree: dict[str, Any] = {
        "W_enc": Weight((layers, n, d), ("layers", "features", "width"), uniform(n**-0.5)),
        "b_enc": Weight((layers, n), ("layers", "features")),
        "b_dec": Weight((layers, d), ("layers", "width")),
    }
    if config.activation == "jumprelu":
        tree["threshold"] = Weight((layers, n), ("layers", "features"), constant(0.03))
    if config.skip:
        tree["W_skip"] = Weight((layers, d, d), ("layers", "width", "replicated"))
    return tree


def align(values: Array, like: Array) -> Array:
    """``values [L, X]`` with axes of size one inserted so that it broadcasts against ``like [L, ..., X]``."""
    return values.reshape(values.shape[0], *(1,) * (like.ndim - 2), values.shape[1])


def pre_activations(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """``W_enc x + b_enc`` for ``x [L, ..., D]`` → ``[L, ..., N]``."""
    del config
    h = einsum("l...d,lnd->l...n", x, params["W_enc"])
    return h + align(params["b_enc"], h)


def encode(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """Feature activations ``[L, ..., N]`` of ``x [L, ..., D]``; a feature is active where h > threshold."""
    h = pre_activations(params, config, x)
    threshold = align(params["threshold"], h) if config.activation == "jumprelu" else None
    return activate(h, threshold)


def encode_layer(params: Tree, config: DictionaryConfig, layer: Any, x: Array) -> Array:
    """Feature activations ``[..., N]`` of one layer for its read-site values ``x [..., D]``."""
    h = einsum("...d,nd->...n", x, params["W_enc"][layer])
    ones = (1,) * (h.ndim - 1)
    h = h + params["b_enc"][layer].reshape(*ones, -1)
    threshold = params["threshold"][layer].reshape(*ones, -1) if config.activation == "jumprelu" else None
    return activate(h, threshold)


def encoder_rows(params: Tree, config: DictionaryConfig, layer: Any, features: Array) -> Array:
    """Encoder vectors ``[..., D]`` of ``features [...]`` of one layer."""
    del config
    return params["W_enc"][layer, features]


def bias_and_skip(params: Tree, config: DictionaryConfig, y: Array, x: Array | None) -> Array:
    """``y [L, ..., D]`` plus the decoder bias and, where there is one, the skip ``W_skip x``."""
    y = y + align(params["b_dec"], y)
    if config.skip:
        if x is None:
            raise ValueError("this dictionary has a skip: decode needs its input x too")
        y = y + einsum("l...d,led->l...e", x, params["W_skip"])
    return y


def scale_features(params: Tree, scale: Array) -> dict[str, Any]:
    """The encoder's share of `Kind.scale_features`: rows, biases and thresholds times ``scale [L, N]``."""
    changed = {"W_enc": params["W_enc"] * scale[:, :, None], "b_enc": params["b_enc"] * scale}
    if "threshold" in params:
        changed["threshold"] = params["threshold"] * scale
    return changed


def scale_sites(params: Tree, read: Array, write: Array) -> dict[str, Any]:
    """The shared part of `Kind.scale_sites`: encoder columns times ``read [L]``, biases times ``write``."""
    changed = {
        "W_enc": params["W_enc"] * read[:, None, None],
        "b_dec": params["b_dec"] * write[:, None],
    }
    if "W_skip" in params:
        changed["W_skip"] = params["W_skip"] * (read * write)[:, None, None]
    return changed


def squared_norms(rows: Array) -> Array:
    """Sum of squares over the last axis."""
    return jnp.sum(rows * rows, axis=-1)


def root(squares: Array) -> Array:
    """The square root, with gradient zero instead of infinity at zero."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, jnp.ones_like(squares))), squares)
