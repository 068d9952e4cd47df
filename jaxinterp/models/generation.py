"""Generation for users: prompts as text or token ids, one or many, checked before anything runs.

Letters: B batch, T prompt length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST
from jaxinterp.models.generation_loop import Generated, advance, continue_tokens, rule, start
from jaxinterp.models.model import Model
from jaxinterp.models.sites import Edit

# Stop texts are looked for every so many tokens.
STAGE = 16


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
            f"the prompt of {array.shape[-1]} tokens{more} is longer than the model's context of {config.context}, "
            f"by {array.shape[-1] + extra - config.context}"
        )
    return array.astype(np.int32)


def generate_tokens(
    params: Tree, config: ModelConfig, prompt: Array, *, new: int, key: Array | None = None,
    temperature: float = 0.0, top_k: int | None = None, precision: Any = HIGHEST,
) -> Array:  # fmt: skip
    """Continue every row of a prompt, all rows drawn with one key.

    `continue_tokens` does the same with a key for each row, and more.

    Args:
      prompt: [B, T] token ids, no padding.
      new: how many tokens to add.
      key: PRNG key, needed when ``temperature`` is not 0. Step i uses ``fold_in(key, i)`` for all rows together.
      temperature: 0 takes the most probable token; otherwise logits are divided by it before sampling.
      top_k: sample among the k most probable tokens only.

    Returns:
      [B, T + new] token ids.
    """
    found = continue_tokens(
        params, config, prompt, new=new, keys=key, temperature=temperature, top_k=top_k, precision=precision
    )
    return jnp.concatenate([prompt, found.tokens.astype(prompt.dtype)], axis=1)


class Padded(NamedTuple):
    """Prompts [B, T] padded on the left with token 0, and how many of the T are the prompt [B]; int32."""

    tokens: np.ndarray
    lengths: np.ndarray


def pad_prompts(
    config: ModelConfig, prompts: Sequence[Any], *, new: int = 0, width: int | None = None
) -> Padded:
    """Prompts of different lengths as one array.

    Args:
      prompts: token ids of each row.
      new: how many tokens are to follow.
      width: T; None is the length of the longest prompt. With one width for all batches nothing compiles again, and a
        row's numbers stay the same to the last bit whatever the longest prompt beside it.

    Raises:
      InputError: no prompts, a prompt longer than ``width``, and what `check_tokens` says of a row.
    """
    if not len(prompts):
        raise InputError("there are no prompts, at least one is needed")
    rows = []
    for number, prompt in enumerate(prompts):
        try:
            rows.append(check_tokens(config, np.asarray(prompt).reshape(-1), new))
        except InputError as error:
            raise error if len(prompts) == 1 else InputError(f"prompt {number}: {error}") from error
    lengths = np.array([len(row) for row in rows], np.int32)
    width = int(lengths.max()) if width is None else width
    if width < lengths.max():
        row = int(lengths.argmax())
        raise InputError(f"prompt {row} has {lengths[row]} tokens, more than the width of {width}")
    tokens = np.zeros((len(rows), width), np.int32)
    for number, ids in enumerate(rows):
        tokens[number, width - len(ids) :] = ids
    return Padded(tokens, lengths)


def continue_prompts(
    model: Model, prompts: Sequence[Any], *, max_new_tokens: int = 20, temperature: float = 0.0,
    top_k: int | None = None, top_p: float | None = None, seed: int | Sequence[int] = 0, stop: Any = (),
    edits: Sequence[Edit] = (), width: int | None = None, precision: Any = HIGHEST,
) -> Generated:  # fmt: skip
    """Continue many prompts at once, each as if it were alone.

    Args:
      model: a `Model`; text needs its tokenizer.
      prompts: a text or token ids each.
      max_new_tokens: how many tokens to add at most.
      temperature, top_k, top_p, edits, precision: as of `continue_tokens`.
      seed: with one number row r draws with ``fold_in(key(seed), r)``; with a number for each row, row r with
        ``key(seed[r])``.
      stop: token ids and texts, one or several. A row ends with the first stop token, or with the first token after
        which its new text contains a stop text. The tokenizer's end tokens are always stop tokens.
      width: see `pad_prompts`.

    Returns:
      `Generated` as NumPy arrays, padded with token 0.

    Raises:
      InputError: no prompts, an empty prompt, text without a tokenizer, an id outside the vocabulary, a prompt that
        with ``max_new_tokens`` is longer than the context, another number of seeds than prompts, a stop token outside
        the vocabulary, an empty stop text, a bad temperature, top_k or top_p.
    """
    if (
        isinstance(max_new_tokens, bool)
        or not isinstance(max_new_tokens, int | np.integer)
        or max_new_tokens < 1
    ):
        raise InputError(f"max_new_tokens is {max_new_tokens!r}, at least 1 is needed")
    new = int(max_new_tokens)
    tokens, texts = _stops(model, stop)
    ids = [prompt_ids(model, prompt) for prompt in prompts]
    padded = pad_prompts(model.config, ids, new=new, width=width)
    what = rule(
        len(ids), keys=_keys(seed, len(ids)), temperature=temperature, top_k=top_k, top_p=top_p,
        stop=np.array(tokens, np.int32), edits=edits,
    )  # fmt: skip
    state = start(
        model.params, model.config, jnp.asarray(padded.tokens), jnp.asarray(padded.lengths), what, new=new,
        precision=precision,
    )  # fmt: skip
    ends = np.full(len(ids), new)
    for until in range(STAGE, new + STAGE, STAGE) if texts else (new,):
        state = advance(model.params, model.config, state, what, min(until, new), precision=precision)
        for row, found in enumerate(_rows(state.generated()) if texts else ()):
            if ends[row] == new:
                ends[row] = _end(model, ids[row], found, texts, new)
        state = state._replace(done=state.done | jnp.asarray(ends < new))
    made = Generated(*map(np.asarray, state.generated()))
    beyond = np.arange(new)[None, :] >= ends[:, None]
    return Generated(
        np.where(beyond, 0, made.tokens),
        np.minimum(made.lengths, ends).astype(np.int32),
        np.where(beyond, np.zeros_like(made.log_probs), made.log_probs),
    )


def generate(
    model: Model, prompt: str | Any, *, max_new_tokens: int = 20, temperature: float = 0.0,
    top_k: int | None = None, top_p: float | None = None, seed: int | Sequence[int] = 0, stop: Any = (),
    edits: Sequence[Edit] = (), precision: Any = HIGHEST,
) -> Any:  # fmt: skip
    """Continue a prompt, or several.

    Args:
      model: a `Model`; a text prompt needs its tokenizer.
      prompt: text, or token ids [T]; or a list of those, or an array [B, T].
      max_new_tokens: how many tokens to add; generation stops early at the tokenizer's end token.
      temperature: 0 is greedy.
      top_k, top_p, edits: see `continue_tokens`.
      seed: of sampling. A single prompt draws with ``key(seed)``. Of several prompts with one seed each is drawn with
        a key of its own; with a list of seeds row r is what ``generate(prompt[r], seed=seed[r])`` gives.
      stop: token ids and texts, one or several, at which generation ends.

    Returns:
      The continuation alone, without the stop token or the stop text: text for a text prompt, token ids for ids (which
      include the token that completes a stop text); a list for several prompts. `continue_prompts` gives
      log-probabilities besides.

    Raises:
      InputError: see `continue_prompts`.
    """
    several = _several(prompt)
    prompts = list(prompt) if several else [prompt]
    seeds = [seed] if not several and isinstance(seed, int | np.integer) else seed
    found = continue_prompts(
        model, prompts, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        seed=seeds, stop=stop, edits=edits, precision=precision,
    )  # fmt: skip
    tokens, texts = _stops(model, stop)
    out: list[Any] = []
    for row, each in zip(_rows(found), prompts, strict=True):
        row = row[:-1] if row[-1] in tokens else row
        if not isinstance(each, str):
            out.append(row)
            continue
        text = _new_text(model, prompt_ids(model, each), row)
        cuts = [text.index(end) for end in texts if end in text]
        out.append(text[: min(cuts)] if cuts else text)
    return out if several else out[0]


def prompt_ids(model: Model, prompt: str | Any) -> list[int]:
    """A prompt's token ids: text through the tokenizer, ids as they are.

    Raises:
      InputError: an empty text, a text without a tokenizer, ids that are not whole numbers.
    """
    if not isinstance(prompt, str):
        array = np.asarray(prompt).reshape(-1)
        if array.size and array.dtype.kind not in "iu":
            raise InputError(f"token ids must be whole numbers, not {array.dtype}")
        return [int(i) for i in array]
    if not prompt.strip():
        raise InputError("the prompt is empty, at least one token is needed")
    if model.tokenizer is None:
        raise InputError("this model has no tokenizer, give the prompt as token ids")
    return list(model.tokenizer.encode(prompt))


def _several(prompt: Any) -> bool:
    if isinstance(prompt, list | tuple):
        return any(isinstance(each, str) or np.ndim(each) > 0 for each in prompt)
    return not isinstance(prompt, str) and np.ndim(prompt) == 2


def _keys(seed: int | Sequence[int], rows: int) -> Array:
    if isinstance(seed, int | np.integer):
        return jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(jnp.arange(rows))
    seeds = np.asarray(seed)
    if seeds.shape != (rows,) or seeds.dtype.kind not in "iu":
        raise InputError(
            f"seed is {seed!r} for {rows} prompts, expected a whole number or one for each prompt"
        )
    return jnp.stack([jax.random.key(int(each)) for each in seeds])


def _stops(model: Model, stop: Any) -> tuple[list[int], list[str]]:
    """Stop tokens (the tokenizer's end tokens among them) and stop texts."""
    end = getattr(model.tokenizer, "eos", None)
    # Chat models may end a turn with another token than a text; their folders say which.
    ends = getattr(model.tokenizer, "stops", None) or (() if end is None else (end,))
    tokens, texts = [int(each) for each in ends], []
    for each in [stop] if isinstance(stop, str) or np.ndim(stop) == 0 else stop:
        if isinstance(each, str):
            if not each:
                raise InputError("a stop text is empty")
            if model.tokenizer is None:
                raise InputError(f"stop text {each!r}: this model has no tokenizer, give stop tokens as ids")
            texts.append(each)
            continue
        if isinstance(each, bool) or not isinstance(each, int | np.integer):
            raise InputError(f"stop {each!r} is neither a token id nor a text")
        if not 0 <= each < model.config.vocab_size:
            raise InputError(f"stop token {each} is outside the vocabulary of {model.config.vocab_size}")
        tokens.append(int(each))
    return tokens, texts


def _rows(found: Generated) -> list[list[int]]:
    """The new tokens of each row without padding."""
    tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
    return [[int(t) for t in row[:length]] for row, length in zip(tokens, lengths, strict=True)]


def _new_text(model: Model, ids: list[int], found: list[int]) -> str:
    """The text that ``found`` adds to a prompt."""
    before = model.tokenizer.decode(ids)
    return model.tokenizer.decode([*ids, *found])[len(before) :]


def _end(model: Model, ids: list[int], found: list[int], texts: list[str], new: int) -> int:
    """After how many of the tokens ``found`` their text first contains one of ``texts``; ``new`` if it does not."""

    def stops(count: int) -> bool:
        text = _new_text(model, ids, found[:count])
        return any(end in text for end in texts)

    if not stops(len(found)):
        return new
    return next(count for count in range(1, len(found) + 1) if stops(count))
