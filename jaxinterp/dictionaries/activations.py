"""Activation functions: ReLU and JumpReLU, with the straight-through gradients used in training."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array

VARIANTS = ("threshold", "all")


def activate(h: Array, threshold: Array | None) -> Array:
    """``h`` where ``h > threshold`` (0 when None), else 0: JumpReLU and ReLU as used after training.

    Its gradient is the true one almost everywhere: 1 or 0 to ``h`` and none to ``threshold``.
    """
    if threshold is None:
        return jax.nn.relu(h)
    return jnp.where(h > threshold, h, jnp.zeros_like(h))


def rectangle(h: Array, threshold: Array, bandwidth: float) -> Array:
    """The kernel of the straight-through estimator: 1 where ``|h - threshold| < bandwidth / 2``, else 0."""
    return (jnp.abs(h - threshold) < bandwidth / 2).astype(h.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def jumprelu(h: Array, threshold: Array, bandwidth: float, variant: str = "threshold") -> Array:
    """JumpReLU with straight-through gradients (methods.md §1.2).

    Value: ``h`` where ``h > threshold``, else 0. With K the rectangle kernel of width ``bandwidth`` = ε,
    the derivative to the threshold is ``-(threshold / ε) K``; the derivative to ``h`` is ``1[h > threshold]``
    and, in the variant "all", which lets the estimator reach every parameter, ``+ (threshold / ε) K``.

    Args:
      h: pre-activations, any shape.
      threshold: same shape as ``h``, or one that broadcasts to it with as many axes.
      bandwidth: ε, in units of ``h``.
      variant: "threshold" (Rajamanoharan et al. 2407.14435) or "all" (January 2025 Circuits Update).
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown straight-through variant {variant!r}, expected one of {VARIANTS}")
    return activate(h, threshold)


def _forward(h: Array, threshold: Array, bandwidth: float, variant: str) -> tuple[Array, tuple[Array, Array]]:
    return jumprelu(h, threshold, bandwidth, variant), (h, threshold)


def _backward(
    bandwidth: float, variant: str, saved: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    h, threshold = saved
    through = cotangent * rectangle(h, threshold, bandwidth) * (threshold / bandwidth)
    to_h = jnp.where(h > threshold, cotangent, jnp.zeros_like(cotangent))
    if variant == "all":
        to_h = to_h + through
    return to_h, _sum_to(-through, threshold.shape)


def _sum_to(values: Array, shape: tuple[int, ...]) -> Array:
    axes = tuple(i for i, (a, b) in enumerate(zip(values.shape, shape, strict=True)) if a != b)
    return jnp.sum(values, axis=axes, keepdims=True)


jumprelu.defvjp(_forward, _backward)
