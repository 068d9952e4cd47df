"""Tokens by their text."""

from __future__ import annotations

import difflib
from functools import lru_cache
from typing import Any

from jaxinterp.core.errors import InputError


class _Same:
    """A tokenizer as a key of a cache: equal to itself only, whatever it thinks of equality."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __hash__(self) -> int:
        return id(self.tokenizer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.tokenizer is self.tokenizer


@lru_cache(maxsize=4)
def _by_text(same: _Same) -> dict[str, int]:
    texts: dict[str, int] = {}
    for token in range(same.tokenizer.vocab_size):
        texts.setdefault(same.tokenizer.text(token), token)
    return texts


def token_of(text: str, tokenizer: Any) -> int:
    """The token that reads ``text`` (``tokenizer.text``); of several the one that the text encodes to, or the first.

    Raises:
      InputError: no tokenizer, or no such token; names tokens near it, and what the text encodes to.
    """
    if tokenizer is None:
        raise InputError(f"the target {text!r} is text and this model has no tokenizer, give a token id")
    try:
        encoded = tokenizer.encode(text, bos=False)
    except InputError:
        encoded = []
    if len(encoded) == 1 and tokenizer.text(encoded[0]) == text:
        return int(encoded[0])
    texts = _by_text(_Same(tokenizer))
    if text in texts:
        return texts[text]
    if len(encoded) == 1:
        hint = f": it encodes to {tokenizer.text(encoded[0])!r}"
    else:
        close = _near(text, texts)
        hint = f" (did you mean {' or '.join(repr(one) for one in close)}?)" if close else ""
        if len(encoded) > 1:
            few = " ".join(repr(tokenizer.text(one)) for one in encoded[:6])
            more = " ..." if len(encoded) > 6 else ""
            hint += f": it is {len(encoded)} tokens, {few}{more}; give a completion to explain each"
    raise InputError(f"the target {text!r} is not one token of this model's vocabulary{hint}")


def _near(text: str, texts: dict[str, int]) -> list[str]:
    """Up to two tokens that read almost the same: but for blanks and case first, then by letters."""
    bare = text.strip().casefold()
    if not bare:
        return []
    # difflib over a vocabulary of 256,000 takes seconds, so only what begins alike is compared.
    alike = [t for t in texts if abs(len(t) - len(text)) <= 3 and t.strip()[:1].casefold() == bare[0]]
    same = [t for t in alike if t.strip().casefold() == bare]
    return same[:2] or difflib.get_close_matches(text, alike[:20_000], n=2, cutoff=0.6)
