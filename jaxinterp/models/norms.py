"""Norms split into the part that linearisation freezes (the scale) and the part that is linear.

Letters: B batch, T position, D width. ``norm(x) = centre(x) / scale(x) * gain + bias``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree

if TYPE_CHECKING:
    from jaxinterp.models.config import ModelConfig


def centre(x: Array, config: ModelConfig) -> Array:
    """x [..., D] minus its mean over D for LayerNorm; unchanged for RMSNorm. Linear in x."""
    return x - jnp.mean(x, axis=-1, keepdims=True) if config.norm == "layer" else x


def scale(x: Array, config: ModelConfig) -> Array:
    """The denominator [..., 1]: root of the mean square (RMSNorm) or of the variance (LayerNorm) plus eps."""
    x = centre(x, config)
    return jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.norm_eps)


def on_heads(x: Array, weight: Array, config: ModelConfig) -> Array:
    """The RMS norm of queries or keys [B, T, H, E] with gain [E] (each head) or [H, E] (all heads together)."""
    axes = tuple(range(-weight.ndim, 0))
    size = jnp.sqrt(jnp.mean(x * x, axis=axes, keepdims=True) + config.norm_eps)
    factor = 1.0 + weight if config.norm_unit_offset else weight
    return x / size * factor.reshape((1,) * (x.ndim - weight.ndim) + weight.shape)


def gain(weights: Tree, config: ModelConfig) -> Array:
    """The factor [D] that the norm multiplies with."""
    return 1.0 + weights["scale"] if config.norm_unit_offset else weights["scale"]


def affine(normalised: Array, weights: Tree, config: ModelConfig, unit: Array | None = None) -> Array:
    """Gain and bias on a normalised x [B, T, D].

    Args:
      unit: [B, T] factor on the bias; None means one. Linearisation passes a variable here, which makes
        the bias a source of its own.
    """
    out = normalised * gain(weights, config)[None, None, :]
    return add_bias(out, weights.get("bias"), unit)


def add_bias(x: Array, bias: Array | None, unit: Array | None = None) -> Array:
    """x [B, T, ...] plus ``bias`` [...], times ``unit`` [B, T] where that is given."""
    if bias is None:
        return x
    bias = bias[None, None]
    return x + (bias if unit is None else unit.reshape(unit.shape + (1,) * (bias.ndim - 2)) * bias)
