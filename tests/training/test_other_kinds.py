"""Other kinds in training: mixtures of linear maps, Lorsa, crosscoders that restart, starts, layers of choice."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jaxinterp.activations.sequences import SequenceStream
from jaxinterp.activations.stream import StreamConfig, collect
from jaxinterp.activations.text import Batch, Source
from jaxinterp.checkpoints.native import save_model
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import from_model, initialise, kind_of, load_dictionary, molt
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.model import Model
from jaxinterp.models.weights import declare
from jaxinterp.parallel.weights import initialise as initial_weights
from jaxinterp.training import dictionary as D
from jaxinterp.training import resample, train
from jaxinterp.training.metrics import read
from jaxinterp.training.optimiser import OptimiserConfig
from jaxinterp.training.sparsity.base import SparsityConfig
from tests.support import tiny_model
from tests.training.steps import compiled

MODEL = ModelConfig(
    vocab_size=23, d_model=8, n_layers=3, n_heads=2, n_kv_heads=2, d_head=4, d_mlp=24, context=32
)
TOP = SparsityConfig("top-k", l0=4, pre_activation=0.0)
EVERY = resample.ResampleConfig(dead_after=5, every=10, at_most=0.2)


def data(rows: int = 128) -> tuple[jax.Array, jax.Array]:
    """Two layers in which one of three linear maps acts, which one a sparse direction of the input says."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (2, rows, 8))
    which = jax.random.randint(keys[1], (2, rows), 0, 3)
    x = x + 4.0 * jax.nn.one_hot(which, 8)
    maps = jax.random.normal(keys[2], (2, 3, 8, 8)) / 3.0
    return x, jnp.einsum("lrde,lrd->lre", maps[jnp.arange(2)[:, None], which], x)


def setting(sparsity: SparsityConfig, **spec: Any) -> tuple[D.DictionaryRun, DictionaryConfig]:
    run = D.DictionaryRun(
        "m", 80, batch=128, sparsity=sparsity, dictionary=D.DictionarySpec(layers=(0, 1), **spec),
        start=D.StartConfig(rate=0.15, decoder=0.3), optimiser=OptimiserConfig(warmup=5), resample=EVERY,
    )  # fmt: skip
    return run, D.dictionary_config(run, Model({}, MODEL, None, "m"))


def advance(run: D.DictionaryRun, config: DictionaryConfig, steps: int) -> tuple[Any, list[dict[str, Any]]]:
    batch = data()
    init, step = compiled(run, config)
    state = init(jax.random.key(0), *batch)
    history = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        history.append(jax.device_get(metrics))
    return state, history


@pytest.mark.parametrize(
    "sparsity",
    [
        TOP,
        pytest.param(SparsityConfig("l1", coefficient=0.02, pre_activation=0.0), marks=pytest.mark.slow),
        pytest.param(
            SparsityConfig(
                "straight-through", l0=4.0, start_l0=6.0, rate=0.1, threshold=0.3, scale=1.0, coefficient=0.02
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda s: s.method,
)  # fmt: skip
def test_a_molt_learns_maps(sparsity: SparsityConfig) -> None:
    run, config = setting(sparsity, kind="molt", n_features=20, ranks=((4, 12), (1, 8)))
    state, history = advance(run, config, 80)
    assert history[-1]["nmse"] < 0.35 * history[0]["nmse"]
    if sparsity.l0:
        assert 0.7 * sparsity.l0 < history[-1]["l0"] < 1.3 * sparsity.l0
    x, y = data()
    d = D.to_dictionary(run, config, state)
    if sparsity.method != "top-k":  # whose maps are of length one before the scales are folded in
        np.testing.assert_allclose(molt.decoder_norms(d.params, d.config), 1.0, rtol=1e-4)
    error = jnp.sum((y - d.reconstruct(x)) ** 2, axis=(1, 2)) / jnp.sum(
        (y - y.mean(1, keepdims=True)) ** 2, axis=(1, 2)
    )
    _, metrics = compiled(run, config)[1](state, data())
    np.testing.assert_allclose(error, metrics["nmse_layers"], rtol=2e-3)


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "crosscoder", "n_features": 32},
        pytest.param({"kind": "crosscoder", "n_features": 32, "shared": 8}, marks=pytest.mark.slow),
        {"kind": "clt", "n_features": 24, "tied": True, "skip": True},
        {"kind": "molt", "n_features": 24, "ranks": ((2, 24),)},
    ],
    ids=["crosscoder", "shared", "tied-skip", "molt"],
)
@pytest.mark.parametrize("dead_by", ["window", "density"])
def test_dead_features_of_every_kind_are_restarted_and_fire(spec: dict[str, Any], dead_by: str) -> None:
    if dead_by == "density" and spec["kind"] != "crosscoder":
        pytest.skip("one kind is enough")
    run, config = setting(TOP, **spec)
    run = dataclasses.replace(
        run, resample=dataclasses.replace(EVERY, dead_by=dead_by, dead_below=1e-3, decay=0.8)
    )
    batch = data()
    init, step = compiled(run, config)
    state = init(jax.random.key(0), *batch)
    groups, n = state["stats"]["last"].shape
    assert groups == (1 if spec["kind"] == "crosscoder" else 2)
    dead = jnp.broadcast_to(jnp.arange(n) % 3 == 0, (groups, n))
    state["params"]["b_enc"] = jnp.where(dead, -1e3, state["params"]["b_enc"])
    shares = []
    for _ in range(45):
        state, metrics = step(state, batch)
        shares.append(float(metrics["dead"]))
        assert np.isfinite(metrics["loss"])
    assert max(shares) >= 0.3
    assert shares[-1] < 0.15


def test_a_restarted_crosscoder_feature_makes_up_for_a_share_of_every_layer() -> None:
    run, config = setting(TOP, kind="crosscoder", n_features=16)
    x, residual = data()
    state = compiled(run, config)[0](jax.random.key(0), x, residual)
    which = jnp.zeros((1, 16), bool).at[0, 5].set(True)
    restart = partial(
        resample.restart, run.resample, config, key=jax.random.key(0), x=x, residual=residual,
        thresholds=lambda p, norms: jnp.zeros_like(norms),
    )  # fmt: skip
    new = jax.jit(restart)(state["params"], which)
    kind = kind_of(config)
    a = kind.pre_activations(new, config, x)[0, :, 5]
    wrote = a[None, :, None] * new["W_dec"][:, 5][:, None]
    distance = jnp.abs(wrote - run.resample.share * residual).max(axis=(0, 2))
    assert float(distance.min()) < 1e-4
    for name, value in new.items():
        old, mask = state["params"][name], kind.belongs(config, which)[name]
        np.testing.assert_array_equal(jnp.where(mask, 0, value), jnp.where(mask, 0, old))
    lengths = kind.decoder_norms(new, config)[0]
    np.testing.assert_allclose(lengths[5], np.delete(np.asarray(lengths), 5).mean(), rtol=1e-4)


def test_death_by_density_is_of_the_moving_average() -> None:
    config = resample.ResampleConfig(dead_by="density", dead_after=3, dead_below=0.01, decay=0.5, at_most=0.4)
    stats = resample.init(1, 5, jnp.float32)
    shares = jnp.asarray([[0.5, 0.02, 0.004, 0.0, 0.009]])
    for step in range(4):
        stats = resample.update(stats, shares, jnp.asarray(step), config.decay)
        dead = resample.dead(config, stats, jnp.asarray(step + 1))
        assert dead.tolist() == [[False, False, *[step + 1 >= 3] * 3]]
    which = resample.longest_dead(config, stats, jnp.asarray(4))
    assert np.flatnonzero(which[0]).tolist() == [2, 3]  # at most two, those of the lowest density
    with pytest.raises(InputError, match="expected window or density"):
        resample.ResampleConfig(dead_by="age")


@pytest.mark.parametrize("kind", ["plt", "clt", "crosscoder"])
def test_starts_by_transpose(x64: None, kind: str) -> None:
    config = DictionaryConfig(
        kind, 2, 10, 4, activation="relu", read_site="resid_post", write_site="resid_post"
    )
    functions, every = kind_of(config), jnp.arange(10)
    sae = initialise.transposed(config, jax.random.key(0), jnp.float64, decoder=0.1, factor=2.0)
    np.testing.assert_allclose(functions.decoder_norms(sae, config), 0.1, rtol=1e-12)
    recipe = initialise.anthropic(config, jax.random.key(0), jnp.float64)
    for params, factor in ((sae, 2.0), (recipe, 4 / 10)):
        for layer in range(2):
            group = 0 if kind == "crosscoder" else layer
            rows = functions.decoder_rows(params, config, group, layer, every)
            np.testing.assert_allclose(params["W_enc"][layer], factor * rows, rtol=1e-12)
    rows = np.asarray(functions.decoder_rows(recipe, config, 0, 0, every))
    assert 0.3 < np.abs(rows).max() <= 0.5 and abs(rows.std() - 0.5 / 3**0.5) < 0.1
    with pytest.raises(InputError, match="cannot be its decoder's transpose"):
        initialise.transposed(dataclasses.replace(config, d_write=3), jax.random.key(0))


def test_relu_neurons_are_features_exactly(x64: None) -> None:
    changes = {"activation": "relu", "gated": False, "mlp_bias": True}
    model = tiny_model("gpt2", dtype="float64", **changes)
    tokens = jnp.asarray([[3, 5, 7, 2, 9, 11, 4, 0]])
    where = (jnp.zeros_like(tokens), jnp.arange(8, dtype=jnp.int32)[None])
    sites = ("mlp_normalized", "mlp_in", "mlp_out")
    normalised, x, y = collect(model.params, model.config, tokens, *where, sites)
    own = model.config
    for kind, site, values in (("plt", "mlp_in", x), ("clt", "mlp_normalized", normalised)):
        config = DictionaryConfig(
            kind,
            own.n_layers,
            own.d_mlp + 3,
            own.d_model,
            activation="relu",
            read_site=site,
            write_site="mlp_out",
        )
        d = Dictionary(from_model.from_neurons(config, model, jax.random.key(0), values), config)
        silent = {**d.params, "b_enc": d.params["b_enc"].at[:, own.d_mlp :].set(-1e6)}
        np.testing.assert_allclose(dataclasses.replace(d, params=silent).reconstruct(values), y, atol=1e-11)
    fewer = dataclasses.replace(config, kind="plt", n_features=6, read_site="mlp_in")
    params = from_model.from_neurons(fewer, model, jax.random.key(0), x)
    _, _, write, active = from_model.neurons(model, fewer, x)
    size = np.asarray((active**2).sum(1) * (write**2).sum(-1))
    for layer in range(own.n_layers):
        best = np.sort(np.argsort(-size[layer])[:6])
        np.testing.assert_allclose(params["W_dec"][layer], np.asarray(write)[layer, best], atol=1e-12)


def test_sequences_keep_their_places() -> None:
    def batch(index: int) -> Batch:
        tokens = np.arange(12, dtype=np.int32).reshape(3, 4) + 12 * index
        use = np.ones((3, 4), bool)
        use[2, 3] = index != 1
        return Batch(tokens % 23, tokens // 6, tokens % 6, use)

    params = initial_weights(declare(MODEL), key=jax.random.key(0), dtype=jnp.float32)
    model = Model(params, MODEL, None, "tiny")
    stream = SequenceStream(
        model, ("attn_in", "attn_out"), Source(batch, 12), sequences=2, seed=4,
        config=StreamConfig(text_batches=2, reuse=2),
    )  # fmt: skip
    seen = []
    for step in range(6):  # six sequences in a pool, three batches, gone through twice
        got = stream.batch(step)
        assert got.sites[0].shape == (3, 8, 8) and got.rows.shape == (8,)
        first = np.asarray(got.segments * 6 + got.positions)  # the token's number
        seen.append(first[:, 0].tolist())
        tokens = jnp.asarray(first % 23, jnp.int32)
        own = collect(model.params, MODEL, tokens, got.segments, got.positions, ("attn_in", "attn_out"))
        for a, b in zip(own, got.sites, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
        unused = np.flatnonzero(first.reshape(-1) == 23)  # the one token that is not used
        assert set(np.asarray(got.rows).tolist()) == set(range(8)) - set(unused.tolist())
    for turn in (seen[:3], seen[3:]):
        assert sorted(first for batch in turn for first in batch) == [0, 4, 8, 12, 16, 20]
    assert seen[:3] != seen[3:]
    again = SequenceStream(
        model,
        ("attn_in",),
        Source(batch, 12),
        sequences=2,
        seed=4,
        config=StreamConfig(text_batches=2, reuse=2),
    )
    np.testing.assert_array_equal(again.batch(4).positions, stream.batch(4).positions)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    params = initial_weights(declare(MODEL), key=jax.random.key(0), dtype=jnp.float32)
    params["layers"]["o"] = 4.0 * params["layers"]["o"]
    params["layers"]["down"] = 4.0 * params["layers"]["down"]
    save_model(Model(params, MODEL, None, "tiny"), out / "model")
    config = {
        "task": "dictionary", "model": str(out / "model"), "steps": 60, "batch": 64,
        "text": {"start": 1, "length": 16, "batch": 16}, "stream": {"text_batches": 2},
        "resample": {"every": 0}, "sparsity": {"method": "top-k", "l0": 4, "pre_activation": 0},
        "optimiser": {"warmup": 5}, "held_out": {"tokens": 256, "validation_tokens": 64},
        "loop": {"log_every": 10, "evaluate_every": 0, "checkpoint_every": 30},
    }  # fmt: skip
    (out / "c.yaml").write_text(yaml.safe_dump(config))
    return out


LORSA = [
    "dictionary.kind=lorsa", "dictionary.n_features=32", "dictionary.read_site=attn_in", "dictionary.layers=[0, 2]",
    "dictionary.write_site=attn_out", "dictionary.qk_heads=4", "start.rate=0.2",
]  # fmt: skip


def test_a_lorsa_is_trained_from_the_models_heads(folder: Path) -> None:
    out = train(folder / "c.yaml", LORSA, folder / "lorsa", quiet=True)
    lines = [line for line in read(out / "metrics.jsonl") if "loss" in line]
    assert lines[-1]["nmse"] < 0.6 * lines[0]["nmse"]
    assert lines[-1]["l0"] <= 4.0
    found = load_dictionary(out / "dictionary")
    assert found.config.layers == (0, 2) and found.config.attention is not None
    card = json.loads((out / "dictionary" / "card.json").read_text())
    assert card["held_out"]["mean_nmse"] < 0.8 and card["held_out"]["mean_l0"] <= 4.0
    assert np.isfinite(card["held_out"]["ce_gap"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch=40", "no whole sequences of 16"),
        ("accumulate=2", "accumulate is of batches of rows"),
        ("resample.every=10", "cannot be restarted"),
        ("start.method=neurons", "a lorsa starts from one of attention, random"),
        ("dictionary.qk_heads=3", "32 features cannot share 3"),
        ("dictionary.layers=[1, 7]", "the model has layers 0 to 2"),
        ("dictionary.read_site=resid_mid", "heads, which read attn_in"),
    ],
)
def test_what_a_lorsa_cannot_do_is_refused(folder: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(folder / "c.yaml", [*LORSA, override], tmp_path / "out", quiet=True)


def test_some_layers_only(folder: Path) -> None:
    """Of layers 2 and 0, in this order, from their neurons; cross-entropy is of those layers only."""
    changes = [
        "dictionary.kind=plt", "dictionary.layers=[2, 0]", "dictionary.n_features=24", "steps=20",
        "start.method=neurons", "dictionary.read_site=mlp_in",
    ]  # fmt: skip
    out = train(folder / "c.yaml", changes, folder / "some", quiet=True)
    found = load_dictionary(out / "dictionary")
    assert found.config.layers == (2, 0) and found.config.n_layers == 2
    card = json.loads((out / "dictionary" / "card.json").read_text())
    assert len(card["held_out"]["nmse"]) == 2 and np.isfinite(card["held_out"]["ce_gap"])
