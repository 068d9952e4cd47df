"""SentencePiece models: the ids of transformers and of the library, spans, folders, what is refused."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import export_huggingface, load_model, save_model
from jaxinterp.checkpoints.sentencepiece_tokenizer import (
    SentencePieceTokenizer,
    read_sentencepiece,
    write_sentencepiece,
)
from jaxinterp.checkpoints.tokenizers import JsonTokenizer, Tokenizer, read_tokenizer_json
from jaxinterp.core.errors import InputError
from tests.support import ROOT, tiny_model

DATA = ROOT / "tests" / "references" / "data" / "tokenizers"
KINDS = sorted(folder.name for folder in DATA.glob("sentencepiece_*"))
TOKENIZERS = {kind: read_sentencepiece(DATA / kind / "tokenizer.model") for kind in KINDS}
LLAMA = DATA / "sentencepiece_llama"


def read(kind: str) -> tuple[SentencePieceTokenizer, dict[str, Any]]:
    expected = json.loads((DATA / kind / "expected.json").read_text())
    return TOKENIZERS[kind], expected


def test_the_kinds() -> None:
    assert len(KINDS) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(kind: str) -> None:
    tokenizer, expected = read(kind)
    assert (tokenizer.bos, tokenizer.eos) == (expected["bos"], expected["eos"])
    assert tokenizer.vocab_size == expected["size"]
    first = [] if expected["bos"] is None else [expected["bos"]]
    for answer in expected["answers"]:
        assert tokenizer.encode(answer["text"], bos=False) == answer["ids"]
        assert tokenizer.encode(answer["text"]) == [*first, *answer["ids"]]
        # transformers makes text of ordinary added tokens too.
        if "<tool>" not in answer["text"]:
            assert tokenizer.encode(answer["text"], bos=False, special="text") == answer["plain"]


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_is_that_of_transformers(kind: str) -> None:
    tokenizer, expected = read(kind)
    for answer in expected["answers"]:
        # With "legacy", its Llama class drops a second blank at the start and after an added token.
        if kind == "sentencepiece_llama" and answer["text"].removeprefix("<s>")[:1] in (" ", "▁"):
            continue
        if "<tool>  " in answer["text"]:
            assert tokenizer.decode(answer["ids"]).split() == answer["decoded"].split()
            continue
        assert tokenizer.decode(answer["ids"]) == answer["decoded"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_settings_ids_are_those_of_the_library(kind: str) -> None:
    tokenizer = SentencePieceTokenizer((DATA / kind / "tokenizer.model").read_bytes())
    _, expected = read(kind)
    for answer in expected["bare"]:
        ids = tokenizer.encode(answer["text"], bos=False, special="text")
        assert ids == answer["ids"]
        assert tokenizer.decode(ids) == answer["decoded"]


def test_the_protocol_and_labels() -> None:
    tokenizer, _ = read("sentencepiece_llama")
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode("the\n é<tool></s>")
    assert [tokenizer.text(i) for i in ids] == [
        "<s>", " the", "⏎", "␣", "é", "<tool>", "</s>",
    ]  # fmt: skip
    assert tokenizer.text(5 + 0xE9) == "<0xE9>"
    assert tokenizer.text(tokenizer.vocab_size) == f"<{tokenizer.vocab_size}>"
    with pytest.raises(InputError, match="token 999 is outside the vocabulary of 422"):
        tokenizer.decode([999])


def spelled(tokenizer: SentencePieceTokenizer, text: str) -> None:
    """Spans are in order and in the text, and every character that is not a blank is in one."""
    ids, spans = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text) and len(ids) == len(spans)
    assert tokenizer.offsets(text) == spans
    if tokenizer.bos is not None:
        assert spans[0] == (0, 0)
    full = [span for span in spans if span[0] < span[1]]
    assert all(0 <= start <= stop <= len(text) for start, stop in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert [stop for _, stop in full] == sorted(stop for _, stop in full)
    covered = {place for start, stop in full for place in range(start, stop)}
    assert all(place in covered or text[place].isspace() or text[place] == "▁" for place in range(len(text)))


@pytest.mark.parametrize("kind", ["sentencepiece_llama", "sentencepiece_llama_new", "sentencepiece_gemma"])
@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from([*"ab he▁é日😀ﬁ\n", "<s>", "<tool>", "<pair>", "<user>", "the "]), max_size=12
    )
)
def test_spans_cover_the_text(kind: str, parts: list[str]) -> None:
    spelled(TOKENIZERS[kind], "".join(parts))


@pytest.mark.parametrize("kind", KINDS)
def test_spans_of_the_reference_texts(kind: str) -> None:
    tokenizer, expected = read(kind)
    for answer in expected["answers"]:
        spelled(tokenizer, answer["text"])


def test_spans() -> None:
    tokenizer, _ = read("sentencepiece_llama")
    text = "the 日<s>  é <pair> sea"
    ids, spans = tokenizer.encode_with_offsets(text)
    shown = [(tokenizer.text(i), text[a:b]) for i, (a, b) in zip(ids, spans, strict=True)]
    assert shown == [
        ("<s>", ""), (" the", "the"), ("␣", " "), ("<0xE6>", "日"), ("<0x97>", "日"), ("<0xA5>", "日"), ("<s>", "<s>"),
        ("␣", ""), ("␣", " "), ("␣", " "), ("é", "é"), ("<pair>", " <pair> "), (" s", "s"), ("ea", "ea"),
    ]  # fmt: skip
    # A character map that writes one character as two, and drops blanks.
    tokenizer, _ = read("sentencepiece_t5")
    ids, spans = tokenizer.encode_with_offsets("  a ﬁne")
    assert "".join(tokenizer.text(i) for i in ids).replace("␣", " ") == " a fine"
    assert ["  a ﬁne"[a:b] for a, b in spans][-2:] == ["n", "e"]


def test_special_tokens() -> None:
    tokenizer, _ = read("sentencepiece_llama")
    assert tokenizer.specials == {"<unk>": 0, "<s>": 1, "</s>": 2, "<control>": 3, "<pair>": 421}
    assert tokenizer.id_of("<pair>") == 421
    with pytest.raises(InputError, match=r"no special token is called '<pairs>' \(did you mean <pair>"):
        tokenizer.id_of("<pairs>")
    # No text spells a control token of the model that the settings do not mention.
    assert 3 not in tokenizer.encode("<control>")
    with pytest.raises(InputError, match="spells the special token '</s>' at place 4"):
        tokenizer.encode("the </s>", special="refuse")
    assert tokenizer.encode("the <tool>", special="refuse") == tokenizer.encode("the <tool>")
    with pytest.raises(InputError, match=r"special is 'txt' .did you mean text"):
        tokenizer.encode("the", special="txt")


def test_an_unknown_character_is_named() -> None:
    tokenizer, _ = read("sentencepiece_t5")
    with pytest.raises(InputError, match="'日本' in 'the 日本 sea' is outside the vocabulary of 89"):
        tokenizer.encode("the 日本 sea")
    assert tokenizer.encode("<unk>") == [2]
    with pytest.raises(InputError, match="names no BOS"):
        tokenizer.encode("the", bos=True)


def test_the_bos_rule() -> None:
    model = (LLAMA / "tokenizer.model").read_bytes()
    assert SentencePieceTokenizer(model).encode("")[:1] == [1]
    assert SentencePieceTokenizer(model, {"add_bos_token": False}).encode("") == []
    assert SentencePieceTokenizer(model, {"add_bos_token": False}).encode("", bos=True) == [1]
    assert SentencePieceTokenizer(model, {"bos_token": {"content": "</s>"}}).encode("") == [2]
    assert SentencePieceTokenizer(model, {"bos_token": None}).encode("") == []
    with pytest.raises(InputError, match=r"the bos_token '<ss>' is not in the vocabulary.*<s>"):
        SentencePieceTokenizer(model, {"bos_token": "<ss>"})
    with pytest.raises(InputError, match="add_bos_token is set but"):
        SentencePieceTokenizer(model, {"bos_token": None, "add_bos_token": True})


def test_older_folders_keep_their_tokens_elsewhere(tmp_path: Path) -> None:
    new = json.loads((LLAMA / "tokenizer_config.json").read_text())
    shutil.copy(LLAMA / "tokenizer.model", tmp_path)
    kept = ("legacy", "tokenizer_class")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({key: new[key] for key in kept}))
    names = {key: new[key] for key in ("bos_token", "eos_token", "unk_token", "additional_special_tokens")}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    (tmp_path / "added_tokens.json").write_text('{"<tool>": 420, "<pair>": 421}')
    tokenizer = read_sentencepiece(tmp_path / "tokenizer.model")
    assert tokenizer.encode("a<tool><pair></s>") == read("sentencepiece_llama")[0].encode("a<tool><pair></s>")
    assert tokenizer.specials["<pair>"] == 421 and "<tool>" not in tokenizer.specials


def test_model_folders(tmp_path: Path) -> None:
    """A folder with nothing but a tokenizer.model works, keeps it when saved, and tokenizer.json wins over it."""
    tokenizer, _ = read("sentencepiece_llama")
    model = tiny_model("llama", vocab_size=430)
    export_huggingface(model, tmp_path / "hf")
    write_sentencepiece(tokenizer, tmp_path / "hf")
    (tmp_path / "hf" / "generation_config.json").write_text('{"eos_token_id": [2, 421]}')
    loaded = load_model(tmp_path / "hf")
    assert isinstance(loaded.tokenizer, SentencePieceTokenizer)
    assert loaded.tokenizer.stops == (2, 421)
    assert loaded.tokenizer.encode("the sea") == tokenizer.encode("the sea")
    assert loaded.tokenizer != tokenizer  # for it ends elsewhere
    save_model(loaded, tmp_path / "ours")
    export_huggingface(loaded, tmp_path / "again")
    for folder in ("ours", "again"):
        assert load_model(tmp_path / folder).tokenizer == loaded.tokenizer
        assert (tmp_path / folder / "tokenizer.model").read_bytes() == tokenizer.model
    assert load_model(tmp_path / "hf", tokenizer=LLAMA / "tokenizer.model").tokenizer == tokenizer
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "metaspace" / name, tmp_path / "hf")
    assert isinstance(load_model(tmp_path / "hf").tokenizer, JsonTokenizer)


def test_a_tokenizer_larger_than_the_model(tmp_path: Path) -> None:
    export_huggingface(tiny_model("llama"), tmp_path / "hf")
    with pytest.raises(InputError, match=r"the tokenizer has 422 tokens, .*vocabulary of 40"):
        load_model(tmp_path / "hf", tokenizer=LLAMA)


def test_digests_see_what_matters() -> None:
    model = (LLAMA / "tokenizer.model").read_bytes()
    base = SentencePieceTokenizer(model, {"legacy": False})
    assert base == SentencePieceTokenizer(model, {"legacy": False, "model_max_length": 3})
    others: list[dict[str, Any]] = [
        {"legacy": True}, {"legacy": False, "add_prefix_space": False}, {"legacy": False, "add_bos_token": False},
        {"legacy": False, "chat_template": "x"}, {"legacy": False, "eos_token": "<s>"},
        {"legacy": False, "added_tokens_decoder": {"420": {"content": "<new>"}}},
    ]  # fmt: skip
    digests = {SentencePieceTokenizer(model, each).digest() for each in others}
    assert len(digests | {base.digest()}) == len(others) + 1
    assert SentencePieceTokenizer(model, {"legacy": False}, stops=(5,)) != base
    assert base != read_tokenizer_json(DATA / "metaspace" / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"x", b"\x0a\x03\x0a\x01a", b"IQ== 0\nIg== 1\n" * 9, b"\xff" * 300])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.model is not a SentencePiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model")


def test_a_tiktoken_file_is_called_so() -> None:
    with pytest.raises(InputError, match=r"looks like one of tiktoken.* give the tokenizer.json"):
        SentencePieceTokenizer(b"IQ== 0\nIg== 1\n" * 9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_models_raise_or_work(data: st.DataObject) -> None:
    content = bytearray((DATA / "sentencepiece_t5" / "tokenizer.model").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        tokenizer = SentencePieceTokenizer(bytes(content))
        tokenizer.decode(tokenizer.encode("the sea"))
    except InputError:
        return
    assert tokenizer.vocab_size > 0


def test_settings_that_are_refused() -> None:
    model = (LLAMA / "tokenizer.model").read_bytes()
    for given_settings, message in {
        "XLMRobertaTokenizer": "the tokenizer_class 'XLMRobertaTokenizer' is not supported",
        "lamaTokenizer": "did you mean LlamaTokenizer",
    }.items():
        with pytest.raises(InputError, match=message):
            SentencePieceTokenizer(model, {"tokenizer_class": given_settings})
    for table in ([], {"x": {"content": "a"}}, {"1": "a"}, {"1": {}}):
        with pytest.raises(InputError, match="added_tokens_decoder"):
            SentencePieceTokenizer(model, {"added_tokens_decoder": table})


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "sentencepiece":
            raise ImportError(name)
        return there(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'jaxinterp\[sentencepiece\]'"):
        read_sentencepiece(LLAMA / "tokenizer.model")
