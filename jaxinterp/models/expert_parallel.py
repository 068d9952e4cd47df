"""Mixtures of experts on a mesh: every device computes the rows of its own experts, and the outputs are added up.

Letters: B batch, T position, D width, X experts, F width of an expert, A experts a token is sent to, N = B·T.

Left to itself the compiler gathers all experts of a layer on each device. Here weights stay where they are, and tokens
go to them: each device takes the tokens of the devices that it shares its experts' axes with, sorts out the rows that
are sent to its own experts, and its outputs are summed over those axes. The result is that of "sparse" dispatch up to
the order of that sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxinterp.core.letters import Array, Tree
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

STACKS = {
    "gate": ("experts", "width", "expert_width"),
    "up": ("experts", "width", "expert_width"),
    "down": ("experts", "expert_width", "width"),
    "gate_bias": ("experts", "expert_width"),
    "up_bias": ("experts", "expert_width"),
    "down_bias": ("experts", "width"),
}
"""Logical axes of one layer's stacks of experts, as `weights.declare` has them."""


class OnMesh(NamedTuple):
    """A `dispatch` of experts: each device of the mesh computes its own."""

    mesh: Mesh
    rules: Rules = DEFAULT_RULES


def spread(
    w: Tree, x: Array, product: Callable[[Array, Array], Array], weights: Array, numbers: Array, on: OnMesh,
    precision: Any,
) -> Array:  # fmt: skip
    """The mixture of x [B, T, D] → [B, T, D], each device computing its own experts.

    Args:
      w: stacks of experts, `gate`, `up` [X, D, F], `down` [X, F, D] and biases.
      product: what an expert does between its matrices.
      weights, numbers: [B, T, A] of `experts.route`.
      on: the mesh and its rules.

    Raises:
      InputError: a batch or a number of experts that the mesh does not divide.
    """
    mesh, rules = on
    own = {name: w[name] for name in STACKS if name in w}
    specs = {name: rules.spec(STACKS[name], value.shape, mesh, name) for name, value in own.items()}
    spec = rules.spec(("batch", "position", "replicated"), x.shape, mesh, "the input of experts")
    over, widths = rules.targets("experts", mesh), rules.targets("expert_width", mesh)
    batch = rules.targets("batch", mesh)
    shared = tuple(name for name in over if name in batch)  # here tokens have to come together
    summed = tuple(name for name in (*over, *widths) if name not in batch)

    def device(own: Tree, x: Array, weights: Array, numbers: Array) -> Array:
        for name in shared:
            x, weights, numbers = (_gather(value, name) for value in (x, weights, numbers))
        first = jnp.asarray(_index(over, mesh) * own["gate"].shape[0], numbers.dtype)
        out = _own_rows(own, x, product, weights, numbers - first, _index(widths, mesh), precision)
        if summed:
            out = jax.lax.psum(out, summed)
        for name in reversed(shared):
            out = jax.lax.psum_scatter(out, name, scatter_dimension=0, tiled=True)
        return out

    inner = jax.shard_map(device, mesh=mesh, in_specs=(specs, spec, spec, spec), out_specs=spec)
    return inner(own, x, weights, numbers)


def _gather(value: Array, name: str) -> Array:
    return jax.lax.all_gather(value, name, axis=0, tiled=True)


def _index(names: tuple[str, ...], mesh: Mesh) -> Any:
    """The number of this device along several mesh axes, the first varying slowest."""
    sizes = [mesh.shape[name] for name in names]
    return sum(
        (jax.lax.axis_index(name) * math.prod(sizes[place + 1 :]) for place, name in enumerate(names)), 0
    )


def _own_rows(
    w: Tree, x: Array, product: Callable[[Array, Array], Array], weights: Array, numbers: Array, part: Any,
    precision: Any,
) -> Array:  # fmt: skip
    """What a device's own experts add to x [B, T, D].

    Args:
      numbers: [B, T, A] counted from the first expert here; others are below zero or beyond.
      part: which part of the experts' width is here; the first adds their output's bias.
    """
    b, t, d = x.shape
    active, here = numbers.shape[-1], w["gate"].shape[0]
    mine = (numbers >= 0) & (numbers < here)
    expert = jnp.where(mine, numbers, here).reshape(-1)  # rows of others go last
    order = jnp.argsort(expert, stable=True)
    sizes = jnp.bincount(expert, length=here + 1).astype(jnp.int32)[:here]
    rows, owner = x.reshape(-1, d)[order // active], jnp.minimum(expert[order], here - 1)

    def through(value: Array, name: str) -> Array:
        out = jax.lax.ragged_dot(value, w[name], sizes, precision=precision)
        return out + w[f"{name}_bias"][owner] if f"{name}_bias" in w else out

    out = jax.lax.ragged_dot(
        product(through(rows, "gate"), through(rows, "up")), w["down"], sizes, precision=precision
    )
    if "down_bias" in w:
        out = out + jnp.where(part == 0, w["down_bias"], 0)[owner]
    out = jnp.where((jnp.arange(len(out)) < jnp.sum(sizes))[:, None], out, 0)  # rows of no expert here
    back = jnp.argsort(order)
    share = jnp.where(mine, weights, 0)
    return jnp.einsum("btad,bta->btd", out[back].reshape(b, t, active, d), share, precision=precision)
