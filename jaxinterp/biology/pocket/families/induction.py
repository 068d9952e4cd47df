"""Repeated names: two or three people are named, then named again in another order: the last names can be
copied.

"emma stewart met paul reed , paul reed met emma stewart .": first and last names are paired at random for
each document, so only the text itself tells the last name. (Were some pairings left out of training, a model
would copy by asking which names may go together.) Held out: the first names of the first two people, in
order; no training document begins with such two.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import words, world
from jaxinterp.biology.pocket.documents import Document, Item, document

FAMILY = "induction"

LINKS = ("met", "and", "saw")
# Names in a document; questions have up to four. Short lists teach: with three to five names a model stayed for 900
# steps of nothing else at choosing any of the last names, with two or three it looked up the right one after 300.
LENGTHS = (2, 3)
ASKED_LENGTHS = (2, 3, 4)
HELD_OUT_SHARE = 0.10
N_ITEMS = 400


@cache
def held_out() -> frozenset[tuple[str, str]]:
    """First names of two people with whom no training document begins."""
    pairs = [(a, b) for a in words.FIRST_NAMES for b in words.FIRST_NAMES if a != b]
    drawn = world.generator(14).random(len(pairs)) < HELD_OUT_SHARE
    return frozenset(pair for pair, out in zip(pairs, drawn, strict=True) if out)


def _names(rng: np.random.Generator, n: int, out: bool) -> list[tuple[str, str]]:
    """n names with different first names, that begin as held out or not."""
    while True:
        firsts = [words.FIRST_NAMES[i] for i in rng.choice(len(words.FIRST_NAMES), n, replace=False)]
        if ((firsts[0], firsts[1]) in held_out()) == out:
            lasts = rng.integers(len(words.LAST_NAMES), size=n)
            return [(first, words.LAST_NAMES[i]) for first, i in zip(firsts, lasts, strict=True)]


def _parts(rng: np.random.Generator, out: bool, lengths: tuple[int, ...]) -> list[str]:
    """Alternating text and answers; the answers are the last names of the second naming."""
    names = _names(rng, lengths[int(rng.integers(len(lengths)))], out)
    link = LINKS[int(rng.integers(len(LINKS)))]
    again = [names[i] for i in rng.permutation(len(names))]
    parts = [f" {link} ".join(f"{first} {last}" for first, last in names) + f" , {again[0][0]}", again[0][1]]
    for first, last in again[1:]:
        parts += [f"{link} {first}", last]
    return [*parts, "."]


def draw(rng: np.random.Generator) -> Document:
    return document(*_parts(rng, False, LENGTHS))


@cache
def items() -> tuple[Item, ...]:
    result = []
    for out in (False, True):
        rng = world.generator(11, int(out))
        for _ in range(N_ITEMS):
            parts = _parts(rng, out, ASKED_LENGTHS)
            asked = 1 + 2 * int(rng.integers(len(parts) // 2))  # any of the answers
            result.append(Item(FAMILY, "name", out, " ".join(parts[:asked]), (parts[asked],)))
    return tuple(result)
