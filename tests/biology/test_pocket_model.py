"""The shipped model, loaded as users load it, reaches every gate with all families together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxinterp.biology.pocket import gates, items, vocabulary, words
from jaxinterp.checkpoints import bundled, load_model
from jaxinterp.models.model import Model


@pytest.fixture(scope="module")
def pocket() -> Model:
    return load_model("pocket")


@pytest.fixture(scope="module")
def measured(pocket: Model) -> dict:
    return gates.measure(pocket)


@pytest.mark.parametrize("gate", gates.GATES, ids=lambda gate: gate.name)
def test_the_shipped_model_reaches_the_gate(measured: dict, gate: gates.Gate) -> None:
    value = gates.figures(measured)[gate.name]
    assert value <= gate.bound if gate.at_most else value >= gate.bound


def test_check_names_the_gates_that_are_missed(measured: dict) -> None:
    assert gates.check(measured) == []
    facts = measured["facts"]
    city = {**facts["kinds"]["CITY"], "held_out": 0.5}
    worse = {**measured, "collapse": 0.4, "facts": {**facts, "kinds": {**facts["kinds"], "CITY": city}}}
    assert gates.check(worse) == [
        "facts.CITY is 0.500, expected at least 0.9", "collapse is 0.400, expected at most 0.2",
    ]  # fmt: skip


def test_the_card_states_what_is_measured(pocket: Model, measured: dict) -> None:
    card = json.loads((bundled.path("model") / "card.json").read_text())
    assert card["model"] == pocket.digest()
    assert {"0", "1", "2"} <= card["seeds"].keys()
    assert card["tokenizer"] == vocabulary.tokenizer().digest() == pocket.tokenizer.digest()
    stated, found = card["seeds"][str(card["shipped_seed"])]["figures"], gates.figures(measured)
    assert stated.keys() == found.keys()
    # Another processor may round differently; a question in a hundred may then tip over.
    np.testing.assert_allclose([stated[name] for name in found], list(found.values()), atol=0.02)


def test_gates_can_be_missed(pocket: Model) -> None:
    import jax.numpy as jnp

    table, embedding = vocabulary.ids(), pocket.params["embed"]["tokens"]
    from jaxinterp.biology.pocket import world

    # Put every city's name tokens on its state: the two-hop case would be fake, and the gate says so. Tokens
    # are shared by cities of several states, so the first state a token meets wins; that is enough.
    rows = {
        table[getattr(c, part)]: table[c.state] for c in world.cities()[:16] for part in ("prefix", "suffix")
    }
    moved = embedding.at[jnp.array(list(rows))].set(embedding[jnp.array(list(rows.values()))])
    broken = Model({**pocket.params, "embed": {"tokens": moved}}, pocket.config, pocket.tokenizer)
    questions = [item for item in items.all_items() if item.kind == "CITY"]
    assert gates.collapse(broken) > gates.collapse(pocket)
    assert gates.right(broken, questions).mean() < gates.right(pocket, questions).mean()


def test_gates_count_every_token_of_an_answer(pocket: Model) -> None:
    from jaxinterp.biology.pocket.documents import Item

    good = Item("addition", "no carry", False, "1 1 + 1 1 =", ("2", "2", "."))
    bad = good._replace(answer=("2", "3", "."))
    longer = good._replace(answer=("2", "2", ".", "2"))
    assert gates.right(pocket, [good, bad, longer]).tolist() == [True, False, False]


def test_prompts_as_a_person_types_them(pocket: Model) -> None:
    from jaxinterp.models.generation import generate

    item = next(i for i in items.all_items() if i.kind == "composite" and "capital" in i.prompt)
    assert generate(pocket, item.prompt.capitalize(), max_new_tokens=4).split() == [item.answer[0], "."]
    assert generate(pocket, "47+28=", max_new_tokens=4).split() == ["7", "5", "."]
    assert item.answer[0] in words.ATTRIBUTES["capital"]
