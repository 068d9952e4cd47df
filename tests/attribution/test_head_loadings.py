"""Head loadings: they sum to edges, and each is what its head carries."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import trace
from jaxinterp.attribution.heads import head_loadings
from jaxinterp.attribution.heads_record import HeadLoadings
from jaxinterp.attribution.readings import PARTS
from jaxinterp.attribution.replaced import Replaced, replace
from jaxinterp.attribution.wanted import Difference, Feature, Supernode
from jaxinterp.checkpoints import save_model
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, save_dictionary
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.graphs import Graph
from jaxinterp.graphs.kinds import BIAS, BIAS_NAMES, EMBEDDING, FEATURE
from jaxinterp.models import Model
from jaxinterp.models.decoder import unembedding
from jaxinterp.replacement import Sources
from tests.attribution.cases import TOKENS, random_dictionary
from tests.attribution.test_qk import SEVERAL
from tests.replacement.combinations import COMBINATIONS, dictionary
from tests.support import tiny_model

TOLERANCE = 1e-10
CASES = [("gemma2", "raw-clt", "secant")]
SLOW = [
    ("dyt_latent", "clt", "tangent"),
    ("llama", "skip-plt", "secant"), ("gpt2", "clt", "secant"), ("gemma3", "raw-clt", "secant"),
    ("olmo2", "skip-plt", "secant"), ("sinks", "plt", "secant"), ("experts", "clt", "secant"),
    ("latent", "raw-clt", "secant"), ("dyt", "plt", "secant"),
]  # fmt: skip


def check(model: Model, parts: object, graph: Graph) -> None:
    """Both partitions sum to every edge; one head or none lies in between on paths of one layer."""
    last, first = (head_loadings(model, parts, graph, by=by) for by in ("last", "first"))
    size = np.bincount(last.target, np.abs(last.weights), minlength=len(graph))[last.target]
    for found in (last, first):
        assert found.off < TOLERANCE
        weights = dict(zip(zip(*graph.edges()[:2], strict=True), graph.weights, strict=True))
        edges = np.asarray([weights[t, s] for t, s in zip(found.target, found.source, strict=True)])
        assert (np.abs(found.direct + found.heads.sum(axis=(1, 2)) - edges) <= TOLERANCE * size).all()
    np.testing.assert_allclose(last.direct, first.direct, atol=TOLERANCE * size.max())
    apart = graph.nodes["position"][last.source] != graph.nodes["position"][last.target]
    assert not last.direct[apart].any(), "another position is reached through heads alone"


@pytest.mark.parametrize(
    ("family", "name", "line"), [*CASES, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)]
)
def test_heads_sum_to_edges(x64: None, family: str, name: str, line: str) -> None:
    model = tiny_model(family, dtype="float64")
    d = random_dictionary(model, name)
    graph = trace(model, d, TOKENS, dynamic_tanh=line, max_feature_nodes=20)
    check(model, d, graph)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_heads_of_several_parts(x64: None, name: str) -> None:
    specs, mlp, family = COMBINATIONS[name]
    model = tiny_model(family, dtype="float64")
    parts = [dictionary(model, spec, number) for number, spec in enumerate(specs)]
    check(model, parts, trace(model, parts, TOKENS, mlp=mlp))


@pytest.fixture(scope="module")
def traced() -> tuple[Model, Dictionary, Graph, Replaced]:
    """A model in which the MLP reads beside attention, with biases, and a graph with targets of several sorts."""
    with jax.enable_x64(True):
        model = tiny_model("gpt_neox", dtype="float64")
        d = random_dictionary(model, "clt")
        node = Supernode("two", (Feature(1, 3, 4), Feature(2, 5, 5)), (1.0, -2.0))
        graph = trace(
            model, d, TOKENS, targets=[3, Difference(5, (7, 8), position=3), Feature(2, 0, -2), node]
        )
        return model, d, graph, replace(model, d, TOKENS)


def of_source(at: Replaced, d: Dictionary, row: np.void) -> Sources:
    """The operator's input with one source alone, from the dictionary's own weights."""
    empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), at.operator.in_structure)
    layer, position, layers = int(row["layer"]), int(row["position"]), empty.layers
    if row["kind"] == EMBEDDING:
        found = at.setup.run.embed[0, position] - (
            0 if at.operator.positions is None else at.operator.positions[position]
        )
        return empty._replace(embed=empty.embed.at[position].set(found))
    if row["kind"] == BIAS:
        factor = getattr(layers, BIAS_NAMES[row["index"]]).at[layer, position].set(1.0)
        return empty._replace(layers=layers._replace(**{BIAS_NAMES[row["index"]]: factor}))
    assert row["kind"] == FEATURE
    write = layers.write[0]
    for target in range(layer, write.shape[0]):
        rows = kind_of(d.config).decoder_rows(d.params, d.config, layer, target, jnp.asarray([row["index"]]))
        write = write.at[target, position].set(row["activation"] * rows[0])
    return empty._replace(layers=layers._replace(write=(write,)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("by", ["last", "first"])
def test_a_head_carries_what_goes_missing_without_it(
    traced: tuple[Model, Dictionary, Graph, Replaced], by: str
) -> None:
    """Paths are counted another way: by running the operator forward with heads taken out of the pattern."""
    model, d, graph, at = traced
    nodes, pattern = graph.nodes, at.operator.frozen.pattern
    kinds = nodes["kind"]
    index = nodes["index"]
    late = np.flatnonzero((kinds == FEATURE) & (nodes["layer"] == 2))
    targets = [late[0], late[-1], *graph.targets]
    early = np.flatnonzero((kinds == FEATURE) & (nodes["layer"] == 0) & (nodes["position"] < 4))
    biases = np.flatnonzero(
        (kinds == BIAS) & (nodes["layer"] == 1) & (nodes["position"] == 2) & (index > 0) & (index < 3)
    )
    sources = [early[0], early[-1], np.flatnonzero(kinds == EMBEDDING)[1], *biases]
    found = head_loadings(model, d, graph, [(s, t) for s in sources for t in targets], by=by)

    @jax.jit
    def values(masked: jax.Array, one: Sources) -> tuple:
        return dataclasses.replace(at.operator, frozen=at.operator.frozen._replace(pattern=masked)).apply(one)

    def reads(masked: jax.Array, one: Sources) -> np.ndarray:
        read, final = values(masked, one)
        unembed = np.asarray(unembedding(model.params, model.config))
        column = lambda token: unembed[:, token] - unembed.mean(axis=1)  # noqa: E731
        feature = lambda layer, i, p: float(d.params["W_enc"][layer, i] @ read[0][layer, p])  # noqa: E731
        out = [
            feature(*(int(nodes[name][t]) for name in ("layer", "index", "position"))) for t in targets[:2]
        ]
        out.append(column(3) @ final[5])
        out.append((column(5) - (column(7) + column(8)) / 2) @ final[3])
        out += [feature(2, 0, 4), feature(1, 3, 4) - 2 * feature(2, 5, 5)]
        return np.asarray(out)

    for i, source in enumerate(sources):
        one = of_source(at, d, nodes[source])
        edges = slice(i * len(targets), (i + 1) * len(targets))
        whole = reads(pattern, one)
        size = np.abs(whole).max()
        np.testing.assert_allclose(found.weights[edges], whole, atol=TOLERANCE * size)
        np.testing.assert_allclose(
            found.direct[edges], reads(jnp.zeros_like(pattern), one), atol=TOLERANCE * size
        )
        for layer in range(model.config.n_layers):
            full = jnp.arange(model.config.n_layers)[:, None, None, None, None]
            kept = jnp.where(full < layer if by == "last" else full > layer, pattern, 0)
            without = reads(kept, one)
            for head in (0, 3):
                with_head = reads(kept.at[layer, :, head].set(pattern[layer, :, head]), one)
                np.testing.assert_allclose(
                    found.heads[edges, layer, head], with_head - without, atol=TOLERANCE * max(size, 1.0)
                )
    assert (found.heads != 0).any(axis=0).all()


def test_one_layer_by_the_formula(x64: None) -> None:
    """I8: a_s v_in^T A^h(t, s) W_O^h W_V^h v_out for features of adjacent layers, with the model's own weights."""
    model = tiny_model("llama", dtype="float64")
    d = random_dictionary(model, "skip-plt")
    graph = trace(model, d, TOKENS)
    at, nodes, w = replace(model, d, TOKENS), graph.nodes, model.params["layers"]
    features = [np.flatnonzero((nodes["kind"] == FEATURE) & (nodes["layer"] == layer)) for layer in (0, 1)]
    edges = [
        (s, t)
        for s in features[0][::3]
        for t in features[1][::3]
        if nodes["position"][s] <= nodes["position"][t]
    ]
    found = head_loadings(model, d, graph, edges)
    frozen = at.operator.frozen
    for number, (source, target) in enumerate(edges):
        s, t = nodes[source], nodes[target]
        out = s["activation"] * np.asarray(d.params["W_dec"])[0, s["index"]]
        x = out / frozen.attn.scale[1, 0, s["position"], 0] * w["attn_norm"]["scale"][1]
        gradient = (
            d.params["W_enc"][1, t["index"]]
            * w["mlp_norm"]["scale"][1]
            / frozen.mlp.scale[1, 0, t["position"], 0]
        )
        for head in range(model.config.n_heads):
            v = x @ w["v"][1, :, head // model.config.group_size]
            moved = frozen.pattern[1, 0, head, t["position"], s["position"]] * (v @ w["o"][1, head])
            assert found.heads[number, 1, head] == pytest.approx(float(moved @ gradient), abs=1e-12)
        assert found.direct[number] == pytest.approx(
            float(out @ gradient) if s["position"] == t["position"] else 0.0, abs=1e-12
        )
        assert not found.heads[number, [0, 2]].any()


def test_record(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    heads = rng.normal(size=(3, 2, 4)) * (rng.random((3, 2, 4)) < 0.5)
    found = HeadLoadings("last", np.arange(3), np.arange(3, 6), rng.normal(size=3), heads, 1e-16)
    again = HeadLoadings.from_dict(json.loads(json.dumps(found.to_dict(top=8))))
    np.testing.assert_allclose(again.heads, heads)
    np.testing.assert_allclose(again.direct, found.direct, atol=1e-14)
    found.save(tmp_path / "heads.json", top=2)
    few = HeadLoadings.load(tmp_path / "heads.json")
    np.testing.assert_allclose(few.weights, found.weights)
    assert (np.count_nonzero(few.heads, axis=(1, 2)) <= 2).all()
    assert few.strongest(1, 2)[0] == found.strongest(1, 2)[0]
    assert found.edge(1, 4) == 1
    with pytest.raises(InputError, match="was not opened"):
        found.edge(1, 5)
    bad = found.to_dict()
    bad["edges"][0]["heads"] = [[2, 0, 1.0]]
    for one in (
        bad,
        {},
        [],
        {**found.to_dict(), "shape": [1 << 40, 1 << 40]},
        {**found.to_dict(), "by": "middle"},
    ):
        with pytest.raises(InputError, match="no head loadings"):
            HeadLoadings.from_dict(one)


@pytest.mark.usefixtures("x64")
def test_bad_input(traced: tuple[Model, Dictionary, Graph, Replaced]) -> None:
    model, d, graph, _ = traced
    target = int(graph.targets[0])
    for edges, said in (
        ([(0, len(graph))], "the graph has nodes 0 to"),
        ([(target, target)], "is a target and the source of no edge"),
        ([(0, int(np.flatnonzero(graph.nodes["kind"] == EMBEDDING)[0]))], "no edge goes to it"),
        ([], "no edge to open"),
    ):
        with pytest.raises(InputError, match=said):
            head_loadings(model, d, graph, edges)
    live = dataclasses.replace(graph, settings={**graph.settings, "linearisation": "live"})
    with pytest.raises(InputError, match="the graph is of live effects: trace it frozen"):
        head_loadings(model, d, live)
    with pytest.raises(InputError, match="by is 'middle'"):
        head_loadings(model, d, graph, by="middle")
    with pytest.raises(InputError, match="from this model and dictionary"):
        head_loadings(model, random_dictionary(model, "clt", seed=1), graph)
    with pytest.raises(InputError, match="from this model and dictionary"):
        head_loadings(tiny_model("gpt_neox", dtype="float64", seed=1), d, graph)


@pytest.mark.slow
def test_lorsa_features_are_heads_of_their_own(x64: None) -> None:
    specs, mlp, family = COMBINATIONS["complete"]
    model = tiny_model(family, dtype="float64")
    parts = [dictionary(model, spec, number) for number, spec in enumerate(specs)]
    graph = trace(model, parts, TOKENS, mlp=mlp)
    lorsa = (graph.nodes["kind"] == FEATURE) & (graph.nodes["part"] == PARTS.index("attention"))
    found = head_loadings(model, parts, graph)
    assert not lorsa[found.target].any()
    assert not found.heads.any(), "no head of the model is left"
    targets, sources, _ = graph.edges()
    edge = int(np.flatnonzero(lorsa[targets])[0])
    with pytest.raises(InputError, match="a head of its own"):
        head_loadings(model, parts, graph, [(sources[edge], targets[edge])])


@pytest.mark.slow
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model("llama")
    save_model(model, tmp_path / "model")
    save_dictionary(random_dictionary(model, "clt", dtype="float32"), tmp_path / "clt")
    common = ["--model", str(tmp_path / "model"), "--dictionary", str(tmp_path / "clt")]
    graph, out = str(tmp_path / "graph.json"), str(tmp_path / "heads.json")
    assert main(["trace", *common, "--tokens", "7,3,19,3", "--quiet", "--out", graph]) == 0
    capsys.readouterr()
    assert main(["heads", graph, *common, "--out", out]) == 0
    assert "heads by sum of |loading|" in capsys.readouterr().out
    kept = HeadLoadings.load(out)
    assert kept.off < 1e-4
    edge = [str(int(kept.source[0])), str(int(kept.target[0]))]
    assert main(["heads", graph, *common, "--edge", *edge, "--json", "--by", "first"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["edges"]
    assert one["direct"] + sum(v for *_, v in one["heads"]) + one["rest"] == pytest.approx(
        kept.weights[0], rel=1e-4
    )
    assert main(["heads", graph, *common, "--edge", "0", "99999"]) == 2
