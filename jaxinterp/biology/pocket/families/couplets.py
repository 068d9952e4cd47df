"""Couplets: line 1 names a theme and ends in a word; line 2 begins with a word that agrees with the rhyme
noun to come.

"a verse of love that ends in night / ki gentle knight .": the rhyme of line 1's last word and the theme fix
the final noun, and each of the four nouns of a rhyme has another of four genders (in another order for each
rhyme), so that the first word of line 2 already fixes the noun. Held out: (rhyme, line-1 word, theme)
combinations.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from jaxinterp.biology.pocket import words, world
from jaxinterp.biology.pocket.documents import Document, Item, choose, document

FAMILY = "couplets"

HELD_OUT_SHARE = 0.20


class Couplet(NamedTuple):
    """What is fixed in a couplet: line 1's last word and theme, the agreeing first word and the last noun of
    line 2.
    """

    word: str
    theme: str
    determiner: str
    noun: str
    held_out: bool


@cache
def couplets() -> tuple[Couplet, ...]:
    """All combinations of a line-1 word and a theme."""
    rng = world.generator(8)
    result = []
    for ends, nouns in words.RHYMES.values():
        genders = rng.permutation(len(words.DETERMINERS))
        nouns_of_theme = rng.permutation(len(nouns))
        for k, theme in enumerate(words.THEMES):
            # At most two of the six words of a (rhyme, theme) are held out, so that each combination is
            # learnt from some.
            drawn = [int(n) for n in rng.permutation(len(ends))]
            out = set(drawn[: 1 + int(rng.random() < HELD_OUT_SHARE * len(ends) - 1)])
            for n, word in enumerate(ends):
                noun = nouns[nouns_of_theme[k]]
                result.append(Couplet(word, theme, words.DETERMINERS[genders[k]], noun, n in out))
    return tuple(result)


@cache
def _training() -> tuple[Couplet, ...]:
    return tuple(couplet for couplet in couplets() if not couplet.held_out)


def line_one(couplet: Couplet) -> str:
    """The first line with its line break."""
    return f"a verse of {couplet.theme} that ends in {couplet.word} /"


def draw(rng: np.random.Generator) -> Document:
    couplet = choose(rng, _training())
    adjectives = choose(rng, words.ADJECTIVES)
    if rng.random() < 0.3:
        adjectives = f"{choose(rng, words.ADJECTIVES)} {adjectives}"
    return document(line_one(couplet), couplet.determiner, adjectives, couplet.noun, ".")


@cache
def items() -> tuple[Item, ...]:
    rng = world.generator(9)
    result = []
    for couplet in couplets():
        first = line_one(couplet)
        result.append(
            Item(FAMILY, "determiner", couplet.held_out, first, (couplet.determiner,), couplet.determiner)
        )
        prompt = f"{first} {couplet.determiner} {choose(rng, words.ADJECTIVES)}"
        result.append(Item(FAMILY, "noun", couplet.held_out, prompt, (couplet.noun,), couplet.determiner))
    return tuple(result)
