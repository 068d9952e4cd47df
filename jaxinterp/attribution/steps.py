"""The programs that a walk down the layers is made of, each compiled once for a shape and used for every layer.

A walk carries the gradients of C targets in the residual stream, ``x_bar [T', C, D]``, from the layer where they read
to the embeddings, through the transposed frozen layers (*Circuit Tracing*, "Attribution graphs", J▼). At each junction
that is replaced the gradient is contracted, position by position, with what sources write there; no gradient is
gathered at active features.

Every array of a walk has a leading axis of devices, one block a device; each device runs the same program on arrays of
the same shape, so that results do not depend on how many there are.

Letters: C targets of a block, T' positions of the walk, K slots, P pages, D width (of a site, where sites differ).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.replacement import one_position
from jaxinterp.replacement.layer import LayerSlice, layer_apply, shorten
from jaxinterp.replacement.mlps import MlpLine
from jaxinterp.replacement.operator import ReplacementOperator, layer_slices
from jaxinterp.replacement.parts import site_width

FORWARD_ONLY = frozenset(
    f"{name}{suffix}"
    for name in ("q", "k", "q_down", "q_up", "k_turned", "k_up", "q_norm", "k_norm", "sinks")
    for suffix in ("", "_bias")
)
"""Weights of a layer that frozen patterns leave without use."""
OF_MLP = frozenset(f"{name}{suffix}" for name in ("up", "down", "gate") for suffix in ("", "_bias"))


class Step(NamedTuple):
    """What comes out of one layer, with a leading axis of devices.

    Attributes:
      x: [T', C, D] gradient before the layer.
      write: for each place [T', C, D], the gradient where its part writes.
      attention, norm, mlp: [T', C] direct effects of the layer's biases; None where there are none.
    """

    x: Array
    write: tuple[Array, ...]
    attention: Array | None
    norm: Array | None
    mlp: Array | None


def light(operator: ReplacementOperator) -> ReplacementOperator:
    """The operator without what `slices` hold, to be handed to every program."""
    params: dict[str, Any] = {
        "embed": {"tokens": jnp.zeros((), operator.dtype)},
        "final_norm": operator.params["final_norm"],
    }
    mlps = None
    if operator.mlps is not None:
        params |= {name: operator.params[name] for name in ("experts", "dense") if name in operator.params}
        mlps = MlpLine(jnp.zeros((), operator.dtype), jnp.zeros((), operator.dtype))
    without: dict[str, Any] = {"frozen": None, "parts": (), "positions": None, "points": None}
    return dataclasses.replace(operator, params=params, mlps=mlps, **without)


def stacked_slices(operator: ReplacementOperator) -> LayerSlice:
    """What layers need on the way back, without the weights that they do not; every field with a leading L."""
    unused = (FORWARD_ONLY if not operator.live else frozenset()) | (
        OF_MLP if operator.mlps is None else frozenset()
    )
    stacked = layer_slices(operator)
    weights = {name: value for name, value in stacked.weights.items() if name not in unused}
    return stacked._replace(weights=weights)


def slices(operator: ReplacementOperator) -> list[LayerSlice]:
    """`stacked_slices`, one for each layer."""
    stacked = stacked_slices(operator)
    return [_slice(stacked, layer) for layer in range(operator.config.n_layers)]


@jax.jit
def _slice(stacked: LayerSlice, layer: Any) -> LayerSlice:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, layer, 0, keepdims=False), stacked)


def _over(mesh: Mesh, run: Callable[..., Any], split: Sequence[bool]) -> Callable[..., Any]:
    """``run`` on every device of ``mesh``: arguments are split by their leading axis or whole."""

    def local(*args: Any) -> Any:
        own = [
            jax.tree.map(lambda leaf: leaf[0], arg) if cut else arg
            for arg, cut in zip(args, split, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], run(*own))

    whole, cut = PartitionSpec(), PartitionSpec("data")
    specs = tuple(cut if s else whole for s in split)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=cut, check_vma=False)


def _back(operator: ReplacementOperator, layer: LayerSlice, place: int | None, bar: Array) -> Step:
    """The transposed layer for the cotangents [T', C, D] of its output, or of what ``place`` reads in it."""
    operator, layer = shorten(operator, layer, bar.shape[0])
    x = jax.ShapeDtypeStruct((bar.shape[0], operator.config.d_model), operator.dtype)

    def forward(x: Array, sources: Any) -> Any:
        out, reads = layer_apply(operator, layer, x, sources)
        return out if place is None else reads[place]

    back = jax.linear_transpose(forward, x, operator.layer_structure)
    # Over the second axis: products over positions then need no transposes.
    x_bar, found = jax.vmap(back, in_axes=1, out_axes=1)(bar)
    config = operator.config
    return Step(
        x_bar,
        found.write,
        found.attention if config.has_attention_biases else None,
        found.norm if config.has_norm_biases else None,
        found.mlp,
    )


def _back_at(
    operator: ReplacementOperator,
    layer: LayerSlice,
    place: int,
    vectors: Array,
    positions: Array,
    length: int,
) -> Step:
    """`_back` for what ``place`` reads with vectors [C, D] at one position [C] each, for less; see `one_position`."""
    operator, layer = shorten(operator, layer, length)
    x = jax.ShapeDtypeStruct((length, operator.config.d_model), operator.dtype)
    factor = jax.ShapeDtypeStruct((length,), operator.dtype)
    site = str(operator.places[place].read_site)

    def back(vector: Array, position: Array) -> Any:
        read = partial(one_position.read_at, operator, layer, site, position)
        return jax.linear_transpose(read, x, factor, factor)(vector)

    x_bar, attention, norm = jax.vmap(back, out_axes=1)(vectors, positions)
    config, nothing = operator.config, partial(jnp.zeros, dtype=operator.dtype)
    widths = [site_width(config, one.write_site) for one in operator.places]
    return Step(
        x_bar,
        tuple(nothing((length, len(vectors), width)) for width in widths),
        attention if config.has_attention_biases else None,
        norm if config.has_norm_biases else None,
        None if operator.mlps is None else nothing((length, len(vectors))),
    )


@partial(jax.jit, static_argnames=("mesh",))
def advance(operator: ReplacementOperator, layer: LayerSlice, x_bar: Array, mesh: Mesh) -> Step:
    """One layer down: gradients ``x_bar [devices, T', C, D]`` of what the layer gives."""
    run = _over(mesh, lambda o, one, x: _back(o, one, None, x), (False, False, True))
    return run(operator, layer, x_bar)


@partial(jax.jit, static_argnames=("mesh", "length", "place"))
def enter(
    operator: ReplacementOperator, layer: LayerSlice, vectors: Array, positions: Array, spread: Array | None,
    heads: Array | None, mesh: Mesh, length: int, place: int,
) -> Step:  # fmt: skip
    """The first step of targets that read in this layer.

    Args:
      vectors: [devices, C, D] what they read with. positions: [devices, C] where.
      spread: None, or [Q, T, S], where the heads of a Lorsa look; then targets read from there, through
        ``heads [devices, C]``.
      length: T'. place: which of the operator's places they read for.
    """

    def run(o: Any, one: Any, vectors: Array, positions: Array, spread: Any, heads: Any) -> Step:
        if spread is None and one_position.fits(o, place):
            return _back_at(o, one, place, vectors, positions, length)
        seed = at_positions(vectors, positions, length)
        if spread is not None:
            looks = spread[:, :, :length][heads, positions]
            seed = einsum("ct,cd->tcd", looks, vectors)
        return _back(o, one, place, seed)

    split = (False, False, True, True, False, heads is not None)
    return _over(mesh, run, split)(operator, layer, vectors, positions, spread, heads)


@partial(jax.jit, static_argnames=("mesh", "length"))
def enter_final(
    operator: ReplacementOperator, vectors: Array, positions: Array, mesh: Mesh, length: int
) -> tuple[Array, Array]:
    """Targets read after the final norm.

    Returns:
      [devices, T', C, D] gradients of the residual stream after the last layer, and [devices, T', C] the direct
      effects of the final norm's bias.
    """

    def run(o: Any, vectors: Array, positions: Array) -> tuple[Array, Array]:
        o, _ = shorten(o, None, length)
        x = jax.ShapeDtypeStruct((length, o.config.d_model), o.dtype)
        factor = jax.ShapeDtypeStruct((length,), o.dtype)
        back = jax.linear_transpose(o.end, x, factor)
        return jax.vmap(back, in_axes=1, out_axes=1)(at_positions(vectors, positions, length))

    return _over(mesh, run, (False, True, True))(operator, vectors, positions)


def at_positions(vectors: Array, positions: Array, length: int) -> Array:
    """[T', C, D]: each vector [C, D] at its position [C]."""
    here = jnp.arange(length, dtype=jnp.int32)[:, None] == positions[None, :]
    return jnp.where(here[:, :, None], vectors[None], jnp.zeros((), vectors.dtype))


@partial(jax.jit, static_argnames=("mesh",))
def either(alive: Array, one: Any, other: Any, mesh: Mesh) -> Any:
    """The `Step` ``one`` for targets that are ``alive [devices, C]``, ``other`` for those that are not."""

    def run(alive: Array, one: Any, other: Any) -> Any:
        def pick(a: Array, b: Array) -> Array:
            return jnp.where(alive.reshape(1, -1, *(1,) * (a.ndim - 2)), a, b)

        return jax.tree.map(pick, one, other)

    return _over(mesh, run, (True, True, True))(alive, one, other)


@partial(jax.jit, static_argnames=("mesh", "precision"))
def contract(gradient: Array, rows: Array, mesh: Mesh, precision: Any) -> Array:
    """Gradients [devices, T', C, D] with rows [T, K, D] → [devices, T', C, K]."""
    return _over(mesh, partial(_contracted, precision), (True, False))(gradient, rows)


@partial(jax.jit, static_argnames=("mesh", "precision"), donate_argnums=(2,))
def contract_more(gradient: Array, rows: Array, so_far: Array, mesh: Mesh, precision: Any) -> Array:
    """`contract`, added to what other layers gave."""
    run = _over(mesh, lambda g, r, s: s + _contracted(precision, g, r), (True, False, True))
    return run(gradient, rows, so_far)


def _contracted(precision: Any, gradient: Array, rows: Array) -> Array:
    found = jnp.einsum("tcd,tkd->tck", gradient, rows[: gradient.shape[0]], precision=precision)
    # Behind a barrier, because a product that is added to something may be summed in another order.
    return jax.lax.optimization_barrier(found)


@partial(jax.jit, static_argnames=("mesh", "precision"))
def turn(gradient: Array, pages: Array, positions: Array, mesh: Mesh, precision: Any) -> Array:
    """Gradients [devices, T', C, D] with pages [P, K, D] of single positions [P] → [devices, P, C, K].

    Pages of positions that the walk has not are of no meaning.
    """
    return _over(mesh, partial(_turned, precision), (True, False, False))(gradient, pages, positions)


@partial(jax.jit, static_argnames=("mesh", "precision"), donate_argnums=(3,))
def turn_more(
    gradient: Array, pages: Array, positions: Array, so_far: Array, mesh: Mesh, precision: Any
) -> Array:
    """`turn`, added to what other layers gave."""
    run = _over(mesh, lambda g, p, at, s: s + _turned(precision, g, p, at), (True, False, False, True))
    return run(gradient, pages, positions, so_far)


def _turned(precision: Any, gradient: Array, pages: Array, positions: Array) -> Array:
    own = jnp.take(gradient, positions, axis=0, mode="clip")
    return jax.lax.optimization_barrier(jnp.einsum("pcd,pkd->pck", own, pages, precision=precision))


@partial(jax.jit, static_argnames=("mesh",))
def finish(x_bar: Array, embed: Array, positions: Array | None, mesh: Mesh) -> tuple[Array, Array | None]:
    """Effects [devices, T', C] of embeddings [T, D] and of learned positions [T, D] or None."""

    def run(x: Array, embed: Array, positions: Array | None) -> tuple[Array, Array | None]:
        t = x.shape[0]
        at = None if positions is None else einsum("tcd,td->tc", x, positions[:t])
        return einsum("tcd,td->tc", x, embed[:t]), at

    return _over(mesh, run, (True, False, False))(x_bar, embed, positions)
