"""Text sampled from the model itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.text import Batch, Batches, TextConfig, plain
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.attention import Cache
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import empty_cache, forward_cached
from jaxinterp.models.model import Model

STAGE = 64


def sampled(model: Model, config: TextConfig, seed: int, first: int | None) -> Batches:
    """Batches of the model's own text: every sequence starts with ``first`` and goes on at a temperature.

    Batch ``index`` is drawn with the key ``fold_in(key(seed), index)``. Where the tokenizer has an end
    token, tokens after its first occurrence are not used.
    """
    if first is None:
        raise InputError(
            "text: sampling needs a first token, and the model's tokenizer has none (set text.start)"
        )
    if not 0 <= first < model.config.vocab_size:
        raise InputError(f"text: start {first} is outside the vocabulary of {model.config.vocab_size}")
    end = getattr(model.tokenizer, "eos", None)

    def batch(index: int) -> Batch:
        key = jax.random.fold_in(jax.random.key(seed), index)
        tokens = sample(
            model.params, model.config, first, key=key, batch=config.batch, length=config.length,
            temperature=config.temperature,
        )  # fmt: skip
        use = None
        if end is not None:
            ended = np.cumsum(tokens == end, axis=1)
            use = (ended - (tokens == end)) == 0
        return plain(tokens, use)

    return batch


def sample(
    params: Tree,
    config: ModelConfig,
    first: int,
    *,
    key: Array,
    batch: int,
    length: int,
    temperature: float = 1.0,
) -> np.ndarray:
    """Sequences ``[batch, length]`` that start with ``first``; token i is drawn with ``fold_in(key, i)``.

    The cache grows in stages of `STAGE` tokens: attention over a cache of full length from the start would
    take most of the time.
    """
    token = jnp.full((batch, 1), first, jnp.int32)
    cache = empty_cache(config, batch, 0, params["embed"]["tokens"].dtype)
    parts = [np.asarray(token)]
    for start in range(0, length - 1, STAGE):
        steps = min(STAGE, length - 1 - start)
        cache, token, made = _stage(
            params, config, cache, token, jnp.asarray(start, jnp.int32), key, jnp.asarray(temperature), steps
        )
        parts.append(np.asarray(made))
    return np.concatenate(parts, axis=1)


@partial(jax.jit, static_argnames=("config", "steps"))
def _stage(
    params: Tree, config: ModelConfig, cache: Cache, token: Array, start: Array, key: Array, temperature: Array,
    steps: int,
) -> tuple[Cache, Array, Array]:  # fmt: skip
    """``steps`` more tokens: the longer cache, the last token ``[B, 1]`` and the new ones ``[B, steps]``."""
    cache = _grow(cache, steps)
    segments = jnp.zeros_like(token)

    def step(carry: tuple[Cache, Array], offset: Array) -> tuple[Any, Array]:
        cache, token = carry
        index = start + offset
        logits, cache = forward_cached(
            params, config, token, cache, positions=jnp.full_like(token, index), segments=segments
        )
        scaled = logits[:, 0] / temperature.astype(logits.dtype)
        new = jax.random.categorical(jax.random.fold_in(key, index + 1), scaled).astype(jnp.int32)
        return (cache, new[:, None]), new

    (cache, token), made = jax.lax.scan(step, (cache, token), jnp.arange(steps, dtype=jnp.int32))
    return cache, token, made.T


def _grow(cache: Cache, size: int) -> Cache:
    """The cache with room for ``size`` more tokens, which no query sees yet."""

    def pad(array: Array, value: int) -> Array:
        widths = [(0, 0)] * array.ndim
        widths[2] = (0, size)
        return jnp.pad(array, widths, constant_values=value)

    places = cache.places._replace(
        positions=pad(cache.places.positions, 0), segments=pad(cache.places.segments, -1)
    )
    return cache._replace(keys=pad(cache.keys, 0), values=pad(cache.values, 0), places=places)
