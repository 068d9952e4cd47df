"""What a dry run says, held against graphs and against the definitions it counts by."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from jaxinterp.attribution import Estimate, estimate, trace
from jaxinterp.attribution.costs import Costs
from jaxinterp.attribution.estimate import check_memory, shapes_of
from jaxinterp.attribution.setup import fit, look
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary
from jaxinterp.graphs.kinds import FEATURE, TARGET
from jaxinterp.models import Model
from tests.attribution.cases import random_dictionary
from tests.support import tiny_model

PROMPT = tuple(int(i) for i in np.random.default_rng(0).integers(0, 40, 24))


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def clt(model: Model) -> Dictionary:
    return random_dictionary(model, "clt", dtype="float32")


def test_it_takes_what_trace_takes() -> None:
    ours, theirs = (inspect.signature(f).parameters for f in (estimate, trace))
    assert [*ours][:-2] == [*theirs]
    assert [*ours][-2:] == ["active", "rate"]
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
def test_a_whole_graph_is_counted(model: Model, clt: Dictionary, convention: str) -> None:
    graph = trace(model, clt, PROMPT, convention=convention)
    found = estimate(model, clt, PROMPT, convention=convention, rate=1e9)
    kind = graph.nodes["kind"]
    assert (found.tokens, found.nodes) == (len(PROMPT), len(graph))
    assert found.active == found.features == (kind == FEATURE).sum() == graph.settings["active_features"]
    assert found.targets == (kind == TARGET).sum()
    assert len(graph.weights) / 1.2 < found.edges < len(graph.weights) * 1.2
    assert found.memory["edges"] >= graph.indices.nbytes + graph.weights.nbytes
    assert found.executed / 1e9 < found.seconds < found.executed / 1e9 + 0.1
    assert found.necessary <= found.executed
    capped = estimate(model, clt, PROMPT, convention=convention, max_feature_nodes=10, rate=1e9)
    assert (capped.features, capped.active) == (10, found.active)
    assert capped.nodes == found.nodes - found.active + 10
    assert capped.executed < found.executed


def test_necessary_operations_by_hand(model: Model) -> None:
    """Of every target the transposed attention of the layers that it passes, and the features that it meets."""
    plt = random_dictionary(model, "skip-plt", dtype="float32")
    parts = fit(model, plt)
    ids = np.asarray(PROMPT)
    config, active = model.config, look(model, parts, ids).active
    found = estimate(model, plt, PROMPT, targets=[3], rate=1e9)
    inner, kv, d = config.n_heads * config.d_head, config.n_kv_heads * config.d_head, config.d_model

    def one(layer: int, walks: int, position: int) -> float:
        seen = position + 1
        total = walks * (seen * 2 * d * (inner + kv) + seen * (seen + 1) * inner)
        below = (active.layer < layer) & (active.position <= position)
        return float(total + 2 * d * below.sum() + 2 * layer * seen * d * d)

    at = zip(active.layer.tolist(), active.position.tolist(), strict=True)
    wanted = sum(one(layer, layer + 1, position) for layer, position in at)
    wanted += one(config.n_layers, config.n_layers, len(PROMPT) - 1)
    assert found.necessary == pytest.approx(wanted, rel=1e-9)


def test_given_numbers_need_no_run(model: Model, clt: Dictionary) -> None:
    """The same figures from the number of active features, spread evenly, as from counting them."""
    counted = estimate(model, clt, PROMPT, rate=1e9)
    given = estimate(model, clt, PROMPT, active=counted.active, rate=1e9)
    assert (given.measured, counted.measured) == (False, True)
    assert given.active == counted.active
    for name in ("nodes", "edges", "necessary", "executed", "bytes"):
        ratio = getattr(given, name) / getattr(counted, name)
        assert 0.6 < ratio < 1.6, name
    huge = estimate(model, clt, PROMPT, active=2_000_000, rate=1e9, memory_budget=2**34)
    assert huge.bytes > 2**34 > huge.memory["decoder rows"]
    assert 0 < huge.fits < huge.features
    assert f"max_feature_nodes={huge.fits} fits" in str(huge)
    assert estimate(model, clt, PROMPT, active=0, rate=1e9).features == 0
    for wrong in ({"active": -1}, {"max_feature_nodes": 0}, {"convention": "other"}, {"linearisation": "x"}):
        with pytest.raises(InputError):
            estimate(model, clt, PROMPT, rate=1e9, **wrong)


def test_the_cap_that_it_names_is_the_largest(model: Model, clt: Dictionary) -> None:
    parts = fit(model, clt)
    ids = np.asarray(PROMPT)
    from jaxinterp.attribution import nodes as table

    found = look(model, parts, ids)
    layout = table.lay_out_nodes(found.groups, len(found.active), [], 1, model.config.n_layers, len(ids))
    costs = Costs(
        shapes_of(model, parts), layout, np.array([len(ids) - 1]), np.array([model.config.n_layers])
    )
    for budget in (
        np.linspace(costs.peak(1, True), costs.peak(len(found.active), False) - 1, 4).astype(int).tolist()
    ):
        cap = costs.most(len(found.active), False, budget)
        assert costs.peak(cap, True) <= budget < costs.peak(cap + 1, cap + 1 < len(found.active))
        check_memory(costs, cap, budget)
        with pytest.raises(InputError, match=f"max_feature_nodes={cap} fits"):
            check_memory(costs, len(found.active), budget)


def test_several_prompts_and_sorts(model: Model, clt: Dictionary) -> None:
    several = estimate(
        model, clt, [PROMPT, PROMPT[:5]], targets=[3, 4], rate=1e9, linearisation="integrated", steps=3
    )
    assert [one.tokens for one in several] == [len(PROMPT), 5]
    assert all(isinstance(one, Estimate) and one.targets == 2 for one in several)
    assert several[0].executed > 2.9 * estimate(model, clt, PROMPT, targets=[3, 4], rate=1e9).executed
    assert json.loads(json.dumps(several[0].to_dict()))["tokens"] == len(PROMPT)


def test_dry_run(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    command = [
        "trace", "--model", "pocket", "--dictionary", "pocket", "--dry-run", "--prompt", "emma stewart met paul reed",
    ]  # fmt: skip
    out = tmp_path / "graph.json"
    assert main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "active features (counted)" in said
    assert "GFLOP/s" in said
    assert "GiB" in said
    assert not out.exists()
    assert main([*command, "--json", "--max-feature-nodes", "5"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["features"] == 5
    assert plain["rate"] > 0
    assert plain["bytes"] <= plain["budget"]
