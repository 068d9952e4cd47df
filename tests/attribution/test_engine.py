"""What must not change a graph: blocks, pages, streaming, padding, devices; what limits do; no second compilation."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.attribution import blocks, reproduce, sources, trace, tracing
from jaxinterp.dictionaries import Dictionary, load_dictionary, save_dictionary
from jaxinterp.graphs import Graph
from jaxinterp.graphs.kinds import ERROR, FEATURE, TARGET
from jaxinterp.models import Model, forward
from tests.attribution.cases import random_dictionary
from tests.replacement.combinations import COMBINATIONS, in_float32, make
from tests.support import tiny_model

PROMPT = (7, 3, 19, 3, 28, 11, 30, 2)
TOLERANCE = 1e-5  # of a row's sum of absolute effects, float32


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("gpt_neox")


@pytest.fixture(scope="module")
def clt(model: Model) -> Dictionary:
    return random_dictionary(model, "clt", dtype="float32")


@pytest.fixture(scope="module")
def graph(model: Model, clt: Dictionary) -> Graph:
    return trace(model, clt, PROMPT)


def names(graph: Graph) -> list[tuple[int, ...]]:
    columns = ("kind", "part", "layer", "position", "index")
    return list(zip(*(graph.nodes[name].tolist() for name in columns), strict=True))


def same(one: Graph, other: Graph, tolerance: float = TOLERANCE) -> None:
    """The same nodes and edges, to rounding; 0 for the same bytes."""
    assert names(one) == names(other)
    a, b = one.matrix(), other.matrix()
    if not tolerance:
        assert np.array_equal(one.weights, other.weights) and np.array_equal(one.indices, other.indices)
        assert one.nodes.tobytes() == other.nodes.tobytes()
    scale = np.abs(a).sum(axis=1)
    assert (np.abs(a - b).max(axis=1) <= tolerance * scale).all()


# Blocks


@st.composite
def some_targets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    n, tokens = draw(st.integers(1, 400)), draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    parts = np.asarray(draw(st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=4)))
    part, layer = rng.choice(parts, n), rng.integers(0, draw(st.integers(1, 6)), n)
    layer = np.where(part < 0, 6, layer)
    # Half of the draws are crowded: most targets stand at few positions.
    crowd = rng.integers(0, tokens, 3)
    position = np.where(
        rng.random(n) < draw(st.sampled_from([0, 0.9])), rng.choice(crowd, n), rng.integers(0, tokens, n)
    )
    return layer, part, position, tokens, draw(st.sampled_from([64, blocks.ROWS, blocks.ON_ACCELERATOR]))


@settings(max_examples=80, deadline=None)
@given(some_targets(), st.sampled_from([None, 0, 1, 7]), st.sampled_from([1, 2, 8]))
def test_blocks_hold_every_target_once(targets: Any, spare: int | None, devices: int) -> None:
    layer, part, position, tokens, rows = targets
    context = None if spare is None else tokens + spare
    padded = blocks.padded_length(tokens, context)
    assert tokens <= padded and (context is None or padded <= context)
    found = blocks.cut(layer, part, position, padded, rows)
    assert sorted(np.concatenate([b.members for b in found]).tolist()) == list(range(len(layer)))
    # Shapes that follow from the padded length alone.
    ladder = {(length, blocks.width(length, rows)) for length in blocks.lengths(padded)}
    few = {(length, min(width, blocks.FEW)) for length, width in ladder}
    for block in found:
        assert 1 <= len(block.members) <= block.width
        assert int(position[block.members].max()) < block.length <= padded
        assert (part[block.members] == block.part).all()
        assert (block.layers == layer[block.members]).all() and (np.diff(block.layers) <= 0).all()
        assert (block.length, block.width) in (ladder | few if block.part < 0 else ladder)
    walked = blocks.waves(found, devices)
    assert sorted(id(b) for wave in walked for b in wave) == sorted(id(b) for b in found)
    for wave in walked:
        assert 1 <= len(wave) <= devices
        assert len({(b.part, b.length, b.width) for b in wave}) == 1


@given(st.integers(1, 5000))
def test_the_ladder_of_lengths(tokens: int) -> None:
    padded = blocks.padded_length(tokens)
    assert tokens <= padded <= (max(16, 2 * tokens) if tokens < 33 else 1.5 * tokens)
    assert blocks.padded_length(padded) == padded
    assert all(length * 4 <= 4 * padded for length in blocks.lengths(padded))
    assert blocks.lengths(padded)[-1] == padded


@pytest.mark.parametrize("rows", [16, pytest.param(1 << 16, marks=pytest.mark.slow)])
def test_block_rows(model: Model, clt: Dictionary, graph: Graph, monkeypatch: Any, rows: int) -> None:
    monkeypatch.setattr(tracing, "block_rows", lambda platform: rows)
    other = trace(model, clt, PROMPT)
    assert len(other.weights) == len(graph.weights)
    same(graph, other)


# Pages and streaming


@pytest.fixture(scope="module")
def crowded(model: Model, clt: Dictionary) -> Dictionary:
    """With 150 more features a layer that are active at position 5 of the prompt only."""
    _, found = forward(model.params, model.config, jnp.asarray(PROMPT)[None], sites=("resid_mid",))
    rng, params = np.random.default_rng(0), dict(clt.params)
    here = np.where(np.arange(len(PROMPT)) == 5, 1.0, -1.0)
    only = np.stack([np.linalg.pinv(np.asarray(x[0], np.float64)) @ here for x in found.resid_mid])
    size = rng.uniform(1, 2, (len(only), 150, 1))
    none = np.zeros((len(only), 150))
    more = {"W_enc": size * only[:, None, :], "b_enc": none, "threshold": none + 0.5}
    for name, value in more.items():
        params[name] = jnp.concatenate([params[name], jnp.asarray(value, "float32")], axis=1)
    params["W_dec"] = tuple(
        jnp.concatenate(
            [w, jnp.asarray(0.05 * rng.normal(size=(len(w), 150, w.shape[2])), "float32")], axis=1
        )
        for w in params["W_dec"]
    )
    config = dataclasses.replace(clt.config, n_features=clt.config.n_features + 150)
    return dataclasses.replace(clt, params=params, config=config)


@pytest.fixture(scope="module")
def crowded_graph(model: Model, crowded: Dictionary) -> Graph:
    return trace(model, crowded, PROMPT)


def test_pages_of_a_crowded_position(
    model: Model, crowded: Dictionary, crowded_graph: Graph, monkeypatch: Any
) -> None:
    features = crowded_graph.nodes[crowded_graph.nodes["kind"] == FEATURE]
    counts = np.bincount(features["position"])
    assert counts[5] > 400 and np.delete(counts, 5).max() < 40
    assert crowded_graph.checks().ok
    monkeypatch.setattr(sources, "SLOTS", (256,))  # one slot for every feature
    slots = trace(model, crowded, PROMPT)
    same(crowded_graph, slots)


def test_streamed_rows_are_the_same_bytes(
    model: Model, crowded: Dictionary, crowded_graph: Graph, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(tracing, "set_up", partial(tracing.set_up, kept=0))
    same(crowded_graph, trace(model, crowded, PROMPT), 0)
    save_dictionary(crowded, tmp_path / "d")
    lazy = load_dictionary(tmp_path / "d", lazy=True)
    same(crowded_graph, trace(model, lazy, PROMPT), 0)


# Padding


def with_context(model: Model, context: int) -> Model:
    return dataclasses.replace(model, config=dataclasses.replace(model.config, context=context))


# Tokens, and contexts which leave no room for padding, or less than the next rung of the ladder, or enough.
LENGTHS = [
    (8, (8, 32)),
    (13, (13, 14, 32)),
    (15, (15, 16, 32)),
    (16, (16, 32)),
    (17, (17, 20, 32)),
    (31, (31, 32)),
]


@pytest.mark.parametrize(
    ("tokens", "contexts"),
    [case if case[0] == 8 else pytest.param(*case, marks=pytest.mark.slow) for case in LENGTHS],
)
def test_padding(model: Model, clt: Dictionary, tokens: int, contexts: tuple[int, ...]) -> None:
    prompt = (PROMPT * 4)[:tokens]
    assert blocks.padded_length(tokens, contexts[0]) == tokens
    first, *others = (trace(with_context(model, context), clt, prompt) for context in contexts)
    assert first.checks().ok
    for other in others:
        same(first, other)


# Targets and limits


def test_order_of_targets(model: Model, clt: Dictionary) -> None:
    asked = [5, 17, 2, 31]
    one, other = (trace(model, clt, PROMPT, targets=some) for some in (asked, asked[::-1]))
    assert one.nodes["index"][one.targets].tolist() == asked
    a, b = (g.matrix()[g.targets][:, : -len(asked)] for g in (one, other))
    assert np.array_equal(a, b[::-1])
    features = one.nodes["kind"] == FEATURE
    assert np.array_equal(one.matrix()[features], other.matrix()[features])


def test_seconds_are_recorded_as_a_number(model: Model, clt: Dictionary, graph: Graph) -> None:
    short = trace(model, clt, PROMPT, seconds=1e-9, rank_every=16)
    assert short.settings["max_feature_nodes"] == (short.nodes["kind"] == FEATURE).sum() == 16
    assert short.measured["left_out"]["features"] == (graph.nodes["kind"] == FEATURE).sum() - 16
    assert short.checks().ok
    assert reproduce(short, model, clt).outcome == "identical"
    # Every feature was reached, in another order than without a limit: the record must lead back to that order.
    long = trace(model, clt, PROMPT, seconds=1e9, rank_every=7)
    assert "left_out" not in long.measured
    assert long.settings["max_feature_nodes"] == (graph.nodes["kind"] == FEATURE).sum()
    assert reproduce(long, model, clt).outcome == "identical"
    same(graph, long, 1e-6)


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
def test_what_is_left_out_bounds_influence(model: Model, clt: Dictionary, convention: str) -> None:
    """No node's influence, and no score, is further from the whole graph's than what was left out says."""
    whole = trace(model, clt, PROMPT, convention=convention)
    place = {name: i for i, name in enumerate(names(whole))}
    total = whole.nodes["probability"][whole.targets].sum()
    bounds = []
    for cap in (8, 30, 60):
        small = trace(model, clt, PROMPT, convention=convention, max_feature_nodes=cap, rank_every=8)
        left = small.measured["left_out"]
        assert left["features"] == (whole.nodes["kind"] == FEATURE).sum() - cap
        at = [place[name] for name in names(small)]
        off = np.abs(small.nodes["influence"] - whole.nodes["influence"][at]).max() / total
        assert 0 < off <= left["influence"] * (1 + 1e-6)
        scores = small.scores().replacement - whole.scores().replacement
        assert abs(scores) <= left["influence"] * (1 + 1e-6)
        # The largest share that one of them has so far is no more than its influence in the whole graph.
        gone = np.setdiff1d(np.flatnonzero(whole.nodes["kind"] == FEATURE), at)
        assert 0 < left["largest"] <= whole.nodes["influence"][gone].max() / total * (1 + 1e-6)
        bounds.append(left["influence"])
    assert bounds[0] > bounds[1] > bounds[2]


def test_without_the_first_position(model: Model, clt: Dictionary, graph: Graph) -> None:
    other = trace(model, clt, PROMPT, first_position=False)
    first = (graph.nodes["kind"] == FEATURE) & (graph.nodes["position"] == 0)
    assert first.any()
    place = {name: i for i, name in enumerate(names(graph))}
    at = np.asarray([place[name] for name in names(other)])
    assert sorted(at) == np.flatnonzero(~first).tolist()
    a, b = other.matrix(), graph.matrix()[np.ix_(at, at)]
    errors = (other.nodes["kind"] == ERROR) & (other.nodes["position"] == 0)
    assert not a[:, errors].any() and b[:, errors].any()
    scale = np.abs(graph.matrix()[at]).sum(axis=1)
    assert (np.abs(a - b)[:, ~errors].max(axis=1) <= TOLERANCE * scale).all()
    # What they would give is counted.
    lost = graph.matrix()[at][:, first].sum(axis=1) + b[:, errors].sum(axis=1)
    known = np.isin(other.nodes["kind"], (FEATURE, TARGET))
    assert (np.abs(other.nodes["left_out"] - lost)[known] <= TOLERANCE * scale[known]).all()
    assert other.checks().ok
    assert reproduce(other, model, clt).outcome == "identical"


# Programs and devices


class Compiled:
    """Counts the programs that this process makes ready, compiled or from the cache on disk."""

    def __init__(self) -> None:
        self.count, self.on = 0, True
        jax.monitoring.register_event_duration_secs_listener(self._seen)

    def _seen(self, event: str, seconds: float, **_: Any) -> None:
        if self.on and event == "/jax/core/compile/backend_compile_duration":
            self.count += 1


def test_a_second_prompt_compiles_nothing(model: Model) -> None:
    """Of other tokens and another length; a graph of at least 500 rows makes ready what its like may need."""
    wide = random_dictionary(model, "clt", n_features=48, dtype="float32")
    tokens = np.random.default_rng(5).integers(0, model.config.vocab_size, (3, 16))
    counter = Compiled()
    first = trace(model, wide, tokens[0])
    assert (first.nodes["kind"] == FEATURE).sum() >= 500
    assert counter.count
    counter.count = 0
    for row, length in ((1, 12), (2, 14), (0, 16)):
        graph = trace(model, wide, tokens[row, :length])
        assert graph.checks().ok
    counter.on = False
    assert counter.count == 0


@pytest.mark.parametrize(
    "name",
    ["complete", *[pytest.param(n, marks=pytest.mark.slow) for n in ("three", "heads-sae", "clt-some")]],
)
def test_one_and_eight_devices(name: str, monkeypatch: Any) -> None:
    """Also blocks of several layers, and targets that read through the heads of a Lorsa."""
    with jax.enable_x64(True):
        model, own = in_float32(make(name))
    monkeypatch.setattr(tracing, "block_rows", lambda platform: 16)
    seen: list[Any] = []
    monkeypatch.setattr(
        "jaxinterp.attribution.rows.cut", lambda *a: seen.extend(found := blocks.cut(*a)) or found
    )
    how = {"mlp": COMBINATIONS[name][1]}
    one = trace(model, own, PROMPT[:6], **how)
    assert len(seen) > 6
    # With a Lorsa some blocks have targets of several layers.
    assert any(len(set(b.layers.tolist())) > 1 for b in seen) or name != "complete"
    assert one.checks().ok
    same(one, trace(model, own, PROMPT[:6], devices=jax.devices()[:8], **how), 0)
