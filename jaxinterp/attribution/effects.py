"""Direct effects of every source on a block of targets: one walk down the layers.

A target is a vector injected where it reads: an encoder row at its layer's read site, or a residual-stream
gradient after the last layer. The transposed frozen layers carry it down (*Circuit Tracing*, "Attribution
graphs", J▼); at each layer the gradient at the write site is contracted, position by position, with what
sources write there. No gradient is gathered at active features.

A walk starts at the highest layer of its block, so targets are grouped by layer, and it is one compiled
program whatever that layer is.

Letters: C targets of a block, T position, K slots, D width, L layers.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxinterp.attribution.sources import Writes
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.replacement.operator import ReplacementOperator, layer_slices, layer_transpose


class Block(NamedTuple):
    """C targets that start at the same layer; with a leading axis for several blocks.

    Attributes:
      vectors: [C, D] injected vectors, zero for padding.
      positions: [C] where.
      layer: [] the layer whose read site they enter; L means the residual stream after the last layer.
    """

    vectors: Array
    positions: Any
    layer: Any


class Effects(NamedTuple):
    """Direct effects on C targets, a field per kind of source.

    Attributes:
      features: [C, L, T, K] by slot.
      errors: [C, L, T].
      omitted: [C] sum over what is written but left out of the graph.
      decoder, attention, norm: [C, L, T] bias nodes of each layer.
      position: [C, T] learned positions.
      embed: [C, T].
    """

    features: Array
    errors: Array
    omitted: Array
    decoder: Array
    attention: Array
    norm: Array
    position: Array
    embed: Array


def final_vectors(operator: ReplacementOperator, vectors: Array) -> tuple[Array, Array]:
    """Targets [C, D] read after the final norm → gradients [C, D] of the residual stream at the last
    position, and the direct effects [C] of the final norm's bias there."""
    t = operator.n_tokens
    x = jax.ShapeDtypeStruct((t, operator.config.d_model), operator.decoder_bias.dtype)
    factor = jax.ShapeDtypeStruct((t,), operator.decoder_bias.dtype)
    back = jax.linear_transpose(operator.end, x, factor)

    def one(vector: Array) -> tuple[Array, Array]:
        x_bar, final_bar = back(jnp.zeros(x.shape, x.dtype).at[-1].set(vector))
        return x_bar[-1], final_bar[-1]

    return jax.vmap(one)(vectors)


def walk(operator: ReplacementOperator, writes: Writes, embed: Array, block: Block) -> Effects:
    """The effects of every source on one block of targets; a pure function, one device.

    Args:
      operator: the frozen replacement model.
      writes: what sources write.
      embed: [T, D] token embeddings as they enter the residual stream.
      block: the targets.
    """
    n, t, d = operator.config.n_layers, operator.n_tokens, operator.config.d_model
    c, k, dtype = block.vectors.shape[0], writes.rows.shape[2], operator.decoder_bias.dtype
    layers = layer_slices(operator)
    seed = jnp.where(
        (jnp.arange(t, dtype=jnp.int32)[None, :] == block.positions[:, None])[:, :, None],
        block.vectors[:, None, :],
        0,
    ).astype(dtype)
    seed = jnp.swapaxes(seed, 0, 1)  # T C D: products over positions need no transposes in this order
    back = jax.vmap(partial(layer_transpose, operator), in_axes=(None, 1, 1), out_axes=(1, 1))
    biased = operator.config.has_attention_biases, operator.config.has_norm_biases

    def step(state: tuple[Array, Array, Effects]) -> tuple[Array, Array, Effects]:
        layer, x_bar, found = state
        one = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False), layers)
        # The block's own read site lies before its layer's write: nothing written there reaches it.
        here = layer == block.layer
        x_bar, bar = back(one, jnp.where(here, 0, x_bar), jnp.where(here, seed, 0))
        gradient = bar.write

        def pair(p: Array, features: Array) -> Array:
            rows = jax.lax.dynamic_index_in_dim(writes.rows, p, 0, keepdims=False)
            part = einsum("tcd,tkd->ctk", gradient, rows)
            source = writes.pair_source[p]
            so_far = jax.lax.dynamic_index_in_dim(features, source, 1, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(features, so_far + part, source, 1)

        first_pair = writes.pair_start[layer]
        end = jnp.where(here, first_pair, writes.pair_start[layer + 1])
        features = jax.lax.fori_loop(first_pair, end, pair, found.features)
        vectors = jax.lax.dynamic_index_in_dim(writes.vectors, layer, 0, keepdims=False)
        part = einsum("tcd,tjd->ctj", gradient, vectors)

        def put(old: Array, new: Array) -> Array:
            return jax.lax.dynamic_update_index_in_dim(old, new, layer, 1)

        found = found._replace(
            features=features,
            errors=put(found.errors, part[:, :, 0]),
            omitted=found.omitted + jnp.sum(part[:, :, 1], axis=1),
            decoder=put(found.decoder, part[:, :, 2]),
            attention=put(found.attention, bar.attention.T) if biased[0] else found.attention,
            norm=put(found.norm, bar.norm.T) if biased[1] else found.norm,
        )
        return layer - 1, x_bar, found

    zeros = partial(jnp.zeros, dtype=dtype)
    nothing = Effects(
        zeros((c, n, t, k)), zeros((c, n, t)), zeros((c,)), zeros((c, n, t)), zeros((c, n, t)), zeros((c, n, t)),
        zeros((c, t)), zeros((c, t)),
    )  # fmt: skip
    first = jnp.minimum(block.layer, n - 1)
    above = jnp.where(block.layer == n, seed, jnp.zeros((t, c, d), dtype))
    _, x_bar, found = jax.lax.while_loop(lambda state: state[0] >= 0, step, (first, above, nothing))
    position = found.position
    if operator.positions is not None:
        position = einsum("tcd,td->ct", x_bar, operator.positions)
    return found._replace(embed=einsum("tcd,td->ct", x_bar, embed), position=position)


@partial(jax.jit, static_argnames=("mesh",))
def walk_blocks(
    operator: ReplacementOperator, writes: Writes, embed: Array, blocks: Block, mesh: Mesh
) -> Effects:
    """`walk` for as many blocks as ``mesh`` has devices along "data", one on each.

    Every device runs the same program on a block of the same shape, so that results do not depend on how
    many devices there are.

    Args:
      blocks: `Block` with a leading axis of the size of the mesh.

    Returns:
      `Effects` with that leading axis.
    """
    whole, split = PartitionSpec(), PartitionSpec("data")

    def one(operator: ReplacementOperator, writes: Writes, embed: Array, blocks: Block) -> Effects:
        found = walk(operator, writes, embed, jax.tree.map(lambda leaf: leaf[0], blocks))
        return jax.tree.map(lambda leaf: leaf[None], found)

    run = jax.shard_map(
        one, mesh=mesh, in_specs=(whole, whole, whole, split), out_specs=split, check_vma=False
    )
    return run(operator, writes, embed, blocks)
