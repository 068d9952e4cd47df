"""Simple sentences: the verb agrees with its noun, across another noun in between.

"the gentle dogs near the table are hungry ." Openers keep the next word fixed: after "today the dog" comes a
verb, otherwise is or are. Held out: (noun, noun in between) pairs, singular or plural.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import words, world
from jaxinterp.biology.pocket.documents import Document, Item, choose, document

FAMILY = "sentences"

HELD_OUT_SHARE = 0.20


@cache
def held_out() -> frozenset[tuple[str, str]]:
    """(noun, noun in between) pairs never written in training."""
    pairs = [(a, b) for a in words.NOUNS for b in words.NOUNS if a != b]
    drawn = world.generator(12).random(len(pairs)) < HELD_OUT_SHARE
    return frozenset(pair for pair, out in zip(pairs, drawn, strict=True) if out)


def _phrase(rng: np.random.Generator, noun: str, many: bool) -> str:
    adjective = f"{choose(rng, words.ADJECTIVES)} " if rng.random() < 0.3 else ""
    return f"the {adjective}{words.plural(noun) if many else noun}"


def _subject(rng: np.random.Generator, noun: str, other: str, many: bool) -> str:
    place = choose(rng, words.PLACES)
    return f"{_phrase(rng, noun, many)} {place} {_phrase(rng, other, bool(rng.random() < 0.5))}"


def draw(rng: np.random.Generator) -> Document:
    many = bool(rng.random() < 0.5)
    while True:
        noun, other = choose(rng, words.NOUNS), choose(rng, words.NOUNS)
        if noun != other and (noun, other) not in held_out():
            break
    if rng.random() < 0.3:
        verb = choose(rng, words.VERBS)
        seen = _phrase(rng, other, bool(rng.random() < 0.5))
        return document(f"today {_phrase(rng, noun, many)}", verb if many else verb + "s", f"{seen} .")
    subject = _subject(rng, noun, other, many) if rng.random() < 0.7 else _phrase(rng, noun, many)
    return document(subject, "are" if many else "is", f"{choose(rng, words.PREDICATES)} .")


@cache
def items() -> tuple[Item, ...]:
    rng = world.generator(13)
    result = []
    for noun in words.NOUNS:
        for other in words.NOUNS:
            if noun == other:
                continue
            many = bool(rng.random() < 0.5)
            answer = ("are" if many else "is",)
            result.append(
                Item(
                    FAMILY, "agreement", (noun, other) in held_out(), _subject(rng, noun, other, many), answer
                )
            )
    return tuple(result)
