"""Matrix products of bfloat16 factors with float32 sums; everything between them stays as it is.

Weights stay float32 and are rounded where they enter a product, as are activations and, on the way back, cotangents. A
product's sums and its result have the factors' own dtype.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core import precision
from jaxinterp.core.letters import Array


def products(compute: str) -> AbstractContextManager[None]:
    """A context in which `jaxinterp.core.precision.einsum` is traced as ``compute`` ("float32", "bfloat16") says."""
    return precision.products(einsum if compute == "bfloat16" else None)


def einsum(spec: str, *operands: Array, **kwargs: Any) -> Array:
    """``jnp.einsum`` of two operands that are rounded to bfloat16. Others are computed as they are.

    So are those with an axis that one operand alone has and the result has not, which are sums besides products.
    """
    if len(operands) != 2 or kwargs or not _is_product(spec):
        with precision.products(None):
            return precision.einsum(spec, *operands, **kwargs)
    return _product(spec, *operands)


def _is_product(spec: str) -> bool:
    """Whether every axis of either operand is in the other or in the result."""
    inputs, _, out = spec.partition("->")
    parts = [re.findall(r"\.\.\.|[a-zA-Z]", part) for part in inputs.split(",")]
    return "->" in spec and all(set(a) <= {*b, *out, "..."} for a, b in (parts, parts[::-1]))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(spec: str, a: Array, b: Array) -> Array:
    return _rounded(spec, a, b, a.dtype)


def _rounded(spec: str, a: Array, b: Array, dtype: Any) -> Array:
    low = jnp.bfloat16
    return jnp.einsum(spec, a.astype(low), b.astype(low), preferred_element_type=dtype)


def _forward(spec: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(spec, a, b), (a, b)


def _backward(spec: str, saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    a, b = saved
    inputs, out = spec.split("->")
    first, second = inputs.split(",")
    return _toward(first, second, out, a, b, cotangent), _toward(second, first, out, b, a, cotangent)


def _toward(own: str, other: str, out: str, value: Array, factor: Array, cotangent: Array) -> Array:
    """The cotangent of ``value``, an operand with the axes ``own``."""
    return _rounded(f"{out},{other}->{own}", cotangent, factor, value.dtype)


_product.defvjp(_forward, _backward)
