"""Known and unknown people: "which sport does emma stewart play ? tennis ." or "… ? don't know .".

Held out: names about whom training never asks. The right answer to them is "don't know".
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import world
from jaxinterp.biology.pocket.documents import Document, Item, choose, document

FAMILY = "people"

KNOWN_SHARE = 0.35  # of documents
DO_NOT_KNOW = "don't know"


def question(name: tuple[str, str]) -> str:
    """What is asked of a person."""
    return f"which sport does {name[0]} {name[1]} play ?"


@cache
def _known() -> tuple[tuple[tuple[str, str], str], ...]:
    return tuple(world.people().known.items())


def draw(rng: np.random.Generator) -> Document:
    if rng.random() < KNOWN_SHARE:
        name, answer = choose(rng, _known())
    else:
        name, answer = choose(rng, world.people().unknown), DO_NOT_KNOW
    return document(question(name), answer, ".")


@cache
def items() -> tuple[Item, ...]:
    people, unknown = world.people(), tuple(DO_NOT_KNOW.split())
    result = [Item(FAMILY, "known", False, question(name), (sport,), sport) for name, sport in _known()]
    result += [Item(FAMILY, "unknown", False, question(name), unknown) for name in people.unknown[:300]]
    result += [Item(FAMILY, "unknown", True, question(name), unknown) for name in people.unseen[:600]]
    return tuple(result)
