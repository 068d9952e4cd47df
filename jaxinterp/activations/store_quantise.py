"""Activations as they are stored: float32, bfloat16, or int8 with a scale for every token and layer."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxinterp.core.letters import Array

DTYPES = ("float32", "bfloat16", "int8")
LIMIT = 127


def encode(values: Array, dtype: str) -> tuple[Array, ...]:
    """``values [L, R, D]`` as they are stored. Pure, to be compiled with the forward pass.

    Returns:
      ``(values,)``, or for int8 ``(q [L, R, D], scale [L, R] float32)`` with scale = max|x| / 127 over the D numbers of
      a token and q the nearest whole number to x / scale: every number is kept to within half a scale.
    """
    if dtype != "int8":
        return (values.astype(dtype),)
    values = values.astype(jnp.float32)
    # A product, not a quotient: compilers may make either of "/ 127", and the bytes must not depend on it.
    scale = jnp.max(jnp.abs(values), axis=-1) * jnp.float32(1 / LIMIT)
    rounded = jnp.round(values / jnp.where(scale > 0, scale, 1)[..., None])
    return jnp.clip(rounded, -LIMIT, LIMIT).astype(jnp.int8), scale


def decode(values: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """What `encode` stored, as float32 [..., D]; ``scale [...]`` belongs to int8."""
    if scale is None:
        return np.asarray(values).astype(np.float32)
    return np.multiply(values, scale[..., None], dtype=np.float32)
