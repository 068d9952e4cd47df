"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxinterp.core.letters import Array


def rotate(x: Array, positions: Array, *, base: float, pairs: str) -> Array:
    """Turn pairs of entries of every head by an angle proportional to the position.

    Args:
      x: [B, T, H, E] queries or keys.
      positions: [B, T] whole numbers.
      base: the slowest pair turns by position / base ** ((E - 2) / E) radians.
      pairs: "half" pairs entry i with i + E/2 (Hugging Face), "adjacent" pairs 2i with 2i + 1.

    Returns:
      [B, T, H, E].
    """
    width = x.shape[-1]
    rates = jnp.asarray(base ** (-np.arange(0, width, 2) / width), x.dtype)
    angles = positions.astype(x.dtype)[:, :, None, None] * rates[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if pairs == "half":
        first, second = jnp.split(x, 2, axis=-1)
    else:
        first, second = x[..., 0::2], x[..., 1::2]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, -1) if pairs == "half" else jnp.stack(turned, -1).reshape(x.shape)
