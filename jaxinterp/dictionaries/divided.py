"""Products with weights divided by features over a mesh, one layer at a time.

Inside `jaxinterp.parallel.placement.placed` the rows of a layer are gathered for its product only, what features write
is scattered over the mesh as soon as it is added up, and no weight moves. In the backward pass a layer's rows are
gathered again instead of being kept.

Letters: L layers, R rows, N features, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.parallel import placement


def divides(x: Array) -> bool:
    """Whether products with ``x [L, R, ...]`` are to be done here."""
    return placement.current() is not None and x.ndim == 3


def read(x: Array, encoders: Array) -> Array:
    """``x [L, R, D]``, ``encoders [L, N, D]`` → ``[L, R, N]``."""
    there = placement.rows_of(x.shape[1], encoders.shape[1])

    def local(rows: Array, weights: Array) -> Array:
        return einsum("rd,nd->rn", there.gather(rows), there.weights(weights))

    one = there.product(local, (there.at_rest, there.by_feature), there.active)
    return _layers(one, x, encoders)


def write(a: Array, decoders: Array) -> Array:
    """``a [L, R, N]``, ``decoders [L, N, D]`` → ``[L, R, D]``, each layer by itself."""
    there = placement.rows_of(a.shape[1], decoders.shape[1])

    def local(active: Array, weights: Array) -> Array:
        return there.scatter(einsum("rn,nd->rd", active, there.weights(weights)))

    one = there.product(local, (there.active, there.by_feature), there.at_rest)
    return _layers(one, a, decoders)


def write_across(a: Array, decoders: Sequence[Array]) -> Array:
    """``a [L, R, N]``, for every target t ``decoders[t] [t + 1, N, D]`` → ``[L, R, D]``: what all sources write."""
    there = placement.rows_of(a.shape[1], decoders[0].shape[1])

    def local(active: Array, weights: Array) -> Array:
        return there.scatter(einsum("srn,snd->rd", active, there.weights(weights)))

    ins = jax.P(None, *there.active), jax.P(None, *there.by_feature)
    return _across(there.product(local, ins, there.at_rest), a, tuple(decoders))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _across(one: Callable[[Array, Array], Array], a: Array, decoders: tuple[Array, ...]) -> Array:
    return jnp.stack([one(a[: len(weights)], weights) for weights in decoders])


def _across_forward(one: Any, a: Array, decoders: tuple[Array, ...]) -> tuple[Array, Any]:
    return _across(one, a, decoders), (a, decoders)


def _across_backward(one: Any, saved: Any, cotangent: Array) -> tuple[Array, tuple[Array, ...]]:
    """Target by target: what each asks of activations is added to one sum before the next is begun."""
    a, decoders = saved
    total, gradients = jnp.zeros_like(a), []
    for target, weights in enumerate(decoders):
        sources = len(weights)
        _, back = jax.vjp(one, a[:sources], weights)
        part, gradient = back(cotangent[target])
        gradients.append(gradient)
        total, cotangent = jax.lax.optimization_barrier((total.at[:sources].add(part), cotangent))
    return total, tuple(gradients)


_across.defvjp(_across_forward, _across_backward)


def _layers(one: Callable[[Array, Array], Array], x: Array, weights: Array) -> Array:
    """``one`` of every layer; what it makes on its way is made again in the backward pass."""
    one = jax.checkpoint(one)
    if x.shape[0] == 1:
        return one(x[0], weights[0])[None]
    return jax.lax.scan(lambda _, both: (None, one(*both)), None, (x, weights))[1]
