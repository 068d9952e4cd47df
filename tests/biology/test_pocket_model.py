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


def test_the_shipped_model_reaches_every_gate(measured: dict) -> None:
    assert gates.check(measured) == []


def test_the_card_states_what_is_measured(pocket: Model, measured: dict) -> None:
    card = json.loads((bundled.path("model") / "card.json").read_text())
    assert card["model"] == pocket.digest()
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
    from jaxinterp.models.generate import generate

    item = next(i for i in items.all_items() if i.kind == "composite" and "capital" in i.prompt)
    prompt = np.array([pocket.tokenizer.encode(item.prompt.capitalize())], np.int32)
    out = np.asarray(generate(pocket.params, pocket.config, prompt, max_new_tokens=2))
    assert pocket.tokenizer.decode(out[0, prompt.shape[1] :]) == f"{item.answer[0]} ."
    assert item.answer[0] in words.ATTRIBUTES["capital"]
