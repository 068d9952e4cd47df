"""The loop of generation: prompts of different lengths, a key/value cache, one new token a step.

Prompts are padded on the left. Padding has a document number of its own, so that no token attends to it, and each
row counts its positions from its own first token.

Letters: B batch, T width of the padded prompts, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.attention import Cache
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, empty_cache, forward_cached
from jaxinterp.models.generation_choice import Choice, choice, choose
from jaxinterp.models.sites import Edit

# The document number of padding; empty places of a cache have -1.
PADDING = -2


class Generated(NamedTuple):
    """What was generated.

    Attributes:
      tokens: [B, new] the new tokens of each row, then padding.
      lengths: [B] how many of them are no padding; a stop token counts, and is the last.
      log_probs: [B, new] the log-probability of each new token under the model's own distribution, before temperature,
        top-k and top-p; 0 at padding.
    """

    tokens: Any
    lengths: Any
    log_probs: Any


class State(NamedTuple):
    """Generation between two steps.

    Attributes:
      cache: of every token but the last.
      tokens: [B, T + new] prompts, new tokens, padding.
      prompt_lengths, lengths: [B] prompt tokens and new tokens so far.
      log_probs: [B, new], see `Generated`.
      done: [B] rows that get nothing but padding from here on.
      steps: how many new tokens were chosen.
    """

    cache: Cache
    tokens: Array
    prompt_lengths: Array
    lengths: Array
    log_probs: Array
    done: Array
    steps: Array

    def generated(self) -> Generated:
        """The new tokens alone."""
        new = self.log_probs.shape[1]
        return Generated(self.tokens[:, self.tokens.shape[1] - new :], self.lengths, self.log_probs)


class Rule(NamedTuple):
    """What is the same at every step.

    Attributes:
      how: how a token is chosen.
      keys: [B] keys, one key [], or None when greedy; see `generation_choice.choose`.
      stop: [n] tokens after which a row yields padding.
      pad: [] the token that is padding.
      edits: changes at sites; a position counts the tokens of its row, prompt and continuation, from 0.
    """

    how: Choice
    keys: Array | None
    stop: Array
    pad: Array
    edits: tuple[Edit, ...]


def rule(
    batch: int, *, keys: Array | None = None, temperature: Any = 0.0, top_k: int | None = None, top_p: Any = None,
    stop: Any = (), pad: Any = 0, edits: Sequence[Edit] = (),
) -> Rule:  # fmt: skip
    """The `Rule` of a user's arguments; see `continue_tokens`.

    Raises:
      InputError: see `continue_tokens`.
    """
    how = choice(temperature, top_k, top_p)
    if how.temperature is not None and keys is None:
        raise InputError("sampling at a temperature needs a key")
    if keys is not None:
        keys = jnp.asarray(keys)
        if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
            keys = jax.random.wrap_key_data(keys)
        if keys.shape not in ((), (batch,)):
            raise InputError(f"keys of shape {keys.shape} for {batch} rows, expected one key a row")
    stop = jnp.asarray(stop, jnp.int32).reshape(-1)
    for edit in edits:
        shape = jnp.shape(edit.value)[1 if edit.per_layer else 0 :]
        if len(shape) > 1 and shape[-2] != 1:
            raise InputError(
                f"edit at {edit.site}: a value of shape {shape} names {shape[-2]} positions, but in generation the "
                "number of tokens changes with every step; give a position instead"
            )
    return Rule(
        how, keys if how.temperature is not None else None, stop, jnp.asarray(pad, jnp.int32), tuple(edits)
    )


def continue_tokens(
    params: Tree, config: ModelConfig, prompts: Array, lengths: Array | None = None, *, new: int,
    keys: Array | None = None, temperature: Any = 0.0, top_k: int | None = None, top_p: Any = None,
    stop: Any = (), pad: Any = 0, edits: Sequence[Edit] = (), precision: Any = HIGHEST,
) -> Generated:  # fmt: skip
    """Continue every row of a batch of prompts. Pure, and may be called inside `jax.jit`.

    Every row is computed as if it were alone: it attends to no padding, counts its own positions and draws with its
    own key. In programs of the same shape (B, T and new) its numbers do not depend on the other rows at all; between
    shapes they differ by rounding.

    Args:
      params, config: the model.
      prompts: [B, T] token ids, padded on the left; see `generation.pad_prompts`.
      lengths: [B] how many of the T are the prompt, the last ones; None means all.
      new: how many tokens to add, at least 1.
      keys: [B] PRNG keys, needed when ``temperature`` is not 0. New token i of row r is drawn with
        ``fold_in(keys[r], i)``.
      temperature: 0 takes the most probable token (the lowest id among equals); otherwise logits are divided by it.
      top_k: sample among the k most probable tokens, and those as probable as the k-th.
      top_p: sample within the smallest set of most probable tokens (lower ids first among equals) that has at least
        this probability, at this temperature and among the top k.
      stop: [n] token ids; a row that chose one of them yields ``pad`` from there on.
      pad: a token id.
      edits: changes at sites in every step. The position of an edit counts the tokens of each row, prompt and
        continuation, from 0; a value may have no position axis longer than 1.
      precision: of every matrix product.

    Returns:
      `Generated`.

    Raises:
      InputError: sampling without keys, another number of keys than rows, ``new`` below 1, a bad temperature, top_k or
        top_p, an edit whose value has a position axis. Token ids, lengths and the context are checked by
        `generation.continue_prompts`, not here.
    """
    if new < 1:
        raise InputError(f"new is {new}, at least 1 token is needed")
    b, t = prompts.shape
    if lengths is None:
        lengths = jnp.full((b,), t, jnp.int32)
    what = rule(
        b, keys=keys, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop, pad=pad, edits=edits
    )  # fmt: skip
    state = start(
        params, config, prompts, jnp.asarray(lengths, jnp.int32), what, new=new, precision=precision
    )
    return advance(params, config, state, what, new, precision=precision).generated()


@partial(jax.jit, static_argnames=("config", "new", "precision"))
def start(
    params: Tree, config: ModelConfig, prompts: Array, lengths: Array, what: Rule, *, new: int,
    precision: Any = HIGHEST,
) -> State:  # fmt: skip
    """Read the prompts [B, T] and choose the first new token, with room for ``new`` of them."""
    b, t = prompts.shape
    prompts = prompts.astype(jnp.int32)
    cache = empty_cache(config, b, t + new, params["embed"]["tokens"].dtype)
    logits, cache = _read(params, config, prompts, cache, lengths - t, what.edits, precision)
    state = State(
        cache=cache,
        tokens=jnp.concatenate([prompts, jnp.broadcast_to(what.pad[None, None], (b, new))], axis=1),
        prompt_lengths=lengths,
        lengths=jnp.zeros((b,), jnp.int32),
        log_probs=jnp.zeros((b, new), _at_least_32(logits.dtype)),
        done=jnp.zeros((b,), bool),
        steps=jnp.zeros((), jnp.int32),
    )
    return _chosen(state, logits[:, -1], what)


@partial(jax.jit, static_argnames=("config", "precision"), donate_argnames=("state",))
def advance(
    params: Tree, config: ModelConfig, state: State, what: Rule, until: Any, *, precision: Any = HIGHEST
) -> State:
    """Go on until every row has ``until`` new tokens or is done. Stopping in between changes no number."""
    t = state.tokens.shape[1] - state.log_probs.shape[1]
    scaling = config.rope_scaling
    switches = scaling is not None and scaling.kind == "longrope"

    def step(state: State) -> State:
        slot = t + state.steps - 1
        token = jax.lax.dynamic_slice_in_dim(state.tokens, slot, 1, axis=1)
        first = state.prompt_lengths + state.steps - 1

        def one(state: State) -> tuple[Array, Cache]:
            logits, cache = _read(params, config, token, state.cache, first, what.edits, precision)
            return logits[:, 0], cache

        def again(state: State) -> tuple[Array, Cache]:
            """All tokens anew: from here on earlier keys turn at other rates."""
            b, size = state.tokens.shape
            cache = empty_cache(config, b, size, params["embed"]["tokens"].dtype)
            logits, cache = _read(
                params, config, state.tokens, cache, state.prompt_lengths - t, what.edits, precision, slot + 1
            )
            logits = jax.lax.dynamic_slice_in_dim(logits, slot, 1, axis=1)[:, 0]
            return logits, cache._replace(filled=jnp.broadcast_to(slot + 1, cache.filled.shape))

        if switches:
            assert scaling is not None
            crossing = jnp.any((first == scaling.original_context) & ~state.done)
            logits, cache = jax.lax.cond(crossing, again, one, state)
        else:
            logits, cache = one(state)
        return _chosen(state._replace(cache=cache), logits, what)

    until = jnp.asarray(until, jnp.int32)
    return jax.lax.while_loop(lambda s: (s.steps < until) & ~jnp.all(s.done), step, state)


def _read(
    params: Tree, config: ModelConfig, tokens: Array, cache: Cache, first: Array, edits: tuple[Edit, ...],
    precision: Any, end: Array | None = None,
) -> tuple[Array, Cache]:  # fmt: skip
    """Run tokens [B, n] whose leftmost has position ``first`` [B]; negative positions and places from ``end`` on are
    padding."""
    n = tokens.shape[1]
    places = jnp.arange(n, dtype=jnp.int32)
    positions = first[:, None] + places[None, :]
    real = positions >= 0
    if end is not None:
        real = real & (places < end)[None, :]
    return forward_cached(
        params,
        config,
        tokens,
        cache,
        positions=jnp.where(real, positions, 0),
        segments=jnp.where(real, 0, PADDING).astype(jnp.int32),
        edits=tuple(_placed(edit, first, n) for edit in edits),
        precision=precision,
    )


def _placed(edit: Edit, first: Array, n: int) -> Edit:
    """The edit with its position, which counts a row's tokens, as a place among n tokens from ``first`` [B] on."""
    position = jnp.asarray(edit.position, jnp.int32).reshape(-1)
    place = position - first
    place = jnp.where(place < 0, n, place)  # n is no place: the token is not among these
    return dataclasses.replace(edit, position=jnp.where(position < 0, -1, place))


def _chosen(state: State, logits: Array, what: Rule) -> State:
    """The state with one more token of logits [B, V]."""
    new = state.log_probs.shape[1]
    at = state.steps
    if what.keys is None or what.keys.ndim > 0:
        logits = logits.astype(_at_least_32(logits.dtype))
    token = choose(logits, what.how, what.keys, at)
    log_prob = jax.nn.log_softmax(logits.astype(state.log_probs.dtype), axis=-1)
    log_prob = jnp.take_along_axis(log_prob, token[:, None], axis=1)[:, 0]
    token = jnp.where(state.done, what.pad, token)
    log_prob = jnp.where(state.done, jnp.zeros_like(log_prob), log_prob)
    slot = state.tokens.shape[1] - new + at
    return state._replace(
        tokens=jax.lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], slot, axis=1),
        log_probs=jax.lax.dynamic_update_slice_in_dim(state.log_probs, log_prob[:, None], at, axis=1),
        lengths=state.lengths + (~state.done).astype(jnp.int32),
        done=state.done | jnp.any(token[:, None] == what.stop[None, :], axis=1),
        steps=at + 1,
    )


def _at_least_32(dtype: Any) -> Any:
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
