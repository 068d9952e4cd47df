"""Token sources are pure functions of (seed, index), and say what is wrong with what they are given."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations.sampling import sample
from jaxinterp.activations.text import TextConfig, make_source
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.generation import generate_tokens
from jaxinterp.models.model import Model
from jaxinterp.models.weights import declare
from jaxinterp.parallel.weights import initialise

CONFIG = ModelConfig(
    vocab_size=31, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_head=4, d_mlp=16, context=96
)


class Words:
    """A tokenizer that reads one token a character."""

    vocab_size, bos, eos = 31, 1, 2

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        return ([1] if bos or bos is None else []) + [3 + ord(c) % 28 for c in text]


def model(scale: float = 1.0) -> Model:
    params = initialise(declare(CONFIG), key=jax.random.key(0), dtype=jnp.float32)
    return Model({**params, "unembed": scale * params["unembed"]}, CONFIG, Words(), "tiny")


def documents(seed: int, step: int, batch: int, length: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, step])
    tokens = rng.integers(3, 31, (batch, length))
    segments = np.repeat(np.arange(2), length // 2)[None].repeat(batch, 0)
    return {
        "tokens": tokens, "segments": segments, "positions": np.arange(length)[None].repeat(batch, 0) % (length // 2),
        "weights": (tokens % 5 > 0).astype(float),
    }  # fmt: skip


def too_long(seed: int, step: int, batch: int, length: int) -> dict[str, Any]:
    return {"tokens": np.zeros((batch, length + 1), int)}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("once upon a time " * 30)
    np.save(tmp_path / "flat.npy", np.arange(200) % 31)
    np.save(tmp_path / "rows.npy", (np.arange(200) % 31).reshape(10, 20).astype(np.uint16))
    np.save(tmp_path / "outside.npy", np.arange(200))
    np.save(tmp_path / "real.npy", np.ones(200))
    (tmp_path / "bad.npy").write_bytes(b"no array")
    return tmp_path


@pytest.mark.parametrize("name", ["sampled", "a.txt", "flat.npy", "rows.npy", f"{__name__}:documents"])
def test_batches_depend_on_seed_and_index_only(files: Path, name: str) -> None:
    source = name if name == "sampled" or ":" in name else str(files / name)
    config = TextConfig(source=source, length=12, batch=4)
    one, two, other = (make_source(config, model(), seed) for seed in (0, 0, 1))
    late = two.batch(3)
    for index in (0, 3):
        assert one.batch(index).tokens.tolist() == two.batch(index).tokens.tolist()
    assert one.batch(3).tokens.tolist() == late.tokens.tolist()
    assert one.batch(0).tokens.tolist() != one.batch(1).tokens.tolist()
    assert one.batch(0).tokens.tolist() != other.batch(0).tokens.tolist()
    assert late.tokens.shape == late.use.shape == late.segments.shape == late.positions.shape == (4, 12)
    assert one.tokens == 48
    if ":" not in name:
        assert (late.tokens[:, 0] == 1).all()


def test_every_row_of_a_file_comes_once_a_pass(files: Path) -> None:
    config = TextConfig(source=str(files / "rows.npy"), length=20, batch=5, start=-1)
    source = make_source(config, model(), 0)
    passes = [np.concatenate([source.batch(2 * p + i).tokens for i in range(2)]) for p in range(2)]
    expected = sorted(np.load(files / "rows.npy").tolist())
    assert all(sorted(p.tolist()) == expected for p in passes)
    assert passes[0].tolist() != passes[1].tolist()


def test_a_limited_text_comes_again(files: Path) -> None:
    limited = make_source(TextConfig(source=f"{__name__}:documents", length=12, batch=4, limit=3), model(), 0)
    free = make_source(TextConfig(source=f"{__name__}:documents", length=12, batch=4), model(), 0)
    for index in range(7):
        assert limited.batch(index).tokens.tolist() == free.batch(index % 3).tokens.tolist()
    assert limited.limit == 3


def test_a_function_says_documents_and_which_tokens_count() -> None:
    batch = make_source(TextConfig(source=f"{__name__}:documents", length=12, batch=4), model(), 0).batch(0)
    assert batch.segments[0].tolist() == [0] * 6 + [1] * 6
    assert batch.positions[0].tolist() == [*range(6), *range(6)]
    np.testing.assert_array_equal(batch.use, batch.tokens % 5 > 0)


def test_sampling_in_stages_is_sampling() -> None:
    """The same tokens as one by one with whole forward passes, over a stage's end."""
    m = model(3.0)
    key, length = jax.random.key(4), 70
    tokens = sample(m.params, CONFIG, 1, key=key, batch=2, length=length, temperature=0.7)
    logits, _ = forward(m.params, CONFIG, jnp.asarray(tokens))
    for i in range(1, length):
        drawn = jax.random.categorical(jax.random.fold_in(key, i), logits[:, i - 1] / 0.7)
        assert drawn.tolist() == tokens[:, i].tolist()


def test_cold_sampling_is_greedy_decoding() -> None:
    m = model(3.0)
    tokens = sample(m.params, CONFIG, 1, key=jax.random.key(0), batch=1, length=40, temperature=1e-6)
    greedy = generate_tokens(m.params, CONFIG, jnp.ones((1, 1), jnp.int32), new=39)
    assert tokens.tolist() == np.asarray(greedy).tolist()


def test_tokens_after_the_end_are_not_used() -> None:
    batch = make_source(TextConfig(length=90, batch=16), model(), 0).batch(0)
    for tokens, use in zip(batch.tokens.tolist(), batch.use.tolist(), strict=True):
        expected = tokens.index(2) + 1 if 2 in tokens else 90
        assert use == [True] * expected + [False] * (90 - expected)
    assert not batch.use.all()


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("outside.npy", {}, "outside the vocabulary of 31"),
        ("real.npy", {}, "expected whole numbers"),
        ("bad.npy", {}, "no readable .npy"),
        ("missing.txt", {}, "cannot read"),
        ("flat.npy", {"length": 96}, None),
        ("a.txt", {"length": 97}, "longer than the model's context of 96"),
        ("os:no_such_thing", {}, "no text source"),
        ("no_such_module_here:x", {}, "no text source"),
        ("sampeld", {}, "expected sampled"),
        (f"{__name__}:too_long", {}, "gave tokens of shape"),
    ],
)
def test_bad_sources(files: Path, source: str, changes: dict, message: str | None) -> None:
    name = str(files / source) if source.endswith((".npy", ".txt")) else source
    config = dataclasses.replace(TextConfig(source=name, length=12, batch=4), **changes)
    if message is None:
        assert make_source(config, model(), 0).batch(0).tokens.shape == (4, 96)
        return
    with pytest.raises(InputError, match=message):
        make_source(config, model(), 0).batch(0)


def test_sampling_needs_a_first_token() -> None:
    bare = dataclasses.replace(model(), tokenizer=None)
    with pytest.raises(InputError, match="needs a first token"):
        make_source(TextConfig(length=12), bare, 0)
    assert make_source(TextConfig(length=12, start=5, batch=2), bare, 0).batch(0).tokens[0, 0] == 5
    with pytest.raises(InputError, match="outside the vocabulary"):
        make_source(TextConfig(length=12, start=31), bare, 0)
