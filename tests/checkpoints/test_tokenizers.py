"""Tokenizers: what transformers gives, BOS rules, words outside the vocabulary, labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Inner

from jaxinterp.checkpoints.llama2c_tokenizer import Llama2cTokenizer
from jaxinterp.checkpoints.tokenizers import (
    JsonTokenizer,
    Tokenizer,
    check_size,
    read_tokenizer_json,
    write_tokenizer_json,
)
from jaxinterp.core.errors import InputError
from tests.support import ROOT

DATA = ROOT / "tests" / "references" / "data" / "tokenizers"
KINDS = ("byte_level", "metaspace")


def words(unknown: str | None = "<unk>", bos: bool = True, **settings: Any) -> JsonTokenizer:
    """A word-level tokenizer that lower-cases, with marks and digits on their own."""
    vocabulary = ["<unk>", "<bos>", "the", "capital", "of", "is", ".", "1", "2", "'"]
    inner = Inner(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token=unknown or "[none]"))
    inner.add_special_tokens(["<unk>", "<bos>"])
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+|\d|[^\s\w]"), behavior="removed", invert=True)
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return JsonTokenizer(inner.to_str(), settings)


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_transformers(kind: str) -> None:
    tokenizer = read_tokenizer_json(DATA / kind / "tokenizer.json")
    expected = json.loads((DATA / kind / "expected.json").read_text())
    assert (tokenizer.bos, tokenizer.eos) == (expected["bos"], expected["eos"])
    for answer in expected["answers"]:
        assert tokenizer.encode(answer["text"]) == answer["ids"]
        assert tokenizer.encode(answer["text"], bos=False) == answer["bare"]
        assert tokenizer.encode(answer["text"], bos=True) == [expected["bos"], *answer["bare"]]
        assert tokenizer.decode(answer["ids"]) == answer["decoded"]


def test_every_reader_keeps_the_protocol() -> None:
    small = Llama2cTokenizer([b"<unk>", b"<s>", b"</s>", b" "], [0.0] * 4)
    for tokenizer in (words(), read_tokenizer_json(DATA / "byte_level" / "tokenizer.json"), small):
        assert isinstance(tokenizer, Tokenizer)


def test_words() -> None:
    tokenizer = words()
    assert tokenizer.encode("The capital of 12.") == [1, 2, 3, 4, 7, 8, 6]
    assert tokenizer.encode("The capital", bos=False) == [2, 3]
    assert tokenizer.decode([1, 2, 3]) == "the capital"
    assert (tokenizer.vocab_size, tokenizer.bos, tokenizer.eos) == (10, 1, None)


@pytest.mark.parametrize("unknown", ["<unk>", None])
def test_a_word_outside_the_vocabulary_is_named(unknown: str | None) -> None:
    with pytest.raises(InputError, match=r"'[Cc]apitol' in 'the Capitol of'.*did you mean capital"):
        words(unknown).encode("the Capitol of")


def test_what_the_text_spells_itself_is_not_unknown() -> None:
    assert words(bos=False).encode("the <unk> is") == [2, 0, 5]


def test_characters_that_a_model_without_unknowns_would_drop_are_named() -> None:
    inner = Inner(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer = JsonTokenizer(inner.to_str())
    assert tokenizer.encode("aba") == [2, 0]
    with pytest.raises(InputError, match="'q'"):
        tokenizer.encode("abq")


def test_the_bos_rule() -> None:
    assert words().encode("the") == [1, 2]
    assert words(bos=False).encode("the") == [2]
    assert words(bos=False, add_bos_token=True, bos_token="<bos>").encode("the") == [1, 2]
    assert words(bos=True, add_bos_token=False).encode("the") == [2]
    assert words(bos=True, add_bos_token=False).encode("the", bos=True) == [1, 2]
    assert words(bos_token={"content": "<bos>"}, bos=False).encode("the", bos=True) == [1, 2]
    with pytest.raises(InputError, match="no BOS"):
        words(bos=False, bos_token=None).encode("the", bos=True)


def test_an_end_that_the_file_would_append_is_left_out() -> None:
    inner = Inner.from_str(words(bos=False).json)
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A <unk>", special_tokens=[("<bos>", 1), ("<unk>", 0)]
    )
    # "a" is what is tried, so it must be a word for the two ends to be told apart.
    description = json.loads(inner.to_str())
    description["model"]["vocab"]["a"] = 10
    assert JsonTokenizer(json.dumps(description)).encode("the") == [1, 2]


def test_labels() -> None:
    byte_level = read_tokenizer_json(DATA / "byte_level" / "tokenizer.json")
    ids = byte_level.encode(" the\n é")
    assert [byte_level.text(i) for i in ids] == [" the", "⏎", "␣", "<0xC3>", "<0xA9>"]
    metaspace = read_tokenizer_json(DATA / "metaspace" / "tokenizer.json")
    ids = metaspace.encode("sea\né")
    assert [metaspace.text(i) for i in ids] == ["<s>", "␣", "s", "ea", "⏎", "<0xC3>", "<0xA9>"]
    assert metaspace.text(100_000) == "<100000>"
    assert words().text(3) == "capital"


def test_digests_see_what_matters(tmp_path: Path) -> None:
    tokenizer = words(bos_token="<bos>")
    write_tokenizer_json(tokenizer, tmp_path)
    assert read_tokenizer_json(tmp_path / "tokenizer.json").digest() == tokenizer.digest()
    spaced = JsonTokenizer(
        json.dumps(json.loads(tokenizer.json), indent=4), {"bos_token": "<bos>", "chat": "x"}
    )
    assert spaced == tokenizer
    assert words(bos_token="<bos>", add_bos_token=False) != tokenizer
    assert words(bos=False, bos_token="<bos>") != tokenizer


def test_a_tokenizer_larger_than_the_model() -> None:
    check_size(words(), 10, "here")
    check_size(None, 10, "here")
    with pytest.raises(InputError, match=r"here: the tokenizer has 10 tokens, .*vocabulary of 9"):
        check_size(words(), 9, "here")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"model": 1}'])
def test_what_is_no_tokenizer(text: str) -> None:
    with pytest.raises(InputError, match="is not a tokenizer"):
        JsonTokenizer(text)


def test_a_named_bos_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"bos_token '<boss>' is not in the vocabulary.*<bos>"):
        words(bos_token="<boss>")
