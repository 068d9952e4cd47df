"""Which features of a row are active, without all pre-activations in memory at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum, wide

GROUP = 16
"""Neighbours of which the largest is looked at first, where there are many features."""
MANY = 64
"""Times k: so many features are many."""
BYTES = 2**25
"""What pre-activations of some rows may take; 32 MiB stay in a cache, and memory is not asked for anew at each step."""

Choose = Callable[[Array, Any], Tree]
"""(h ``[R, N]`` of some rows and one group, what belongs to the group) → arrays ``[R, ...]``."""


def largest(rank: Array, k: int, recall: float = 1.0) -> tuple[Array, Array]:
    """The ``k`` largest of each row of ``rank [R, N]`` and their numbers, as `jax.lax.top_k`: of equals the first ones.

    Where there are many features it is found in two steps, with the same result: the ``k`` largest are among the ``k``
    groups of neighbours whose largest are largest. (Zeros of either sign then count as equal.) Without a derivative.

    Args:
      recall: below 1 the share of them that is found on average, by `jax.lax.approx_max_k`, which is much faster on TPU
        and exact on CPU.
    """
    rank = wide(jax.lax.stop_gradient(rank))  # order is kept; XLA is a hundred times slower with sixteen bits
    n = rank.shape[-1]
    if recall < 1.0:
        return jax.lax.approx_max_k(rank, k, recall_target=recall)
    if n % GROUP or n < MANY * k or n < 8192:
        return jax.lax.top_k(rank, k)
    groups = rank.reshape(len(rank), -1, GROUP)
    _, best = jax.lax.top_k(jnp.max(groups, axis=-1), k)
    best = jnp.sort(best, axis=-1)  # so that what comes first among them comes first among all
    some = jnp.take_along_axis(groups, best[:, :, None], axis=1).reshape(len(rank), k * GROUP)
    values, place = jax.lax.top_k(some, k)
    return values, jnp.take_along_axis(best, place // GROUP, axis=1) * GROUP + place % GROUP


def in_pieces(choose: Choose, weights: Array, bias: Array, x: Array, belongs: Tree = None) -> Tree:
    """``choose(Σ_s weights[s] x[s] + bias)`` of every group, some rows at a time. Without a derivative.

    Args:
      choose: see `Choose`.
      weights: ``[G, S, N, D]``. bias: ``[G, N]``. x: ``[G, S, R, D]``; S are the sites that a feature reads.
      belongs: leaves ``[G, ...]``, of which ``choose`` gets those of its group.

    Returns:
      what ``choose`` gives, ``[G, R, ...]``.
    """
    weights, bias, x, belongs = jax.lax.stop_gradient((weights, bias, x, belongs))
    rows, n = x.shape[2], bias.shape[1]
    some = max(1, min(rows, BYTES // (n * x.dtype.itemsize)))
    pieces = -(-rows // some)
    some = -(-rows // pieces)
    if pieces * some != rows:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, pieces * some - rows), (0, 0)))

    def group(parts: tuple[Array, Array, Array, Tree]) -> Tree:
        own, shift, read, extra = parts

        def piece(values: Array) -> Tree:
            h = einsum("rd,nd->rn", values[0], own[0])
            for site in range(1, len(own)):
                h = h + einsum("rd,nd->rn", values[site], own[site])
            return choose(h + shift[None, :], extra)

        if pieces == 1:
            return piece(read)
        cut = jnp.swapaxes(read.reshape(len(own), pieces, some, -1), 0, 1)
        found = jax.lax.map(piece, cut)
        return jax.tree.map(lambda leaf: leaf.reshape(pieces * some, *leaf.shape[2:])[:rows], found)

    if len(weights) == 1:
        one = group(jax.tree.map(lambda leaf: leaf[0], (weights, bias, x, belongs)))
        return jax.tree.map(lambda leaf: leaf[None], one)
    return jax.lax.map(group, (weights, bias, x, belongs))
