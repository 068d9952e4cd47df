"""Two-hop facts: a city lies in a state, a state has a capital and more; the composite asks from the city.

"the capital of the state containing velvet haven is …": the city's state (first hop), then the state's
capital (second). Held out: CITY, cities of which no composite is ever written; PAIR, single (city, attribute)
composites.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jaxinterp.biology.pocket import words, world
from jaxinterp.biology.pocket.documents import Document, Item, choose, document

FAMILY = "facts"

# How a city's state is told; the longer forms put the name where the composite has it.
PLACES = ("{} is in", "the state containing {} is", "the name of the state containing {} is")

# Shares of: where a city lies, what a state has, the composite.
SHARES = (0.34, 0.12, 0.54)


def composite(city: world.City, attribute: str) -> str:
    """The two-hop question about a city."""
    return f"the {attribute} of the state containing {city.prefix} {city.suffix} is"


@cache
def _composites() -> tuple[tuple[str, str], ...]:
    """(question, answer) of every composite that training may show."""
    values = world.attribute_values()
    return tuple(
        (composite(city, attribute), values[city.state, attribute])
        for city in world.cities()
        for attribute in words.ATTRIBUTES
        if city not in world.held_out_cities() and (city, attribute) not in world.held_out_pairs()
    )


@cache
def _state_facts() -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"the {attribute} of {state} is", value)
        for (state, attribute), value in world.attribute_values().items()
    )


def draw(rng: np.random.Generator) -> Document:
    part = rng.random()
    if part < SHARES[0]:
        city = choose(rng, world.cities())
        question = choose(rng, PLACES).format(f"{city.prefix} {city.suffix}")
        return document(question, city.state, ".")
    if part < SHARES[0] + SHARES[1]:
        question, answer = choose(rng, _state_facts())
    else:
        question, answer = choose(rng, _composites())
    return document(question, answer, ".")


@cache
def items() -> tuple[Item, ...]:
    values = world.attribute_values()
    result = []
    for city in world.cities():
        result.append(
            Item(FAMILY, "atomic", False, f"{city.prefix} {city.suffix} is in", (city.state,), city.state)
        )
        for attribute in words.ATTRIBUTES:
            unseen_city = city in world.held_out_cities()
            unseen_pair = (city, attribute) in world.held_out_pairs()
            kind = "CITY" if unseen_city else "PAIR" if unseen_pair else "composite"
            answer = (values[city.state, attribute],)
            result.append(
                Item(FAMILY, kind, unseen_city or unseen_pair, composite(city, attribute), answer, city.state)
            )
    result += [Item(FAMILY, "atomic", False, question, (answer,)) for question, answer in _state_facts()]
    return tuple(result)
