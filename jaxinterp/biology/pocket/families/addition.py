"""Addition of numbers of one or two digits, digit by digit, the most significant first: "4 7 + 2 8 = 7 5 .".

Held out: unordered pairs, so that the commuted twin of a held-out sum is held out too.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import world
from jaxinterp.biology.pocket.documents import Document, Item, document

FAMILY = "addition"

LARGEST = 99
HELD_OUT_SHARE = 0.15
N_SEEN_ITEMS = 500
ONE_DIGIT_SHARE = 0.05  # of documents that add two one-digit numbers, rare (1 %) in an even draw


@cache
def held_out() -> frozenset[tuple[int, int]]:
    """Pairs (a, b) in both orders that training never adds."""
    pairs = [(a, b) for a in range(LARGEST + 1) for b in range(a, LARGEST + 1)]
    chosen = world.generator(6).random(len(pairs)) < HELD_OUT_SHARE
    return frozenset(
        pair for (a, b), out in zip(pairs, chosen, strict=True) if out for pair in ((a, b), (b, a))
    )


def question(a: int, b: int) -> str:
    """The sum as words, a digit each."""
    return " ".join(f"{a}+{b}=")


def answer(a: int, b: int) -> str:
    """The digits of the sum, as words."""
    return " ".join(str(a + b))


def draw(rng: np.random.Generator) -> Document:
    top = 10 if rng.random() < ONE_DIGIT_SHARE else LARGEST + 1
    while True:
        a, b = (int(x) for x in rng.integers(top, size=2))
        if (a, b) not in held_out():
            return document(question(a, b), f"{answer(a, b)} .")


@cache
def items() -> tuple[Item, ...]:
    """All held-out sums and some seen ones."""
    seen = [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1) if (a, b) not in held_out()]
    some = world.generator(7).choice(len(seen), N_SEEN_ITEMS, replace=False)
    chosen = [(pair, True) for pair in sorted(held_out())] + [(seen[i], False) for i in some]
    return tuple(
        Item(
            FAMILY,
            "carry" if a % 10 + b % 10 > 9 else "no carry",
            out,
            question(a, b),
            (*answer(a, b).split(), "."),
        )
        for (a, b), out in chosen
    )
