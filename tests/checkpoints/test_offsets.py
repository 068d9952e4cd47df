"""Spans of characters and special tokens, of tokenizer.json and of llama2.c."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers, processors

from jaxinterp.checkpoints import SentencePieceTokenizer, load_model, save_model
from jaxinterp.checkpoints import tokenizer_files as files
from jaxinterp.checkpoints.llama2c_tokenizer import Llama2cTokenizer, read_tokenizer
from jaxinterp.checkpoints.tokenizer_base import BaseTokenizer
from jaxinterp.checkpoints.tokenizers import JsonTokenizer, read_tokenizer_json
from jaxinterp.core.errors import InputError
from jaxinterp.models import generate
from tests.support import ROOT, shared, tiny_model

DATA = ROOT / "tests" / "references" / "data" / "tokenizers"


def llama2c() -> Llama2cTokenizer:
    """All bytes, a few letters, and merges among them."""
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    words = [b" ", b"t", b"h", b"e", b"a", b"th", b"the", b" the", "é".encode()]
    return Llama2cTokenizer([*pieces, *words], [0.0] * len(pieces) + [float(i) for i in range(len(words))])


TOKENIZERS: dict[str, BaseTokenizer] = {
    **{
        kind: read_tokenizer_json(DATA / kind / "tokenizer.json")
        for kind in ("byte_level", "metaspace", "special")
    },
    "llama2c": llama2c(),
}
METASPACE = (DATA / "metaspace" / "tokenizer.json").read_text()
PIECES = (DATA / "sentencepiece_llama" / "tokenizer.model").read_bytes()
PARTS = [*"ab he▁é日😀\n\t", "the ", "model", "<s>", "<|endoftext|>", "<|im|>", "<tool>", "e\u0301"]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=80, deadline=None)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=12))
def test_spans_cover_the_text(kind: str, parts: list[str]) -> None:
    """They are in order, in the text, and together they are the text: none of these tokenizers drops anything."""
    tokenizer, text = TOKENIZERS[kind], "".join(parts)
    ids, spans = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text) and len(spans) == len(ids)
    assert all(0 <= start <= stop <= len(text) for start, stop in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    full = [span for span in spans if span[0] < span[1]]
    assert [stop for _, stop in full] == sorted(stop for _, stop in full)
    rebuilt, end = "", 0
    for start, stop in full:
        assert start <= end, "a character in no span"
        rebuilt += text[max(start, end) : stop]
        end = max(end, stop)
    assert rebuilt == text


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_token_is_what_its_span_says(kind: str) -> None:
    tokenizer, text = TOKENIZERS[kind], "the naïve 日 the"
    ids, spans = tokenizer.encode_with_offsets(text)
    for token, (start, stop) in zip(ids, spans, strict=True):
        shown = tokenizer.text(token)
        if start == stop:
            assert token == tokenizer.bos or shown == "␣"
        elif not shown.startswith("<0x"):
            # The first token of some stands for the blank before the text too.
            assert shown.replace("␣", " ").lstrip() == text[start:stop].lstrip()
        else:
            assert len(text[start:stop].encode()) > 1


def test_a_beginning_has_no_characters() -> None:
    for kind in ("metaspace", "llama2c"):
        assert TOKENIZERS[kind].offsets("the")[0] == (0, 0)
        assert TOKENIZERS[kind].offsets("", bos=True) == [(0, 0)]
        assert TOKENIZERS[kind].offsets("the", bos=False)[0][1] > 0


def test_blanks_that_a_file_would_trim_belong_to_their_token() -> None:
    inner = Inner.from_file(str(DATA / "byte_level" / "tokenizer.json"))
    inner.post_processor = processors.ByteLevel(trim_offsets=True)
    trimmed = inner.encode(" the  sea").offsets
    kept = JsonTokenizer(inner.to_str()).offsets(" the  sea")
    assert trimmed != kept and kept == TOKENIZERS["byte_level"].offsets(" the  sea")


def test_stories_spans() -> None:
    tokenizer = read_tokenizer(shared("data/tok512.bin"))
    text = "Lily's naïve 日."
    ids, spans = tokenizer.encode_with_offsets(text)
    joined = b"".join(tokenizer.pieces[i] for i in ids[1:] if i > 258)
    assert ids[0] == 1 and b"Lily" in joined
    assert [text[a:b] for a, b in spans if b > a][:2] == ["Lily", "'"]


def test_what_only_the_settings_call_special() -> None:
    """Ids, spans and plain ids of transformers, which adds what ``tokenizer_config.json`` says to the tokenizer."""
    tokenizer = TOKENIZERS["special"]
    expected = json.loads((DATA / "special" / "expected.json").read_text())
    assert sorted(tokenizer.specials) == expected["specials"]
    for answer in expected["answers"]:
        ids, spans = tokenizer.encode_with_offsets(answer["text"], bos=False)
        assert ids == answer["ids"]
        assert [list(span) for span in spans] == answer["offsets"]
        assert tokenizer.encode(answer["text"], bos=False, special="text") == answer["plain"]
    assert tokenizer.eos == tokenizer.id_of("<|im|>")
    assert tokenizer.vocab_size == 302


def test_special_tokens_in_texts() -> None:
    for kind in ("byte_level", "metaspace", "special"):
        tokenizer = TOKENIZERS[kind]
        name = "<s>" if kind == "metaspace" else "<|endoftext|>"
        assert tokenizer.encode(f"the{name}")[-1] == tokenizer.id_of(name)
        plain = tokenizer.encode(f"the{name}", special="text")
        assert tokenizer.id_of(name) not in plain[1:]
        assert tokenizer.decode(plain) == f"the{name}"
        with pytest.raises(
            InputError, match=r"spells the special token '.*' at place 3: give special='allow'"
        ):
            tokenizer.encode(f"the{name}", special="refuse")
        assert tokenizer.encode("the", special="refuse") == tokenizer.encode("the")
        with pytest.raises(InputError, match=r"special is 'alow' \(did you mean allow\?\)"):
            tokenizer.encode("the", special="alow")
    # No text spells a special token of llama2.c.
    ours = TOKENIZERS["llama2c"]
    assert {tuple(ours.encode("<s>", special=each)) for each in ("allow", "text", "refuse")} == {
        tuple(ours.encode("<s>"))
    }
    assert 1 not in ours.encode("<s>")[1:]


def test_special_tokens_by_name() -> None:
    assert TOKENIZERS["llama2c"].specials == {"<unk>": 0, "<s>": 1, "</s>": 2}
    assert TOKENIZERS["metaspace"].id_of("</s>") == 2
    with pytest.raises(InputError, match=r"'<|endoftxt|>' \(did you mean <|endoftext|>\?\)"):
        TOKENIZERS["byte_level"].id_of("<|endoftxt|>")
    with pytest.raises(InputError, match="there are <unk>, <s>, </s>"):
        TOKENIZERS["llama2c"].id_of("nothing like it")


def test_settings_that_give_a_token_another_id() -> None:
    text = (DATA / "byte_level" / "tokenizer.json").read_text()
    with pytest.raises(InputError, match="gives '<new>' the id 400, the tokenizer 300"):
        JsonTokenizer(text, {"added_tokens_decoder": {"400": {"content": "<new>"}}})
    for table in (3, {"a": {}}, {"1": {"content": 3}}):
        with pytest.raises(InputError, match="added_tokens_decoder"):
            JsonTokenizer(text, {"added_tokens_decoder": table})


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 400), st.sampled_from(["<s>", "", "the", "LlamaTokenizer", "a\n"]),
    st.fixed_dictionaries({"content": st.sampled_from(["<s>", "<n>", 3])}),
    st.lists(st.sampled_from(["<s>", 3, {}]), max_size=2),
    st.dictionaries(
        st.sampled_from(["1", "3", "x", "400"]),
        st.fixed_dictionaries({"content": st.sampled_from(["<s>", "<n>", "", None]), "special": st.booleans()}),
        max_size=2,
    ),
)  # fmt: skip
FIELDS = (
    *files.NAMED, files.FURTHER, "added_tokens_decoder", "add_bos_token", "legacy", "add_prefix_space",
    "tokenizer_class", "chat_template", "extra_special_tokens",
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(given_settings=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4), kind=st.booleans())
def test_any_settings_work_or_are_refused(given_settings: dict[str, Any], kind: bool) -> None:
    try:
        tokenizer: Any = (
            JsonTokenizer(METASPACE, given_settings)
            if kind
            else SentencePieceTokenizer(PIECES, given_settings)
        )
    except InputError as error:
        text = str(error)
    else:
        ids, spans = tokenizer.encode_with_offsets("the <n> <s>")
        text = tokenizer.decode(ids)
        assert len(spans) == len(ids) and all(tokenizer.text(i) for i in ids)
        assert tokenizer == type(tokenizer)(tokenizer.json if kind else PIECES, given_settings)
    assert "\n" not in text


def test_older_digests_stay() -> None:
    """They are in graphs and cards that exist; what tokenizers can do now must not change them."""
    assert TOKENIZERS["byte_level"].digest().startswith("a141fd529cbc11a5")
    assert TOKENIZERS["metaspace"].digest().startswith("98f0d887901ddb8d")
    assert load_model("pocket").tokenizer.digest().startswith("204374452e050d50")


def test_digests_see_what_came_later() -> None:
    text = (DATA / "byte_level" / "tokenizer.json").read_text()
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    variants = [
        JsonTokenizer(text, named),
        JsonTokenizer(text, {**named, "chat_template": "x"}),
        JsonTokenizer(text, named, templates={"default": "y"}),
        JsonTokenizer(text, named, stops=(5,)),
        JsonTokenizer(text, {**named, "added_tokens_decoder": {"300": {"content": "<new>"}}}),
        JsonTokenizer(text, {**named, "pad_token": "odel"}),
    ]
    assert len({each.digest() for each in variants}) == len(variants)
    assert JsonTokenizer(text, {**named, "model_max_length": 9}) == variants[0]


def test_generation_stops_where_the_folder_says(tmp_path: Path) -> None:
    """``generation_config.json`` first, else ``config.json``; one id or several."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "byte_level" / name, tmp_path)

    def read(**files: Any) -> Any:
        for name, ids in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps({"eos_token_id": ids}))
        return read_tokenizer_json(tmp_path / "tokenizer.json")

    assert read().stops == (0,)
    assert read(config=7).stops == (0, 7)
    assert read(generation_config=[9, 0, 8]).stops == (0, 9, 8)
    assert read(generation_config=None).stops == (0,)
    for wrong in ("a", [1.5], -1, [True], 2**40):
        with pytest.raises(
            InputError, match=r"generation_config\.json: eos_token_id is .*, expected a token id"
        ):
            read(generation_config=wrong)

    model = tiny_model("llama", vocab_size=320)
    # As many stop tokens as below, so that nothing compiles again.
    free = generate(model, [5, 6, 7], max_new_tokens=8, stop=[318, 319])
    assert len(free) == 8 and 0 not in free
    tokenizer = read(generation_config=[free[3]])
    chosen = type(model)(model.params, model.config, tokenizer=tokenizer)
    assert generate(chosen, [5, 6, 7], max_new_tokens=8) == free[: free.index(free[3])]
    save_model(chosen, tmp_path / "saved")
    assert load_model(tmp_path / "saved").tokenizer.stops == (0, free[3])


def test_a_word_level_tokenizer_says_where_its_words_are() -> None:
    inner = Inner(models.WordLevel({"the": 0, "sea": 1, "<unk>": 2}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.decoder = decoders.Fuse()
    tokenizer = JsonTokenizer(inner.to_str())
    assert tokenizer.offsets("  the\tsea ") == [(2, 5), (6, 9)]
    with pytest.raises(InputError, match="'ship' in 'the ship'"):
        tokenizer.offsets("the ship")
