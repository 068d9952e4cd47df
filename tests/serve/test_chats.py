"""Chats as open prompts and back, with the templates of many families."""

from __future__ import annotations

import json
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.checkpoints import chat, read_tokenizer_json
from jaxinterp.core.errors import InputError
from jaxinterp.serve import chats
from tests.support import ROOT

DATA = ROOT / "tests" / "references" / "data"
TEMPLATES = sorted(file.stem for file in (DATA / "chat").glob("*.jinja"))
BARE = read_tokenizer_json(DATA / "tokenizers" / "byte_level" / "tokenizer.json")
NOW = date(2025, 1, 31)
NAMES = json.loads((DATA / "chat" / "expected.json").read_text()).get("names", {})


def tokenizer(name: str) -> Any:
    """The byte-level tokenizer with another family's template."""
    template = (DATA / "chat" / f"{name}.jinja").read_text()
    return SimpleNamespace(
        templates={"default": template},
        names={"bos_token": "<s>", "eos_token": "</s>", **NAMES},
        encode=BARE.encode,
    )


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


TALK = [
    turn("user", "What lies north of Lyon?"),
    turn("assistant", "Dijon does."),
    turn("user", "And south of it"),
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_rendered_chats_come_back_as_turns(name: str) -> None:
    given = tokenizer(name)
    try:
        whole = chat(given, TALK, add_generation_prompt=False, now=NOW).text
    except InputError:
        assert chats.turns(given, NOW).keys() <= {"user", "system"}
        pytest.skip("this template takes no such chat")
    if not all(one["content"] in whole for one in TALK):
        pytest.skip("this template does not write what was said")
    known = chats.turns(given, NOW)
    prompt = chats.without_bos(given, chats.render(given, TALK, NOW))
    assert prompt.endswith(TALK[-1]["content"]), "the last turn is open"
    if "user" not in known or "assistant" not in known:
        pytest.skip("this template says nowhere who speaks")
    found = chats.parse(prompt, known)
    assert found is not None
    # What the template itself says first, as a system's turn, is told too.
    assert [one for one in found if one["role"] != "system"] == TALK


def test_an_open_answer() -> None:
    given = tokenizer("chatml" if "chatml" in TEMPLATES else TEMPLATES[0])
    begun = [turn("user", "Hello"), turn("assistant", "")]
    assert chats.render(given, begun, NOW) == chat(given, begun[:1], now=NOW).text
    begun[1]["content"] = "It is"
    assert chats.render(given, begun, NOW).endswith("It is")


def test_without_a_template_nothing_is_a_chat() -> None:
    assert chats.turns(BARE) == {}
    assert chats.parse("<|im_start|>user\nhello", {}) is None
    with pytest.raises(InputError, match="no chat template"):
        chats.render(BARE, TALK)


def test_a_plain_text_is_no_chat() -> None:
    known = {"user": chats.Turn("<u>", "</u>", "</u>"), "assistant": chats.Turn("<a>", "</a>", "")}
    assert chats.parse("the sea </u> and <b>", known) is None
    assert chats.parse("<u>one</u><a>two", known) == [turn("user", "one"), turn("assistant", "two")]
    assert chats.parse("<u></u>", known) == [turn("user", "")]


def test_the_longer_beginning_is_meant() -> None:
    known = {"user": chats.Turn("<|", "|>", "|>"), "system": chats.Turn("<|S", "|>", "|>")}
    assert chats.parse("<|Sbe brief|><|hello|>", known) == [turn("system", "be brief"), turn("user", "hello")]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("user", "assistant")), st.text(alphabet="ab \n")), min_size=1, max_size=5
    )
)
def test_what_is_written_by_a_plain_rule_is_read_back(talk: list[tuple[str, str]]) -> None:
    known = {role: chats.Turn(f"<{role}>", "</end>", "</end>") for role in ("user", "assistant")}
    prompt = "".join(f"<{role}>{content}</end>" for role, content in talk)
    assert chats.parse(prompt, known) == [turn(role, content) for role, content in talk]
