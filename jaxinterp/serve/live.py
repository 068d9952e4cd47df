"""Live mode of the page: prompts are traced one after the other, and the graphs join those that are open."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxinterp.checkpoints.tokenizer_base import SURROGATE
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.ids import safe_name
from jaxinterp.serve.jobs import DONE, Busy, Jobs, Report, Status
from jaxinterp.serve.tracer import Asked, Tracer
from jaxinterp.viewer.messages import Answer, Refused, Request, json_answer
from jaxinterp.viewer.routes import App

LARGE = 200_000  # links from which on a graph is written in the native format, as viewers of JSON grow slow
_BODY = 4 << 20
_NAME = 40
_KEYS = (
    "prompt", "tokens", "targets", "completion", "max_feature_nodes", "node_threshold", "edge_threshold",
)  # fmt: skip


class Live:
    """What the page asks a model for.

    Args:
      tracer: the model.
      jobs: where graphs are made.
      folder: where they are written.
      opened: takes a graph's file into the viewer's library and gives its number there.
      model, dictionary: names for people.
    """

    def __init__(
        self, tracer: Tracer, jobs: Jobs, folder: Path, opened: Callable[[Path], int], *, model: str, dictionary: str
    ) -> None:  # fmt: skip
        self.tracer, self.jobs, self.folder, self.opened = tracer, jobs, folder, opened
        self.model, self.dictionary = model, dictionary
        self._own: set[int] = set()  # numbers of jobs that came from the page
        self._naming = threading.Lock()

    def add(self, app: App) -> None:
        """Put the routes of live mode into the viewer."""
        app.add("GET", "/api/live/info", self.info)
        app.add("POST", "/api/live/trace", self.trace, most_body=_BODY)
        app.add("GET", "/api/live/job/{id:int}", self.job)
        app.add("POST", "/api/live/job/{id:int}/cancel", self.cancel)

    def info(self, request: Request, names: Mapping[str, str]) -> Answer:
        """What is loaded, and whether it is at work."""
        del request, names
        return json_answer(
            {
                "model": self.model,
                "dictionary": self.dictionary,
                "context": self.tracer.context,
                "convention": self.tracer.convention,
                "busy": self.jobs.busy(),
                "steering": False,
            }
        )

    def trace(self, request: Request, names: Mapping[str, str]) -> Answer:
        """Put a graph into the queue. What can be told to be wrong is refused at once, in one line (400)."""
        del names
        try:
            asked = self._asked(request.json())
            self.tracer.check(asked)
            number = self.jobs.submit(lambda report: self._make(asked, report))
        except InputError as error:
            raise Refused(400, " ".join(str(error).split())) from None
        except Busy as error:
            raise Refused(429, str(error), {"Retry-After": "5"}) from None
        self._own.add(number)
        return json_answer({"job": number}, 202)

    def job(self, request: Request, names: Mapping[str, str]) -> Answer:
        """How far a job is."""
        del request
        return json_answer(_plain(self._known(names, self.jobs.status)))

    def cancel(self, request: Request, names: Mapping[str, str]) -> Answer:
        """Stop a job; the answer says what became of it so far."""
        del request
        return json_answer(_plain(self._known(names, self.jobs.cancel)))

    def _known(self, names: Mapping[str, str], ask: Callable[[int], Status | None]) -> Status:
        number = int(names["id"])
        found = ask(number) if number in self._own else None
        if found is None:
            self._own.discard(number)
            raise Refused(404, f"there is no job {number}, or it ended long ago")
        return found

    def _asked(self, body: dict[str, Any]) -> Asked:
        for key in body:
            if key not in _KEYS:
                raise InputError(f"{key!r:.60} is not asked for: expected {', '.join(_KEYS)}")
        text, tokens = _text(body, "prompt"), body.get("tokens")
        if (text is None) == (tokens is None):
            raise InputError("give either prompt, a text, or tokens, a list of token ids")
        if tokens is not None and not (isinstance(tokens, list) and all(map(_whole, tokens))):
            raise InputError("tokens: expected a list of token ids")
        prompt: str | list[int] = list(tokens or []) if text is None else text
        most = body.get("max_feature_nodes")
        if most is not None and not _whole(most):
            raise InputError("max_feature_nodes: expected a whole number or null")
        targets = self.tracer.targets(_text(body, "targets"), _text(body, "completion"))
        return Asked(
            prompt, targets, most, _share(body, "node_threshold", 0.8),
            _share(body, "edge_threshold", 0.98),
        )  # fmt: skip

    def _make(self, asked: Asked, report: Report) -> int:
        graph = self.tracer.graph(asked, report)
        report.commit()
        path = self.write(graph)
        self.tracer.written(report)
        return self.opened(path)

    def write(self, graph: Graph) -> Path:
        """Save a graph under a name of its own."""
        ending = ".json" if len(graph.weights) <= LARGE else ".jigraph"
        stem = safe_name(graph.prompt, "graph", _NAME)
        with self._naming:
            number = 1
            while any((path := self.folder / f"{stem}-{number}{e}").exists() for e in (".json", ".jigraph")):
                number += 1
            path = path.with_suffix(ending)
            graph.save(path)
        return path


def _plain(status: Status) -> dict[str, Any]:
    return {
        "state": status.state,
        "stage": status.stage,
        "fraction": status.fraction,
        "graph": status.result if status.state == DONE else None,
        "error": status.error,
    }


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62


def _text(body: dict[str, Any], key: str) -> str | None:
    value = body.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{key}: expected a text")
    if value is not None and SURROGATE.search(value):
        raise InputError(f"{key}: it holds half of a character (a lone surrogate), which is no text")
    return value


def _share(body: dict[str, Any], key: str, otherwise: float) -> float:
    value = body.get(key)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{key}: expected a number from 0 to 1")
    return float(value)
