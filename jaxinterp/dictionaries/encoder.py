"""What kinds share: one encoder a layer, activation functions, biases, the optional skip."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import divided
from jaxinterp.dictionaries.activations import activate, gated, group_max, top_k
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.parallel.weights import Weight, constant, uniform


def declare(config: DictionaryConfig, groups: int | None = None) -> dict[str, Any]:
    """Encoder, biases, thresholds and skip; encoders start uniform in ±1/sqrt(N).

    (*Circuit Tracing*, appendix on training cross-layer transcoders, which also gives the first threshold.)

    Args:
      groups: G; None means one a layer.
    """
    layers, n, d, out = config.n_layers, config.n_features, config.d_model, config.d_out
    feature = ((layers if groups is None else groups, n), ("layers", "features"))
    tree: dict[str, Any] = {
        "W_enc": Weight((layers, n, d), ("layers", "features", "width"), uniform(n**-0.5)),
        "b_enc": Weight(*feature),
        "b_dec": Weight((layers, out), ("layers", "width")),
    }
    if config.activation == "jumprelu":
        tree["threshold"] = Weight(*feature, constant(0.03))
    if config.activation == "gated":
        tree |= {"r_mag": Weight(*feature), "b_mag": Weight(*feature)}
    if config.skip:
        tree["W_skip"] = Weight((layers, out, d), ("layers", "width", "replicated"))
    return tree


def layer_groups(config: DictionaryConfig) -> int:
    """One group of features for every layer."""
    return config.n_layers


def align(values: Array, like: Array) -> Array:
    """``values [L, X]`` with axes of size one inserted so that it broadcasts against ``like [L, ..., X]``."""
    return values.reshape(values.shape[0], *(1,) * (like.ndim - 2), values.shape[1])


def pre_activations(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """``W_enc x + b_enc`` for ``x [L, ..., D]`` → ``[L, ..., N]``; of ``x - b_dec`` where the config centres.

    Rows are normalised first where the config says so.
    """
    x, bias = inputs(params, config, x)
    product = divided.read if divided.divides(x) else partial(einsum, "l...d,lnd->l...n")
    h = product(x, params["W_enc"])
    return h + align(bias, h)


def inputs(params: Tree, config: DictionaryConfig, x: Array) -> tuple[Array, Array]:
    """What encoders are multiplied with, ``[L, ..., D]``, and the bias ``[G, N]`` added to that.

    A decoder bias that is taken off the input gets its derivative through the bias: ``W_enc Σ_r ∂h``, a product with
    one vector, where through the input it would be one with as many as there are rows. Values are those of
    ``x - b_dec``.
    """
    bias = params["b_enc"]
    if config.normalise_rows != "none":
        shift, factor = row_scale(config, x)
        x = (x - shift) / factor
    if config.centre:
        fixed = jax.lax.stop_gradient(params["b_dec"])
        x = x - align(fixed, x)
        bias = bias - einsum("ld,lnd->ln", params["b_dec"] - fixed, params["W_enc"])
    return x, bias


def activations(params: Tree, config: DictionaryConfig, h: Array, norms: Array | None = None) -> Array:
    """Feature activations ``[G, ..., N]`` of pre-activations ``h [G, ..., N]``.

    Args:
      norms: ``[G, N]``, `Kind.decoder_norms`, needed where features are ranked by them.
    """
    if config.activation in ("topk", "groupmax"):
        choose = top_k if config.activation == "topk" else group_max
        assert norms is not None or not config.ranked
        return choose(h, config.k, align(norms, h) if config.ranked and norms is not None else None)
    if config.activation == "gated":
        return gated(h, *(align(params[name], h) for name in ("b_enc", "r_mag", "b_mag")))
    return activate(h, align(params["threshold"], h) if config.activation == "jumprelu" else None)


def row_scale(config: DictionaryConfig, x: Array) -> tuple[Array, Array]:
    """What ``config.normalise_rows`` takes off each row of ``x [..., D]`` and then divides it by: each ``[..., 1]``.

    Layer norm as in OpenAI's and SAELens' autoencoders: the deviation with D - 1, and 1e-5 added to it. A row of length
    zero is left as it is.
    """
    d = x.shape[-1]
    if config.normalise_rows == "length":
        length = root(jnp.sum(x * x, axis=-1, keepdims=True)) / d**0.5
        return jnp.zeros_like(length), jnp.where(length > 0, length, jnp.ones_like(length))
    mean = jnp.mean(x, axis=-1, keepdims=True)
    return mean, root(jnp.sum((x - mean) ** 2, axis=-1, keepdims=True) / (d - 1)) + 1e-5


def encode_layer(
    params: Tree, config: DictionaryConfig, layer: Any, x: Array, norms: Array | None = None
) -> Array:
    """Feature activations ``[..., N]`` of one layer for its read-site values ``x [..., D]``; ``norms`` as above."""
    names = ("W_enc", "b_enc", "b_dec", "threshold", "r_mag", "b_mag")
    one = {name: params[name][layer][None] for name in names if name in params}
    own = None if norms is None else norms[layer][None]
    return activations(one, config, pre_activations(one, config, x[None]), own)[0]


def encoder_bias(params: Tree, config: DictionaryConfig) -> Array:
    """``[G, N]``, the pre-activations of an input of zero."""
    if not config.centre:
        return params["b_enc"]
    return params["b_enc"] - einsum("ld,lnd->ln", params["b_dec"], params["W_enc"])


def encoder_rows(params: Tree, config: DictionaryConfig, layer: Any, features: Array) -> Array:
    """Encoder vectors ``[..., D]`` of ``features [...]`` of one layer."""
    del config
    return params["W_enc"][layer, features]


def bias_and_skip(params: Tree, config: DictionaryConfig, y: Array, x: Array | None) -> Array:
    """``y [L, ..., D]`` plus the decoder bias and, where there is one, the skip ``W_skip x``.

    Where rows were normalised, what is reconstructed is in the units of ``x`` again.
    """
    y = y + align(params["b_dec"], y)
    if config.normalise_rows != "none":
        if x is None:
            raise ValueError("this dictionary normalises rows: decode needs its input x too")
        shift, factor = row_scale(config, x)
        # What layer norm adds to the deviation is for division by it; the reconstruction has the deviation alone.
        y = y * (factor - (1e-5 if config.normalise_rows == "layer_norm" else 0.0)) + shift
    if config.skip:
        if x is None:
            raise ValueError("this dictionary has a skip: decode needs its input x too")
        y = y + einsum("l...d,led->l...e", x, params["W_skip"])
    return y


def scale_features(params: Tree, scale: Array) -> dict[str, Any]:
    """The encoder's share of `Kind.scale_features`: rows, biases and thresholds times ``scale [G, N]``."""
    changed = {"W_enc": params["W_enc"] * scale[:, :, None], "b_enc": params["b_enc"] * scale}
    return changed | {name: params[name] * scale for name in ("threshold", "b_mag") if name in params}


def scale_sites(params: Tree, read: Array, write: Array) -> dict[str, Any]:
    """The shared part of `Kind.scale_sites`: encoder columns times ``read [L]``, biases times ``write``."""
    changed = {
        "W_enc": params["W_enc"] * read[:, None, None],
        "b_dec": params["b_dec"] * write[:, None],
    }
    if "W_skip" in params:
        changed["W_skip"] = params["W_skip"] * (read * write)[:, None, None]
    return changed


def belongs(which: Array) -> dict[str, Any]:
    """The encoder's share of `Kind.belongs` for ``which [G, N]``; biases of the output and skips are of no feature."""
    masks: dict[str, Any] = {"W_enc": which[:, :, None]}
    masks |= dict.fromkeys(("b_enc", "threshold", "r_mag", "b_mag"), which)
    return masks | {"b_dec": jnp.zeros((1, 1), bool), "W_skip": jnp.zeros((1, 1, 1), bool)}


def squared_norms(rows: Array) -> Array:
    """Sum of squares over the last axis."""
    return jnp.sum(rows * rows, axis=-1)


def root(squares: Array) -> Array:
    """The square root, with gradient zero instead of infinity at zero."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, jnp.ones_like(squares))), squares)
