"""State features: the share of influence through a set of nodes, and the study on the shipped model and
dictionary.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxinterp.biology.pocket import lens, states, vocabulary, words, world
from jaxinterp.biology.pocket.dictionary_card import graph_scores
from jaxinterp.biology.pocket.families import facts
from jaxinterp.checkpoints import bundled, load_model
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.dictionaries.load import load_dictionary
from jaxinterp.graphs import EMBEDDING, FEATURE, TARGET, EdgeBuilder, Graph, assemble, node_table
from jaxinterp.models.model import Model
from jaxinterp.parallel.weights import leaves
from tests.graphs.graph_examples import random_graph


def small_graph() -> Graph:
    """Features 0, 1 (layer 0) and 2 (layer 1), embeddings 3 and 4, target 5. Backwards from the target: 3/4
    through feature 2 (half of which comes through feature 0), 1/4 straight through feature 1.
    """
    nodes = node_table(6)
    nodes["kind"] = [FEATURE] * 3 + [EMBEDDING] * 2 + [TARGET]
    nodes["layer"] = [0, 0, 1, -1, -1, 2]
    nodes["position"] = [0, 1, 1, 0, 1, 1]
    nodes["index"] = [5, 6, 7, 1, 2, 3]
    nodes["probability"][5] = 1.0
    edges = EdgeBuilder(6, np.float64)
    for target, source, weight in (
        (0, 3, 2.0),
        (1, 4, 1.0),
        (2, 0, -1.0),
        (2, 3, 1.0),
        (5, 2, 3.0),
        (5, 1, -1.0),
    ):
        edges.add([target], [source], [[weight]])
    return assemble(nodes, edges.finish(), token_ids=(1, 2), token_texts=("a", "b"), prompt="a b", n_layers=2)


def test_share_through_nodes_of_a_graph_worked_by_hand() -> None:
    graph = small_graph()

    def share(*through: int) -> float:
        mask = np.zeros(6, bool)
        mask[list(through)] = True
        return states.passing_share(graph, mask, 5)

    assert share() == 0
    assert share(2) == 0.75
    assert share(1) == 0.25
    assert share(0) == 0.375
    assert share(0, 2) == 0.75  # runs through both count once
    assert share(0, 1) == 0.625
    assert share(3, 4) == 1.0


def test_everything_that_reaches_the_tokens_passes_through_a_cut() -> None:
    graph = random_graph(3)
    target = int(np.flatnonzero(graph.nodes["kind"] == TARGET)[0])
    ends = (graph.nodes["kind"] != FEATURE) & (graph.nodes["kind"] != TARGET)
    dead = np.isin(np.arange(len(graph.nodes)), np.flatnonzero(np.diff(graph.indptr) == 0)) & ~ends
    dead[target] = False
    np.testing.assert_allclose(states.passing_share(graph, ends | dead, target), 1.0)


@pytest.fixture(scope="module")
def pocket() -> Model:
    return load_model("pocket")


def hand_made_dictionary(pocket: Model) -> Dictionary:
    """A feature that reads one city word in layer 0, one that always fires, and silent ones."""
    import jax
    import jax.numpy as jnp

    config = DictionaryConfig(
        "plt", pocket.config.n_layers, 24, pocket.config.d_model, "relu", read_site="resid_mid"
    )
    zeros = {
        name: jnp.zeros(weight.shape) for name, weight in leaves(kind_of(config).declare(config)).items()
    }
    names = vocabulary.ids()
    first = [names[city.prefix] for city in world.cities() if city.state == words.STATES[0]]
    row = pocket.params["embed"]["tokens"][first[0]]
    params = {**zeros, "W_enc": zeros["W_enc"].at[0, 3].set(row), "b_enc": zeros["b_enc"].at[:, 5].set(1.0)}
    return Dictionary(jax.tree.map(jnp.asarray, params), config)


def test_firing_is_reported_by_prompt(pocket: Model) -> None:
    dictionary = hand_made_dictionary(pocket)
    questions = [item for item in facts.items() if item.kind == "CITY"][:40]
    found = states.fires(pocket, dictionary, questions)
    assert found.shape == (40, pocket.config.n_layers, 24)
    assert found[:, :, 5].all()  # a positive bias alone always fires
    assert not found[:, 1:, 3].any() and not found[:, :, 7].any()
    # A feature that fires everywhere is no state's feature.
    labels = states.state_features(pocket, dictionary)
    assert all((layer, 5) not in own for own in labels.values() for layer in range(pocket.config.n_layers))


def test_the_state_can_be_read_before_the_answer(pocket: Model) -> None:
    read = lens.two_hop(pocket)
    n = len(words.STATES)
    assert read["questions"] == 2 * n * len(words.ATTRIBUTES)
    assert len(read["state"]) == len(read["answer"]) == pocket.config.n_layers + 1
    # The embedding of the last word, "is", knows neither.
    assert read["state"][0] < 0.2 and read["answer"][0] < 0.2
    leads = [k for k, share in enumerate(read["state"]) if share > 0.8]
    assert leads and read["answer"][leads[0]] < read["state"][leads[0]]
    assert read["answer"][-1] > 0.9 and max(read["answer"][: leads[0]]) < 0.2


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_the_card_states_what_passes_through_state_features(pocket: Model, kind: str) -> None:
    card = json.loads((bundled.path(kind) / "card.json").read_text())
    stated = card["state_features"]
    assert card["model"]["digest"] == pocket.digest()
    assert card["dictionary"]["digest"] == load_dictionary(f"pocket-{kind}").digest()
    assert stated["surviving"] >= 0.8
    # A few of the prompts; the slow test takes all.
    found = states.study(pocket, load_dictionary(f"pocket-{kind}"), limit=16)
    assert found["prompts"] == 16
    assert found["share"] > 3 * found["random_share"]
    # Another processor may round differently, and a feature at the edge of the definition tip over.
    assert abs(found["states_with_features"] - stated["states_with_features"]) <= 1
    assert abs(found["surviving"] - stated["surviving"]) < 0.25  # two and a half standard errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_answers_about_held_out_cities_pass_through_state_features(pocket: Model, kind: str) -> None:
    result = states.study(pocket, load_dictionary(f"pocket-{kind}"))
    card = json.loads((bundled.path(kind) / "card.json").read_text())
    assert result["surviving"] >= 0.8
    assert result["share"] > 5 * result["random_share"]
    tolerances = {"prompts": 3, "states_with_features": 1, "nodes": 0.2}
    for name, value in card["state_features"].items():
        assert result[name] == pytest.approx(value, abs=tolerances.get(name, 0.02)), name


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_the_card_states_what_graphs_score(pocket: Model, kind: str) -> None:
    card = json.loads((bundled.path(kind) / "card.json").read_text())
    found = graph_scores(pocket, load_dictionary(f"pocket-{kind}"), n=1)
    assert found["families"].keys() == card["graphs"]["families"].keys()
    assert found["worst_check"] < 1e-4
    for score in ("replacement", "completeness"):
        assert found[score] == pytest.approx(card["graphs"][score], abs=0.05)
