"""Which token comes next: greedy, temperature, top-k, nucleus.

Letters: B batch, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array

COLDEST = 1e-6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Choice:
    """How the next token is taken from logits. New numbers do not compile again; a new ``top_k`` does.

    Attributes:
      temperature: logits are divided by it before sampling; None takes the most probable token.
      top_p: sample within the nucleus of this probability, see `nucleus`; None samples among all.
      top_k: sample among the k most probable tokens (and those equal to the k-th) before ``top_p`` is looked at.
    """

    temperature: Any = None
    top_p: Any = None
    top_k: int | None = dataclasses.field(default=None, metadata={"static": True})


def choice(temperature: Any = 0.0, top_k: int | None = None, top_p: Any = None) -> Choice:
    """The `Choice` of a user's numbers; temperature 0 is greedy.

    Numbers that are being traced are taken as they are (a traced temperature is never greedy).

    Raises:
      InputError: a temperature that is negative, not finite or above 0 and below 1e-6; ``top_k`` below 1; ``top_p``
        outside (0, 1].
    """
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise InputError(f"top_k is {top_k!r}, expected a whole number of at least 1")
    if top_p is not None and not isinstance(top_p, jax.core.Tracer):
        top_p = _number("top_p", top_p)
        if not 0 < top_p <= 1:
            raise InputError(f"top_p is {top_p}, expected a probability above 0 and at most 1")
        top_p = None if top_p == 1 else top_p
    if not isinstance(temperature, jax.core.Tracer):
        temperature = _number("temperature", temperature)
        if not math.isfinite(temperature) or temperature < 0 or 0 < temperature < COLDEST:
            raise InputError(
                f"temperature is {temperature}, expected 0 (greedy) or a number of at least {COLDEST}"
            )
        temperature = temperature or None
    return Choice() if temperature is None else Choice(temperature, top_p, top_k)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {value!r}, expected a number") from error


def top_k_mask(logits: Array, k: int) -> Array:
    """Which of logits [B, V] are at least as large as the k-th largest of their row: [B, V] bool.

    Tokens equal to the k-th are all kept, so that the mask does not depend on the order of the vocabulary.
    """
    worst = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return logits >= worst


def nucleus(logits: Array, p: Any) -> Array:
    """The nucleus of logits [B, V] (Holtzman et al. 2020, arXiv 1904.09751): [B, V] bool.

    The smallest set of tokens, most probable first and among equals the lower id first, whose probabilities add up
    to at least ``p``. There is always at least one; p = 1 keeps every token.
    """
    order = jnp.argsort(logits, axis=-1, stable=True, descending=True)
    probabilities = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1)[:, :-1]
    before = jnp.concatenate([jnp.zeros_like(probabilities[:, :1]), before], axis=-1)
    p = jnp.asarray(p, logits.dtype)
    kept = (before < p) | (p >= 1)

    def back(row: Array, places: Array) -> Array:
        return jnp.zeros_like(row).at[places].set(row, unique_indices=True)

    return jax.vmap(back)(kept, order)


def narrowed(logits: Array, how: Choice) -> Array:
    """Logits [B, V] over the temperature, -inf where a token may not be sampled."""
    scaled = logits / jnp.asarray(how.temperature, logits.dtype)
    if how.top_k is not None:
        scaled = jnp.where(top_k_mask(scaled, how.top_k), scaled, -jnp.inf)
    if how.top_p is not None:
        scaled = jnp.where(nucleus(scaled, how.top_p), scaled, -jnp.inf)
    return scaled


def choose(logits: Array, how: Choice, keys: Array | None, index: Array) -> Array:
    """The next token [B] of logits [B, V].

    Args:
      keys: [B], the key of each row; row r draws with ``fold_in(keys[r], index)`` and so does not depend on the other
        rows. Or one key [], with which all rows are drawn together. Not used when greedy.
      index: which new token this is, from 0.
    """
    if how.temperature is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    assert keys is not None
    scaled = narrowed(logits, how)
    if keys.ndim == 0:
        drawn = jax.random.categorical(jax.random.fold_in(keys, index), scaled, axis=-1)
    else:
        own = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        drawn = jax.vmap(jax.random.categorical)(own, scaled)
    return drawn.astype(jnp.int32)
