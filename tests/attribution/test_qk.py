"""QK attribution: terms sum to the model's own scores, and say what changes them."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.attribution.qk import qk_attribution
from jaxinterp.attribution.qk_record import QkAttribution, QkScore
from jaxinterp.attribution.replaced import Replaced, replace
from jaxinterp.checkpoints import save_model
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import save_dictionary
from jaxinterp.graphs.kinds import BIAS, EMBEDDING, ERROR, FEATURE, node_table
from jaxinterp.models import Edit, Model, forward
from jaxinterp.models.rotary import RopeScaling
from tests.attribution.cases import TOKENS, random_dictionary
from tests.replacement.combinations import COMBINATIONS, dictionary
from tests.support import tiny_model

TOLERANCE = 1e-10
CASES = [("gemma3", "raw-clt", {}), ("dyt_latent", "clt", {"line": "tangent"})]
# Junctions replaced in every way that matters to heads: before them, by them, after them, in some layers.
SEVERAL = ("complete-clt", "attention-sae", "heads-sae", "residual-tangent", "mlp-sae-some", "three")
SLOW = [
    ("gpt2", "plt", {}),
    ("latent", "clt", {}),
    ("dyt", "skip-plt", {"line": "tangent"}),
    ("llama", "clt", {"rope_pairs": "adjacent"}),
    ("llama", "skip-plt", {"rope_scaling": RopeScaling("llama3", 4.0, 8)}),
    ("gemma2", "raw-clt", {"attn_softcap": None}),
    ("gpt_neox", "clt", {}),
    ("olmo2", "skip-plt", {}),
    ("sinks", "plt", {}),
    ("experts", "clt", {}),
    ("dyt", "plt", {}),
    ("dyt_latent", "raw-clt", {}),
]


def check(found: QkAttribution, tolerance: float) -> None:
    """Terms sum to scores, and scores are what the softmax of the model's own pattern is of."""
    assert all(score.residual < tolerance for score in found.scores)
    shift = [score.value - np.log(score.attention[0]) for score in found.scores]
    assert np.ptp(shift) < tolerance * max(1.0, np.abs(shift).max())
    one, other = found.scores[0].keys[0], found.scores[-1].keys[0]
    contrast = found.contrast(one, other)
    assert contrast.residual < tolerance
    assert contrast.value == pytest.approx(
        np.log(contrast.attention[0] / contrast.attention[1]), abs=1e3 * tolerance
    )


@pytest.mark.parametrize(
    ("family", "name", "more"), [*CASES, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)]
)
def test_terms_sum_to_scores(x64: None, family: str, name: str, more: dict) -> None:
    line = more.get("line", "secant")
    model = tiny_model(family, dtype="float64", **{k: v for k, v in more.items() if k != "line"})
    at = replace(model, random_dictionary(model, name), TOKENS, dynamic_tanh=line)
    seen = set()
    for layer, head, query in ((2, 3, -1), (1, 0, 3), (0, 2, 4)):
        first = max(0, query % len(TOKENS) - 3)  # windows are of four tokens
        keys = range(first, query % len(TOKENS) + 1)
        found = qk_attribution(
            model, None, at, layer=layer, head=head, query=query, keys=list(keys), dynamic_tanh=line
        )
        check(found, TOLERANCE)
        seen |= {share.query[0] for score in found.scores for share in score.by("kind") if share.value}
    assert seen >= {FEATURE, ERROR, BIAS, EMBEDDING}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_terms_of_several_parts(x64: None, name: str) -> None:
    specs, mlp, family = COMBINATIONS[name]
    model = tiny_model(family, dtype="float64", **({"attn_softcap": None} if family == "gemma2" else {}))
    parts = [dictionary(model, spec, number) for number, spec in enumerate(specs)]
    check(qk_attribution(model, parts, TOKENS, layer=2, head=1, keys=[3, 4, 5], mlp=mlp), TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2", "latent"])
def test_float32(family: str) -> None:
    model = tiny_model(family)
    at = replace(model, random_dictionary(model, "clt", dtype="float32"), TOKENS)
    found = qk_attribution(model, None, at, layer=2, head=1, keys=list(range(6)))
    assert found.scores[0].of_query.dtype == np.float32
    check(found, 1e-4)


def test_scaling_a_feature_moves_the_score_by_its_terms(x64: None) -> None:
    """In the model itself, everything else clamped: linear in one side, and bilinear where it is on both."""
    model = tiny_model("llama", dtype="float64")
    d, layer, head, query, key = random_dictionary(model, "clt"), 2, 1, 4, 2
    found = qk_attribution(model, d, TOKENS, layer=layer, head=head, query=query, keys=key)
    score = found[key]
    config, tokens = model.config, jnp.asarray(TOKENS)[None]
    frozen = ("pattern", "attn_scale", "mlp_scale")
    _, clean = forward(model.params, config, tokens, sites=(*frozen, "mlp_out"))
    clamps = [Edit(site, "replace", getattr(clean, site), per_layer=True) for site in frozen]
    w = {name: np.asarray(model.params["layers"][name][layer]) for name in ("q", "k")}
    terms, factor = score.terms(), -1.5
    features = np.flatnonzero(score.sources["kind"] == FEATURE)
    moving = [f for f in features if np.abs(terms[f]).sum() + np.abs(terms[:, f]).sum() > 1e-6]
    assert any(terms[f, f] for f in moving)
    for feature in (moving[0], moving[-1], next(f for f in moving if terms[f, f])):
        row = score.sources[feature]
        rows = np.stack(
            [
                np.zeros(config.d_model)
                if m < row["layer"]
                else np.asarray(d.params["W_dec"][m][row["layer"], row["index"]])
                for m in range(config.n_layers)
            ]
        )
        change = np.zeros(clean.mlp_out.shape)
        change[:, 0, row["position"]] = (factor - 1) * row["activation"] * rows
        held = Edit("mlp_out", "replace", clean.mlp_out + change, per_layer=True)
        _, moved = forward(model.params, config, tokens, edits=[*clamps, held], sites=("attn_in",))
        x = np.asarray(moved.attn_in[layer, 0])
        q, k = x[query] @ w["q"][:, head], x[key] @ w["k"][:, head // config.group_size]
        got = turned(q, query) @ turned(k, key) * config.d_head**-0.5
        expected = (factor - 1) * (terms[feature].sum() + terms[:, feature].sum()) + (
            factor - 1
        ) ** 2 * terms[feature, feature]
        assert got - score.value == pytest.approx(expected, abs=TOLERANCE)


def turned(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary, written out: pairs (i, i + E/2) as complex numbers."""
    half = len(x) // 2
    z = (x[:half] + 1j * x[half:]) * np.exp(1j * position * 10000.0 ** (-np.arange(half) / half))
    return np.concatenate([z.real, z.imag])


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 4), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_ways_of_asking_agree(seed: int, n: int, width: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    sources = node_table(n)
    sources["kind"], sources["position"] = rng.integers(0, 3, n), rng.integers(0, 2, n)
    sides = [rng.normal(size=(n, width)) * (rng.random(n) < 0.7)[:, None] for _ in range(2)]
    score = QkScore((0,), float(sides[0].sum(0) @ sides[1].sum(0)), (0.5,), sources, *sides)
    table = score.terms()
    assert score.total == pytest.approx(table.sum())
    assert score.size == pytest.approx(np.abs(table).sum())
    features = sources["kind"] == FEATURE
    assert score.feature_share * score.size == pytest.approx(np.abs(table[features][:, features]).sum())
    np.testing.assert_allclose(score.marginal("query"), table.sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(score.marginal("key"), table.sum(axis=0), atol=1e-12)
    shares = {(s.query, s.key): s.value for s in score.by("kind", "position")}
    key = [(int(k), int(p)) for k, p in zip(sources["kind"], sources["position"], strict=True)]
    for (q, k), value in shares.items():
        which = np.ix_([i for i in range(n) if key[i] == q], [j for j in range(n) if key[j] == k])
        assert value == pytest.approx(table[which].sum(), abs=1e-12)
    assert sum(shares.values()) == pytest.approx(score.total)
    pairs, rest = score.pairs(top)
    assert sum(p.value for p in pairs) + rest == pytest.approx(score.total)
    largest = np.sort(np.abs(table), axis=None)[::-1][: len(pairs)]
    np.testing.assert_allclose([abs(p.value) for p in pairs], largest, atol=1e-12)
    assert all(table[p.query, p.key] == pytest.approx(p.value) for p in pairs)
    assert len(pairs) == min(top, int((sides[0] != 0).any(1).sum() * (sides[1] != 0).any(1).sum()))


@pytest.fixture(scope="module")
def windowed() -> tuple[Model, Replaced]:
    """A model with windows of four tokens in its first two layers."""
    with jax.enable_x64(True):
        model = tiny_model("gemma3", dtype="float64")
        return model, replace(model, random_dictionary(model, "raw-clt"), TOKENS)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layer": 3}, "layer is 3, the model has 3 of them"),
        ({"head": 4}, "head is 4"),
        ({"query": 6}, "query is 6, expected a position of the prompt's 6 tokens"),
        ({"query": 2, "keys": [3]}, "it comes later"),
        ({"query": 5, "keys": [0]}, r"layer 0 sees 4 tokens, its own included \(2 to 5\)"),
        ({"keys": []}, "keys is empty"),
        ({"keys": [2, 2]}, "a position twice"),
    ],
)
def test_bad_input(x64: None, windowed: tuple[Model, Replaced], asked: dict, said: str) -> None:
    model, at = windowed
    with pytest.raises(InputError, match=said):
        qk_attribution(model, None, at, **{"layer": 0, "head": 0, **asked})


def test_softcap_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"softcap .4.*which is no sum over pairs"):
        qk_attribution(tiny_model("gemma2"), None, TOKENS, layer=0, head=0)


@pytest.mark.slow
def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model("llama")
    save_model(model, tmp_path / "model")
    save_dictionary(random_dictionary(model, "clt", dtype="float32"), tmp_path / "clt")
    command = [
        "qk", "--model", str(tmp_path / "model"), "--dictionary", str(tmp_path / "clt"), "--tokens", "7,3,19,3",
        "--layer", "2", "--head", "1", "--key", "0", "--key", "2", "--top", "3",
    ]  # fmt: skip
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "why key 0 rather than 2" in text
    assert main([*command, "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert [score["keys"] for score in out["scores"]] == [[0], [2]]
    assert out["contrast"]["keys"] == [0, 2]
    for score in (*out["scores"], out["contrast"]):
        assert len(score["pairs"]) == 3
        assert score["residual"] < 1e-6
        assert sum(p["value"] for p in score["pairs"]) + score["rest"] == pytest.approx(score["sum"])
    assert main([*command[:-6], "--key", "9"]) == 2
    assert "key is 9" in capsys.readouterr().err


def test_keys_by_default(x64: None, windowed: tuple[Model, Replaced]) -> None:
    model, at = windowed
    found = qk_attribution(model, None, at, layer=1, head=0)
    shares = [score.attention[0] for score in found.scores]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) > 0.95 >= sum(shares[:-1])
    with pytest.raises(InputError, match="was not asked for"):
        found[99]


@pytest.mark.slow
def test_keys_by_default_beside_a_sink(x64: None) -> None:
    """Of what attention goes to keys at all."""
    model = tiny_model("sinks", dtype="float64")
    at = replace(model, random_dictionary(model, "plt"), TOKENS)
    found = qk_attribution(model, None, at, layer=1, head=0)
    every = qk_attribution(model, None, at, layer=1, head=0, keys=list(range(6)))
    everything = sum(score.attention[0] for score in every.scores)
    assert everything < 0.99
    assert sum(score.attention[0] for score in found.scores) > 0.95 * everything
