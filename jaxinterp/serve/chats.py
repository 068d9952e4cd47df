"""Chats as prompts that a model goes on with, and back: a rendered prompt as turns.

How a template writes a turn is found by rendering chats of contents that occur nowhere else, so no family of models
is known by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from jaxinterp.checkpoints import chat
from jaxinterp.core.errors import InputError

_MARK = "zq{}jx"  # letters and digits alone: nothing that a template would escape or strip


class Turn(NamedTuple):
    """What a template writes before and after the content of a role's turn, and after it where it is the last."""

    before: str
    after: str
    last: str


def bos_text(tokenizer: Any) -> str:
    """The text of the token that begins texts, where the tokenizer names one."""
    name = getattr(tokenizer, "names", {}).get("bos_token")
    return name if isinstance(name, str) else ""


def without_bos(tokenizer: Any, prompt: str) -> str:
    """The prompt without the token that begins it, which tokenizers put there themselves."""
    return prompt.removeprefix(bos_text(tokenizer))


def render(tokenizer: Any, messages: Sequence[Mapping[str, str]], now: date | None = None) -> str:
    """A chat as the text that the model is to go on with: the last turn is left open.

    An empty last turn of the assistant is where its answer begins.

    Raises:
      InputError: what `checkpoints.chat` raises.
    """
    last = messages[-1] if messages else {}
    content = last.get("content", "")
    if last.get("role") == "assistant" and not content.strip() and len(messages) > 1:
        return chat(tokenizer, list(messages[:-1]), now=now).text
    text = chat(tokenizer, list(messages), add_generation_prompt=False, now=now).text
    for written in (content, content.strip()):
        if written and (at := text.rfind(written)) >= 0:
            return text[: at + len(written)]
    return chat(tokenizer, list(messages), now=now).text


def turns(tokenizer: Any, now: date | None = None) -> dict[str, Turn]:
    """How the template writes the turns of each role; empty where there is no template, or none can be made out."""
    if not getattr(tokenizer, "templates", {}):
        return {}
    alone = _pieces(tokenizer, ("user",), now)
    if alone is None:
        return {}
    talk = _pieces(tokenizer, ("user", "assistant", "user"), now)
    begin, end = without_bos(tokenizer, alone[0]), alone[1]
    after = end if talk is None else _common(end, talk[1])
    found: dict[str, Turn] = {}
    if talk is not None and talk[0] == alone[0]:
        before = talk[1].removeprefix(after)
        # Where nothing says that an answer begins, it is the end of the user's turn that does.
        before = before if before.strip() else after + before
        short = _pieces(tokenizer, ("user", "assistant"), now)
        last = "" if short is None else short[2]
        if not talk[2].endswith(begin) and talk[2].startswith(last):
            begin = talk[2].removeprefix(last)  # the first turn has something before it that others have not
        if (between := _between(talk[2], begin)) is not None:
            found["assistant"] = Turn(before, between, between if short is None else last)
    found["user"] = Turn(begin, after, end)
    first = _pieces(tokenizer, ("system", "user"), now)
    if first is not None and (between := _between(first[1], begin)) is not None:
        found["system"] = Turn(without_bos(tokenizer, first[0]), between, between)
    return {role: turn for role, turn in found.items() if turn.before.strip()}


def parse(prompt: str, known: Mapping[str, Turn]) -> list[dict[str, str]] | None:
    """The turns of a rendered prompt, the last of which may be open; None where no turn begins in it."""
    # The longest first: one role's beginning may be that of another's.
    roles = sorted(known, key=lambda role: -len(known[role].before))
    begins = re.compile("|".join(f"(?P<{role}>{re.escape(known[role].before)})" for role in roles))
    starts = list(begins.finditer(prompt)) if known else []
    messages = []
    for match, following in zip(starts, [*starts[1:], None], strict=False):
        role = str(match.lastgroup)
        content = prompt[match.end() : None if following is None else following.start()]
        for closing in (
            (known[role].after,) if following is not None else (known[role].last, known[role].after)
        ):
            if closing and content.endswith(closing):
                content = content.removesuffix(closing)
                break
        messages.append({"role": role, "content": content})
    return messages or None


def _pieces(tokenizer: Any, roles: Sequence[str], now: date | None) -> list[str] | None:
    """What a chat of these roles has around its contents; None where the template refuses or changes them."""
    marks = [_MARK.format(number) for number in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    try:
        text = chat(tokenizer, messages, add_generation_prompt=False, now=now).text
    except InputError:
        return None
    pieces = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        pieces.append(before)
    return [*pieces, text]


def _between(text: str, begin: str) -> str | None:
    """What closes a turn that a user's follows; None where that does not begin as users' turns do."""
    return text.removesuffix(begin) if text.endswith(begin) else None


def _common(a: str, b: str) -> str:
    """What both begin with."""
    different = (at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return a[: next(different, min(len(a), len(b)))]
