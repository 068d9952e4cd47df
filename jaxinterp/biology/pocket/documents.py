"""What a family of documents makes: short documents with their answers marked, and questions with known
answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Document(NamedTuple):
    """Words in order, and for each whether it is an answer (those count fully in the loss)."""

    words: tuple[str, ...]
    answers: tuple[bool, ...]


class Item(NamedTuple):
    """A question with a known answer.

    `kind` names the sub-family ("CITY", "PAIR", "determiner", …), `about` what the question is about (a
    state, a gender) for studies that group questions.
    """

    family: str
    kind: str
    held_out: bool
    prompt: str
    answer: tuple[str, ...]
    about: str = ""


def document(*parts: str) -> Document:
    """A document from alternating text and answers: `document("two is", "even", ".", "three is", "odd",
    ".")`.
    """
    words: list[str] = []
    answers: list[bool] = []
    for i, part in enumerate(parts):
        new = part.split()
        words += new
        answers += [i % 2 == 1] * len(new)
    return Document(tuple(words), tuple(answers))


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, each equally likely."""
    return options[int(rng.integers(len(options)))]
