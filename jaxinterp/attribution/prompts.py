"""One prompt or several in a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxinterp.core.errors import InputError

T = TypeVar("T")


def several(prompt: Any) -> list[Any] | None:
    """The prompts in a list of prompts; None where ``prompt`` is one: text, or a sequence of token ids.

    >>> several("the sea"), several([1, 2]), several(["the sea", [1, 2]])
    (None, None, ['the sea', [1, 2]])
    """
    if isinstance(prompt, str) or not isinstance(prompt, Sequence | np.ndarray):
        return None
    if isinstance(prompt, np.ndarray):
        return list(prompt) if prompt.ndim > 1 else None
    whole = [
        isinstance(one, str | Sequence | np.ndarray) and np.ndim(one) == (not isinstance(one, str))
        for one in prompt
    ]
    if not any(whole):
        return None
    if not all(whole):
        at = whole.index(False)
        raise InputError(
            f"prompt {at} of the list is {prompt[at]!r:.60}: expected text or token ids, as the others"
        )
    return list(prompt)


def each(prompts: Sequence[Any], one: Callable[[Any], T]) -> list[T]:
    """``one`` of every prompt, in order; an error says which prompt it is about.

    Raises:
      InputError: what ``one`` raised, with the number of the prompt before it.
    """
    found = []
    for number, prompt in enumerate(prompts):
        try:
            found.append(one(prompt))
        except InputError as error:
            raise InputError(f"prompt {number + 1} of {len(prompts)}: {error}") from error
    return found
