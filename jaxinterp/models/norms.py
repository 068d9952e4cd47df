"""Norms split into the part that linearisation freezes and the part that is linear.

``norm(x) = (centre(x) / scale(x)) * gain + bias``. Dynamic Tanh (Zhu et al. 2025, "Transformers without
Normalization", arXiv 2503.10622) stands in the same place: ``tanh(alpha x) * gain + bias``, with one trained alpha a
norm. Its denominator is of each entry: ``x / tanh(alpha x)``, the inverse slope of the secant through the origin.

Sixteen-bit values are normed in float32 and rounded once, after gain and bias.

Letters: B batch, T position, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum, wide

if TYPE_CHECKING:
    from jaxinterp.models.config import ModelConfig


class Line(NamedTuple):
    """A norm without gain and bias, as a linear map and a constant: ``centre(x) / scale + offset``.

    Attributes:
      scale: the denominator [B, T, 1], of Dynamic Tanh [B, T, D].
      offset: [B, T, D], or None where the line goes through the origin.
    """

    scale: Array
    offset: Any = None


def centre(x: Array, config: ModelConfig) -> Array:
    """x [..., D] minus its mean over D for LayerNorm; otherwise unchanged. Linear in x."""
    return x - jnp.mean(x, axis=-1, keepdims=True) if config.norm == "layer" else x


def scale(x: Array, weights: Tree, config: ModelConfig) -> Array:
    """The denominator of x [..., D]: [..., 1], the root of the mean square (RMSNorm) or of the variance (LayerNorm)
    plus eps; for Dynamic Tanh [..., D], see `secant`."""
    x = wide(x)
    if config.norm == "tanh":
        return secant(x, wide(weights["alpha"]))
    x = centre(x, config)
    return jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.norm_eps)


def secant(x: Array, alpha: Array) -> Array:
    """``x / tanh(alpha x)``, entry by entry; ``1 / alpha`` at 0."""
    # Below this tanh is the identity to rounding; a quotient of two tiny numbers has no useful derivative.
    small = jnp.abs(alpha * x) < 0.5 * float(jnp.finfo(x.dtype).eps) ** 0.5
    return jnp.where(small, 1 / alpha, x / jnp.tanh(alpha * jnp.where(small, 1, x)))


def tangent(x: Array, alpha: Array) -> Line:
    """The tangent of ``tanh(alpha x)`` at x [..., D]: what it does to small changes."""
    value = jnp.tanh(alpha * x)
    slope = alpha / jnp.cosh(alpha * x) ** 2
    return Line(1 / slope, value - slope * x)


def divide(x: Array, line: Line, config: ModelConfig, unit: Array | None = None) -> Array:
    """x [B, T, D] without the norm's gain and bias. Linear in x and in ``unit`` [B, T], the factor on the offset."""
    return along(centre(wide(x), config), line, unit)


def along(x: Array, line: Line, unit: Array | None = None) -> Array:
    """``x / scale``, plus the offset times ``unit`` [B, T] where the line has one."""
    x = wide(x) / line.scale
    if line.offset is None:
        return x
    return x + (line.offset if unit is None else unit[..., None] * line.offset)


def heads_scale(x: Array, w: Tree, name: str, config: ModelConfig) -> Array:
    """The denominator of the norm of queries or keys [B, T, H, E]: [B, T, H, 1] of each head, [B, T, 1, 1] of all heads
    together; of Dynamic Tanh [B, T, H, E]."""
    x = wide(x)
    if config.norm == "tanh":
        return secant(x, wide(w[f"{name}_alpha"]))
    axes = tuple(range(-w[name].ndim, 0))
    return jnp.sqrt(jnp.mean(x * x, axis=axes, keepdims=True) + config.norm_eps)


def on_heads(
    x: Array, w: Tree, name: str, config: ModelConfig, line: Line | None = None, unit: Array | None = None
) -> Array:
    """The norm of queries or keys [B, T, H, E]: of each head, gain [E], or of all heads together, gain [H, E].

    An RMS norm, or Dynamic Tanh in a model that has it. With a given ``line`` it is linear in x and in ``unit`` [B, T],
    the factor on its bias.
    """
    dtype, x, weight = x.dtype, wide(x), wide(w[name])
    shape = (1,) * (x.ndim - weight.ndim) + weight.shape
    factor = 1.0 + weight if config.norm_unit_offset else weight
    one = 1.0 if unit is None else unit[:, :, None, None]
    if line is not None:
        out = x / line.scale if line.offset is None else x / line.scale + one * line.offset
    elif config.norm == "tanh":
        out = jnp.tanh(wide(w[f"{name}_alpha"]) * x)
    else:
        out = x / heads_scale(x, w, name, config)
    out = out * factor.reshape(shape)
    if config.norm == "tanh":
        out = out + one * wide(w[f"{name}_bias"]).reshape(shape)
    return out.astype(dtype)


def gain(weights: Tree, config: ModelConfig) -> Array:
    """The factor [D] that the norm multiplies with."""
    return 1.0 + weights["scale"] if config.norm_unit_offset else weights["scale"]


def affine(normalised: Array, weights: Tree, config: ModelConfig, unit: Array | None = None) -> Array:
    """Gain and bias on a normalised x [B, T, D].

    Args:
      unit: [B, T] factor on the bias; None means one. Linearisation passes a variable here, which makes
        the bias a source of its own.
    """
    out = normalised * wide(gain(weights, config))[None, None, :]
    bias = weights.get("bias")
    return add_bias(out, None if bias is None else wide(bias), unit).astype(weights["scale"].dtype)


def add_bias(x: Array, bias: Array | None, unit: Array | None = None) -> Array:
    """x [B, T, ...] plus ``bias`` [...], times ``unit`` [B, T] where that is given."""
    if bias is None:
        return x
    if unit is None:
        return x + bias[None, None]
    # As a product of matrices: its transpose is one too, where that of a factor would be a slow sum.
    return x + einsum("bt,d->btd", unit, bias.reshape(-1)).reshape(*unit.shape, *bias.shape)
