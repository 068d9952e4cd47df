"""Queries and keys of one head as linear forms of the residual stream before the layer.

Norms of the attention's input, of queries, keys and latents are kept as they were on the prompt; the rotation of a
position, a head's projections and biases are linear. So is, then, the query or key as a function of what the residual
stream holds at its position, which makes a score bilinear in two positions of it.

Letters: D width, E head width, H heads, K key/value heads, T position.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.models import attention, latent, norms, rotary
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, forward, places
from jaxinterp.models.norms import Line
from jaxinterp.replacement.operator import ReplacementOperator


class Live(NamedTuple):
    """A layer's attention on the prompt, as the model computes it.

    Attributes:
      queries: [T, H, E]; keys: [T, K, E]; normed and turned.
      lines: what stands for each norm between the attention's input and these, by name.
      turn: cosines and sines of all positions, or None.
    """

    queries: Array
    keys: Array
    lines: dict[str, Line]
    turn: Any


class Form(NamedTuple):
    """A query or a key [E] as a linear form: ``vectors [E, D]`` of the residual stream before the layer, and what the
    layer's own biases add, ``attention [E]`` (projections) and ``norm [E]`` (norms)."""

    vectors: Array
    attention: Array
    norm: Array


@partial(jax.jit, static_argnums=(1, 4))
def live(params: Tree, config: ModelConfig, tokens: Array, layer: Any, dynamic_tanh: str) -> Live:
    """Queries and keys of a layer in the model's own run on tokens [1, T], and the norms in between."""
    _, found = forward(params, config, tokens, sites=("attn_in",))
    x, w, window = found.attn_in[layer], _weights(params, layer), _window(config, layer)
    turn = None
    if config.positions == "rope":
        turn = rotary.tables(config, places(tokens).positions, x.dtype)
    lines: dict[str, Line] = {}

    def keep(value: Array, name: str) -> Array:
        alpha = w.get(f"{name}_alpha")
        if alpha is not None and dynamic_tanh == "tangent":
            line = norms.tangent(value, alpha)
        elif config.latent is not None:
            line = Line(latent.scale(value, w, name, config))
        else:
            line = Line(norms.heads_scale(value, w, name, config))
        lines[name] = line
        return _normed(w, config, value, name, line, None)

    attention.queries_and_keys(w, config, x, turn, window, HIGHEST, norm=keep)
    q, k = attention.queries_and_keys(w, config, x, turn, window, HIGHEST)
    return Live(q[0], k[0], lines, turn)


@jax.jit
def forms(
    operator: ReplacementOperator, run: Live, layer: Any, position: Any, head: Any
) -> tuple[Form, Form]:
    """The query, times the factor on scores, and the key of a head at a position."""
    config, w = operator.config, _weights(operator.params, layer)

    def here(leaf: Array, axis: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, position, 1, axis)

    before = jax.tree.map(lambda leaf: here(leaf[layer], 1), operator.frozen.attn)
    lines = jax.tree.map(lambda leaf: here(leaf, 1), run.lines)
    turn = jax.tree.map(lambda leaf: here(leaf, 2), run.turn)

    def both(x: Array, attention_unit: Array, norm_unit: Array) -> tuple[Array, Array]:
        x, bias, norm_bias = x[None, None], attention_unit[None, None], norm_unit[None, None]
        if config.pre_norms:
            x = norms.divide(x, before, config, norm_bias)
            x = norms.affine(x, w["attn_norm"], config, norm_bias)

        def norm(value: Array, name: str) -> Array:
            return _normed(w, config, value, name, lines[name], norm_bias)

        q, k = attention.queries_and_keys(
            w, config, x, turn, _window(config, layer), HIGHEST, norm=norm, unit=bias
        )
        return q[0, 0, head] * config.score_scale, k[0, 0, head // config.group_size]

    zero = jnp.zeros((), operator.dtype)
    found = jax.jacrev(both, argnums=(0, 1, 2))(jnp.zeros((config.d_model,), operator.dtype), zero, zero)
    return Form(*found[0]), Form(*found[1])


def _normed(w: Tree, config: ModelConfig, value: Array, name: str, line: Line, unit: Array | None) -> Array:
    """A norm of queries, keys or latents, by a given line."""
    if config.latent is not None:
        return latent.normalise(value, w, name, line, unit)
    return norms.on_heads(value, w, name, config, line, unit)


def _weights(params: Tree, layer: Any) -> Tree:
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False), params["layers"]
    )


def _window(config: ModelConfig, layer: Any) -> Array:
    return jnp.asarray(config.windows or (0,) * config.n_layers, jnp.int32)[layer]
