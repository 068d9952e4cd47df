"""Messages as a prompt, by the chat template of a model's tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from jaxinterp.checkpoints.chat_template import Span, render
from jaxinterp.checkpoints.tokenizer_files import DEFAULT
from jaxinterp.core.errors import InputError, near

_TOOLS = "tool_use"


class Chat(NamedTuple):
    """A conversation as the model reads it.

    Attributes:
      text: what the template wrote.
      ids: its token ids; the template writes its own BOS if there is to be one.
      replies: spans of characters of ``text`` that the template marks as the model's own (``generation`` blocks).
    """

    text: str
    ids: list[int]
    replies: tuple[Span, ...]


def chat(
    source: Any,
    messages: str | Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    reply: str = "",
    template: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    now: str | date | None = None,
    **variables: Any,
) -> Chat:
    """Render a conversation with a model's chat template, as ``apply_chat_template`` of transformers does.

    Args:
      source: a model with a tokenizer, or a tokenizer.
      messages: a text, which is the user's one message, or messages with ``role`` and ``content`` (plain JSON values).
      add_generation_prompt: whether to end with what the template puts before the model's answer.
      reply: how the answer begins: written at the end, as it is.
      template: the name of one of the tokenizer's templates, or a template itself. None takes "tool_use" if there are
        tools and such a template, else "default".
      tools: JSON schemas of functions.
      documents: documents with ``title`` and ``text``.
      now: the date (ISO, or a `datetime.date`) for templates that write it; without it they are refused, so that a
        prompt is the same whenever it is made.
      variables: further variables of the template, as ``enable_thinking=False``.

    Raises:
      InputError: no tokenizer or template, messages of another form, and what `render` raises.
    """
    tokenizer = source.tokenizer if hasattr(source, "params") else source
    if tokenizer is None:
        raise InputError("this model has no tokenizer, so it has no chat template")
    chosen = _choose(getattr(tokenizer, "templates", {}), template, tools)
    given = {
        "messages": _messages(messages),
        "tools": None if tools is None else _plain("tools", list(tools)),
        "documents": None if documents is None else _plain("documents", list(documents)),
        "add_generation_prompt": add_generation_prompt,
    }
    names = dict(getattr(tokenizer, "names", {}))
    extra = {key: _plain(key, value) for key, value in variables.items()}
    for key in extra:
        if key in given:
            raise InputError(f"{key} is not a variable that can be given twice")
    text, spans = render(chosen, {**names, **extra, **given}, now=_date(now))
    text += reply
    return Chat(text, list(tokenizer.encode(text, bos=False)), spans)


def _choose(templates: Mapping[str, str], wanted: str | None, tools: Any) -> str:
    if wanted is not None and wanted in templates:
        return templates[wanted]
    if wanted is not None and ("{{" in wanted or "{%" in wanted):
        return wanted
    there = f"there are {', '.join(sorted(templates))}" if templates else "the tokenizer has none"
    if wanted is not None:
        raise InputError(f"no chat template is called {wanted!r}{near(wanted, templates)}: {there}")
    for name in (_TOOLS, DEFAULT) if tools is not None else (DEFAULT,):
        if name in templates:
            return templates[name]
    if templates:
        raise InputError(f"no chat template is the default: give template=, {there}")
    raise InputError(
        "this tokenizer has no chat template (chat_template in tokenizer_config.json, or chat_template.jinja): "
        "give template="
    )


def _messages(messages: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        if not messages.strip():
            raise InputError("the message is empty")
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, list | tuple) or not messages:
        raise InputError("messages are a text or a list of at least one object with role and content")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"message {number} has no role: expected {{'role': 'user', 'content': '...'}}")
    return _plain("messages", [dict(message) for message in messages])


def _plain(name: str, value: Any) -> Any:
    """``value`` as plain JSON values, so that a template meets no object of ours."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name} are not plain JSON values: {' '.join(str(error).split())}") from error


def _date(now: str | date | None) -> date | None:
    if now is None or isinstance(now, date):
        return now
    try:
        return datetime.fromisoformat(now)
    except (TypeError, ValueError) as error:
        raise InputError(f"now is {now!r}, expected a date as '2025-01-31'") from error
