"""Matrix products at full precision, written at the call and never taken from a global default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jaxinterp.core.letters import Array

_other: ContextVar[Callable[..., Array] | None] = ContextVar("other", default=None)


@contextmanager
def products(other: Callable[..., Array] | None) -> Iterator[None]:
    """What is traced inside computes its `einsum` by ``other(spec, *operands)``: a trainer's sixteen-bit products."""
    token = _other.set(other)
    try:
        yield
    finally:
        _other.reset(token)


def einsum(spec: str, *operands: Array, **kwargs: Any) -> Array:
    """``jnp.einsum`` at ``Precision.HIGHEST``: float32 products stay float32 on TPU and GPU too."""
    if (other := _other.get()) is not None:
        return other(spec, *operands, **kwargs)
    import jax
    import jax.numpy as jnp

    return jnp.einsum(spec, *operands, precision=jax.lax.Precision.HIGHEST, **kwargs)


def wide_dtype(dtype: Any) -> Any:
    """float32 for the sixteen-bit types, otherwise ``dtype`` itself: what sums and functions are computed in."""
    import jax.numpy as jnp

    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def wide(x: Array) -> Array:
    """x in its `wide_dtype`; x itself where it is wide enough."""
    return x.astype(wide_dtype(x.dtype))


def wide_einsum(spec: str, *operands: Array, precision: Any) -> Array:
    """``jnp.einsum`` that adds up and returns the `wide_dtype` of its operands, which are multiplied as they are."""
    import jax.numpy as jnp

    kind = wide_dtype(operands[0].dtype)
    return jnp.einsum(spec, *operands, precision=precision, preferred_element_type=kind)
