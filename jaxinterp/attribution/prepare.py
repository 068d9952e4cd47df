"""What was asked for, checked before anything runs, and the tokens to trace.

Afterwards every token is an id, every position counts from 0, a completion has become tokens, and what does not exist
has been refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.attribution.readings import PARTS, Junction
from jaxinterp.attribution.wanted import SORTS, Completion, Salient, Target, Token
from jaxinterp.attribution.wanted_checks import Place, checked, identity, known, name_of, parts_of
from jaxinterp.attribution.wanted_plain import to_plain
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.generation import check_tokens
from jaxinterp.replacement.parts import site_width


class Prepared(NamedTuple):
    """Targets that exist, and the tokens to trace.

    Attributes:
      ids: [T] int32: the prompt, and a completion but for its last token.
      items: every sort but `Completion`, each at one position from 0, tokens as ids. The ``site`` of a direction
        inside the model and the ``part`` of a feature are names in `PARTS`.
      plain: the record for the graph; None for the salient next tokens.
      text: a token as a person reads it.
      width: of the widest site that is read, at least that of the residual stream.
    """

    ids: np.ndarray
    items: tuple[Target, ...]
    plain: list[Any] | None
    text: Callable[[int], str]
    width: int


def prepare(
    wanted: Any, ids: np.ndarray, config: ModelConfig, tokenizer: Any, junctions: Sequence[Junction],
    prompt: str | None = None,
) -> Prepared:  # fmt: skip
    """Check what was asked for, and extend the prompt by a completion.

    Args:
      wanted: None for the salient next tokens; a target or a sequence of targets: token ids, token texts and the
        sorts of `wanted`.
      ids: [T'] the prompt's tokens.
      config, tokenizer: of the model; the tokenizer may be None.
      junctions: what the parts of the replacement model offer.
      prompt: the text that ``ids`` were made from, if any, so that a completion is encoded together with it.

    Raises:
      InputError: an empty list; a target given twice; a token, position, layer, part or feature that does not exist; a
        text that is not one token; a vector of another width, of zeros or not finite; two completions; a prompt
        that the completion makes longer than the context.
    """
    text = getattr(tokenizer, "text", str)
    if wanted is None:
        return Prepared(ids, (Salient(len(ids) - 1),), None, text, config.d_model)
    asked = _list(wanted)
    completions = [item for item in asked if isinstance(item, Completion)]
    if len(completions) > 1:
        raise InputError("two completions were given, and a prompt has one: trace it once for each")
    extended = ids
    if completions:
        added = _completion(completions[0], ids, tokenizer, prompt)
        extended = check_tokens(config, np.concatenate([ids, added[:-1]]))
    place = Place(len(ids), len(extended), config, tokenizer, junctions)
    items: list[Target] = []
    for item in asked:
        if isinstance(item, Completion):
            found: Iterable[Target] = [
                Token(known(int(token), config), len(ids) - 1 + i, item.weight)
                for i, token in enumerate(added)
            ]
        else:
            found = checked(item, place)
        items += found
    seen: set[Any] = set()
    for one in items:
        if (key := identity(one)) in seen:
            raise InputError(f"{name_of(one, text)} was given twice")
        seen.add(key)
    read = {part for item in items for part in parts_of(item)}
    widths = [site_width(config, j.read_site) for j in junctions if PARTS[j.part] in read]
    width = max([config.d_model, *widths])
    return Prepared(extended, tuple(items), [to_plain(item) for item in items], text, width)


def _list(wanted: Any) -> list[Any]:
    if isinstance(wanted, (str, int, np.integer, *SORTS.values())):
        return [wanted]
    try:
        asked = list(wanted)
    except TypeError:
        to_plain(wanted)  # raises: it is no target
        raise
    if not asked:
        raise InputError("targets is an empty list, give at least one token or direction, or None")
    return asked


def _completion(item: Completion, ids: np.ndarray, tokenizer: Any, prompt: str | None) -> np.ndarray:
    """The tokens [n ≥ 1] of a completion."""
    if not isinstance(item.text, str):
        found = np.asarray(item.text)
        if found.ndim != 1 or not found.size or found.dtype.kind not in "iu":
            raise InputError("the completion is a text or a list of at least one token id")
        return found
    if tokenizer is None:
        raise InputError("the completion is text and this model has no tokenizer, give token ids")
    if not item.text:
        raise InputError("the completion is empty, at least one token is needed")
    if prompt is None:
        return _some(tokenizer.encode(item.text, bos=False), item)
    try:
        both = tokenizer.encode(prompt + item.text)
    except InputError:  # a vocabulary of words: blanks between them are not written
        return _some(tokenizer.encode(item.text, bos=False), item)
    if list(both[: len(ids)]) != [int(i) for i in ids]:
        raise InputError(
            f"the completion {item.text!r} joins the prompt's last token {tokenizer.text(int(ids[-1]))!r} to one token "
            "of both: begin it where a token begins, or give token ids"
        )
    return _some(both[len(ids) :], item)


def _some(found: Sequence[int], item: Completion) -> np.ndarray:
    if not len(found):
        raise InputError(f"the completion {item.text!r} is no token")
    return np.asarray(found)
