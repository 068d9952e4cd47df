"""What Neuronpedia's server asks a graph server for, and what it is told about a body of another form.

Shapes: the published OpenAPI description of its graph server (version 0.1.0). Numbers have bounds here, where the
description has none.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec

from jaxinterp.viewer.messages import Answer, json_answer, too_deep

_DEEPEST = 24
_EXACT = 2**53
_PATH = re.compile(r" - at `(\$.*)`$")
_MISSING = re.compile(r"^Object missing required field `(\w+)`")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Mass = Annotated[float, msgspec.Meta(gt=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Logits = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Index = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Message(msgspec.Struct, frozen=True):
    """One turn of a chat."""

    role: str
    content: str


class Generation(msgspec.Struct, frozen=True):
    """POST /generate-graph."""

    model_id: str
    slug_identifier: str
    prompt: str = ""
    messages: list[Message] | None = None
    batch_size: Count = 48
    max_n_logits: Logits = 10
    desired_logit_prob: Mass = 0.95
    node_threshold: Share = 0.8
    edge_threshold: Share = 0.98
    max_feature_nodes: Count = 10000
    signed_url: str | None = None
    user_id: str | None = None
    compress: bool = False
    enable_qk_tracing: bool = False
    qk_top_fraction: Share = 0.6
    qk_topk: Count = 10


class ForwardPass(msgspec.Struct, frozen=True):
    """POST /forward-pass."""

    prompt: str = ""
    messages: list[Message] | None = None
    max_n_logits: Logits = 10
    desired_logit_prob: Mass = 0.95


class ParseChatPrompt(msgspec.Struct, frozen=True):
    """POST /parse-chat-prompt."""

    prompt: str


class SteerFeature(msgspec.Struct, frozen=True):
    """A feature to steer."""

    layer: Index
    index: Index
    token_active_position: Index
    steer_position: Index | None = None
    steer_generated_tokens: bool = False
    delta: float | None = None
    ablate: bool = False


class Steer(msgspec.Struct, frozen=True):
    """POST /steer."""

    model_id: str
    features: list[SteerFeature]
    prompt: str = ""
    messages: list[Message] | None = None
    n_tokens: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 10
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 5
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    freq_penalty: float = 0
    seed: int | None = None
    freeze_attention: bool = False


class Invalid(Exception):
    """A body that is not what was asked for: where in it, a line, and what sort of mistake."""

    def __init__(self, place: tuple[str | int, ...], text: str, kind: str) -> None:
        super().__init__(text)
        self.place, self.text, self.kind = place, text, kind

    def answer(self) -> Answer:
        """422 in the shape of the description's HTTPValidationError."""
        detail = {"loc": ["body", *self.place], "msg": self.text, "type": self.kind}
        return json_answer({"detail": [detail]}, 422)


T = TypeVar("T")


def read(body: bytes, kind: type[T]) -> T:
    """The body as one of the requests; keys that it does not know are ignored. Raises `Invalid`."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Invalid((), "the body is not JSON", "json_invalid") from None
    except RecursionError:
        raise Invalid((), "the body is nested too deeply", "json_invalid") from None
    if too_deep(value, _DEEPEST):
        raise Invalid((), "the body is nested too deeply", "json_invalid")
    try:
        return msgspec.convert(_whole(value), kind)
    except msgspec.ValidationError as error:
        raise _located(str(error)) from None


def _whole(value: Any) -> Any:
    """Numbers as 10.0, which JSON does not tell from 10, as whole ones."""
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value


def _located(text: str) -> Invalid:
    found = _PATH.search(text)
    path = found[1] if found else "$"
    place: list[str | int] = [
        int(step[2]) if step[2] else step[1] for step in _STEP.finditer(path) if step[1] or step[2]
    ]
    line = _PATH.sub("", text)
    if missing := _MISSING.match(line):
        return Invalid((*place, missing[1]), "Field required", "missing")
    return Invalid(tuple(place), line.replace("`", ""), "value_error")
