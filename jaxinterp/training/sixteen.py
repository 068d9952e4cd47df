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
    """``jnp.einsum`` of two operands that are rounded to bfloat16. Others are computed as they are."""
    if len(operands) != 2 or kwargs or "->" not in spec:
        with precision.products(None):
            return precision.einsum(spec, *operands, **kwargs)
    return _product(spec, *operands)


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
    """The cotangent of ``value``: axes that it alone has were summed over, so every entry along them gets the same."""
    letters = re.findall(r"\.\.\.|.", own)
    kept = [letter for letter in letters if letter == "..." or letter in other + out]
    found = _rounded(f"{out},{other}->{''.join(kept)}", cotangent, factor, value.dtype)
    for place, letter in enumerate(letters):
        if letter not in kept:
            more = value.ndim - len(letters) if "..." in letters[:place] else 0
            found = jnp.expand_dims(found, place + more)
    return jnp.broadcast_to(found, value.shape)


_product.defvjp(_forward, _backward)
