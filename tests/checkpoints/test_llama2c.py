"""llama2.c models and tokenizers: the published text, an independent merge, round trips."""

from __future__ import annotations

import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import load_model
from jaxinterp.checkpoints.llama2c import read_model, write_model
from jaxinterp.checkpoints.llama2c_tokenizer import Llama2cTokenizer, read_tokenizer, write_tokenizer
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import digest
from jaxinterp.models import Model, forward, generate_tokens
from tests.support import shared, tiny_model

STORY = """\
Once upon a time, there was a little girl named Lily. She loved to play outside in the park. \
One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, \
"I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she"""


def small_tokenizer() -> Llama2cTokenizer:
    """Three specials, 256 bytes, a few letters, and merges with equal scores among them."""
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{b:02X}>".encode() for b in range(256))]
    text = [
        b" ",
        b"a",
        b"b",
        b"c",
        b"<",
        b"s",
        b">",
        b"ab",
        b"bc",
        b"abc",
        b" a",
        b"aa",
        b" ab",
        b"<s",
        b"<s>",
    ]
    scores = (
        [0.0] * len(pieces) + [-1.0 * i for i in range(7)] + [-1.0, -1.0, -3.0, -2.0, -1.5, -0.5, -9.0, -9.0]
    )
    return Llama2cTokenizer([*pieces, *text], scores)


def naive_merge(tokenizer: Llama2cTokenizer, text: str) -> list[int]:
    """The rule as llama2.c states it: look at all pairs, merge the best, start again."""
    ids = {p: i for i, p in reversed(list(enumerate(tokenizer.pieces))) if i >= 259}
    tokens: list[int] = []
    for character in " " + text if text else "":
        raw = character.encode()
        tokens += [ids[raw]] if raw in ids else [3 + b for b in raw]
    while True:
        best, where = -1e10, -1
        for i in range(len(tokens) - 1):
            joined = ids.get(tokenizer.pieces[tokens[i]] + tokenizer.pieces[tokens[i + 1]])
            if joined is not None and tokenizer.scores[joined] > best:
                best, where = tokenizer.scores[joined], i
        if where < 0:
            return [1, *tokens]
        pair = tokenizer.pieces[tokens[where]] + tokenizer.pieces[tokens[where + 1]]
        tokens[where : where + 2] = [ids[pair]]


def test_greedy_text_of_stories260k() -> None:
    model = load_model(shared("data/stories260K.bin"))
    assert model.config.n_params() == 260_032
    ids = np.asarray(generate_tokens(model.params, model.config, jnp.asarray([[1]]), new=200))[0]
    assert ids[:12].tolist() == [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315]
    assert model.tokenizer.decode(ids) == STORY


def test_strong_behaviour_of_stories260k() -> None:
    model = load_model(shared("data/stories260K.bin"))
    ids = model.tokenizer.encode("Lily was sad because she lost her toy. Her mom gave")
    logits = np.asarray(forward(model.params, model.config, jnp.asarray([ids]))[0], np.float64)[0, -1]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    assert model.tokenizer.text(int(p.argmax())) == " her"
    assert p.max() == pytest.approx(0.884, abs=1e-3)


def test_tokenizer_file_round_trip(tmp_path: Path) -> None:
    source = shared("data/tok512.bin")
    tokenizer = read_tokenizer(source, 512)
    write_tokenizer(tmp_path / "t.bin", tokenizer)
    assert (tmp_path / "t.bin").read_bytes() == source.read_bytes()
    assert read_tokenizer(tmp_path / "t.bin") == tokenizer


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abc <s>é", max_size=24))
def test_merges_as_the_plain_rule_and_comes_back(text: str) -> None:
    tokenizer = small_tokenizer()
    ids = tokenizer.encode(text)
    assert ids == naive_merge(tokenizer, text)
    assert tokenizer.decode(ids) == text


def test_merges_of_the_real_tokenizer() -> None:
    tokenizer = read_tokenizer(shared("data/tok512.bin"))
    for text in (STORY, "Tim and Sam are friends.", "zzz 日本 \n\t", "the the the theory", "a" * 40):
        ids = tokenizer.encode(text)
        assert ids == naive_merge(tokenizer, text)
        assert tokenizer.decode(ids) == text


def test_bos_control_tokens_and_labels() -> None:
    tokenizer = small_tokenizer()
    assert tokenizer.encode("") == [1]
    assert tokenizer.encode("", bos=False) == []
    assert tokenizer.encode("ab", bos=False) == tokenizer.encode("ab")[1:]
    assert 1 not in tokenizer.encode("\n<s>\n", bos=False)
    assert tokenizer.text(1) == "<s>"
    assert tokenizer.text(3 + ord("\n")) == "⏎"
    assert tokenizer.text(3 + 0xC3) == "<0xC3>"
    assert tokenizer.text(tokenizer.pieces.index(b" ", 259)) == "␣"
    assert tokenizer.text(tokenizer.pieces.index(b" ab")) == " ab"
    assert tokenizer.text(10_000) == "<10000>"


def test_a_character_without_bytes_is_named() -> None:
    tokenizer = Llama2cTokenizer([b"<unk>", b"<s>", b"</s>", b" ", b"a"], [0.0] * 5)
    with pytest.raises(InputError, match=r"'q' at place 1 .* vocabulary of 5"):
        tokenizer.encode("aq")


@pytest.mark.parametrize("tied", [True, False])
def test_model_round_trip(tmp_path: Path, tied: bool) -> None:
    model = tiny_model("llama", rope_pairs="adjacent", tied=tied)
    write_model(tmp_path / "m.bin", model.params, model.config)
    params, config = read_model(tmp_path / "m.bin")
    assert config == model.config
    assert digest(params) == digest(model.params)
    write_model(tmp_path / "again.bin", params, config)
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "m.bin").read_bytes()


def test_rope_base_comes_from_the_tables(tmp_path: Path) -> None:
    model = tiny_model("llama", rope_pairs="adjacent", tied=True)
    file = tmp_path / "m.bin"
    write_model(file, model.params, model.config)
    data = bytearray(file.read_bytes())
    count = model.config.context * model.config.d_head // 2
    position = np.arange(model.config.context)[:, None]
    angles = position * 500.0 ** (-np.arange(0, model.config.d_head, 2) / model.config.d_head)[None, :]
    data[-8 * count :] = np.concatenate([np.cos(angles), np.sin(angles)]).astype("<f4").tobytes()
    file.write_bytes(data)
    assert read_model(file)[1].rope_base == 500.0
    data[-8 * count :] = bytes(8 * count)
    file.write_bytes(data)
    assert read_model(file)[1].rope_base == 10000.0
    data[-4:] = struct.pack("<f", 0.5)
    file.write_bytes(data)
    with pytest.raises(InputError, match="rotary tables"):
        read_model(file)


def test_what_the_format_cannot_say_is_refused(tmp_path: Path) -> None:
    model = tiny_model("gemma2")
    with pytest.raises(InputError, match="cannot hold a model with"):
        write_model(tmp_path / "m.bin", model.params, model.config)
    assert not (tmp_path / "m.bin").exists()


def test_tokenizer_beside_the_model_is_found(tmp_path: Path) -> None:
    model = tiny_model("llama", rope_pairs="adjacent", vocab_size=274)
    tokenizer = small_tokenizer()
    assert tokenizer.vocab_size == 274
    write_model(tmp_path / "m.bin", model.params, model.config)
    assert load_model(tmp_path / "m.bin").tokenizer is None
    write_tokenizer(tmp_path / "tokenizer.bin", tokenizer)
    loaded = load_model(tmp_path / "m.bin")
    assert isinstance(loaded, Model) and loaded.tokenizer == tokenizer
    write_tokenizer(tmp_path / "tok274.bin", tokenizer)
    (tmp_path / "tokenizer.bin").write_bytes(b"unused")
    assert load_model(tmp_path / "m.bin").tokenizer == tokenizer
