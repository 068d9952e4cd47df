"""Activation functions of features, with the straight-through gradients used in training.

Those under which features compete (top-k, batch top-k, group maximum) have their true gradient almost everywhere: one
to what was chosen and is positive, none to the rest. Ties go to the feature that comes first.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.parallel import largest

VARIANTS = ("threshold", "all")


def activate(h: Array, threshold: Array | None) -> Array:
    """``h`` where ``h > threshold`` (0 when None), else 0: JumpReLU and ReLU as used after training.

    Its gradient is the true one almost everywhere: 1 or 0 to ``h`` and none to ``threshold``.
    """
    if threshold is None:
        return jax.nn.relu(h)
    return jnp.where(h > threshold, h, jnp.zeros_like(h))


def top_k(
    h: Array, k: int, norms: Array | None = None, keep: Array | None = None, recall: float = 1.0
) -> Array:
    """The k largest of ``h [..., N]``, where positive, the others 0 (Gao et al. 2024, arXiv 2406.04093, section 2.3).

    Args:
      norms: lengths that broadcast to ``h``; then it is ``h * norms`` whose largest are kept.
      keep: of the ``k``, a whole number that need not be known when compiling; None means all.
      recall: see `jaxinterp.parallel.largest.top_k`.
    """
    rank = jax.lax.stop_gradient(h if norms is None else h * norms)
    return jnp.where(largest.winners(rank, k, keep, recall), jax.nn.relu(h), jnp.zeros_like(h))


def batch_top_k(h: Array, count: int, norms: Array | None = None, keep: Array | None = None) -> Array:
    """The ``count`` largest of each of ``h [G, ..., N]`` over all its rows, where positive; the others 0.

    With ``count`` = k times the rows that is batch top-k (Bussmann et al. 2024, arXiv 2412.06410). ``keep`` as above.
    """
    if largest.division(h.shape) is not None:
        rank = jax.lax.stop_gradient(h if norms is None else h * norms)
        chosen = largest.winners_of_all(rank, count if keep is None else keep)
        return jnp.where(chosen, h, jnp.zeros_like(h))
    flat = h.reshape(h.shape[0], -1)
    lengths = None if norms is None else jnp.broadcast_to(norms, h.shape).reshape(flat.shape)
    return top_k(flat, count, lengths, keep).reshape(h.shape)


def group_max(h: Array, k: int, norms: Array | None = None) -> Array:
    """The largest of each of ``k`` groups of neighbours in ``h [..., N]``, where positive; the others 0."""
    grouped = h.reshape(*h.shape[:-1], k, -1)
    lengths = None if norms is None else jnp.broadcast_to(norms, h.shape).reshape(grouped.shape)
    return top_k(grouped, 1, lengths).reshape(h.shape)


def gated(h: Array, gate_bias: Array, scale: Array, bias: Array) -> Array:
    """``1[h > 0] relu(exp(scale) (h - gate_bias) + bias)`` (Rajamanoharan et al. 2024, arXiv 2404.16014).

    Args:
      h: [..., N] pre-activations of the gate, ``gate_bias`` included.
      gate_bias, scale, bias: broadcast to ``h``: b_gate, r_mag and b_mag.
    """
    size = jax.nn.relu(jnp.exp(scale) * (h - gate_bias) + bias)
    return jnp.where(h > 0, size, jnp.zeros_like(h))


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def step(h: Array, threshold: Array, bandwidth: float) -> Array:
    """1 where ``h > threshold``, else 0; the derivative to the threshold is ``-K / bandwidth``, none to ``h``.

    (Rajamanoharan et al. 2024, arXiv 2407.14435, section 3; K is `rectangle`.) Shapes as in `jumprelu`.
    """
    return (h > threshold).astype(h.dtype)


def _step_forward(h: Array, threshold: Array, bandwidth: float) -> tuple[Array, tuple[Array, Array]]:
    return step(h, threshold, bandwidth), (h, threshold)


def _step_backward(bandwidth: float, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    h, threshold = saved
    through = cotangent * rectangle(h, threshold, bandwidth) / bandwidth
    return jnp.zeros_like(h), _sum_to(-through, threshold.shape)


step.defvjp(_step_forward, _step_backward)
