"""Matrix products at full precision, written at the call and never taken from a global default."""

from __future__ import annotations

from typing import Any

from jaxinterp.core.letters import Array


def einsum(spec: str, *operands: Array, **kwargs: Any) -> Array:
    """``jnp.einsum`` at ``Precision.HIGHEST``: float32 products stay float32 on TPU and GPU too."""
    import jax
    import jax.numpy as jnp

    return jnp.einsum(spec, *operands, precision=jax.lax.Precision.HIGHEST, **kwargs)
