"""The terms of a dictionary's training loss, each separate, each a mean over rows.

Shapes: rows R stand for any batch of tokens; every function returns one number a layer, ``[L]``.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxinterp.core.letters import Array


def reconstruction(y: Array, predicted: Array) -> Array:
    """Squared error summed over D, mean over rows: ``y, predicted [L, R, D]`` → ``[L]`` (methods.md §1.1)."""
    error = predicted - y
    return jnp.mean(jnp.sum(error * error, axis=-1), axis=1)


def tanh_sparsity(a: Array, norms: Array, scale: float) -> Array:
    """``Σ_i tanh(c ‖W_dec,i‖ a_i)``, mean over rows: ``a [L, R, N]``, ``norms [L, N]`` → ``[L]``.

    Args:
      norms: `Kind.decoder_norms`, for a cross-layer transcoder those of the joined decoders.
      scale: c.
    """
    return jnp.mean(jnp.sum(jnp.tanh(scale * norms[:, None, :] * a), axis=-1), axis=1)


def pre_activation(h: Array, threshold: Array, norms: Array) -> Array:
    """``Σ_i relu(θ_i - h_i) ‖W_dec,i‖``, mean over rows: pulls features that never fire back up.

    ``h [L, R, N]``, ``threshold [L, N]``, ``norms [L, N]`` → ``[L]`` (January 2025 Circuits Update).
    """
    short = jnp.maximum(threshold[:, None, :] - h, jnp.zeros_like(h))
    return jnp.mean(jnp.sum(short * norms[:, None, :], axis=-1), axis=1)


def l0(a: Array) -> Array:
    """Active features of a layer, mean over rows: ``a [L, R, N]`` → ``[L]``."""
    return jnp.mean(jnp.sum((a != 0).astype(a.dtype), axis=-1), axis=1)
