"""The terms of a dictionary's training loss, each separate, each a mean over rows.

Shapes: rows R stand for any batch of tokens; every function returns one number a layer, ``[L]``, or a group of
features, ``[G]``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.activations import step


def reconstruction(y: Array, predicted: Array) -> Array:
    """Squared error summed over D, mean over rows: ``y, predicted [L, R, D]`` → ``[L]`` (*Circuit Tracing*, L_MSE)."""
    error = predicted - y
    return jnp.mean(jnp.sum(error * error, axis=-1), axis=1)


def unexplained(y: Array, predicted: Array) -> Array:
    """Squared error over the variance of y in these rows: ``[L, R, D]`` → ``[L]`` (sparsify's FVU)."""
    centred = y - jnp.mean(y, axis=1, keepdims=True)
    error = predicted - y
    return jnp.sum(error * error, axis=(1, 2)) / jnp.sum(centred * centred, axis=(1, 2))


def l1_sparsity(a: Array, norms: Array) -> Array:
    """``Σ_i a_i ‖W_dec,i‖``, mean over rows: ``a [G, R, N]``, ``norms [G, N]`` → ``[G]``.

    (*Circuits Updates, April 2024*; with the sum of a crosscoder's decoder lengths as norms its L1-of-norms.)
    """
    return jnp.mean(jnp.sum(a * norms[:, None, :], axis=-1), axis=1)


def tanh_sparsity(a: Array, norms: Array, scale: float) -> Array:
    """``Σ_i tanh(c ‖W_dec,i‖ a_i)``, mean over rows: ``a [L, R, N]``, ``norms [L, N]`` → ``[L]``.

    Args:
      norms: `Kind.decoder_norms`, for a cross-layer transcoder those of the joined decoders.
      scale: c.
    """
    return jnp.mean(jnp.sum(jnp.tanh(scale * norms[:, None, :] * a), axis=-1), axis=1)


def step_sparsity(h: Array, threshold: Array, bandwidth: float) -> Array:
    """L0, differentiable in the thresholds by the straight-through estimator: ``h [G, R, N]`` → ``[G]``.

    (Rajamanoharan et al. 2024, arXiv 2407.14435, section 3.) ``threshold [G, N]``.
    """
    return jnp.mean(jnp.sum(step(h, threshold[:, None, :], bandwidth), axis=-1), axis=1)


def quadratic_sparsity(
    h: Array, threshold: Array, bandwidth: float, target: Array | float, each_row: bool
) -> Array:
    """How far L0 is from its target, squared, differentiable in the thresholds as `step_sparsity`: → ``[G]``.

    ``(L0 / target - 1)²`` of the mean L0 (dictionary_learning), or with ``each_row`` the mean over rows of
    ``2 / target (L0 - target)²`` (SAELens, after Gemma Scope 2).
    """
    active = jnp.sum(step(h, threshold[:, None, :], bandwidth), axis=-1)
    if each_row:
        return jnp.mean(2 / target * (active - target) ** 2, axis=1)
    return (jnp.mean(active, axis=1) / target - 1) ** 2


def pre_activation(h: Array, threshold: Array, norms: Array, only: Array | None = None) -> Array:
    """``Σ_i relu(θ_i - h_i) ‖W_dec,i‖``, mean over rows: pulls features that never fire back up.

    ``h [L, R, N]``, ``threshold [L, N]``, ``norms [L, N]`` → ``[L]`` (January 2025 Circuits Update).

    Args:
      only: ``[L, N]``, the features that count (the dead ones); None means all.
    """
    short = jnp.maximum(threshold[:, None, :] - h, jnp.zeros_like(h))
    weight = norms if only is None else norms * only.astype(norms.dtype)
    return jnp.mean(jnp.sum(short * weight[:, None, :], axis=-1), axis=1)


def dead_candidates(h: Array, dead: Array, k: int, norms: Array | None = None) -> Array:
    """The ``k`` largest pre-activations of dead features in each row, the others 0: ``[G, R, N]``.

    What aux-k lets predict the residual (Gao et al. 2024, arXiv 2406.04093, appendix A.2). Where fewer than ``k`` are
    dead it is all of them. Not rectified: a pre-activation below 0 has a gradient too.

    Args:
      h: ``[G, R, N]``; dead: ``[G, N]``.
      norms: ``[G, N]``; then it is ``h * norms`` whose largest are taken.
    """
    rank = jnp.where(dead[:, None, :], h if norms is None else h * norms[:, None, :], -jnp.inf)
    last = jax.lax.stop_gradient(jax.lax.top_k(rank, k)[0][..., -1:])
    return jnp.where(dead[:, None, :] & (rank >= last), h, jnp.zeros_like(h))


def auxiliary_weight(dead: Array, k: int) -> Array:
    """``min(dead features / k, 1)``, ``dead [G, N]`` → ``[G]``: less weight where there are few (SAELens)."""
    return jnp.minimum(jnp.sum(dead, axis=-1) / k, 1.0)


def l0(a: Array) -> Array:
    """Active features of a layer, mean over rows: ``a [L, R, N]`` → ``[L]``."""
    return jnp.mean(jnp.sum((a != 0).astype(a.dtype), axis=-1), axis=1)
