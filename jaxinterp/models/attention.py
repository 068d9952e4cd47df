"""Attention: multi-head and grouped-query, rotary, sliding window, score softcap, norms of queries and keys, sinks,
key/value cache.

Letters: B batch, T query position, S key position, D width, K key/value heads, G query heads per
key/value head, H = K·G, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import wide, wide_einsum
from jaxinterp.models import latent
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.norms import Line, add_bias, on_heads
from jaxinterp.models.rotary import rotate


class Places(NamedTuple):
    """Where tokens stand: positions [B, T] and the number of their document [B, T]."""

    positions: Array
    segments: Array


Turn = tuple[Array, Array] | None
"""Cosines and sines, [tables, B, T, R/2] each."""


class Cache(NamedTuple):
    """Keys and values of earlier tokens of one layer [B, S, K, E], their places, and how many are filled."""

    keys: Array
    values: Array
    places: Places
    filled: Array


def values(
    w: Tree, x: Array, unit: Array | None, norm_unit: Array | None, precision: Any,
    line: Line | None = None,
) -> Array:  # fmt: skip
    """x [B, T, D] → value vectors [B, T, K, E]. Linear in x and in the units [B, T].

    ``line`` is what stands for the latent's norm, where attention is latent.
    """
    if line is not None:
        return latent.values(w, latent.compress(w, x, unit, precision), line, norm_unit, precision)
    return add_bias(jnp.einsum("btd,dke->btke", x, w["v"], precision=precision), w.get("v_bias"), unit)


def latent_scale(w: Tree, config: ModelConfig, x: Array, precision: Any) -> Array:
    """The denominator of the norm of the latent of x [B, T, D]; see `norms.scale`."""
    return latent.scale(latent.compress(w, x, None, precision), w, "kv_norm", config)


def pattern(
    w: Tree, config: ModelConfig, x: Array, places: Places, turn: Turn, window: Array, precision: Any,
    cache: Cache | None,
) -> tuple[Array, Array]:  # fmt: skip
    """Attention probabilities [B, H, T, S] of x [B, T, D], and its keys [B, T, K, E].

    ``turn``: cosines and sines of `rotary.tables`, or None where positions do not turn.

    A query sees keys of its own document at its own or an earlier position, no further back than
    ``window`` tokens (its own included) unless that is 0.
    """
    b, t, _ = x.shape
    q, k = queries_and_keys(w, config, x, turn, window, precision)
    keys, key_places = k, places
    if cache is not None:
        keys = _append(cache.keys, k, cache.filled)
        key_places = jax.tree.map(lambda old, new: _append(old, new, cache.filled), cache.places, places)
    q = q.reshape(b, t, config.n_kv_heads, config.group_size, config.d_head)
    scores = wide_einsum("btkge,bske->bkgts", q, keys, precision=precision) * config.score_scale
    if config.attn_softcap is not None:
        scores = config.attn_softcap * jnp.tanh(scores / config.attn_softcap)
    query, key = places.positions[:, :, None], key_places.positions[:, None, :]
    seen = (key <= query) & (places.segments[:, :, None] == key_places.segments[:, None, :])
    seen = seen & ((window == 0) | (query - key < window))
    scores = jnp.where(seen[:, None, None], scores, jnp.finfo(scores.dtype).min)
    probabilities = _softmax(scores, w.get("sinks"), config).astype(x.dtype)
    return probabilities.reshape(b, config.n_heads, t, keys.shape[1]), k


def queries_and_keys(
    w: Tree, config: ModelConfig, x: Array, turn: Turn, window: Any, precision: Any, *,
    norm: Callable[[Array, str], Array] | None = None, unit: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Queries [B, T, H, E] and keys [B, T, K, E] of x [B, T, D], normed and turned.

    Args:
      norm: (value, name) → value, in place of the norms of queries, of keys and of latents; with a linear one all is
        linear in x and in the biases.
      unit: [B, T] factor on the biases of the projections; None means one.
    """

    def turned(value: Array) -> Array:
        if turn is None:
            return value
        # Layers with a window may have rates of their own; see `rotary.tables`.
        local = 0 if turn[0].shape[0] == 1 else (jnp.asarray(window) > 0).astype(jnp.int32)
        return rotate(value, (turn[0][local], turn[1][local]), config.rope_pairs)

    if config.latent is not None:
        return latent.queries_and_keys(w, config, x, turned, precision, norm, unit)
    q = add_bias(jnp.einsum("btd,dhe->bthe", x, w["q"], precision=precision), w.get("q_bias"), unit)
    k = add_bias(jnp.einsum("btd,dke->btke", x, w["k"], precision=precision), w.get("k_bias"), unit)
    if config.qk_norm is not None:
        norm = norm or (lambda value, name: on_heads(value, w, name, config))
        q, k = norm(q, "q_norm"), norm(k, "k_norm")
    return turned(q), turned(k)


def _softmax(scores: Array, sinks: Array | None, config: ModelConfig) -> Array:
    """Softmax of scores [B, K, G, T, S] over S; with sinks [H], over S and one more score that is then left out."""
    if sinks is None:
        return jax.nn.softmax(scores, axis=-1)
    sink = wide(sinks).reshape(1, config.n_kv_heads, config.group_size, 1, 1)
    sink = jnp.broadcast_to(sink, (*scores.shape[:-1], 1))
    return jax.nn.softmax(jnp.concatenate([scores, sink], axis=-1), axis=-1)[..., :-1]


def mix(config: ModelConfig, probabilities: Array, v: Array, precision: Any) -> Array:
    """Values [B, S, K, E] moved by a pattern [B, H, T, S]: [B, T, H E], heads side by side. Linear in the values."""
    b, _, t, s = probabilities.shape
    grouped = probabilities.reshape(b, config.n_kv_heads, config.group_size, t, s)
    z = jnp.einsum("bkgts,bske->btkge", grouped, v, precision=precision)
    return z.reshape(b, t, config.n_heads * v.shape[-1])


def read_out(w: Tree, config: ModelConfig, z: Array, unit: Array | None, precision: Any) -> Array:
    """What heads moved [B, T, H E] as it is written: [B, T, D]. Linear in it and in ``unit``."""
    z = z.reshape(*z.shape[:2], config.n_heads, -1)
    out = wide_einsum("bthe,hed->btd", z, w["o"], precision=precision).astype(z.dtype)
    return add_bias(out, w.get("o_bias"), unit)


def extend(cache: Cache, k: Array, v: Array, places: Places) -> Cache:
    """The cache with the keys and values of T more tokens."""
    both = jax.tree.map(lambda old, new: _append(old, new, cache.filled), cache.places, places)
    return Cache(
        _append(cache.keys, k, cache.filled),
        _append(cache.values, v, cache.filled),
        both,
        cache.filled + k.shape[1],
    )


def _append(old: Array, new: Array, at: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=1)
