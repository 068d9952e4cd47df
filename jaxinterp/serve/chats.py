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

ROLES = ("system", "user", "assistant")
_MARK = "zq{}jx"  # letters and digits alone: nothing that a template would escape or strip


class Turn(NamedTuple):
    """What a template writes before and after the content of a role's turn."""

    before: str
    after: str


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
    found: dict[str, Turn] = {}
    user = _user(tokenizer, now)
    if user is None:
        return {}
    for role in ROLES:
        # A turn in the middle is written as all are; the last one may have something added.
        for roles in (("user", role, "user"), ("user", role), (role, "user")):
            if (turn := _turn(tokenizer, roles, role, user, now)) is not None:
                found[role] = turn
                break
    found.setdefault("user", user)
    return {role: turn for role, turn in found.items() if turn.before.strip()}


def parse(prompt: str, known: Mapping[str, Turn]) -> list[dict[str, str]] | None:
    """The turns of a rendered prompt, the last of which may be open; None where no turn begins in it."""
    if not known:
        return None
    # The longest first: one role's beginning may be that of another's.
    roles = sorted(known, key=lambda role: -len(known[role].before))
    begins = re.compile("|".join(f"(?P<{role}>{re.escape(known[role].before)})" for role in roles))
    starts = list(begins.finditer(prompt))
    ends = [match.start() for match in starts[1:]] + [len(prompt)]
    messages = []
    for match, end in zip(starts, ends, strict=True):
        role = str(match.lastgroup)
        messages.append({"role": role, "content": prompt[match.end() : end].removesuffix(known[role].after)})
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


def _user(tokenizer: Any, now: date | None) -> Turn | None:
    pieces = _pieces(tokenizer, ("user",), now)
    return None if pieces is None else Turn(without_bos(tokenizer, pieces[0]), pieces[1])


def _turn(tokenizer: Any, roles: Sequence[str], role: str, user: Turn, now: date | None) -> Turn | None:
    pieces = _pieces(tokenizer, roles, now)
    if pieces is None:
        return None
    at = roles.index(role, 1) if role in roles[1:] else 0
    if at == 0:
        # First of all: what comes after it ends with how the user's turn begins.
        if not pieces[1].endswith(user.before):
            return None
        return Turn(without_bos(tokenizer, pieces[0]), pieces[1].removesuffix(user.before))
    if not pieces[at].startswith(user.after):
        return None
    before = pieces[at].removeprefix(user.after)
    if at + 1 == len(roles):
        return Turn(before, pieces[at + 1])
    following = _pieces(tokenizer, roles[: at + 1], now)
    return Turn(before, following[-1] if following is not None else user.after)
