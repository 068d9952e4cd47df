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
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import wide
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
    """A `dispatch` of experts: each device of the mesh computes its own.

    Attributes:
      mesh, rules: where experts and tokens are.
      block: tokens at a time. A device makes room for every choice of every token of a block, as all may be sent to it.
    """

    mesh: Mesh
    rules: Rules = DEFAULT_RULES
    block: int = 4096


def divide_rows(x: Array, on: OnMesh) -> Array:
    """x [B, ...] with its batch divided as the rules say, so that the compiler plans around that."""
    axes = on.rules.targets("batch", on.mesh)
    spec = PartitionSpec(axes or None, *(PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1))
    return jax.lax.with_sharding_constraint(x, NamedSharding(on.mesh, spec))


def by_expert(rows: Array, w: Array, sizes: Array, precision: Any) -> Array:
    """Rows [N, D] sorted by expert, each times its expert's matrix: [N, D], [X, D, F], counts [X] → [N, F].

    Sixteen-bit factors have exact products in float32 at any precision, and TPU compilers refuse to be asked for more.
    """
    exact = jnp.dtype(rows.dtype).itemsize <= 2
    return jax.lax.ragged_dot(rows, w, sizes, precision=None if exact else precision)


def spread(
    w: Tree, x: Array, product: Callable[[Array, Array], Array], weights: Array, numbers: Array, on: OnMesh,
    precision: Any,
) -> Array:  # fmt: skip
    """The mixture of x [B, T, D] → [B, T, D] in the dtype of ``weights``, each device computing its own experts.

    Args:
      w: stacks of experts, `gate`, `up` [X, D, F], `down` [X, F, D] and biases.
      product: what an expert does between its matrices.
      weights, numbers: [B, T, A] of `experts.route`.
      on: the mesh and its rules.

    Raises:
      InputError: a batch or a number of experts that the mesh does not divide.
    """
    mesh, rules = on.mesh, on.rules
    rules = rules.replace(width=None)  # a device needs its experts whole along this axis
    own = {name: w[name] for name in STACKS if name in w}
    specs = {name: rules.spec(STACKS[name], value.shape, mesh, name) for name, value in own.items()}
    spec = rules.spec(("batch", "position", "replicated"), x.shape, mesh, "the input of experts")
    over, widths = rules.targets("experts", mesh), rules.targets("expert_width", mesh)
    batch, apart = rules.targets("batch", mesh), (*over, *widths)
    shared = tuple(name for name in batch if name in apart)  # along these tokens have to come together
    summed = tuple(name for name in apart if name not in batch)

    def device(own: Tree, x: Array, weights: Array, numbers: Array) -> Array:
        for name in reversed(shared):
            x, weights, numbers = (_gather(value, name) for value in (x, weights, numbers))
        # Each device makes something else of the same tokens; ragged_dot does not say so itself, and gradients need it.
        x, weights, numbers = (jax.lax.pcast(value, summed, to="varying") for value in (x, weights, numbers))
        first = jnp.asarray(_index(over, mesh) * own["gate"].shape[0], numbers.dtype)
        rows = partial(_own_rows, own, product=product, part=_index(widths, mesh), precision=precision)
        out = _in_blocks(rows, on.block, x, weights, numbers - first)
        for name in shared:
            out = jax.lax.psum_scatter(out, name, scatter_dimension=0, tiled=True)
        return jax.lax.psum(out, summed) if summed else out

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


def _in_blocks(rows: Callable[..., Array], block: int, *tokens: Array) -> Array:
    """``rows`` of tokens [B, T, ...], so many tokens at a time."""
    b, t = tokens[0].shape[:2]
    flat = [value.reshape(b * t, *value.shape[2:]) for value in tokens]
    if b * t <= block:
        return rows(*flat).reshape(b, t, -1)
    blocks = -(-b * t // block)
    padding = blocks * block - b * t
    split = [jnp.pad(value, ((0, padding), (0, 0))).reshape(blocks, block, value.shape[-1]) for value in flat]
    out = jax.lax.map(lambda one: rows(*one), tuple(split))
    return out.reshape(blocks * block, -1)[: b * t].reshape(b, t, -1)


def _own_rows(
    w: Tree, x: Array, weights: Array, numbers: Array, *, product: Callable[[Array, Array], Array], part: Any,
    precision: Any,
) -> Array:  # fmt: skip
    """What a device's own experts add to tokens x [N, D].

    Args:
      weights, numbers: [N, A], numbers counted from the first expert here; others are below zero or beyond.
      part: which part of the experts' width is here; the first adds their output's bias.
    """
    n, d = x.shape
    active, here = numbers.shape[-1], w["gate"].shape[0]
    mine = (numbers >= 0) & (numbers < here)
    expert = jnp.where(mine, numbers, here).reshape(-1)  # rows of others go last
    order = jnp.argsort(expert, stable=True)
    sizes = jnp.bincount(expert, length=here + 1).astype(jnp.int32)[:here]
    rows, owner = x[order // active], jnp.minimum(expert[order], here - 1)

    def through(value: Array, name: str) -> Array:
        out = by_expert(value, w[name], sizes, precision)
        return out + w[f"{name}_bias"][owner] if f"{name}_bias" in w else out

    out = by_expert(product(through(rows, "gate"), through(rows, "up")), w["down"], sizes, precision)
    if "down_bias" in w:
        out = out + jnp.where(part == 0, w["down_bias"], 0)[owner]
    out = jnp.where((jnp.arange(len(out)) < jnp.sum(sizes))[:, None], out, 0)  # rows of no expert here
    back = jnp.argsort(order)
    share = jnp.where(mine, weights, 0)
    return jnp.einsum("nad,na->nd", wide(out[back].reshape(n, active, d)), share, precision=precision)
