"""Generation with a key/value cache, one compiled program for prompt and continuation.

Letters: B batch, T prompt length, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, empty_cache, forward_cached
from jaxinterp.models.model import Model


def check_tokens(config: ModelConfig, ids: Any, extra: int = 0) -> np.ndarray:
    """Token ids as int32, after checking that they are not empty, in the vocabulary and in the context.

    Args:
      ids: [T] or [B, T] whole numbers.
      extra: how many more tokens are to follow.

    Raises:
      InputError: empty, not whole numbers, an id outside the vocabulary (named with its position), or
        longer than the context.
    """
    array = np.asarray(ids)
    if array.size == 0:
        raise InputError("the prompt is empty, at least one token is needed")
    if array.dtype.kind not in "iu":
        raise InputError(f"token ids must be whole numbers, not {array.dtype}")
    bad = np.argwhere((array < 0) | (array >= config.vocab_size))
    if len(bad):
        where = tuple(int(i) for i in bad[0])
        raise InputError(
            f"token {int(array[where])} at position {where[-1]} is outside the vocabulary of {config.vocab_size}"
        )
    if array.shape[-1] + extra > config.context:
        more = f" and {extra} new ones" if extra else ""
        raise InputError(
            f"the prompt of {array.shape[-1]} tokens{more} is longer than the model's context of {config.context}"
        )
    return array.astype(np.int32)


@partial(jax.jit, static_argnames=("config", "new", "temperature", "top_k", "precision"))
def generate_tokens(
    params: Tree, config: ModelConfig, prompt: Array, *, new: int, key: Array | None = None,
    temperature: float = 0.0, top_k: int | None = None, precision: Any = HIGHEST,
) -> Array:  # fmt: skip
    """Continue every row of a prompt.

    Args:
      prompt: [B, T] token ids, no padding.
      new: how many tokens to add.
      key: PRNG key, needed when ``temperature`` is not 0. Step i uses ``fold_in(key, i)``.
      temperature: 0 takes the most probable token; otherwise logits are divided by it before sampling.
      top_k: sample among the k most probable tokens only.

    Returns:
      [B, T + new] token ids.
    """
    if temperature and key is None:
        raise InputError("sampling at a temperature needs a key")
    b, t = prompt.shape
    cache = empty_cache(config, b, t + new, params["embed"]["tokens"].dtype)
    segments = jnp.zeros((b, t), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(t, dtype=jnp.int32)[None, :], (b, t))
    logits, cache = forward_cached(
        params, config, prompt, cache, positions=positions, segments=segments, precision=precision
    )

    def choose(logits: Array, index: Array) -> Array:
        if not temperature:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        scaled = logits / temperature
        if top_k is not None:
            worst = jax.lax.top_k(scaled, top_k)[0][:, -1:]
            scaled = jnp.where(scaled < worst, -jnp.inf, scaled)
        assert key is not None
        return jax.random.categorical(jax.random.fold_in(key, index), scaled, axis=-1).astype(jnp.int32)

    def step(carry: Any, index: Array) -> Any:
        cache, last = carry
        token = choose(last, index)
        where = jnp.full((b, 1), t, jnp.int32) + index
        logits, cache = forward_cached(
            params,
            config,
            token[:, None],
            cache,
            positions=where,
            segments=segments[:, :1],
            precision=precision,
        )
        return (cache, logits[:, 0]), token

    (_, last), tokens = jax.lax.scan(step, (cache, logits[:, -1]), jnp.arange(new - 1, dtype=jnp.int32))
    final = choose(last, jnp.asarray(new - 1, jnp.int32))
    return jnp.concatenate([prompt, tokens.T, final[:, None]], axis=1)


def generate(
    model: Model, prompt: str | Any, *, max_new_tokens: int = 20, temperature: float = 0.0,
    top_k: int | None = None, seed: int = 0,
) -> str | list[int]:  # fmt: skip
    """Continue a prompt.

    Args:
      model: a `Model`; a text prompt needs its tokenizer.
      prompt: text, or token ids [T].
      max_new_tokens: how many tokens to add; generation stops early at the tokenizer's end token.
      temperature, top_k, seed: sampling; temperature 0 is greedy.

    Returns:
      The continuation alone: text for a text prompt, token ids for ids.

    Raises:
      InputError: see `check_tokens`; a text prompt without a tokenizer.
    """
    ids = prompt_ids(model, prompt)
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}, at least 1 is needed")
    array = check_tokens(model.config, ids, max_new_tokens)
    tokens = generate_tokens(
        model.params, model.config, jnp.asarray(array)[None, :], new=max_new_tokens, key=jax.random.key(seed),
        temperature=temperature, top_k=top_k,
    )  # fmt: skip
    found = [int(t) for t in np.asarray(tokens)[0, len(array) :]]
    end = getattr(model.tokenizer, "eos", None)
    if end is not None and end in found:
        found = found[: found.index(end)]
    if not isinstance(prompt, str):
        return found
    before = model.tokenizer.decode(ids)
    return model.tokenizer.decode([*ids, *found])[len(before) :]


def prompt_ids(model: Model, prompt: str | Any) -> list[int]:
    """A prompt's token ids: text through the tokenizer, ids as they are."""
    if not isinstance(prompt, str):
        return [int(i) for i in np.asarray(prompt).reshape(-1)]
    if not prompt.strip():
        raise InputError("the prompt is empty, at least one token is needed")
    if model.tokenizer is None:
        raise InputError("this model has no tokenizer, give the prompt as token ids")
    return list(model.tokenizer.encode(prompt))
