"""The language-model task: its loss against the plain forward pass, its decay, and short runs."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.checkpoints import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import digest
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.training import api, language_model
from jaxinterp.training.language_model import LanguageModelConfig
from jaxinterp.training.loop import LoopConfig, run
from tests.support import tiny_model

SMALL = ModelConfig(
    vocab_size=12, d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_head=8, d_mlp=32, context=16, gated=False,
    activation="gelu_tanh",
)  # fmt: skip


def counting(seed: int, step: int, batch: int, length: int) -> dict[str, np.ndarray]:
    """Rows that count upwards modulo 12 from a random start: the next token is certain."""
    start = np.random.default_rng([seed, step]).integers(12, size=(batch, 1))
    return {"tokens": ((start + np.arange(length)[None, :]) % 12).astype(np.int32)}


def config(**changes: object) -> LanguageModelConfig:
    base = LanguageModelConfig(
        model=SMALL, tokens=f"{__name__}:counting", steps=60, batch=4, length=12, weight_decay=0.1
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_loss_is_the_weighted_cross_entropy_of_the_plain_forward_pass(family: str) -> None:
    model = tiny_model(family)
    rng = np.random.default_rng(0)
    tokens = rng.integers(40, size=(3, 10)).astype(np.int32)
    segments = np.repeat([[0, 0, 0, 0, 1, 1, 1, 2, 2, 2]], 3, axis=0).astype(np.int32)
    positions = np.repeat([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]], 3, axis=0).astype(np.int32)
    targets = rng.integers(40, size=(3, 10)).astype(np.int32)
    weights = rng.choice([0.3, 1.0], size=(3, 10)).astype(np.float32)
    batch = {
        "tokens": tokens,
        "segments": segments,
        "positions": positions,
        "targets": targets,
        "weights": weights,
    }
    run = jax.jit(partial(forward, config=model.config))
    logits, _ = run(model.params, tokens=tokens, segments=segments, positions=positions)
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_p, targets[:, :, None], axis=2)[:, :, 0]
    expected = -(weights * chosen).sum() / weights.sum()
    value, metrics = jax.jit(partial(language_model.loss, config=model.config))(model.params, batch=batch)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    hits = (logits.argmax(-1) == targets)[weights == 1]
    np.testing.assert_allclose(metrics["accuracy"], hits.mean(), rtol=1e-6)


def test_without_targets_the_next_token_is_the_target() -> None:
    model = tiny_model("llama")
    tokens = np.random.default_rng(1).integers(40, size=(2, 9)).astype(np.int32)
    weights = np.ones((2, 9), np.float32)
    weights[:, -1] = 0
    explicit = {"tokens": tokens, "targets": np.roll(tokens, -1, axis=1), "weights": weights}
    loss = jax.jit(lambda batch: language_model.loss(model.params, model.config, batch)[0])
    np.testing.assert_allclose(loss({"tokens": tokens}), loss(explicit), rtol=1e-6)


def test_gains_and_biases_do_not_decay() -> None:
    flags = language_model.decayed(tiny_model("dyt").params)
    assert (
        not flags["layers"]["q_norm"]
        and not flags["layers"]["q_norm_alpha"]
        and not flags["final_norm"]["alpha"]
    )
    for family in ("llama", "gpt2"):
        params = tiny_model(family).params
        flags = language_model.decayed(params)
        assert flags["embed"]["tokens"] and flags["layers"]["q"] and flags["layers"]["down"]
        assert not flags["layers"]["attn_norm"]["scale"] and not flags["final_norm"]["scale"]
    assert not flags["layers"]["mlp_norm"]["bias"]
    assert not flags["layers"]["q_bias"] and not flags["layers"]["down_bias"]


def test_only_token_embeddings_start_large() -> None:
    plain = language_model.init(config(), jax.random.key(0))["params"]
    large = language_model.init(config(embedding_start=11.0), jax.random.key(0))["params"]
    np.testing.assert_allclose(large["embed"]["tokens"], 11 * np.asarray(plain["embed"]["tokens"]), rtol=1e-6)
    np.testing.assert_array_equal(large["layers"]["q"], plain["layers"]["q"])
    np.testing.assert_array_equal(large["unembed"], plain["unembed"])


def test_the_rate_rises_and_falls() -> None:
    made = config(steps=100, warmup=0.1, learning_rate=1.0, final=0.05)
    rate = language_model.schedule(made)
    assert float(rate(0)) == 0.0
    np.testing.assert_allclose(float(rate(10)), 1.0)
    np.testing.assert_allclose(float(rate(100)), 0.05, rtol=1e-5)


@pytest.mark.parametrize("norm", [pytest.param("rms", marks=pytest.mark.slow), "tanh"])
def test_a_short_run_learns_and_saves_what_it_checked(norm: str, tmp_path: Path) -> None:
    made = config(steps=150, learning_rate=1e-2, model=SMALL.replace(norm=norm, gated=norm == "tanh"))
    state = run(
        language_model.task(made),
        steps=made.steps,
        out=tmp_path,
        seed=0,
        loop=LoopConfig(log_every=1),
        quiet=True,
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] > 2.0 and losses[-1] < 0.3
    loaded = load_model(tmp_path / "model")
    assert loaded.config == made.model
    assert digest(loaded.params) == digest(language_model.to_model(made, state).params)
    if norm == "tanh":
        start = language_model.init(made, jax.random.key(0))["params"]["layers"]["mlp_norm"]["alpha"]
        assert (np.asarray(loaded.params["layers"]["mlp_norm"]["alpha"]) != np.asarray(start)).all()
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["model"] == loaded.digest() and card["tokens"] == 150 * 4 * 12


def test_a_resumed_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    made, loop = config(steps=20), LoopConfig(checkpoint_every=10, log_every=5)
    whole = run(language_model.task(made), steps=20, out=tmp_path / "a", seed=0, loop=loop, quiet=True)
    # The same task stopped after 10 of its steps, then gone on with.
    half = language_model.task(made)._replace(finish=None)
    run(half, steps=10, out=tmp_path / "b", seed=0, loop=loop, quiet=True)
    resumed = run(language_model.task(made), steps=20, out=tmp_path / "b", seed=0, loop=loop, quiet=True)
    assert digest(whole["params"]) == digest(resumed["params"])


def test_pocket_s_recipe_is_understood_and_learns() -> None:
    root = Path(__file__).resolve().parents[2]
    name, made, _ = api.load(
        root / "configs" / "pocket" / "model.yaml", ["steps=30", "batch=4", "model.n_layers=1"]
    )
    assert name == "language_model" and made.model.n_layers == 1
    task = language_model.task(made)
    state, step, losses = task.init(jax.random.key(made.seed)), jax.jit(task.step), []
    for i in range(made.steps):
        state, metrics = step(state, task.batch(i))
        losses.append(float(metrics["loss"]))
    assert losses[0] > 6.0 and np.mean(losses[-3:]) < 5.0


@pytest.mark.parametrize(
    "reference",
    ["nowhere.at.all:f", "jaxinterp.core.errors:absent", "no_colon", "jaxinterp.core.errors:__doc__"],
)
def test_a_token_source_that_is_none_is_refused(reference: str) -> None:
    with pytest.raises(InputError, match=r"nowhere|absent|no_colon|not a function"):
        language_model.task(config(tokens=reference))


def test_sixteen_bit_compute_and_layers_computed_again_have_the_gradient_of_the_plain_loss() -> None:
    model = tiny_model("llama", n_layers=1)
    batch = {"tokens": jnp.asarray(np.random.default_rng(1).integers(40, size=(2, 9)))}

    def gradient(**how: str) -> tuple[jax.Array, list[jax.Array]]:
        run = jax.value_and_grad(partial(language_model.loss, **how), has_aux=True)
        (value, _), found = jax.jit(lambda p: run(p, model.config, batch))(model.params)
        return value, jax.tree.leaves(found)

    value, plain = gradient()
    again, same = gradient(remat="full")
    low, rounded = gradient(compute="bfloat16")
    np.testing.assert_allclose(again, value, rtol=1e-6)
    np.testing.assert_allclose(low, value, rtol=5e-3)
    for one, two, three in zip(plain, same, rounded, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
        assert three.dtype == jnp.float32
    whole, close = (np.concatenate([np.ravel(leaf) for leaf in leaves]) for leaves in (plain, rounded))
    assert np.linalg.norm(close - whole) < 0.03 * np.linalg.norm(whole)


def test_unknown_ways_of_computing_are_refused() -> None:
    with pytest.raises(InputError, match=r"remat is 'dot' .did you mean dots"):
        config(remat="dot")
    with pytest.raises(InputError, match=r"compute is 'float16' .*expected float32 or bfloat16"):
        config(compute="float16")
