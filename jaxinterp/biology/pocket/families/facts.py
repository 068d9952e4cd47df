"""Two-hop facts: a city lies in a state, a state has a capital and more; the composite asks from the city.

"the capital of the state containing velvet haven is …": the city's state (first hop), then the state's
capital (second). Held out: CITY, cities of which no composite is ever written; PAIR, single (city, attribute)
composites.

Where cities lie is told one city at a time or of two or three together ("glen port and north mill are in kelvania and
kelvania ."). Told in one form only, a city's state was found by that form's own last words, and a composite about a
city never asked about did not find it; several cities in one document have to be told apart by what stands at their
own names, where a composite finds it too.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from jaxinterp.biology.pocket import words, world
from jaxinterp.biology.pocket.documents import Document, Item, choose, document

FAMILY = "facts"


class Form(NamedTuple):
    """A way of telling where cities lie: words before the names, what stands between names and then between states,
    and words after the names.
    """

    before: str
    links: tuple[str, ...]
    after: str


FORMS = (
    Form("", (), "is in"),
    Form("the state containing", (), "is"),
    Form("", ("and",), "are in"),
    Form("", (",", "and"), "are in"),
)
FORM_SHARES = (0.3, 0.2, 0.3, 0.2)

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


def _places(rng: np.random.Generator) -> Document:
    """Where one, two or three cities lie."""
    form = FORMS[int(rng.choice(len(FORMS), p=FORM_SHARES))]
    cities = [world.cities()[i] for i in rng.choice(len(world.cities()), len(form.links) + 1, replace=False)]
    told = [*form.before.split(), cities[0].prefix, cities[0].suffix]
    answers = [cities[0].state]
    for link, city in zip(form.links, cities[1:], strict=True):
        told += [link, city.prefix, city.suffix]
        answers += [link, city.state]
    return document(f"{' '.join(told)} {form.after}", *answers, ".")


def draw(rng: np.random.Generator) -> Document:
    part = rng.random()
    if part < SHARES[0]:
        return _places(rng)
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
