"""Tracing as its users meet it: float32, targets, caps, devices, reproduction, bad input."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import Direction, estimate, reproduce, trace
from jaxinterp.attribution.targets import salient
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary
from jaxinterp.dictionaries.base import DictionaryConfig
from jaxinterp.graphs import Graph, load_graph
from jaxinterp.graphs.kinds import BIAS, ERROR, FEATURE, TARGET
from jaxinterp.models import Model, declare
from jaxinterp.models.decoder import unembedding
from jaxinterp.parallel import weights
from jaxinterp.parallel.mesh import make
from tests.attribution.cases import TOKENS, random_dictionary
from tests.support import tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("gpt2")


@pytest.fixture(scope="module")
def clt(model: Model) -> Dictionary:
    return random_dictionary(model, "clt", dtype="float32")


@pytest.fixture(scope="module")
def graph(model: Model, clt: Dictionary) -> Graph:
    return trace(model, clt, TOKENS)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("name", ["skip-plt", "clt"])
@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
def test_float32_identities(family: str, name: str, convention: str) -> None:
    model = tiny_model(family)
    checks = trace(
        model, random_dictionary(model, name, dtype="float32"), TOKENS, convention=convention
    ).checks()
    assert checks.ok
    assert max(checks.identity_1, checks.identity_2, checks.identity_3) < 1e-4


def test_relu_mlps_are_a_perfect_dictionary(x64: None) -> None:
    """I9: the neurons of ReLU MLPs are an exact transcoder, so nothing is an error."""
    model = tiny_model(
        "llama", dtype="float64", activation="relu", gated=False, mlp_bias=True, norm="layer", out_bias=True
    )
    layers = model.params["layers"]
    config = DictionaryConfig(
        "plt", model.config.n_layers, model.config.d_mlp, model.config.d_model, "relu", read_site="mlp_in"
    )
    params = {
        "W_enc": jnp.swapaxes(layers["up"], 1, 2), "b_enc": layers["up_bias"], "W_dec": layers["down"],
        "b_dec": layers["down_bias"],
    }  # fmt: skip
    graph = trace(model, Dictionary(params, config, "neurons"), TOKENS)
    errors = graph.nodes["kind"] == ERROR
    assert np.abs(graph.matrix()[:, errors]).max() < 1e-12
    scores = graph.scores()
    assert scores.replacement == pytest.approx(1, abs=1e-10)
    assert scores.completeness == pytest.approx(1, abs=1e-10)
    assert graph.checks().ok


def test_one_and_eight_devices_write_the_same_bytes(model: Model, clt: Dictionary, tmp_path) -> None:
    """Also on a second run."""
    many = jax.devices()[:8]
    assert len(many) == 8
    for name, devices in (("one", None), ("again", None), ("eight", many)):
        graph = trace(model, clt, TOKENS, devices=devices)
        graph.save(tmp_path / f"{name}.jigraph")
        graph.prune().save(tmp_path / f"{name}.json")
    for ending in ("jigraph", "json"):
        one, again, eight = ((tmp_path / f"{n}.{ending}").read_bytes() for n in ("one", "again", "eight"))
        assert one == again
        assert one == eight


def test_a_model_divided_over_devices(model: Model, clt: Dictionary, graph: Graph) -> None:
    shardings = weights.shardings(declare(model.config), make(2, 4))
    divided = dataclasses.replace(model, params=jax.device_put(model.params, shardings))
    other = trace(divided, clt, TOKENS)
    assert np.array_equal(other.nodes["index"], graph.nodes["index"])
    assert np.abs(other.matrix() - graph.matrix()).max() < 1e-5


def test_reproduce_notices_every_change(model: Model, clt: Dictionary, tmp_path) -> None:
    graph = trace(model, clt, TOKENS, max_feature_nodes=20).prune()
    for ending in ("json", "jigraph"):
        graph.save(tmp_path / f"graph.{ending}")
        loaded = load_graph(tmp_path / f"graph.{ending}")
        assert reproduce(loaded, model, clt).outcome == "identical"

    heavier = jax.tree.map(lambda leaf: leaf, model.params)
    heavier["layers"]["o"] = heavier["layers"]["o"].at[0, 0, 0, 0].add(1e-3)
    found = reproduce(loaded, dataclasses.replace(model, params=heavier), clt)
    assert found.outcome == "different"
    assert "model is another" in str(found)

    louder = {**clt.params, "b_enc": clt.params["b_enc"].at[0, 0].add(1e-3)}
    assert "dictionary is another" in str(reproduce(loaded, model, dataclasses.replace(clt, params=louder)))

    tokens = (loaded.token_ids[0], loaded.token_ids[1] + 1, *loaded.token_ids[2:])
    assert reproduce(dataclasses.replace(loaded, token_ids=tokens), model, clt).outcome == "different"
    for key, value in (("max_feature_nodes", 21), ("convention", "circuit-tracer")):
        changed = dataclasses.replace(loaded, settings={**loaded.settings, key: value})
        assert reproduce(changed, model, clt).outcome == "different"
    nudged = np.array(loaded.weights)
    nudged[3] *= np.float32(1 + 1e-6)
    assert reproduce(dataclasses.replace(loaded, weights=nudged), model, clt).outcome == "different"
    older = {**loaded.provenance, "versions": {**loaded.provenance["versions"], "jaxlib": "0.0.1"}}
    other = dataclasses.replace(loaded, weights=nudged, provenance=older)
    assert reproduce(other, model, clt).outcome == "close"


def test_reproduce_refuses_foreign_graphs(model: Model, clt: Dictionary, graph: Graph) -> None:
    with pytest.raises(InputError, match="not made by jaxinterp"):
        reproduce(dataclasses.replace(graph, provenance={}), model, clt)


def test_targets_tokens_and_directions(model: Model, clt: Dictionary, graph: Graph) -> None:
    token = int(graph.nodes["index"][graph.targets[0]])
    matrix = unembedding(model.params, model.config)
    vector = matrix[:, token] - matrix.mean(axis=1)
    other = trace(model, clt, TOKENS, targets=[token, Direction(vector, "as a direction"), 5])
    rows = other.matrix()[other.targets]
    assert np.abs(rows[0] - rows[1]).max() < 1e-5
    assert (
        np.abs(rows[0][: -len(other.targets)] - graph.matrix()[graph.targets[0]][: -len(graph.targets)]).max()
        < 1e-5
    )
    assert other.labels[other.targets[1]] == "as a direction"
    assert other.checks().ok


def test_salient_targets_reach_the_mass() -> None:
    probabilities = np.array([0.02, 0.6, 0.3, 0.06, 0.02])
    assert salient(probabilities).tolist() == [1, 2, 3]
    assert salient(probabilities, at_most=2).tolist() == [1, 2]
    assert len(salient(np.full(40, 1 / 40))) == 10
    assert salient(np.array([1.0])).tolist() == [0]


def test_a_cap_keeps_the_most_influential(model: Model, clt: Dictionary, graph: Graph) -> None:
    """Edges among kept features are those of the whole graph, and what is left out is counted."""
    small = trace(model, clt, TOKENS, max_feature_nodes=15, rank_every=4)
    names = ("kind", "layer", "position", "index")
    place = {tuple(graph.nodes[n][i] for n in names): i for i in range(len(graph))}
    kept = [place[tuple(row[n] for n in names)] for row in small.nodes]
    assert (small.nodes["kind"] == FEATURE).sum() == 15
    assert np.array_equal(small.matrix(), graph.matrix()[np.ix_(kept, kept)])
    assert small.checks().ok
    assert np.abs(small.nodes["left_out"]).max() > 0
    whole = trace(model, clt, TOKENS, max_feature_nodes=10_000)
    assert np.array_equal(whole.matrix(), graph.matrix())


def test_conventions_differ_as_documented(model: Model, clt: Dictionary, graph: Graph) -> None:
    other = trace(model, clt, TOKENS, convention="circuit-tracer")
    kinds = other.nodes["kind"]
    assert not (kinds == BIAS).any()
    assert (graph.nodes["kind"] == BIAS).sum() == len(TOKENS) * (1 + 3 * model.config.n_layers + 1)
    assert (graph.nodes["position"][graph.nodes["kind"] == FEATURE] == 0).any()
    assert not (other.nodes["position"][kinds == FEATURE] == 0).any()


def test_an_untrue_graph_says_so(graph: Graph) -> None:
    nodes = graph.nodes.copy()
    nodes["value"][graph.targets[0]] += 1.0
    checks = dataclasses.replace(graph, nodes=nodes).checks()
    assert not checks.ok
    assert "FAIL" in str(checks).upper() or "NOT" in str(checks)


def test_one_token_and_no_active_feature(model: Model, clt: Dictionary) -> None:
    single = trace(model, clt, [3])
    assert single.checks().ok
    silent = {**clt.params, "threshold": jnp.full_like(clt.params["threshold"], 1e6)}
    graph = trace(model, dataclasses.replace(clt, params=silent), TOKENS)
    assert not (graph.nodes["kind"] == FEATURE).any()
    assert (graph.nodes["kind"] == TARGET).any()
    assert graph.checks().ok


@pytest.mark.parametrize(
    ("prompt", "changes", "message"),
    [
        ([], {}, "empty"),
        ([1, 99], {}, "token 99 at position 1 is outside the vocabulary of 40"),
        ([1, -1], {}, "outside the vocabulary"),
        ([1] * 33, {}, "33 tokens is longer than the model's context of 32"),
        ("text", {}, "no tokenizer"),
        ([1, 2], {"convention": "papers"}, "convention is 'papers'"),
        ([1, 2], {"max_feature_nodes": 0}, "max_feature_nodes is 0"),
        ([1, 2], {"targets": []}, "empty list"),
        ([1, 2], {"targets": [40]}, "target token 40 is outside the vocabulary of 40"),
        ([1, 2], {"targets": [4, 4]}, "given twice"),
        ([1, 2], {"targets": ["x"]}, "no tokenizer"),
        ([1, 2], {"targets": [Direction(np.zeros(16), "z")]}, "zero everywhere"),
        ([1, 2], {"targets": [Direction(np.ones(3), "z")]}, "shape"),
        ([1, 2, 3, 4], {"memory_budget": 1000}, "GiB"),
    ],
)
def test_bad_input(model: Model, clt: Dictionary, prompt, changes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace(model, clt, prompt, **changes)


def test_a_memory_budget_names_a_cap_that_fits(model: Model, clt: Dictionary, graph: Graph) -> None:
    least, most = (estimate(model, clt, TOKENS, max_feature_nodes=cap, rate=1e9).bytes for cap in (1, None))
    budget = (least + most) // 2
    with pytest.raises(InputError, match="max_feature_nodes=") as caught:
        trace(model, clt, TOKENS, memory_budget=budget)
    cap = int(str(caught.value).split("max_feature_nodes=")[1].split()[0])
    assert len(trace(model, clt, TOKENS, memory_budget=budget, max_feature_nodes=cap)) < len(graph)


def test_a_dictionary_of_another_model_is_refused(clt: Dictionary) -> None:
    with pytest.raises(InputError, match="n_layers"):
        trace(tiny_model("gpt2", n_layers=2), clt, TOKENS)
    with pytest.raises(InputError, match="d_model"):
        trace(tiny_model("gpt2", d_model=24), clt, TOKENS)


def test_weights_that_are_not_finite_are_named(model: Model, clt: Dictionary) -> None:
    params = {**model.params, "layers": {**model.params["layers"]}}
    params["layers"]["o"] = params["layers"]["o"].at[1].set(np.nan)
    with pytest.raises(InputError, match=r"layers\.o"):
        trace(dataclasses.replace(model, params=params), clt, TOKENS)
