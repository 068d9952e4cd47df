"""Chat templates: what transformers writes with them, where they are found, what they may not do."""

from __future__ import annotations

import builtins
import datetime
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from jaxinterp.checkpoints import chat, chat_template, load_model, read_tokenizer_json, save_model
from jaxinterp.checkpoints.chat_template import render
from jaxinterp.checkpoints.sentencepiece_tokenizer import read_sentencepiece
from jaxinterp.core.errors import InputError
from tests.support import ROOT, tiny_model

DATA = ROOT / "tests" / "references" / "data"
EXPECTED = json.loads((DATA / "chat" / "expected.json").read_text())
TEMPLATES = sorted(file.stem for file in (DATA / "chat").glob("*.jinja"))
TOKENIZERS = {
    "byte_level": read_tokenizer_json(DATA / "tokenizers" / "byte_level" / "tokenizer.json"),
    "sentencepiece_llama": read_sentencepiece(
        DATA / "tokenizers" / "sentencepiece_llama" / "tokenizer.model"
    ),
}
ONE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}: {{ m.content }}]{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)


def source(name: str) -> str:
    return (DATA / "chat" / f"{name}.jinja").read_text()


@pytest.mark.parametrize("name", TEMPLATES)
def test_texts_and_ids_are_those_of_transformers(name: str) -> None:
    cases = [case for case in EXPECTED["cases"] if case["template"] == name]
    assert len(cases) == 35 and any("ids" in case for case in cases)
    for case in cases:
        tokenizer = TOKENIZERS[case["tokenizer"]]
        options = {"add_generation_prompt": False, **EXPECTED["options"][case["options"]]}
        messages = EXPECTED["conversations"][case["messages"]]

        def ask() -> Any:
            return chat(tokenizer, messages, template=source(name), now=EXPECTED["now"], **options)  # noqa: B023

        if "text" in case:
            found = ask()
            assert found.text == case["text"]
            assert found.ids == case.get("ids", found.ids)
            if "replies" in case:
                assert [list(span) for span in found.replies] == case["replies"]
        else:
            with pytest.raises(InputError) as caught:
                ask()
            assert case.get("error", "failed at line") in str(caught.value)
            assert "\n" not in str(caught.value)


def test_one_beginning() -> None:
    """The template writes the BOS; the tokenizer does not write it again."""
    tokenizer = TOKENIZERS["sentencepiece_llama"]
    found = chat(tokenizer, "the sea", template=ONE)
    assert found.text == "<s>[user: the sea]>"
    assert found.ids.count(tokenizer.bos) == 1
    assert chat(tokenizer, "the sea", template=ONE, reply=" It").text == "<s>[user: the sea]> It"
    assert chat(tokenizer, "x", template=ONE, add_generation_prompt=False).text == "<s>[user: x]"


def test_where_templates_are_found(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "tokenizers" / "metaspace" / name, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())

    def write(**more: Any) -> Any:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, **more}))
        return read_tokenizer_json(tmp_path / "tokenizer.json")

    bare = write()
    assert bare.templates == {}
    with pytest.raises(InputError, match=r"has no chat template \(chat_template in tokenizer_config.json"):
        chat(bare, "x")
    assert chat(write(chat_template="{{ bos_token }}a"), "x").text == "<s>a"
    several = write(
        chat_template=[
            {"name": "default", "template": "d"},
            {"name": "tool_use", "template": "{{ tools|length }}"},
        ]
    )
    assert (chat(several, "x").text, chat(several, "x", tools=[{}, {}]).text) == ("d", "2")
    assert chat(several, "x", template="tool_use", tools=[{}]).text == "1"
    with pytest.raises(InputError, match=r"no chat template is called 'tool_uses' \(did you mean tool_use"):
        chat(several, "x", template="tool_uses")
    with pytest.raises(InputError, match="no chat template is the default"):
        chat(write(chat_template=[{"name": "rag", "template": "r"}]), "x")
    for wrong in (3, ["a"], [{"name": "a"}]):
        with pytest.raises(InputError, match="chat_template is neither"):
            write(chat_template=wrong)
    # A file of its own wins over the settings.
    (tmp_path / "chat_template.jinja").write_text("from a file")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("rag")
    files = write(chat_template="from the settings")
    assert chat(files, "x").text == "from a file"
    assert chat(files, "x", template="rag").text == "rag"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"chat_template\.jinja is not a chat template: not UTF-8"):
        write()


def test_templates_are_saved_with_a_model(tmp_path: Path) -> None:
    shutil.copy(DATA / "tokenizers" / "metaspace" / "tokenizer.json", tmp_path)
    (tmp_path / "chat_template.jinja").write_text(ONE)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("rag")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    tokenizer = read_tokenizer_json(tmp_path / "tokenizer.json")
    assert tokenizer.stops == (2, 3)
    plain = read_tokenizer_json(DATA / "tokenizers" / "metaspace" / "tokenizer.json")
    assert plain.stops == (2,) and plain != tokenizer
    model = tiny_model("llama", vocab_size=350)
    save_model(type(model)(model.params, model.config, tokenizer=tokenizer), tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.tokenizer == tokenizer
    assert loaded.tokenizer.templates == {"default": ONE, "rag": "rag"}
    assert chat(loaded, "the sea") == chat(tokenizer, "the sea")
    with pytest.raises(InputError, match="this model has no tokenizer"):
        chat(model, "the sea")


def test_the_date_is_given_not_read() -> None:
    clock = "{{ strftime_now('%d %B %Y') }}"
    tokenizer = TOKENIZERS["byte_level"]
    with pytest.raises(
        InputError, match="this chat template writes the date: say which, as now='2025-01-31'"
    ):
        chat(tokenizer, "x", template=clock)
    for now in ("2024-07-26", datetime.date(2024, 7, 26), datetime.datetime(2024, 7, 26, 12)):
        assert chat(tokenizer, "x", template=clock, now=now).text == "26 July 2024"
    with pytest.raises(InputError, match="now is 'today', expected a date"):
        chat(tokenizer, "x", template=clock, now="today")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages are a text or a list"), (" ", "the message is empty"), (3, "messages are a text or a list"),
        ([{"content": "a"}], "message 0 has no role"), ([{"role": "user"}, "a"], "message 1 has no role"),
        ([{"role": "user", "content": {1, 2}}], "messages are not plain JSON values"),
    ],
)  # fmt: skip
def test_messages_that_are_none(messages: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chat(TOKENIZERS["byte_level"], messages, template=ONE)


def test_variables() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert (
        chat(tokenizer, "x", template="{{ mood }}{{ bos_token }}", mood="low", bos_token="B").text == "lowB"
    )
    with pytest.raises(InputError, match="tools are not plain JSON"):
        chat(tokenizer, "x", template=ONE, tools=[print])  # type: ignore[list-item]


REFUSED = {
    "{% if %}": "is not one: Expected an expression.* at line 1",
    "a\n{{ b.c.d }}": "failed at line 2: 'b' is undefined",
    "{{ raise_exception('no\nsystem') }}": "failed at line 1: no system",
    "{{ ''.__class__.__mro__ }}": "unsafe",
    "{{ messages.append(3) }}": "unsafe",
    "{{ cycler.__init__.__globals__ }}": "unsafe",
    "{% include '/etc/passwd' %}": "no loader",
    "{% import 'os' as os %}": "no loader",
    "{{ open('x') }}": "'open' is undefined",
    "{{ 'a' * 10**12 }}": "more text than",
    "{{ [1] * 10**12 }}": "more text than",
    "{{ 'x'|center(1000000000) }}": "counts to 1000000000",
    "{{ 'x'.ljust(1000000000) }}": "counts to 1000000000",
    "{{ '%999999999d' % 1 }}": "format that is too wide",
    "{{ '%*d'|format(999999999, 1) }}": "format that is too wide",
    "{{ '{:999999999d}'.format(3) }}": "format that is too wide",
    "{{ 9 ** 999999 }}": "a power that is too high",
    "{{ range(10**9)|list }}": "Range too big",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}": "nested too deeply",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}": "more text than",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}": "more text than",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% set n.x = y %}{% endfor %}": "more text than",
}


@pytest.mark.parametrize("template", REFUSED)
def test_what_a_template_may_not_do(template: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=REFUSED[template]) as caught:
        render(template, {"messages": [1]})
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_templates_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "STEPS", 2000)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(InputError, match="does not come to an end in 2000 steps"):
        render(loops, {})
    assert render("{% for a in range(1999) %}.{% endfor %}", {})[0] == "." * 1999
    with pytest.raises(InputError, match="the chat template has 1000001 characters"):
        render(" " * 1_000_001, {})


def test_numbers_in_messages_are_not_counted_to() -> None:
    text = (
        "{{ t }} {{ t|tojson }} {{ '%d' % t }} {{ '%s'|format(t) }} "
        "{% set n = namespace(x=t) %}{{ n.x }} {{ t + 1 }}"
    )
    assert render(text, {"t": 1700000000})[0] == " ".join(["1700000000"] * 5) + " 1700000001"


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return there(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'jaxinterp\[chat\]'"):
        render("x", {})
