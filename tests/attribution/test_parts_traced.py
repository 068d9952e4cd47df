"""The exact identities (I1-I7, I9, I10) of graphs of replacement models of several parts, through `trace`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import trace
from jaxinterp.dictionaries import Dictionary
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.graphs import Graph
from jaxinterp.graphs.kinds import BIAS, BIAS_NAMES, EMBEDDING, ERROR, FEATURE, TARGET
from jaxinterp.models import forward
from jaxinterp.models.decoder import unembedding
from jaxinterp.models.sites import VECTOR_SITES
from jaxinterp.replacement import Place, model_sources, own_writes
from jaxinterp.replacement.parts import JUNCTIONS
from tests.attribution.cases import TOKENS
from tests.replacement.combinations import COMBINATIONS, Made, in_float32, make
from tests.support import EVERY, tiny_model

TOLERANCE = 1e-10
PER_FEATURE = ("W_enc", "b_enc", "threshold", "W_dec")

FAST = [("complete-clt", "gemma2"), ("residual-tangent", "llama")]
TRACED = [name for name, (specs, _, _) in COMBINATIONS.items() if specs]
# Kinds of replacement models that are tried on every family: Lorsa with transcoders and with a CLT, autoencoders of
# attention outputs and of the residual stream with both lines for MLPs, some layers only.
KINDS = (
    "complete", "complete-clt", "attention-sae", "residual-constant", "residual-tangent", "complete-some", "clt-some",
)  # fmt: skip
CASES = [
    *FAST,
    *((name, COMBINATIONS[name][2]) for name in TRACED if (name, COMBINATIONS[name][2]) not in FAST),
]
MORE = [(name, family) for name in KINDS for family in (*EVERY, "dyt_latent") if (name, family) not in CASES]

pytestmark = pytest.mark.usefixtures("x64")


class Case(NamedTuple):
    """A replacement model, its graph, and the adjacency with a row a target."""

    name: str
    made: Made
    graph: Graph
    matrix: np.ndarray


def dense(graph: Graph) -> np.ndarray:
    """The adjacency in the dtype of its edges."""
    found = np.zeros((len(graph), len(graph)), graph.weights.dtype)
    targets, sources, weights = graph.edges()
    found[targets, sources] = weights
    return found


def traced(name: str, made: Made, dictionaries: list[Dictionary] | None = None) -> Graph:
    return trace(made.model, dictionaries or made.dictionaries, TOKENS, mlp=COMBINATIONS[name][1])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(case, id="-".join(case), marks=[] if case in FAST else [pytest.mark.slow])
        for case in CASES
    ],
)
def case(request: pytest.FixtureRequest) -> Case:
    name, family = request.param
    return of_case(name, family)


def of_case(name: str, family: str) -> Case:
    with jax.enable_x64(True):
        made = make(name, family)
        graph = traced(name, made)
        return Case(name, made, graph, dense(graph))


def number_of(made: Made, part: int) -> int:
    return next(i for i, place in enumerate(made.places) if place.junction == JUNCTIONS[part])


def model_run(made: Made) -> tuple[list[Any], np.ndarray]:
    """Of the model's own run what each part's encoders give there and on zeros, and the last logits.

    A Lorsa finds where its heads look itself.
    """
    sites = tuple(sorted({p.read_site for p in made.places if p.read_site} | {"final_norm"}))

    @jax.jit
    def run(params: Any, tokens: Any) -> Any:
        _, found = forward(params, made.model.config, tokens, sites=sites)
        parts: list[Any] = []
        for place in made.places:
            if place.read_site is None:
                parts.append(None)
                continue
            read = getattr(found, place.read_site)[:, 0]
            parts.append(tuple(pre_activations(made, place, x) for x in (read, jnp.zeros_like(read))))
        return parts, found.final_norm[0, -1] @ unembedding(params, made.model.config)

    return jax.tree.map(np.asarray, run(made.model.params, jnp.asarray(TOKENS)[None]))


def pre_activations(made: Made, place: Place, read: Any, pattern: Any = None) -> Any:
    """[L', T, N] of the dictionary at a place for what is read, [L, T, D]."""
    own = made.at(place)
    assert own is not None
    how = {} if pattern is None else {"pattern": pattern}
    return kind_of(own.config).pre_activations(own.params, own.config, read[jnp.asarray(place.layers)], **how)


def test_graph_is_worth_testing(case: Case) -> None:
    graph, made = case.graph, case.made
    assert graph.weights.dtype == np.float64
    features = graph.nodes[graph.nodes["kind"] == FEATURE]
    for part in np.unique(features["part"]):
        number = number_of(made, int(part))
        own, place = made.at(made.places[number]), made.places[number]
        here = features[features["part"] == part]
        assert sorted(set(here["layer"].tolist())) == list(place.layers)
        assert own is not None and len(here) < len(TOKENS) * len(place.layers) * own.config.n_features
    assert len(np.unique(features["part"])) == len(made.dictionaries)
    assert len(graph.targets) > 1


def check_sums(case: Case) -> None:
    """I1, I2 and I3: the replacement is the model; edges sum to pre-activations and logits of the model's own run."""
    made, graph, a = case.made, case.graph, case.matrix
    assert graph.checks().ok
    assert graph.measured["identity_1"] < TOLERANCE
    (parts, logits), nodes = model_run(made), graph.nodes
    sums, scale = a.sum(axis=1), np.abs(a).sum(axis=1)
    assert not nodes["left_out"].any()
    for place, found in zip(made.places, parts, strict=True):
        if found is None:
            continue
        h, at_zero = found
        own = np.flatnonzero((nodes["kind"] == FEATURE) & (nodes["part"] == JUNCTIONS.index(place.junction)))
        layer = np.searchsorted(place.layers, nodes["layer"][own])
        at = layer, nodes["position"][own], nodes["index"][own]
        assert (np.abs(sums[own] + at_zero[at] - h[at]) / scale[own]).max() < TOLERANCE, place
    expected = logits[nodes["index"][graph.targets]] - logits.mean()
    assert (np.abs(sums[graph.targets] - expected) / scale[graph.targets]).max() < TOLERANCE


def longest_chain(made: Made) -> int:
    """How many features one path can pass: a part's features reach those that read after they have written."""
    moments = {}
    for place in made.places:
        if place.read_site is not None:
            for layer in place.layers:
                read, write = (
                    layer * len(VECTOR_SITES) + VECTOR_SITES.index(s)
                    for s in (place.read_site, place.write_site)
                )
                moments[read] = write
    longest: dict[int, int] = {}
    for read in sorted(moments):
        longest[read] = 1 + max((n for other, n in longest.items() if moments[other] < read), default=0)
    return max(longest.values())


def check_layering(case: Case) -> int:
    """I4 and I5: powers end where the longest chain does and add up to the inverse; influence is conserved.

    Returns the first power that is zero.
    """
    a, graph, made = case.matrix, case.graph, case.made
    power, total, exponent = a, np.zeros_like(a), 1
    while power.any():
        assert exponent < longest_chain(made) + 2
        total, power, exponent = total + power, power @ a, exponent + 1
    unit = np.eye(len(a))
    inverse = np.linalg.inv(unit - a) - unit
    assert np.abs(total - inverse).max() < TOLERANCE * max(1.0, np.abs(total).max())
    sums = np.abs(a).sum(axis=1, keepdims=True)
    normalised = np.divide(np.abs(a), sums, out=np.zeros_like(a), where=sums > 0)
    influence = np.linalg.inv(unit - normalised) - unit
    roots = np.isin(graph.nodes["kind"], (ERROR, BIAS, EMBEDDING))
    assert np.abs(influence[graph.targets][:, roots].sum(axis=1) - 1).max() < TOLERANCE
    return exponent


def alone(made: Made, graph: Graph) -> Any:
    """`Sources` with a leading axis of nodes: what each node writes and nothing else."""
    operator, nodes = made.operator, graph.nodes
    whole = jax.tree.map(np.asarray, model_sources(operator, made.run, own_writes(operator, made.run)))
    found = jax.tree.map(lambda leaf: np.zeros((len(nodes), *leaf.shape), leaf.dtype), whole)
    layers = found.layers
    for i in np.flatnonzero(nodes["kind"] == FEATURE):
        number = number_of(made, int(nodes["part"][i]))
        place, own = made.places[number], made.at(made.places[number])
        assert own is not None
        kind, feature = kind_of(own.config), int(nodes["index"][i])
        for source, target in kind.writes(own.config):
            if place.layers[source] == nodes["layer"][i]:
                row = np.asarray(kind.decoder_rows(own.params, own.config, source, target, feature))
                layers.write[number][i, place.layers[target], nodes["position"][i]] = (
                    nodes["activation"][i] * row
                )
    explained = [written.sum(axis=0) for written in layers.write]
    final, n_layers = found.final, made.model.config.n_layers
    for i in np.flatnonzero(nodes["kind"] != FEATURE):
        kind, layer, position, index = (
            int(nodes[name][i]) for name in ("kind", "layer", "position", "index")
        )
        number = next((n for n, p in enumerate(made.places) if p.junction == JUNCTIONS[nodes["part"][i]]), -1)
        if kind == EMBEDDING:
            found.embed[i, position] = whole.embed[position]
        elif kind == ERROR:
            missing = whole.layers.write[number] - explained[number]
            layers.write[number][i, layer, position] = missing[layer, position]
        elif kind == BIAS:
            name = BIAS_NAMES[index]
            if name == "position":
                found.position[i, position] = 1
            elif name == "norm" and layer == n_layers:
                final[i, position] = 1
            else:
                column = layers.decoder[number] if name == "decoder" else getattr(layers, name)
                column[i, layer, position] = 1
    return found


def check_every_edge(case: Case) -> None:
    """I6: a source at M times what it is, all else held fixed, moves everything that reads by (M - 1) edges.

    The replacement model is run forward, with no walk, block or slot. That it is the model's own derivative is tested
    in `tests/replacement/test_parts.py`.
    """
    made, graph, multiplier = case.made, case.graph, -1.5
    nodes = graph.nodes

    @jax.jit
    @jax.vmap
    def moved(change: Any) -> Any:
        reads = made.operator.apply(change)
        found = []
        for place, read, pattern in zip(made.places, reads.read, made.run.patterns, strict=True):
            if read is None:
                found.append(None)
                continue
            h, at_zero = (pre_activations(made, place, x, pattern) for x in (read, jnp.zeros_like(read)))
            found.append(h - at_zero)
        return tuple(found), reads.final[-1] @ unembedding(made.model.params, made.model.config)

    change = jax.tree.map(lambda leaf: (multiplier - 1) * leaf, alone(made, graph))
    change = jax.tree.map(lambda leaf: leaf.astype(np.float64), change)
    parts, logits = jax.tree.map(np.asarray, moved(change))
    scale = np.abs(case.matrix).sum(axis=1)
    for number, h in enumerate(parts):
        if h is None:
            continue
        place = made.places[number]
        own = np.flatnonzero((nodes["kind"] == FEATURE) & (nodes["part"] == JUNCTIONS.index(place.junction)))
        layer = np.searchsorted(place.layers, nodes["layer"][own])
        expected = h[:, layer, nodes["position"][own], nodes["index"][own]].T
        off = np.abs(expected - (multiplier - 1) * case.matrix[own]).max(axis=1)
        assert (off / scale[own]).max() < TOLERANCE
    centred = (logits - logits.mean(axis=1, keepdims=True))[:, nodes["index"][graph.targets]].T
    off = np.abs(centred - (multiplier - 1) * case.matrix[graph.targets]).max(axis=1)
    assert (off / scale[graph.targets]).max() < TOLERANCE


def test_i1_to_i3_sums(case: Case) -> None:
    check_sums(case)


def test_i4_i5_layering_and_conservation(case: Case) -> None:
    # In parallel blocks no chain goes from attention to the MLP of a layer.
    assert check_layering(case) == longest_chain(case.made) + 2 or case.made.model.config.parallel


def test_i6_every_edge_by_running_forward(case: Case) -> None:
    check_every_edge(case)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), MORE)
def test_every_kind_on_every_family(name: str, family: str) -> None:
    made = of_case(name, family)
    check_sums(made)
    check_layering(made)
    check_every_edge(made)


def taken(own: Dictionary, features: np.ndarray) -> Dictionary:
    """The dictionary of those features."""
    params = {
        name: jax.tree.map(lambda leaf: leaf[:, features], leaf) if name in PER_FEATURE else leaf
        for name, leaf in own.params.items()
    }
    config = dataclasses.replace(own.config, n_features=len(features))
    return dataclasses.replace(own, params=params, config=config)


def keyed(nodes: np.ndarray, index: np.ndarray) -> list[tuple[int, ...]]:
    columns = [nodes[name].tolist() for name in ("kind", "part", "layer", "position")]
    return list(zip(*columns, index.tolist(), strict=True))


def test_i7_order_and_halves(case: Case) -> None:
    """Features in another order, each twice with half of its decoder: the same graph with edges split."""
    name, made, graph, a = case
    rng, halves, orders = np.random.default_rng(4), [], {}
    for place in made.places:
        own = made.at(place)
        if own is None:
            continue
        n = own.config.n_features
        heads = own.config.attention.heads if own.config.attention is not None else 1
        # Features of a head stand together.
        of_head = np.arange(n).reshape(heads, -1).repeat(2, axis=1)
        order = np.concatenate([rng.permutation(one) for one in of_head])
        orders[JUNCTIONS.index(place.junction)] = order
    for own in made.dictionaries:
        part = next(JUNCTIONS.index(p.junction) for p in made.places if made.at(p) is own)
        other = taken(own, orders[part])
        half = jax.tree.map(lambda leaf: leaf / 2, other.params["W_dec"])
        halves.append(dataclasses.replace(other, params={**other.params, "W_dec": half}))
    split = traced(name, made, halves)
    place_of = {key: i for i, key in enumerate(keyed(graph.nodes, graph.nodes["index"]))}
    index = split.nodes["index"].copy()
    features = split.nodes["kind"] == FEATURE
    for part, order in orders.items():
        own = features & (split.nodes["part"] == part)
        index[own] = order[index[own]]
    at = np.asarray([place_of[key] for key in keyed(split.nodes, index)])
    assert (np.bincount(at) == np.where(graph.nodes["kind"] == FEATURE, 2, 1)).all()
    expected = a[np.ix_(at, at)] * np.where(features, 0.5, 1.0)[None, :]
    scale = np.abs(expected).sum(axis=1)
    assert (np.abs(dense(split) - expected).max(axis=1) / np.where(scale > 0, scale, 1)).max() < TOLERANCE


def test_i10_decoders_and_causality(case: Case) -> None:
    """A decoder set to zero takes its feature's column and, of the others, those of errors; nothing goes back."""
    name, made, graph, a = case
    nodes, silent = graph.nodes, []
    gone = np.zeros(len(nodes), bool)
    for own in made.dictionaries:
        place = next(p for p in made.places if made.at(p) is own)
        here = (nodes["kind"] == FEATURE) & (nodes["part"] == JUNCTIONS.index(place.junction))
        strongest = np.flatnonzero(here)[np.abs(a[:, here]).sum(axis=0).argmax()]
        feature = int(nodes["index"][strongest])
        gone |= here & (nodes["index"] == feature)
        decoders = jax.tree.map(lambda leaf, f=feature: leaf.at[:, f].set(0), own.params["W_dec"])
        silent.append(dataclasses.replace(own, params={**own.params, "W_dec": decoders}))
    b = dense(traced(name, made, silent))
    assert gone.any() and a[:, gone].any() and not b[:, gone].any()
    rest = ~gone & (nodes["kind"] != ERROR)
    assert np.abs(b[:, rest] - a[:, rest]).max() < TOLERANCE * np.abs(a).max()

    targets, sources, _ = graph.edges()
    assert (nodes["position"][sources] <= nodes["position"][targets]).all(), "an edge goes back in position"
    wrote, read = (np.full(len(nodes), value) for value in (-1, 1 << 20))
    for i in np.flatnonzero(nodes["kind"] == FEATURE):
        place = made.places[number_of(made, int(nodes["part"][i]))]
        before = int(nodes["layer"][i]) * len(VECTOR_SITES)
        wrote[i] = before + VECTOR_SITES.index(place.write_site)
        read[i] = before + VECTOR_SITES.index(str(place.read_site))
    assert (wrote[sources] < read[targets]).all(), "a feature is read before it is written"


@pytest.mark.slow
@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
@pytest.mark.parametrize("name", TRACED)
def test_float32(name: str, convention: str) -> None:
    """I1 to I3 to 1e-4 of the sum of absolute incoming edges, which may be left out in part."""
    model, own = in_float32(make(name))
    graph = trace(model, own, TOKENS, mlp=COMBINATIONS[name][1], convention=convention)
    assert graph.weights.dtype == np.float32
    checks = graph.checks()
    assert checks.ok and checks.tolerance <= 1e-4
    assert (graph.nodes["left_out"] != 0).any() == (convention == "circuit-tracer")


# Families whose MLPs can be plain ReLU neurons, with where these write.
NEURONS = {
    "llama": "mlp_out", "gpt2": "mlp_out", "gpt_neox": "mlp_out", "gemma2": "mlp_out_raw", "olmo2": "mlp_out_raw",
    "sinks": "mlp_out", "latent": "mlp_out", "dyt": "mlp_out_raw",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", NEURONS)
def test_i9_neurons_of_relu_mlps(family: str) -> None:
    """Neurons of ReLU MLPs are an exact transcoder: errors are zero, both scores one."""
    model = tiny_model(family, dtype="float64", activation="relu", gated=False, mlp_bias=True)
    layers, config = model.params["layers"], model.config
    where = DictionaryConfig(
        "plt", config.n_layers, config.d_mlp, config.d_model, "relu", read_site="mlp_in", write_site=NEURONS[family]
    )  # fmt: skip
    params = {
        "W_enc": jnp.swapaxes(layers["up"], 1, 2), "b_enc": layers["up_bias"], "W_dec": layers["down"],
        "b_dec": layers["down_bias"],
    }  # fmt: skip
    graph = trace(model, Dictionary(params, where, "neurons"), TOKENS)
    errors = graph.nodes["kind"] == ERROR
    assert np.abs(dense(graph)[:, errors]).max() < 1e-12
    scores = graph.scores()
    assert scores.replacement == pytest.approx(1, abs=TOLERANCE)
    assert scores.completeness == pytest.approx(1, abs=TOLERANCE)
    assert graph.checks().ok and (graph.nodes["kind"] == TARGET).any()
