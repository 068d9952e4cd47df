"""The facts of pocket's world: cities, states and what each state has; people and their sports; words and
opposites.

Everything here is a constant or a pure function of `WORLD_SEED`. The training seed changes which documents
are drawn and in which order, never the facts, so that models of different seeds answer the same questions.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from jaxinterp.biology.pocket import words

WORLD_SEED = 20

N_PER_STATE = 8  # cities in a state
N_HELD_OUT_PER_STATE = 2  # of which this many never occur in a two-hop document (CITY)
PAIR_SHARE = 0.10  # of the other (city, attribute) questions, held out (PAIR)

N_KNOWN = 90
N_UNKNOWN_TRAINING = 1500
NAME_HELD_OUT_SHARE = 0.25  # of all (first, last) names, about whom training never asks


def generator(*key: int) -> np.random.Generator:
    """A numpy generator that is a pure function of the integers given."""
    return np.random.default_rng([WORLD_SEED, *key])


class City(NamedTuple):
    """A city: its two name tokens and the state it lies in."""

    prefix: str
    suffix: str
    state: str


@cache
def cities() -> tuple[City, ...]:
    """All cities, state by state.

    Every state has `N_PER_STATE` cities with different prefixes and different suffixes, every prefix is used
    by equally many cities and so is every suffix: neither name token alone says anything about the state.
    """
    n_prefix, n_suffix, n_states = len(words.PREFIXES), len(words.SUFFIXES), len(words.STATES)
    row_quota = n_states * N_PER_STATE // n_prefix
    column_quota = n_states * N_PER_STATE // n_suffix
    for attempt in range(10_000):
        rng = generator(1, attempt)
        placed = _place(rng, n_prefix, n_suffix, n_states, row_quota, column_quota)
        if placed is not None:
            break
    else:  # pragma: no cover - a constant of the world; tests build it
        raise RuntimeError("no arrangement of cities found")
    order = rng.permutation(n_states)
    return tuple(
        City(words.PREFIXES[i], words.SUFFIXES[j], words.STATES[order[state]])
        for state in range(n_states)
        for i, j in placed[state]
    )


def _place(
    rng: np.random.Generator, rows: int, columns: int, states: int, row_quota: int, column_quota: int
) -> list[list[tuple[int, int]]] | None:
    """Cells for every state, greedily by what is still wanted; None where the greedy choice runs into a
    corner.
    """
    used = np.zeros((rows, columns), bool)
    row_left, column_left = np.full(rows, row_quota), np.full(columns, column_quota)
    result = []
    for _ in range(states):
        row_order = np.argsort(-(row_left + rng.random(rows)))[:N_PER_STATE]
        taken: list[tuple[int, int]] = []
        free = np.ones(columns, bool)
        for i in row_order:
            score = np.where(free & ~used[i] & (column_left > 0), column_left + rng.random(columns), -1.0)
            j = int(np.argmax(score))
            if score[j] < 0 or row_left[i] == 0:
                return None
            free[j] = False
            taken.append((int(i), j))
        for i, j in taken:
            used[i, j] = True
            row_left[i] -= 1
            column_left[j] -= 1
        result.append(taken)
    return result


@cache
def held_out_cities() -> frozenset[City]:
    """Cities whose state is told, but of which no two-hop question is ever asked in training (CITY)."""
    rng = generator(2)
    chosen: list[City] = []
    for state in words.STATES:
        own = [city for city in cities() if city.state == state]
        chosen += [own[i] for i in rng.choice(len(own), N_HELD_OUT_PER_STATE, replace=False)]
    return frozenset(chosen)


@cache
def held_out_pairs() -> frozenset[tuple[City, str]]:
    """(city, attribute) questions held out although the city occurs in other two-hop questions (PAIR)."""
    rng = generator(3)
    pairs = [
        (city, attribute)
        for city in cities()
        if city not in held_out_cities()
        for attribute in words.ATTRIBUTES
    ]
    chosen = rng.choice(len(pairs), round(PAIR_SHARE * len(pairs)), replace=False)
    return frozenset(pairs[i] for i in chosen)


@cache
def attribute_values() -> dict[tuple[str, str], str]:
    """(state, attribute) -> the state's own value, one value a state, in an arbitrary order."""
    rng = generator(4)
    table: dict[tuple[str, str], str] = {}
    for attribute, values in words.ATTRIBUTES.items():
        order = rng.permutation(len(values))
        table.update({(state, attribute): values[order[i]] for i, state in enumerate(words.STATES)})
    return table


class People(NamedTuple):
    """Names as (first, last): who is known and plays what, who is unknown, and about whom training never
    asks.
    """

    known: dict[tuple[str, str], str]
    unknown: tuple[tuple[str, str], ...]
    unseen: tuple[tuple[str, str], ...]


@cache
def people() -> People:
    """Split the grid of first and last names; sports are dealt out evenly among the known."""
    rng = generator(5)
    grid = [(first, last) for first in words.FIRST_NAMES for last in words.LAST_NAMES]
    names = [grid[i] for i in rng.permutation(len(grid))]
    n_unseen = round(NAME_HELD_OUT_SHARE * len(grid))
    unseen, rest = names[:n_unseen], names[n_unseen:]
    known = {name: words.SPORTS[i % len(words.SPORTS)] for i, name in enumerate(rest[:N_KNOWN])}
    unknown = rest[N_KNOWN : N_KNOWN + N_UNKNOWN_TRAINING]
    return People(known, tuple(unknown), tuple(unseen))
