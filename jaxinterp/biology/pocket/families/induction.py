"""Repeated names: three to five people are named, then named again in another order: the last names can be copied.

"emma stewart met paul reed , paul reed met emma stewart .": names are drawn at random for each document, so only the text itself
tells the last name. Held out: names that no training document holds.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import world
from jaxinterp.biology.pocket.documents import Document, Item, document

FAMILY = "induction"

LINKS = ("met", "and", "saw")
FEWEST, MOST = 3, 5  # names in a document; with two the second last name could be found by elimination
N_ITEMS = 400


def _names(rng: np.random.Generator, allowed: tuple[tuple[str, str], ...], n: int) -> list[tuple[str, str]]:
    """n names with different first names."""
    chosen: dict[str, str] = {}
    while len(chosen) < n:
        first, last = allowed[int(rng.integers(len(allowed)))]
        chosen.setdefault(first, last)
    return list(chosen.items())


def _parts(rng: np.random.Generator, allowed: tuple[tuple[str, str], ...]) -> list[str]:
    """Alternating text and answers; the answers are the last names of the second naming."""
    names = _names(rng, allowed, int(rng.integers(FEWEST, MOST + 1)))
    link = LINKS[int(rng.integers(len(LINKS)))]
    again = [names[i] for i in rng.permutation(len(names))]
    parts = [f" {link} ".join(f"{first} {last}" for first, last in names) + f" , {again[0][0]}", again[0][1]]
    for first, last in again[1:]:
        parts += [f"{link} {first}", last]
    return [*parts, "."]


def draw(rng: np.random.Generator) -> Document:
    return document(*_parts(rng, world.people().written))


@cache
def items() -> tuple[Item, ...]:
    people, result = world.people(), []
    for held_out, allowed in ((False, people.written), (True, people.unseen)):
        rng = world.generator(11, int(held_out))
        for _ in range(N_ITEMS):
            parts = _parts(rng, allowed)
            asked = 1 + 2 * int(rng.integers(len(parts) // 2))  # any of the answers
            result.append(Item(FAMILY, "name", held_out, " ".join(parts[:asked]), (parts[asked],)))
    return tuple(result)


