"""The exact identities of attribution graphs (I1-I7, I10), in float64, on every kind of model and dictionary."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from jaxinterp.attribution import trace
from jaxinterp.checkpoints import load_model
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import Dictionary, load_dictionary
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.graphs import Graph
from jaxinterp.graphs.kinds import BIAS, EMBEDDING, ERROR, FEATURE, TARGET
from jaxinterp.models import Edit, Model, forward
from jaxinterp.models.block import Reads
from jaxinterp.models.decoder import MlpSwap, unembedding
from tests.attribution.cases import DICTIONARIES, TOKENS, random_dictionary
from tests.references import stored
from tests.support import FAMILIES, shared, tiny_model

TOLERANCE = 1e-10

pytestmark = pytest.mark.usefixtures("x64")

CASES = [(family, name) for family in FAMILIES for name in DICTIONARIES]
CASES += [
    ("gpt_neox", "clt"),
    ("gemma3", "raw-clt"),
    ("olmo2", "skip-plt"),
    ("sinks", "plt"),
    ("experts", "clt"),
    ("latent", "raw-clt"),
    ("dyt", "clt"),
    ("dyt_latent", "skip-plt"),
    ("dyt", "raw-clt", "tangent"),
    ("dyt", "plt", "tangent"),
    ("dyt_latent", "clt", "tangent"),
]
CASES += [
    ("stories260K", "clt"),
    ("stories260K", "skip-plt"),
    ("pocket", "skip-plt"),
    ("pocket", "shipped-clt"),
]
# Of every family a stored model, as it is read from its own files.
STORED = {stored.case(name).family: name for name in reversed(stored.names())}
STORED |= {name: name for name in stored.names(dynamic_tanh=True)}
CASES += [
    (f"stored-{name}", list(DICTIONARIES)[number % len(DICTIONARIES)])
    for number, name in enumerate(sorted(STORED.values()))
]
FAST = [
    ("llama", "plt"),
    ("gpt2", "skip-plt"),
    ("gemma2", "raw-clt"),
    ("dyt", "raw-clt", "tangent"),
    ("pocket", "shipped-clt"),
]
PARAMS = [
    pytest.param(one, id="-".join(one), marks=[] if one in FAST else [pytest.mark.slow]) for one in CASES
]


def get_model(name: str) -> Model:
    """A model in float64 by name."""
    if name.startswith("stored-"):
        with tempfile.TemporaryDirectory() as folder:
            path = stored.write_folder(name.removeprefix("stored-"), Path(folder) / "model")
            return load_model(path, dtype="float64")
    if name == "stories260K":
        return load_model(shared("data/stories260K.bin"), dtype="float64")
    if name == "pocket":
        return load_model("pocket", dtype="float64")
    return tiny_model(name, dtype="float64")


@pytest.fixture(scope="module", params=PARAMS)
def case(request: pytest.FixtureRequest) -> tuple[Model, Dictionary, Graph]:
    """A model, a dictionary and the paper graph of a prompt."""
    with jax.enable_x64(True):
        model = get_model(request.param[0])
        if request.param[1] == "shipped-clt":
            dictionary = load_dictionary("pocket-clt", dtype="float64")
        else:
            dictionary = random_dictionary(model, request.param[1])
        line = {"dynamic_tanh": request.param[2]} if len(request.param) > 2 else {}
        return model, dictionary, trace(model, dictionary, TOKENS, **line)


def again(graph: Graph, model: Model, dictionary: Dictionary) -> Graph:
    """The graph of the same prompt with the same settings."""
    line = graph.settings.get("dynamic_tanh", "secant")
    return trace(model, dictionary, TOKENS, dynamic_tanh=line)


def matrix(graph: Graph) -> sparse.csr_array:
    """The adjacency in float64, row = target."""
    return sparse.csr_array((graph.weights, graph.indices, graph.indptr), shape=(len(graph), len(graph)))


def test_graph_is_worth_testing(case: tuple[Model, Dictionary, Graph]) -> None:
    model, dictionary, graph = case
    kinds = graph.nodes["kind"]
    assert graph.weights.dtype == np.float64
    assert all((kinds == kind).any() for kind in (FEATURE, ERROR, BIAS, EMBEDDING, TARGET))
    active = graph.nodes[kinds == FEATURE]
    assert len(np.unique(active["layer"])) == model.config.n_layers
    assert len(active) < len(TOKENS) * model.config.n_layers * dictionary.config.n_features


def test_checks_report_rounding_only(case: tuple[Model, Dictionary, Graph]) -> None:
    checks = case[2].checks()
    assert checks.ok
    assert checks.tolerance <= TOLERANCE
    assert max(checks.identity_1, checks.identity_2, checks.identity_3) < TOLERANCE


def test_i1_errors_complete_the_replacement(case: tuple[Model, Dictionary, Graph]) -> None:
    """Reconstruction plus error vectors in place of MLP outputs give the model's logits."""
    model, dictionary, graph = case
    tokens = jnp.asarray(TOKENS)[None]
    read_site, write_site = dictionary.config.read_site, dictionary.config.write_site
    clean, found = forward(model.params, model.config, tokens, sites=(read_site, write_site))
    read = getattr(found, read_site)
    rebuilt = dictionary.decode(dictionary.encode(read), read)
    error = getattr(found, write_site) - rebuilt
    edit = Edit(write_site, "replace", rebuilt + error, per_layer=True)
    logits, _ = forward(model.params, model.config, tokens, edits=[edit])
    assert float(jnp.max(jnp.abs(logits - clean))) < TOLERANCE * float(jnp.max(jnp.abs(clean)))
    assert graph.measured["identity_1"] < TOLERANCE


def test_i2_edges_and_bias_sum_to_pre_activations(case: tuple[Model, Dictionary, Graph]) -> None:
    model, dictionary, graph = case
    tokens = jnp.asarray(TOKENS)[None]
    _, found = forward(model.params, model.config, tokens, sites=(dictionary.config.read_site,))
    h = kind_of(dictionary.config).pre_activations(
        dictionary.params, dictionary.config, getattr(found, dictionary.config.read_site)[:, 0]
    )
    a, nodes = matrix(graph), graph.nodes
    features = np.flatnonzero(nodes["kind"] == FEATURE)
    at = tuple(nodes[name][features] for name in ("layer", "position", "index"))
    expected = np.asarray(h)[at] - np.asarray(dictionary.params["b_enc"])[at[0], at[2]]
    residual = np.abs(a.sum(axis=1)[features] - expected) / abs(a).sum(axis=1)[features]
    assert residual.max() < TOLERANCE


def test_i3_edges_sum_to_demeaned_logits_before_softcap(case: tuple[Model, Dictionary, Graph]) -> None:
    model, _, graph = case
    _, found = forward(model.params, model.config, jnp.asarray(TOKENS)[None], sites=("final_norm",))
    logits = np.asarray(einsum("d,dv->v", found.final_norm[0, -1], unembedding(model.params, model.config)))
    a, targets = matrix(graph), graph.targets
    expected = logits[graph.nodes["index"][targets]] - logits.mean()
    residual = np.abs(a.sum(axis=1)[targets] - expected) / abs(a).sum(axis=1)[targets]
    assert residual.max() < TOLERANCE


def test_i4_layered_hence_nilpotent(case: tuple[Model, Dictionary, Graph]) -> None:
    model, _, graph = case
    a = matrix(graph).toarray()
    n = model.config.n_layers
    power, total = a, np.zeros_like(a)
    for _ in range(n + 1):
        total, power = total + power, power @ a
    assert not power.any(), "A^(L+2) must be exactly zero"
    inverse = np.linalg.inv(np.eye(len(a)) - a) - np.eye(len(a))
    assert np.abs(total - inverse).max() < TOLERANCE * max(1.0, np.abs(total).max())


def test_i5_influence_is_conserved(case: tuple[Model, Dictionary, Graph]) -> None:
    graph = case[2]
    a = abs(matrix(graph)).toarray()
    sums = a.sum(axis=1, keepdims=True)
    normalised = np.divide(a, sums, out=np.zeros_like(a), where=sums > 0)
    influence = np.linalg.inv(np.eye(len(a)) - normalised) - np.eye(len(a))
    roots = np.isin(graph.nodes["kind"], (ERROR, BIAS, EMBEDDING))
    assert np.abs(influence[graph.targets][:, roots].sum(axis=1) - 1).max() < TOLERANCE


def test_i6_direct_steering_equals_edges(case: tuple[Model, Dictionary, Graph]) -> None:
    """Scaling one feature in the model itself, everything else clamped, moves every target by its edge.

    With tangents in place of Dynamic Tanhs that holds for small changes: the derivative of the model with its Dynamic
    Tanhs live is taken.
    """
    model, dictionary, graph = case
    config, d, kind = model.config, dictionary.config, kind_of(dictionary.config)
    tokens = jnp.asarray(TOKENS)[None]
    frozen = ["pattern", "attn_scale", "mlp_scale", "final_scale"]
    if config.post_norms:
        frozen += ["attn_post_scale", "mlp_post_scale"]
    if config.latent is not None:
        frozen += ["latent_scale"]
    tangent = graph.settings.get("dynamic_tanh") == "tangent"
    frozen = ["pattern"] if tangent else frozen
    _, clean = forward(model.params, config, tokens, sites=(*frozen, d.read_site, d.write_site, "final_norm"))
    clamps = [Edit(site, "replace", getattr(clean, site), per_layer=site != "final_scale") for site in frozen]
    features = np.flatnonzero(graph.nodes["kind"] == FEATURE)
    multiplier = -1.5
    for node in features[:: max(len(features) // 5, 1)]:
        layer, position, index = (int(graph.nodes[name][node]) for name in ("layer", "position", "index"))
        change = (multiplier - 1) * float(graph.nodes["activation"][node])
        a = jnp.zeros((1, len(TOKENS), d.n_features)).at[0, position, index].set(change)
        writes = kind.decode_into(dictionary.params, d, layer, a)

        def steered(strength: jax.Array | float, writes: jax.Array = writes) -> tuple[jax.Array, jax.Array]:
            """Pre-activations and what the unembedding reads with that much of the change."""

            def step(carry: None, number: int, reads: Reads) -> tuple[None, jax.Array]:
                out = getattr(clean, d.write_site)[number] + strength * writes[number]
                if d.skip:  # a skip follows its input even when MLP outputs are clamped
                    moved = getattr(reads, d.read_site) - getattr(clean, d.read_site)[number]
                    out = out + einsum("btd,ed->bte", moved, dictionary.params["W_skip"][number])
                return carry, out

            _, found = forward(
                model.params, config, tokens, sites=(d.read_site, "final_norm"), edits=clamps,
                swap=MlpSwap(step, None, d.write_site),
            )  # fmt: skip
            read = getattr(found, d.read_site)[:, 0]
            return kind.pre_activations(dictionary.params, d, read), found.final_norm[0, -1]

        if tangent:
            moved, final = jax.jvp(steered, (0.0,), (1.0,))[1]
        else:
            before, after = steered(0.0), steered(1.0)
            moved, final = after[0] - before[0], after[1] - before[1]
        moved = np.asarray(moved)
        at = tuple(graph.nodes[name][features] for name in ("layer", "position", "index"))
        column = matrix(graph)[:, [node]].toarray()[:, 0]
        scale = np.abs(moved).max() + 1
        assert np.abs(moved[at] - (multiplier - 1) * column[features]).max() < TOLERANCE * scale
        final = einsum("d,dv->v", final, unembedding(model.params, config))
        logits = np.asarray(final - final.mean())[graph.nodes["index"][graph.targets]]
        expected = (multiplier - 1) * column[graph.targets]
        assert np.abs(logits - expected).max() < TOLERANCE * (np.abs(logits).max() + 1)


def test_i7_feature_order_does_not_matter(case: tuple[Model, Dictionary, Graph]) -> None:
    model, dictionary, graph = case
    order = np.random.default_rng(0).permutation(dictionary.config.n_features)
    shuffled = jax.tree.map_with_path(
        lambda path, leaf: leaf if path[0].key in ("b_dec", "W_skip") else leaf[:, order], dictionary.params
    )
    other = again(graph, model, dataclasses.replace(dictionary, params=shuffled))
    renamed = other.nodes.copy()
    features = renamed["kind"] == FEATURE
    renamed["index"][features] = order[renamed["index"][features]]
    keys = [
        np.stack([x[n] for n in ("kind", "layer", "position", "index")], 1) for x in (graph.nodes, renamed)
    ]
    places = [np.lexsort(key.T) for key in keys]
    assert (keys[0][places[0]] == keys[1][places[1]]).all()
    one, two = (matrix(g).toarray()[np.ix_(p, p)] for g, p in zip((graph, other), places, strict=True))
    assert np.abs(one - two).max() < TOLERANCE * np.abs(one).max()


def test_i10_a_decoder_is_its_column_and_nothing_flows_back(case: tuple[Model, Dictionary, Graph]) -> None:
    model, dictionary, graph = case
    a, nodes = matrix(graph).toarray(), graph.nodes
    features = np.flatnonzero(nodes["kind"] == FEATURE)
    strongest = features[np.abs(a[:, features]).sum(axis=0).argmax()]
    layer, index = int(nodes["layer"][strongest]), int(nodes["index"][strongest])
    decoders = dictionary.params["W_dec"]
    if isinstance(decoders, tuple):
        silent = tuple(w.at[layer, index].set(0) if layer <= t else w for t, w in enumerate(decoders))
    else:
        silent = decoders.at[layer, index].set(0)
    other = again(
        graph, model, dataclasses.replace(dictionary, params={**dictionary.params, "W_dec": silent})
    )
    b = matrix(other).toarray()
    gone = (nodes["kind"] == FEATURE) & (nodes["layer"] == layer) & (nodes["index"] == index)
    assert not b[:, gone].any()
    # What the feature wrote is now missing from the reconstruction, hence in the error columns.
    rest = ~gone & (nodes["kind"] != ERROR)
    assert np.abs(b[:, rest] - a[:, rest]).max() < TOLERANCE * np.abs(a).max()

    edges_t, edges_s, _ = graph.edges()
    source, target = nodes[edges_s], nodes[edges_t]
    assert (source["position"] <= target["position"]).all(), "an edge goes back in position"
    is_feature = source["kind"] == FEATURE
    assert (source["layer"][is_feature] < target["layer"][is_feature]).all(), "an edge goes back in layer"
