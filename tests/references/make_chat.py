"""Make `data/chat/expected.json`: what transformers writes with the chat templates beside it.

The templates are ours; each uses what the templates of one family of models use. Run in an environment with
transformers and jinja2 (see README.md).
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any
from unittest import mock

import jinja2
import transformers
from transformers import GPT2TokenizerFast, LlamaTokenizer
from transformers.utils import chat_template_utils

DATA = Path(__file__).parent / "data"
NOW = datetime.datetime(2024, 7, 26, 12)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


SYSTEM = {"role": "system", "content": " Answer in one word.\n"}
CALL = {
    "id": "abc123def",
    "type": "function",
    "function": {"name": "area", "arguments": {"of": "Ohio", "é": 1.5}},
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": f"The {name} of a place", "parameters": {"type": "object"}},
    }
    for name in ("area", "height")
]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [user("  What is the capital of Ohio? ")],
    "system": [SYSTEM, user("hello")],
    "turns": [user("hi"), assistant("hello\n"), user("<s> and </s>?")],
    "long": [SYSTEM, user("日本 é"), assistant("<think>\nso\n</think>\n\nyes"), user("why?"), assistant("well")],
    "call": [
        user("how large is it?"), assistant(None, tool_calls=[CALL]),
        {"role": "tool", "content": "116,098", "tool_call_id": "abc123def"}, user("thanks"),
    ],
    "answer": [
        user("how large?"), assistant("", tool_calls=[CALL]),
        {"role": "tool", "content": {"km2": 116098}, "final": True},
        assistant("large", reasoning_content="hm"),
    ],
    "wrong": [user("a"), user("b")],
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "open": {"add_generation_prompt": True},
    "tools": {"add_generation_prompt": True, "tools": TOOLS},
    "more": {
        "documents": [{"title": "two", "text": "a\nb"}, {"title": "one", "text": "a long text about rivers"}],
        "enable_thinking": False, "date_string": "1 Jan 2000", "add_generation_prompt": True,
    },
}  # fmt: skip


def tokenizers() -> dict[str, Any]:
    return {
        "byte_level": GPT2TokenizerFast.from_pretrained(DATA / "tokenizers" / "byte_level"),
        "sentencepiece_llama": LlamaTokenizer.from_pretrained(DATA / "tokenizers" / "sentencepiece_llama"),
    }


class Then(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        return NOW


def main() -> None:
    transformers.logging.set_verbosity_error()
    found = []
    for file in sorted((DATA / "chat").glob("*.jinja")):
        template = file.read_text()
        for kind, tokenizer in tokenizers().items():
            for name, messages in CONVERSATIONS.items():
                for label, options in OPTIONS.items():
                    if kind != "byte_level" and label != "open":
                        continue
                    case: dict[str, Any] = {
                        "template": file.stem, "tokenizer": kind, "messages": name, "options": label,
                    }  # fmt: skip
                    try:
                        with mock.patch.object(chat_template_utils, "datetime", Then):
                            case["text"] = tokenizer.apply_chat_template(
                                messages, chat_template=template, tokenize=False, **options
                            )
                            case["ids"] = tokenizer.apply_chat_template(
                                messages, chat_template=template, tokenize=True, **options
                            )
                    except jinja2.exceptions.TemplateError as error:
                        case["error"] = str(error)
                    except (TypeError, AttributeError) as error:
                        case["fails"] = type(error).__name__
                    if label != "open":
                        case.pop("ids", None)
                    elif "generation" in template and "text" in case:
                        _, spans = chat_template_utils.render_jinja_template(
                            [messages], chat_template=template, return_assistant_tokens_mask=True,
                            **tokenizer.special_tokens_map, **options,
                        )  # fmt: skip
                        case["replies"] = spans[0]
                    found.append(case)
    head = {
        "transformers": transformers.__version__,
        "jinja2": jinja2.__version__,
        "now": NOW.isoformat(),
        "conversations": CONVERSATIONS,
        "options": OPTIONS,
    }
    lines = [f' "{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in head.items()]
    cases = ",\n  ".join(json.dumps(case, ensure_ascii=False) for case in found)
    text = "{\n" + ",\n".join([*lines, f' "cases": [\n  {cases}\n ]']) + "\n}\n"
    (DATA / "chat" / "expected.json").write_text(text)
    print(len(found), sum("error" in c for c in found), sum("fails" in c for c in found))


if __name__ == "__main__":
    main()
