"""The questions of all families with their known answers, as token ids ready for a model."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np

from jaxinterp.biology.pocket import vocabulary
from jaxinterp.biology.pocket.documents import Item
from jaxinterp.biology.pocket.families import (
    addition,
    couplets,
    facts,
    induction,
    opposites,
    people,
    sentences,
)

FAMILIES = (facts, addition, couplets, opposites, people, induction, sentences)


@cache
def all_items() -> tuple[Item, ...]:
    """Every question of every family, seen and held out."""
    return tuple(item for family in FAMILIES for item in family.items())


class Packed(NamedTuple):
    """Questions with their answers as rows [n, longest], and where the answers stand.

    `scored` [n, longest] is true where the model's next token is to be compared: where `targets` is a token
    of the answer.
    """

    tokens: np.ndarray
    targets: np.ndarray
    scored: np.ndarray
    lengths: np.ndarray


def pack(items: Iterable[Item]) -> Packed:
    """Rows of token ids: question and answer after the beginning-of-document token, filled up with `<pad>` on
    the right.
    """
    table = vocabulary.ids()
    rows, starts = [], []
    for item in items:
        prompt = vocabulary.encode(item.prompt)
        rows.append(prompt + [table[word] for word in item.answer])
        starts.append(len(prompt))
    longest = max(len(row) for row in rows)
    tokens = np.full((len(rows), longest), table[vocabulary.PAD], np.int32)
    targets, scored = tokens.copy(), np.zeros(tokens.shape, bool)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        tokens[i, : len(row)] = row
        targets[i, : len(row) - 1] = row[1:]
        scored[i, start - 1 : len(row) - 1] = True
    return Packed(tokens, targets, scored, np.array([len(row) for row in rows]))
