"""What goes in and out of the viewer, without any transport: a request, an answer, a refusal.

The stdlib server, Starlette and the tests all speak through these three.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JSON = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Request:
    """One request. path: as it was sent, without the query and not decoded; query: decoded names and values;
    headers: names in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self, deepest: int = 24) -> dict[str, Any]:
        """The body as a JSON object. Raises Refused (400) on anything else, and where it is nested deeper."""
        try:
            value = json.loads(self.body.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "the body is not a JSON object")
        if too_deep(value, deepest):
            raise Refused(400, f"the body is nested deeper than {deepest}")
        return value


@dataclass(frozen=True)
class FileSlice:
    """Part of a file as a body: ``length`` bytes from ``start``."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True)
class Answer:
    """One answer. body: bytes, or a part of a file. The transport adds Content-Length."""

    status: int
    body: bytes | FileSlice = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.body.length if isinstance(self.body, FileSlice) else len(self.body)


class Refused(Exception):
    """A request that is answered with an error: status, one line for the reader, further keys of the JSON."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(text)
        self.status, self.text, self.headers, self.more = status, text, dict(headers or {}), more

    def answer(self) -> Answer:
        """The refusal as an answer: {"error": line, ...}."""
        return json_answer({"error": self.text, **self.more}, self.status, self.headers)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON value as an answer that is never stored by a browser."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode("utf-8", "backslashreplace")
    return Answer(status, body, {"Content-Type": JSON, "Cache-Control": "no-store", **(headers or {})})


def too_deep(value: Any, deepest: int) -> bool:
    """Whether objects and lists are nested more than ``deepest`` times."""
    level = [value]
    for _ in range(deepest + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
