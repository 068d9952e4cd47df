"""Programs that follow single sources and targets through the frozen layers and stop at every head.

Between a source and a target there are as many paths as there are ways through heads. Those through one head are a
product: what comes from the source to the head's output, times what goes from there to the target. With all paths
before the head and only paths without heads after it, the products of all heads and the paths without any add up to the
edge: every path is counted at the last head that it passes. With the roles changed it is counted at the first.

Letters: C targets, D width, E' width of a value head, H heads, L layers, M edges, S sources, T position.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.attribution.replaced import layer_of, no_reads
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.replacement.operator import LayerSources, ReplacementOperator, layer_apply

HEADS = "attn_z"


class Entering(NamedTuple):
    """What S sources bring into one layer, each at its position.

    Attributes:
      write: for each place [S, D].
      decoder: for each place [S] factors on the decoder bias. attention, norm, mlp: [S] on the layer's other biases.
    """

    write: tuple[Any, ...]
    decoder: tuple[Any, ...]
    attention: Any
    norm: Any
    mlp: Any


class Leaving(NamedTuple):
    """What C targets see of one layer along paths that pass no head, each at its position.

    Attributes:
      entering: `Entering`, of C: what each would add to the target.
      heads: [C, H E'] what each would that heads move to the target's position.
    """

    entering: Entering
    heads: Array


def local(operator: ReplacementOperator, position: Any, moved: float) -> ReplacementOperator:
    """The operator at one position, where every head moves there ``moved`` times the value of that same position."""

    def here(leaf: Array, axis: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, position, 1, axis)

    frozen, positions = operator.frozen, operator.positions
    lines = {
        name: jax.tree.map(lambda leaf: here(leaf, 2), getattr(frozen, name)) for name in frozen._fields[1:]
    }
    pattern = jnp.full((*frozen.pattern.shape[:3], 1, 1), moved, frozen.pattern.dtype)
    return dataclasses.replace(
        operator,
        frozen=frozen._replace(pattern=pattern, **lines),
        final=jax.tree.map(lambda leaf: here(leaf, 1), operator.final),
        mlps=jax.tree.map(lambda leaf: here(leaf, 2), operator.mlps),
        positions=None if positions is None else here(positions, 0),
    )


@jax.jit
def push(
    operator: ReplacementOperator, layer: Any, x: Array, positions: Array, entering: Entering
) -> tuple[Array, Array]:
    """S sources through a layer: x [S, T, D] → the residual stream after it, and what heads move [S, T, H E']."""

    def one(x: Array, position: Array, entering: Entering) -> tuple[Array, Array]:
        return _forward(operator, layer, x, _spread(operator, position, entering))

    return jax.vmap(one)(x, positions, entering)


@jax.jit
def push_local(
    operator: ReplacementOperator, layer: Any, x: Array, positions: Array, entering: Entering
) -> tuple[Array, Array]:
    """S sources through a layer along paths that pass no head: x [S, D] → [S, D], and the values [S, H E'] that heads
    of the layer see of them."""

    def one(x: Array, position: Array, entering: Entering) -> tuple[Array, Array]:
        apart, moving = local(operator, position, 0.0), local(operator, position, 1.0)
        sources = _spread(apart, jnp.zeros((), jnp.int32), entering)
        after, _ = _forward(apart, layer, x[None], sources)
        _, values = _forward(moving, layer, x[None], sources)
        return after[0], values[0]

    return jax.vmap(one)(x, positions, entering)


@partial(jax.jit, static_argnames="place")
def pull(
    operator: ReplacementOperator,
    layer: Any,
    x_bar: Array,
    positions: Array,
    vectors: Array,
    place: int | None,
) -> tuple[Array, Array]:
    """C targets back through a layer: x_bar [C, T, D] → the same before it, and what each position's values would add
    through each head [C, T, H E'].

    Args:
      vectors: [C, D] what the targets read with at their positions, for ``place``; zero where they read elsewhere.
    """
    one_layer = layer_of(operator, layer)
    pattern = one_layer.frozen.pattern[0]

    def one(x_bar: Array, position: Array, vector: Array) -> tuple[Array, Array]:
        bars = _reads(operator, place, vector, position)
        x_bar, _, heads = _back(operator, one_layer, x_bar, bars)
        heads = heads.reshape(heads.shape[0], operator.config.n_heads, -1)
        return x_bar, einsum("hts,the->she", pattern, heads).reshape(heads.shape[0], -1)

    return jax.vmap(one)(x_bar, positions, vectors)


@partial(jax.jit, static_argnames="place")
def pull_local(
    operator: ReplacementOperator,
    layer: Any,
    x_bar: Array,
    positions: Array,
    vectors: Array,
    place: int | None,
) -> tuple[Array, Leaving]:
    """C targets back through a layer along paths that pass no head: x_bar [C, D] → the same before it, and what they
    see of the layer. ``vectors`` as in `pull`."""

    def one(x_bar: Array, position: Array, vector: Array) -> tuple[Array, Leaving]:
        apart = local(operator, position, 0.0)
        bars = _reads(apart, place, vector, jnp.zeros((), jnp.int32))
        before, bar, heads = _back(apart, layer_of(apart, layer), x_bar[None], bars)
        none = jnp.zeros((), operator.dtype)
        decoder = tuple(none if leaf is None else leaf[0] for leaf in bar.decoder)
        mlp = none if bar.mlp is None else bar.mlp[0]
        write = tuple(leaf[0] for leaf in bar.write)
        return before[0], Leaving(Entering(write, decoder, bar.attention[0], bar.norm[0], mlp), heads[0])

    return jax.vmap(one)(x_bar, positions, vectors)


@jax.jit
def pull_final(operator: ReplacementOperator, positions: Array, vectors: Array) -> tuple[Array, Array]:
    """Targets [C, D] read after the final norm → gradients [C, D] of the residual stream before it, and the effects [C]
    of its bias."""

    def one(position: Array, vector: Array) -> tuple[Array, Array]:
        apart = local(operator, position, 0.0)
        x = jax.ShapeDtypeStruct((1, operator.config.d_model), operator.dtype)
        back = jax.linear_transpose(apart.end, x, jax.ShapeDtypeStruct((1,), operator.dtype))
        x_bar, bias = back(vector[None])
        return x_bar[0], bias[0]

    return jax.vmap(one)(positions, vectors)


@partial(jax.jit, static_argnames="n_heads")
def weigh(followed: Array, stopped: Array, edges: tuple[Array, Array, Array], n_heads: int) -> Array:
    """What each head of a layer carries of M edges: [M, H].

    Args:
      followed: [S, T, H E'] of one end of the edges; stopped: [C, H E'] of the other.
      edges: the numbers [M] of one end, of the positions at which the other stands, and of the other.
    """
    one, position, other = edges
    product = followed[one, position] * stopped[other]
    return product.reshape(product.shape[0], n_heads, -1).sum(axis=2)


@jax.jit
def direct(source: Entering, target: Entering, edges: tuple[Array, Array]) -> Array:
    """What M edges carry into one layer and on without a head [M], for edges within one position."""
    one, other = edges
    found = jnp.zeros(one.shape, source.norm.dtype)
    for a, b in zip(source.write, target.write, strict=True):
        found = found + (a[one] * b[other]).sum(axis=1)
    factors = zip(
        (*source.decoder, source.attention, source.norm, source.mlp),
        (*target.decoder, target.attention, target.norm, target.mlp),
        strict=True,
    )
    for a, b in factors:
        found = found + a[one] * b[other]
    return found


def _forward(
    operator: ReplacementOperator, layer: Any, x: Array, sources: LayerSources
) -> tuple[Array, Array]:
    """x [T, D] through a layer, and what heads move [T, H E']."""
    seen = []

    def touch(site: str, value: Array) -> Array:
        if site == HEADS:
            seen.append(value[0])
        return value

    out, _ = layer_apply(operator, layer_of(operator, layer), x, sources, touch)
    return out, seen[0]


def _back(
    operator: ReplacementOperator, layer: Any, x_bar: Array, read_bars: Any
) -> tuple[Array, LayerSources, Array]:
    """The transposed layer, with a source [T, H E'] of its own where heads have moved what they move."""
    t, config = x_bar.shape[0], operator.config
    x = jax.ShapeDtypeStruct(x_bar.shape, operator.dtype)
    heads = jax.ShapeDtypeStruct((t, config.n_heads * config.d_value), operator.dtype)

    def forward(x: Array, sources: LayerSources, extra: Array) -> Any:
        def touch(site: str, value: Array) -> Array:
            return value + extra[None] if site == HEADS else value

        return layer_apply(operator, layer, x, sources, touch)

    return jax.linear_transpose(forward, x, operator.layer_structure, heads)((x_bar, read_bars))


def _reads(operator: ReplacementOperator, place: int | None, vector: Array, position: Array) -> Any:
    """Cotangents of what the parts read: ``vector`` [D] at a position for one place, else zeros."""
    bars = list(no_reads(operator))
    if place is not None:
        bars[place] = bars[place].at[position].set(vector)
    return tuple(bars)


def _spread(operator: ReplacementOperator, position: Array, entering: Entering) -> LayerSources:
    """The sources of a layer for one source: each of its numbers at its position."""
    like = operator.layer_structure

    def put(value: Array, shape: Any) -> Any:
        return None if shape is None else jnp.zeros(shape.shape, shape.dtype).at[position].set(value)

    return LayerSources(
        tuple(put(one, shape) for one, shape in zip(entering.write, like.write, strict=True)),
        tuple(put(one, shape) for one, shape in zip(entering.decoder, like.decoder, strict=True)),
        put(entering.attention, like.attention),
        put(entering.norm, like.norm),
        put(entering.mlp, like.mlp),
    )
