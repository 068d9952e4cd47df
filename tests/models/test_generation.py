"""Generation: against a forward pass without a cache, against each row alone, choices against NumPy, bad input."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import load_model
from jaxinterp.checkpoints.families import FAMILIES
from jaxinterp.core.errors import InputError
from jaxinterp.models import (
    Edit,
    Generated,
    Model,
    ModelConfig,
    continue_prompts,
    continue_tokens,
    forward,
    generate,
    generate_tokens,
    pad_prompts,
)
from jaxinterp.models.generation_choice import choice, choose, narrowed, nucleus, top_k_mask
from tests.references import stored
from tests.support import EVERY, tiny_model

PROMPTS = ([7, 3, 19], [1, 0, 4, 23, 3, 3, 9], [28, 11, 5, 2, 17])
SAMPLED = {"temperature": 0.9, "top_k": 25, "top_p": 0.95}

# What differs in what is kept of tokens before; the rest of the families belongs to the long tests.
USUAL = ("mistral_gqa_window", "phi3_longrope_short", "gpt_oss_gqa_long")
TINY = ("llama", "gpt2", "gemma2", "experts", "latent")
CASES = [
    name if name in USUAL else pytest.param(name, marks=pytest.mark.slow)
    for name in stored.names()
    if stored.case(name).family in FAMILIES
]


def keys(rows: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), rows)


def kept_by_numpy(logits: np.ndarray, top_k: int | None, top_p: float | None) -> np.ndarray:
    """Which tokens of logits [V] may be sampled, straight from the definitions, in float64."""
    logits = logits.astype(np.float64)
    kept = np.ones(len(logits), bool)
    if top_k is not None:
        kept = logits >= sorted(logits)[-top_k]
    if top_p is not None:
        weights = np.where(kept, np.exp(logits - logits.max()), 0.0)
        weights = weights / weights.sum()
        total, nucleus = 0.0, np.zeros(len(logits), bool)
        for token in sorted(range(len(logits)), key=lambda token: (-logits[token], token)):
            if total >= top_p:
                break
            nucleus[token] = True
            total += weights[token]
        kept = kept & nucleus
    return kept


@functools.lru_cache(maxsize=1)
def last_logits(config: ModelConfig, rows: int, size: int) -> Callable[..., Any]:
    """(params, tokens [B, size], lengths [B], edits) → logits [B, V] of the last token of each row."""
    places = np.broadcast_to(np.arange(size, dtype=np.int32)[None, :], (rows, size))

    def last(params: Any, tokens: Any, lengths: Any, edits: Any) -> Any:
        real = places < lengths[:, None]
        logits, _ = forward(
            params,
            config,
            tokens,
            positions=jnp.where(real, places, 0),
            segments=jnp.where(real, 0, 1),
            edits=edits,
        )
        return jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[:, 0]

    return jax.jit(last)


def uncached(
    model: Model, prompts: Iterable[list[int]], new: int, *, own: jax.Array | None = None,
    temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None, edits: tuple[Edit, ...] = (),
) -> Generated:  # fmt: skip
    """Every step a forward pass over everything so far, each row with nothing but itself to attend to."""
    rows = [list(prompt) for prompt in prompts]
    size = max(map(len, rows)) + new
    last = last_logits(model.config, len(rows), size)
    log_probs = np.zeros((len(rows), new))
    for index in range(new):
        tokens = np.array([row + [0] * (size - len(row)) for row in rows], np.int32)
        lengths = np.array([len(row) for row in rows], np.int32)
        logits = np.asarray(last(model.params, tokens, lengths, edits))
        for number, row in enumerate(rows):
            if temperature == 0:
                token = int(np.argmax(logits[number]))
            else:
                scaled = logits[number] / logits.dtype.type(temperature)
                scaled = np.where(kept_by_numpy(scaled, top_k, top_p), scaled, -np.inf).astype(scaled.dtype)
                assert own is not None
                token = int(jax.random.categorical(jax.random.fold_in(own[number], index), scaled))
            row.append(token)
            shifted = logits[number].astype(np.float64) - logits[number].max()
            log_probs[number, index] = shifted[token] - np.log(np.exp(shifted).sum())
    tokens = np.array([row[-new:] for row in rows])
    return Generated(tokens, np.full(len(rows), new), log_probs)


def cached(model: Model, prompts: Iterable[list[int]], new: int, **how: Any) -> Generated:
    padded = pad_prompts(model.config, list(prompts), new=new)
    return continue_tokens(model.params, model.config, *map(jnp.asarray, padded), new=new, **how)


def assert_same(got: Generated, want: Generated) -> None:
    assert np.array_equal(got.tokens, want.tokens)
    assert np.array_equal(got.lengths, want.lengths)
    np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)


@pytest.mark.parametrize(
    "family", [name if name in TINY else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
)
def test_cached_equals_uncached(family: str) -> None:
    model, own = tiny_model(family, context=80), keys(3)
    for how in ({}, SAMPLED) if family in ("llama", "gpt2", "gemma2") else (SAMPLED,):
        got = cached(model, PROMPTS, 64, keys=own, **how)
        assert_same(got, uncached(model, PROMPTS, 64, own=own, **how))


@pytest.mark.parametrize("name", CASES)
def test_cached_equals_uncached_in_stored_families(name: str, tmp_path: Path) -> None:
    model, own = load_model(stored.write_folder(name, tmp_path / name)), keys(3)
    if model.config.positions == "learned":
        new = min(64, model.config.context - 7)
    else:
        new = 64
        model = dataclasses.replace(model, config=dataclasses.replace(model.config, context=80))
    got = cached(model, PROMPTS, new, keys=own, **SAMPLED)
    assert_same(got, uncached(model, PROMPTS, new, own=own, **SAMPLED))


def test_in_float64(x64: None) -> None:
    model, own = tiny_model("gemma3", dtype="float64"), keys(3)
    got = cached(model, PROMPTS, 20, keys=own, **SAMPLED)
    want = uncached(model, PROMPTS, 20, own=own, **SAMPLED)
    assert np.array_equal(got.tokens, want.tokens)
    np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-12)


def test_bfloat16_draws_and_tells_probabilities_in_float32() -> None:
    model, own = tiny_model("llama").astype(jnp.bfloat16), keys(3)
    got = cached(model, PROMPTS, 8, keys=own, **SAMPLED)
    assert got.log_probs.dtype == jnp.float32
    whole = [prompt + [int(t) for t in row] for prompt, row in zip(PROMPTS, got.tokens, strict=True)]
    for row, prompt, log_probs in zip(whole, PROMPTS, got.log_probs, strict=True):
        logits, _ = forward(model.params, model.config, jnp.asarray([row]))
        want = jax.nn.log_softmax(logits[0].astype(jnp.float32), axis=-1)
        want = [want[i - 1, row[i]] for i in range(len(prompt), len(row))]
        np.testing.assert_allclose(log_probs, want, atol=0.1)


def test_a_row_of_a_batch_is_the_row_alone() -> None:
    model, own = tiny_model("gemma2"), keys(3)
    together = cached(model, PROMPTS, 20, keys=own, **SAMPLED)
    for row, prompt in enumerate(PROMPTS[:2]):
        alone = cached(model, [prompt], 20, keys=own[row : row + 1], **SAMPLED)
        assert_same(Generated(*(part[row : row + 1] for part in together)), alone)


def test_in_one_shape_other_rows_change_no_bit() -> None:
    model, own = tiny_model("sinks"), keys(3)
    others = ([5], [31] * 7, [2, 2])
    got = []
    for row in range(3):
        prompts = list(others)
        prompts[row] = PROMPTS[0]
        padded = pad_prompts(model.config, prompts, width=8)
        mixed = own.at[row].set(own[0])
        found = continue_tokens(
            model.params, model.config, *map(jnp.asarray, padded), new=20, keys=mixed, stop=[9], **SAMPLED
        )
        got.append([np.asarray(part)[row].tobytes() for part in found])
    assert got[0] == got[1] == got[2]


def test_a_wider_padding_changes_nothing() -> None:
    model = tiny_model("gpt2")
    padded = pad_prompts(model.config, PROMPTS, width=12)
    assert padded.tokens.shape == (3, 12) and list(padded.lengths) == [3, 7, 5]
    wide = continue_tokens(model.params, model.config, *map(jnp.asarray, padded), new=20)
    assert_same(wide, cached(model, PROMPTS, 20))


def test_after_a_stop_token_a_row_yields_padding() -> None:
    model = tiny_model("llama")
    free = cached(model, PROMPTS, 20)
    stops = [int(free.tokens[0, 4]), int(free.tokens[2, 9])]
    got = cached(model, PROMPTS, 20, stop=stops, pad=39)
    for row, whole in enumerate(np.asarray(free.tokens)):
        end = next((i + 1 for i, token in enumerate(whole) if token in stops), 20)
        assert got.lengths[row] == end
        assert np.array_equal(got.tokens[row, :end], whole[:end])
        assert np.all(got.tokens[row, end:] == 39)
        np.testing.assert_allclose(got.log_probs[row, :end], free.log_probs[row, :end], atol=1e-6)
        assert np.all(got.log_probs[row, end:] == 0)
    assert np.min(got.lengths) <= 5


def test_new_numbers_do_not_compile_again() -> None:
    from jaxinterp.models.generation_loop import advance

    model, own = tiny_model("llama", context=33), keys(3)
    cached(model, PROMPTS, 5, keys=own, temperature=0.5, top_p=0.9, stop=[3])
    before = advance._cache_size()
    cached(model, PROMPTS, 5, keys=own, temperature=1.5, top_p=0.3, stop=[4], pad=2)
    assert advance._cache_size() == before


def test_inside_jit_and_with_a_traced_temperature() -> None:
    model, own = tiny_model("llama"), keys(3)
    padded = pad_prompts(model.config, PROMPTS)

    @jax.jit
    def run(tokens: Any, lengths: Any, temperature: Any) -> Generated:
        return continue_tokens(
            model.params, model.config, tokens, lengths, new=6, keys=own, temperature=temperature, top_p=0.9
        )

    got = run(*padded, 0.8)
    assert_same(got, cached(model, PROMPTS, 6, keys=own, temperature=0.8, top_p=0.9))


def test_edits_ride_along() -> None:
    model = tiny_model("gemma2")
    rng = np.random.default_rng(5)
    edits = (
        Edit("mlp_out", "scale", -2.0, layer=1, position=2),
        # A token of the prompt in one row, a new one in the others.
        Edit("resid_mid", "replace", rng.normal(size=16).astype(np.float32), layer=0, position=6),
        Edit("attn_out", "add", rng.normal(size=(3, 1, 16)).astype(np.float32), layer=2, position=11),
        Edit("resid_post", "add", rng.normal(size=(3, 16)).astype(np.float32), per_layer=True),
    )
    free = cached(model, PROMPTS, 16)
    for some in (edits[1:2], edits):
        got = cached(model, PROMPTS, 16, edits=some)
        assert_same(got, uncached(model, PROMPTS, 16, edits=some))
        assert np.max(np.abs(got.log_probs - free.log_probs)) > 1e-3
    with pytest.raises(InputError, match="names 3 positions"):
        cached(model, PROMPTS, 4, edits=[Edit("mlp_out", "add", np.zeros((3, 16), np.float32))])


def test_edits_have_a_position_for_each_row() -> None:
    model = tiny_model("llama")
    tokens = jnp.asarray([[1, 2, 3, 4], [5, 6, 7, 8]])
    both = Edit("mlp_out", "scale", 0.0, layer=1, position=np.array([0, 2]))
    together, _ = forward(model.params, model.config, tokens, edits=(both,))
    for row, position in enumerate((0, 2)):
        one = dataclasses.replace(both, position=position)
        alone, _ = forward(model.params, model.config, tokens[row : row + 1], edits=(one,))
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
    with pytest.raises(InputError, match="2 positions for 1 rows"):
        forward(model.params, model.config, tokens[:1], edits=(both,))


def test_one_key_for_all_rows_of_generate_tokens() -> None:
    """What `generate_tokens` draws: row by row of one array of noise a step."""
    model, key = tiny_model("llama"), jax.random.key(4)
    prompt = jnp.asarray([[7, 3, 19], [1, 0, 4]])
    got = generate_tokens(model.params, model.config, prompt, new=8, key=key, temperature=0.7, top_k=9)
    assert np.array_equal(got[:, :3], prompt)
    logits = np.asarray(forward(model.params, model.config, got)[0])
    for index in range(8):
        scaled = logits[:, 2 + index] / np.float32(0.7)
        kept = np.array([kept_by_numpy(row, 9, None) for row in scaled])
        scaled = np.where(kept, scaled, np.float32(-np.inf))
        assert np.array_equal(
            got[:, 3 + index], jax.random.categorical(jax.random.fold_in(key, index), scaled)
        )


class TestChoice:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.integers(-30, 30), min_size=12, max_size=12),
        st.floats(0.01, 1.0),
        st.sampled_from([None, 1, 4, 11]),
    )
    def test_top_p_and_top_k(self, tenths: list[int], p: float, k: int | None) -> None:
        logits = np.array(tenths, np.float32) / np.float32(10)  # ties are frequent
        weights = np.exp(logits.astype(np.float64))
        weights = np.where(kept_by_numpy(logits, k, None), weights, 0) / weights.sum()
        sums = np.cumsum(np.sort(weights / weights.sum())[::-1])
        assume(p == 1 or np.min(np.abs(sums - p)) > 1e-5)
        how = choice(1.0, k, p)
        got = np.isfinite(np.asarray(narrowed(jnp.asarray(logits)[None], how))[0])
        assert np.array_equal(got, kept_by_numpy(logits, k, None if p == 1 else p))

    def test_equals_at_the_border(self) -> None:
        logits = jnp.log(jnp.asarray([[0.125, 0.5, 0.125, 0.125, 0.125]]))
        assert np.array_equal(nucleus(logits, 0.6)[0], [True, True, False, False, False])
        assert np.array_equal(nucleus(logits, 0.7)[0], [True, True, True, False, False])
        assert np.all(nucleus(logits, 1.0))
        assert np.all(top_k_mask(logits, 2))

    def test_the_first_token_is_always_kept(self) -> None:
        logits = jnp.asarray([[0.0, 9.0, 1.0]])
        assert np.array_equal(nucleus(logits, 1e-30)[0], [False, True, False])

    def test_frequencies(self) -> None:
        row = np.random.default_rng(3).normal(size=8).astype(np.float32)
        n, how = 20_000, choice(0.7, 6, 0.9)
        drawn = choose(
            jnp.broadcast_to(jnp.asarray(row)[None], (n, 8)), how, keys(n), jnp.asarray(0, jnp.int32)
        )
        weights = np.where(kept_by_numpy(row / np.float32(0.7), 6, 0.9), np.exp(row / 0.7), 0)
        want = weights / weights.sum()
        share = np.bincount(drawn, minlength=8) / n
        assert np.all(share[want == 0] == 0)
        np.testing.assert_allclose(share, want, atol=5 * 0.5 / np.sqrt(n))


class Letters:
    """A tokenizer of single letters."""

    vocab_size, bos = 40, None

    def __init__(self, eos: int | None = None) -> None:
        self.eos = eos

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        return [ord(letter) - ord("A") for letter in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(chr(ord("A") + int(i)) for i in ids if i != self.eos)


@pytest.fixture(scope="module")
def letters() -> Model:
    return dataclasses.replace(tiny_model("llama", context=64), tokenizer=Letters())


class TestText:
    def test_one_and_several(self, letters: Model) -> None:
        texts = ["HDT", "BAEXDDJ"]
        one = [generate(letters, text, max_new_tokens=9) for text in texts]
        assert all(isinstance(text, str) for text in one)
        assert generate(letters, texts, max_new_tokens=9) == one
        ids = [Letters().encode(text) for text in texts]
        assert [Letters().decode(row) for row in generate(letters, ids, max_new_tokens=9)] == one
        assert generate(letters, np.array(ids[0]), max_new_tokens=9) == generate(
            letters, ids[0], max_new_tokens=9
        )

    def test_seeds(self, letters: Model) -> None:
        how: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.99}
        alone = [generate(letters, "HDT", seed=seed, **how) for seed in (3, 4)]
        assert generate(letters, ["HDT", "HDT"], seed=[3, 4], **how) == alone
        both = generate(letters, ["HDT", "HDT"], seed=3, **how)
        assert both[0] != both[1]
        assert generate(letters, ["HDT", "HDT"], seed=3, **how) == both
        assert generate(letters, ["HDT", "HDT"], seed=4, **how) != both

    @pytest.mark.parametrize("place", [2, 14, 25])
    def test_stop_texts(self, letters: Model, place: int) -> None:
        how: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.0, "seed": [1, 2]}
        prompts = ["HDT", "BAEXD"]
        free = generate(letters, prompts, **how)
        assert len(free[0]) > 28
        stop = free[0][place : place + 3]
        got = generate(letters, prompts, stop=["never seen", stop], **how)
        assert got == [text.partition(stop)[0] for text in free]
        found = continue_prompts(letters, prompts, stop=stop, **how)
        end = free[0].index(stop) + 3
        assert found.lengths[0] == end
        assert Letters().decode(found.tokens[0, :end]) == free[0][:end]
        assert np.all(found.tokens[0, end:] == 0) and np.all(found.log_probs[0, end:] == 0)
        assert np.all(found.log_probs[0, :end] < 0)

    def test_stop_tokens_and_the_end_token(self, letters: Model) -> None:
        how: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.0}
        plain = dataclasses.replace(letters, tokenizer=None)
        whole = generate(plain, [1, 2], seed=0, **how)
        assert len(whole) == 40
        stop, end = whole[11], whole[25]
        ended = dataclasses.replace(letters, tokenizer=Letters(eos=end))
        found = continue_prompts(ended, [[1, 2]], seed=[0], **how)
        assert int(found.lengths[0]) == whole.index(end) + 1
        assert list(found.tokens[0, : whole.index(end) + 1]) == whole[: whole.index(end) + 1]
        assert generate(ended, [1, 2], seed=0, **how) == whole[: whole.index(end)]
        first = min(whole.index(stop), whole.index(end))
        assert generate(ended, [1, 2], seed=0, stop=stop, **how) == whole[:first]
        assert generate(ended, "BC", seed=0, stop=[stop, "never seen"], **how) == Letters().decode(
            whole[:first]
        )

    @pytest.mark.parametrize(
        ("prompt", "how", "message"),
        [
            ([], {}, "prompt is empty"),
            ("", {}, "prompt is empty"),
            ([[1], []], {}, "prompt 1: the prompt is empty"),
            ([[1], [2, 40]], {}, "prompt 1: token 40 at position 1 is outside the vocabulary of 40"),
            ([0.5], {}, "whole numbers"),
            ([1] * 60, {}, "60 tokens and 5 new ones is longer than the model's context of 64"),
            ([1], {"max_new_tokens": 64}, "1 tokens and 64 new ones is longer"),
            ([1], {"max_new_tokens": 0}, "max_new_tokens is 0"),
            ([1], {"max_new_tokens": 2.5}, "max_new_tokens is 2.5"),
            ([1], {"temperature": -1.0}, "temperature is -1.0"),
            ([1], {"temperature": float("nan")}, "temperature is nan"),
            ([1], {"temperature": 1e-9}, "temperature is 1e-09"),
            ([1], {"temperature": "hot"}, "temperature is 'hot'"),
            ([1], {"top_p": 0.0}, "top_p is 0.0"),
            ([1], {"top_p": 1.5}, "top_p is 1.5"),
            ([1], {"top_k": 0}, "top_k is 0"),
            ([1], {"top_k": 2.0}, "top_k is 2.0"),
            ([1], {"stop": 40}, "stop token 40 is outside the vocabulary of 40"),
            ([1], {"stop": [3, -1]}, "stop token -1"),
            ([1], {"stop": ""}, "stop text is empty"),
            ([1], {"stop": [1.5]}, "neither a token id nor a text"),
            ([[1], [2]], {"seed": [1, 2, 3]}, r"seed is \[1, 2, 3\] for 2 prompts"),
            ([1], {"seed": 0.5}, "seed is 0.5 for 1 prompts"),
        ],
    )
    def test_bad_input(self, letters: Model, prompt: Any, how: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            generate(letters, prompt, **{"max_new_tokens": 5, **how})

    def test_further_bad_input(self) -> None:
        model = tiny_model("llama")
        with pytest.raises(InputError, match=r"stop text 'x': this model has no tokenizer"):
            generate(model, [1], stop="x")
        with pytest.raises(InputError, match="no prompts"):
            continue_prompts(model, [])
        with pytest.raises(InputError, match="prompt 1 has 7 tokens, more than the width of 5"):
            pad_prompts(model.config, PROMPTS, width=5)
        with pytest.raises(InputError, match="needs a key"):
            cached(model, PROMPTS, 4, temperature=1.0)
        with pytest.raises(InputError, match=r"keys of shape \(2,\) for 3 rows"):
            cached(model, PROMPTS, 4, keys=keys(2), temperature=1.0)
        with pytest.raises(InputError, match="new is 0"):
            cached(model, PROMPTS, 0)
