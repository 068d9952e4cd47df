"""Every sort of target end to end, in float64: its value and its edges by routes of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import reproduce, trace
from jaxinterp.attribution.contrast import contrast
from jaxinterp.attribution.wanted import (
    Completion,
    Difference,
    Direction,
    Feature,
    Salient,
    Supernode,
    Token,
)  # fmt: skip
from jaxinterp.core.errors import InputError
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import Dictionary
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.graphs import FEATURE, TARGET, Graph, load_graph
from jaxinterp.models import Edit, Model, forward
from jaxinterp.models.block import Reads
from jaxinterp.models.decoder import MlpSwap, unembedding
from jaxinterp.replacement import places
from tests.attribution.cases import TOKENS, random_dictionary
from tests.graphs.graph_examples import dense_matrix
from tests.replacement.combinations import COMBINATIONS
from tests.replacement.combinations import dictionary as part_dictionary
from tests.support import tiny_model

TOLERANCE = 1e-10
CONTINUED = (4, 9, 2)  # of which the last is a target only
LENGTH = len(TOKENS) + 2

pytestmark = pytest.mark.usefixtures("x64")


class Case(NamedTuple):
    model: Model
    dictionary: Dictionary
    graph: Graph
    final: np.ndarray  # [T, D] what the unembedding reads
    read: np.ndarray  # [L, T, D]
    h: np.ndarray  # [L, T, N] every pre-activation
    columns: np.ndarray  # [V, D] demeaned
    active: tuple[int, int, int]
    silent: tuple[int, int, int]


PROBE = np.random.default_rng(5).normal(size=16)


def wanted(active: tuple[int, int, int], silent: tuple[int, int, int]) -> list[Any]:
    """One or two of every sort; features as (layer, position, index)."""
    one, other = (Feature(layer, index, position) for layer, position, index in (active, silent))
    return [
        5,
        Token(7, (0, 3)),
        Salient(2, at_most=2),
        Difference(3, position=1),
        Difference(3, (4, 8), position=4),
        Direction(PROBE, "final", 3),
        Direction(PROBE, "inner", 4, layer=1),
        one,
        other,
        Supernode("both", (one, other), (0.5, -2.0)),
        Completion(CONTINUED),
    ]


@pytest.fixture(
    scope="module", ids="-".join,
    params=[("gpt2", "clt"), pytest.param(("gemma2", "skip-plt"), marks=pytest.mark.slow)],
)  # fmt: skip
def case(request: pytest.FixtureRequest) -> Case:
    with jax.enable_x64(True):
        family, name = request.param
        model = tiny_model(family, dtype="float64")
        dictionary = random_dictionary(model, name)
        tokens = jnp.asarray((*TOKENS, *CONTINUED[:-1]))[None]
        d = dictionary.config
        _, found = forward(model.params, model.config, tokens, sites=(d.read_site, "final_norm"))
        read = np.asarray(getattr(found, d.read_site))[:, 0]
        h = np.asarray(kind_of(d).pre_activations(dictionary.params, d, jnp.asarray(read)))
        fires = np.asarray(dictionary.encode(jnp.asarray(read))) != 0
        layer = model.config.n_layers - 1
        active, silent = ((layer, 4, int(np.flatnonzero(fires[layer, 4] == on)[0])) for on in (True, False))
        graph = trace(model, dictionary, TOKENS, targets=wanted(active, silent))
        matrix = np.asarray(unembedding(model.params, model.config))
        columns = (matrix - matrix.mean(axis=1, keepdims=True)).T
        return Case(
            model, dictionary, graph, np.asarray(found.final_norm)[0], read, h, columns, active, silent
        )


def expected(case: Case, final: np.ndarray, read: np.ndarray, h: np.ndarray) -> np.ndarray:
    """The value of each target of `wanted`, from what the model has at the places."""
    logits = final @ case.columns.T
    salient = case.graph.nodes["index"][case.graph.targets][3:5]
    one, other = (h[layer, position, index] for layer, position, index in (case.active, case.silent))
    return np.array(
        [
            logits[5, 5], logits[0, 7], logits[3, 7], *(logits[2, t] for t in salient), logits[1, 3],
            logits[4, 3] - (logits[4, 4] + logits[4, 8]) / 2, final[3] @ PROBE, read[1, 4] @ PROBE, one, other,
            0.5 * one - 2 * other, logits[5, 4], logits[6, 9], logits[7, 2],
        ]
    )  # fmt: skip


def test_i3_edges_and_constants_sum_to_values(case: Case) -> None:
    graph = case.graph
    assert len(graph.token_ids) == LENGTH
    nodes = graph.nodes[graph.targets]
    values = expected(case, case.final, case.read, case.h)
    assert np.abs(nodes["value"] - values).max() < TOLERANCE
    rows = dense_matrix(graph)[graph.targets]
    total = rows.sum(axis=1) + nodes["constant"] + nodes["left_out"]
    assert np.abs(total - values).max() < TOLERANCE * np.abs(rows).sum(axis=1).max()
    assert graph.checks().ok
    bias = np.asarray(case.dictionary.params["b_enc"])
    one, other = (bias[layer, index] for layer, _, index in (case.active, case.silent))
    assert np.abs(nodes["constant"][9:12] - [one, other, 0.5 * one - 2 * other]).max() < TOLERANCE
    assert not nodes["constant"][[*range(9), 12, 13, 14]].any()
    # The most probable two, of the model itself.
    logits, _ = forward(case.model.params, case.model.config, jnp.asarray(graph.token_ids)[None])
    shares = np.asarray(jax.nn.softmax(logits[0], axis=-1))
    assert np.array_equal(nodes["index"][3:5], np.argsort(-shares[2])[:2])
    tokens = [0, 1, 2, 3, 4, 12, 13, 14]
    at = nodes["position"][tokens], nodes["index"][tokens]
    assert np.abs(nodes["probability"][tokens] - shares[at]).max() < TOLERANCE
    assert np.allclose(np.delete(nodes["probability"], tokens), 1 / len(nodes))


def test_rows_of_combinations(case: Case) -> None:
    """A feature as a target has the edges of its node, sums have the sums; nothing comes from later positions."""
    graph, dense = case.graph, dense_matrix(case.graph)
    nodes, rows = graph.nodes, dense[graph.targets]
    key = case.active
    here = (nodes["layer"] == key[0]) & (nodes["position"] == key[1]) & (nodes["index"] == key[2])
    own = np.flatnonzero((nodes["kind"] == FEATURE) & here)
    assert len(own) == 1 and np.array_equal(rows[9], dense[own[0]])
    assert rows[10].any()
    assert np.abs(rows[11] - (0.5 * rows[9] - 2 * rows[10])).max() < TOLERANCE
    for row, target in zip(rows, nodes[graph.targets], strict=True):
        later = nodes["position"] > target["position"]
        assert not row[later].any()
        inner = (nodes["kind"] == FEATURE) & (nodes["layer"] >= target["layer"])
        assert not row[inner].any()
    assert (nodes["kind"][graph.targets] == TARGET).all()


def test_a_target_inside_the_prompt_is_that_of_the_shorter_prompt(case: Case) -> None:
    graph = case.graph
    short = trace(
        case.model, case.dictionary, TOKENS[:5], targets=[Difference(3, (4, 8)), Salient(2, at_most=2)]
    )
    names = ("kind", "part", "layer", "position", "index")
    place = {tuple(node[n] for n in names): i for i, node in enumerate(graph.nodes)}
    whole, part = dense_matrix(graph), dense_matrix(short)
    for mine, theirs in zip(short.targets, (6, 3, 4), strict=True):
        row = np.zeros(len(graph))
        for i in np.flatnonzero(part[mine]):
            row[place[tuple(short.nodes[n][i] for n in names)]] = part[mine, i]
        assert np.abs(row - whole[graph.targets[theirs]]).max() < TOLERANCE
        assert abs(short.nodes["value"][mine] - graph.nodes["value"][graph.targets[theirs]]) < TOLERANCE


def test_i6_steering_moves_every_target_by_its_edge(case: Case) -> None:
    """One feature scaled in the model itself, everything else clamped: inactive features move by their edges too."""
    model, d, graph = case.model, case.dictionary.config, case.graph
    kind, tokens = kind_of(d), jnp.asarray(graph.token_ids)[None]
    frozen = ["pattern", "attn_scale", "mlp_scale", "final_scale"]
    frozen += ["attn_post_scale", "mlp_post_scale"] if model.config.post_norms else []
    _, clean = forward(model.params, model.config, tokens, sites=(*frozen, d.read_site, d.write_site))
    clamps = [Edit(site, "replace", getattr(clean, site), per_layer=site != "final_scale") for site in frozen]
    dense = dense_matrix(graph)
    features = np.flatnonzero(graph.nodes["kind"] == FEATURE)
    strongest = features[np.argsort(-np.abs(dense[graph.targets][:, features]).sum(axis=0))[:2]]

    @jax.jit
    def sites(strength: float, writes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the unembedding and the encoders read, and pre-activations, with that much of the change."""

        def step(carry: None, number: int, reads: Reads) -> tuple[None, jax.Array]:
            out = getattr(clean, d.write_site)[number] + strength * writes[number]
            if d.skip:
                moved = getattr(reads, d.read_site) - getattr(clean, d.read_site)[number]
                out = out + einsum("btd,ed->bte", moved, case.dictionary.params["W_skip"][number])
            return carry, out

        _, found = forward(
            model.params, model.config, tokens, sites=(d.read_site, "final_norm"), edits=clamps,
            swap=MlpSwap(step, None, d.write_site),
        )  # fmt: skip
        x = getattr(found, d.read_site)[:, 0]
        return found.final_norm[0], x, kind.pre_activations(case.dictionary.params, d, x)

    for node in strongest.tolist():
        layer, position, index = (int(graph.nodes[name][node]) for name in ("layer", "position", "index"))
        change = -2.5 * float(graph.nodes["activation"][node])
        a = jnp.zeros((1, LENGTH, d.n_features)).at[0, position, index].set(change)
        writes = kind.decode_into(case.dictionary.params, d, layer, a)

        before, after = (expected(case, *map(np.asarray, sites(strength, writes))) for strength in (0.0, 1.0))
        moved = after - before
        assert np.abs(moved - -2.5 * dense[graph.targets, node]).max() < TOLERANCE * (np.abs(moved).max() + 1)


def test_reproduced_from_the_file_alone(case: Case, tmp_path: Path) -> None:
    if case.dictionary.config.kind != "clt":
        pytest.skip("once is enough")
    for ending, graph in (("jigraph", case.graph), ("json", case.graph.prune())):
        graph.save(tmp_path / f"g.{ending}")
        loaded = load_graph(tmp_path / f"g.{ending}")
        found = reproduce(loaded, case.model, case.dictionary)
        assert found.outcome == "identical", str(found)
        assert found.graph.labels == loaded.labels
    targets = list(loaded.settings["targets"])
    targets[0] = {**targets[0], "position": 4}
    other = dataclasses.replace(loaded, settings={**loaded.settings, "targets": targets})
    found = reproduce(other, case.model, case.dictionary)
    assert found.outcome == "different"
    assert "settings or tokens" in found.differences[0]
    newer = dataclasses.replace(
        loaded, settings={**loaded.settings, "targets": [{"sort": "path", "name": "x"}]}
    )
    with pytest.raises(InputError, match=r"settings.targets\[0\]: sort is 'path'"):
        reproduce(newer, case.model, case.dictionary)


def test_two_prompts_and_their_contrast(case: Case) -> None:
    if case.dictionary.config.kind != "clt":
        pytest.skip("once is enough")
    layer, _, index = case.active
    targets = [Difference(3, 4), Feature(layer, index, -2), 7]
    other = (*TOKENS[:2], 30, *TOKENS[3:])
    a, b = trace(case.model, case.dictionary, [TOKENS, other[1:]], targets=targets)
    alone = trace(case.model, case.dictionary, TOKENS, targets=targets)
    assert a.weights.tobytes() == alone.weights.tobytes() and a.nodes.tobytes() == alone.nodes.tobytes()
    found = contrast(a, b, inner=True)
    assert found.facts["same_model"] and found.facts["unmatched_targets"] == [[], []]
    assert len(found) > 3
    for row in range(len(found)):
        assert abs(found.remainder(row)) < TOLERANCE
    assert len(found.only("a")) and len(found.only("b"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["three", "complete-some", "residual-mid", "heads-sae"])
def test_features_and_directions_of_every_part(name: str) -> None:
    """Attention, MLP and residual stream, active or not, against what dictionaries say of the model's own sites."""
    specs, mlp, family = COMBINATIONS[name]
    model = tiny_model(family, dtype="float64")
    found = [part_dictionary(model, spec, i) for i, spec in enumerate(specs)]
    tokens = jnp.asarray(TOKENS)[None]
    _, clean = forward(model.params, model.config, tokens, sites=sorted({d.config.read_site for d in found}))
    targets: list[Any] = []
    values: list[float] = []
    for place in places(found, model.config, mlp):
        if place.dictionary is None:
            continue
        d = found[place.dictionary]
        read = getattr(clean, d.config.read_site)[np.asarray(place.layers)]
        h = np.asarray(kind_of(d.config).pre_activations(d.params, d.config, read))[:, 0]
        own = len(place.layers) - 1
        for index in (int(h[own, 3].argmax()), int(h[own, 3].argmin())):
            targets.append(Feature(place.layers[own], index, 3, place.junction))
            values.append(h[own, 3, index])
        probe = np.linspace(-1, 1, read.shape[-1])
        targets.append(Direction(probe, place.junction, 2, place.layers[own], place.junction))
        values.append(float(read[own, 0, 2] @ probe))
    features = [t for t in targets if isinstance(t, Feature)]
    targets.append(Supernode("all", features, [float(i + 1) for i in range(len(features))]))
    at = [v for t, v in zip(targets, values, strict=False) if isinstance(t, Feature)]
    values.append(float(np.arange(1, len(at) + 1) @ np.asarray(at)))
    graph = trace(model, found, TOKENS, targets=[3, *targets], mlp=mlp)
    assert np.abs(graph.nodes["value"][graph.targets][1:] - values).max() < TOLERANCE * np.abs(values).max()
    assert graph.checks().ok, str(graph.checks())
