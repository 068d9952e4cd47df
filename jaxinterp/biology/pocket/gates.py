"""What a pocket model must be able to do, measured on all families together.

Accuracy means that every token of the answer is the most probable next token (so greedy decoding writes
exactly the answer). `gates` turns the figures into the marks that the shipped model must reach.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.biology.pocket import items, vocabulary, world
from jaxinterp.biology.pocket.documents import Item
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model

ROWS = 256  # questions run at a time
LENGTH_STEP = 8  # rows are filled up to a multiple, so that few lengths are compiled


class Gate(NamedTuple):
    """A mark: the figure `name`, at least (or, for the collapse, at most) `bound`."""

    name: str
    bound: float
    at_most: bool = False


GATES = (
    Gate("facts.CITY", 0.90),
    Gate("addition.held_out", 0.95),
    Gate("couplets.determiner.held_out", 0.90),
    Gate("opposites.held_out", 0.90),
    Gate("people.unknown.held_out", 0.85),
    Gate("induction.held_out", 0.90),
    Gate("collapse", 0.20, at_most=True),
)


@partial(jax.jit, static_argnums=1)
def _most_probable(params: Tree, config: ModelConfig, tokens: Array) -> Array:
    logits, _ = forward(params, config, tokens)
    return jnp.argmax(logits, axis=-1)


def right(model: Model, questions: Sequence[Item]) -> np.ndarray:
    """For each question whether the model answers it rightly, [n] bool."""
    packed = items.pack(questions)
    result = np.zeros(len(questions), bool)
    order = np.argsort(packed.lengths, kind="stable")
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        longest = int(packed.lengths[rows].max())
        tokens = np.zeros((ROWS, -longest % LENGTH_STEP + longest), np.int32)
        tokens[: len(rows), :longest] = packed.tokens[rows, :longest]
        guess = np.asarray(_most_probable(model.params, model.config, tokens))[: len(rows), :longest]
        hit = (guess == packed.targets[rows, :longest]) | ~packed.scored[rows, :longest]
        result[rows] = hit.all(axis=1)
    return result


def collapse(model: Model) -> float:
    """How far city names sit on their states: the cosine between the mean embeddings of two cities' name
    tokens, averaged over pairs in one state, minus the same over pairs in different states.
    """
    table = vocabulary.ids()
    embeddings = np.asarray(model.params["embed"]["tokens"], np.float64)
    cities = world.cities()
    names = np.array([[table[city.prefix], table[city.suffix]] for city in cities])
    means = embeddings[names].mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosine = means @ means.T
    states = np.array([city.state for city in cities])
    same = states[:, None] == states[None, :]
    off_diagonal = ~np.eye(len(cities), dtype=bool)
    return float(cosine[same & off_diagonal].mean() - cosine[~same].mean())


def measure(model: Model, questions: Sequence[Item] | None = None) -> dict[str, Any]:
    """Accuracy per family and kind, seen and held out.

    Returns:
      {family: {"seen": share, "held_out": share, "n_seen": n, "n_held_out": n, "kinds": {kind: {the same}}}}
      and "collapse".
    """
    questions = items.all_items() if questions is None else tuple(questions)
    correct = right(model, questions)
    groups: dict[tuple[str, str], dict[bool, list[bool]]] = defaultdict(lambda: {False: [], True: []})
    for item, hit in zip(questions, correct, strict=True):
        groups[item.family, ""][item.held_out].append(bool(hit))
        groups[item.family, item.kind][item.held_out].append(bool(hit))
    result: dict[str, Any] = {}
    for (family, kind), hits in groups.items():
        entry = {
            "seen": _share(hits[False]),
            "held_out": _share(hits[True]),
            "n_seen": len(hits[False]),
            "n_held_out": len(hits[True]),
        }
        if kind:
            result[family]["kinds"][kind] = entry
        else:
            result[family] = {**entry, "kinds": {}}
    return {**result, "collapse": round(collapse(model), 4)}


def _share(hits: list[bool]) -> float | None:
    return round(sum(hits) / len(hits), 4) if hits else None


def figures(measured: dict[str, Any]) -> dict[str, float]:
    """Flat names for the figures of `measure`: "facts.CITY", "couplets.determiner.seen", "addition.held_out",
    …
    """
    flat: dict[str, float] = {"collapse": measured["collapse"]}
    for family, entry in measured.items():
        if family == "collapse":
            continue
        rows = {family: entry, **{f"{family}.{kind}": value for kind, value in entry["kinds"].items()}}
        for name, row in rows.items():
            flat.update(
                {f"{name}.{split}": row[split] for split in ("seen", "held_out") if row[split] is not None}
            )
    for kind in ("CITY", "PAIR"):
        if f"facts.{kind}.held_out" in flat:
            flat[f"facts.{kind}"] = flat[f"facts.{kind}.held_out"]
    return flat


def check(measured: dict[str, Any]) -> list[str]:
    """The gates that are missed, one line each; empty when all are reached."""
    flat = figures(measured)
    missed = []
    for gate in GATES:
        value = flat[gate.name]
        if (value > gate.bound) if gate.at_most else (value < gate.bound):
            missed.append(
                f"{gate.name} is {value:.3f}, expected {'at most' if gate.at_most else 'at least'} {gate.bound}"
            )
    return missed


def report(model: Model) -> dict[str, Any]:
    """What a training run says about its model: every figure, flat."""
    return dict(figures(measure(model)))
