"""The five routes of Neuronpedia's graph server, so that its web page can stand in front of this one.

They are asked by a server: a browser's request is refused, there is no token, and a secret if one was set. Shapes: its
published OpenAPI description; the answers that this leaves open (busy, refused) as its own server gives them.
"""

from __future__ import annotations

import gzip
import hmac
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

import msgspec

from jaxinterp.attribution.wanted import Salient
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.graph import Graph
from jaxinterp.graphs.ids import safe_name
from jaxinterp.graphs.json_write import LINK_LIMIT, json_document
from jaxinterp.serve import chats, requests, upload
from jaxinterp.serve.jobs import CANCELLED, DONE, Busy, Jobs, Report, Status
from jaxinterp.serve.tracer import Asked, Tracer
from jaxinterp.viewer.messages import Answer, Refused, Request, json_answer
from jaxinterp.viewer.routes import App

BUSY = "the server is busy with another graph, try again later"
STOPPING = "the server is stopping"
NO_STEERING = "steering is not part of this server yet"
NO_QK = (
    "enable_qk_tracing is not possible here: it explains the attention of Lorsa features by their own queries and "
    "keys; use qk_attribution for the heads of the model"
)
_BODY = 4 << 20
_SMALL = 1000  # bytes from which on an answer is compressed
_POLL = 0.05


@dataclass(frozen=True)
class Settings:
    """How the routes present the model.

    Attributes:
      model_ids: what a request may call the model.
      scan: what Neuronpedia calls the model; written into graphs as ``metadata.scan``.
      source_set: what it calls the dictionary.
      secret: what ``x-secret-key`` must be; None for none.
      uploads: hosts that graphs may be uploaded to, beside this machine.
      steer: answers /steer; None where nothing does.
    """

    model_ids: tuple[str, ...]
    scan: str = ""
    source_set: str = ""
    secret: str | None = None
    uploads: Collection[str] = ()
    steer: Callable[[requests.Steer], dict[str, Any]] | None = field(default=None)


class GraphServer:
    """Answers the five routes with one model."""

    def __init__(self, tracer: Tracer, jobs: Jobs, settings: Settings) -> None:
        self.tracer, self.jobs, self.settings = tracer, jobs, settings

    def add(self, app: App) -> None:
        """Put the routes into the viewer, behind a guard of their own in place of the token."""
        app.add("GET", "/check-busy", self.check_busy, guard=no_browser)
        for name in ("generate-graph", "forward-pass", "parse-chat-prompt", "steer"):
            handler = getattr(self, name.replace("-", "_"))
            app.add("POST", f"/{name}", _validated(handler), guard=self._guard, most_body=_BODY)

    def check_busy(self, request: Request, names: Mapping[str, str]) -> Answer:
        """Whether a graph is being made."""
        del request, names
        return json_answer({"busy": self.jobs.busy()})

    def forward_pass(self, request: Request) -> Answer:
        """The most probable next tokens; a failure is an ``error`` with status 200, as callers expect."""
        asked = requests.read(request.body, requests.ForwardPass)
        try:
            prompt = self._prompt(asked)
            ids, given = self._tokens(prompt)
        except InputError as error:
            return _error(error)
        found = self._done(
            request,
            lambda report: self.tracer.salient(given, asked.desired_logit_prob, asked.max_n_logits),
        )
        if isinstance(found, Answer):
            return found
        text = self.tracer.text
        return json_answer(
            {
                "prompt": prompt,
                "input_tokens": [text(token) for token in ids],
                "salient_logits": [
                    {"token": text(token), "token_id": token, "probability": share} for token, share in found.result
                ],
                "total_salient_tokens": len(found.result),
                "cumulative_probability": sum(share for _, share in found.result),
            }
        )  # fmt: skip

    def generate_graph(self, request: Request) -> Answer:
        """A graph as JSON, or uploaded and a receipt for it; a failure is an ``error`` with status 200."""
        asked = requests.read(request.body, requests.Generation)
        self._check_model(asked.model_id)
        try:
            if asked.enable_qk_tracing:
                raise InputError(NO_QK)
            if asked.signed_url is not None:
                upload.check(asked.signed_url, self.settings.uploads)
            prompt = self._prompt(asked)
            _, given = self._tokens(prompt)
            targets = Salient(-1, asked.desired_logit_prob, asked.max_n_logits)
            wanted = Asked(
                given, None if targets == Salient() else targets, asked.max_feature_nodes, asked.node_threshold,
                asked.edge_threshold,
            )  # fmt: skip
            self.tracer.check(wanted)
        except InputError as error:
            return _error(error)
        found = self._done(request, lambda report: self._make(asked, wanted, prompt, report))
        if isinstance(found, Answer):
            return found
        if asked.signed_url is not None:
            return json_answer({"success": "the graph was uploaded", "error": None})
        return _graph(found.result, asked.compress and "gzip" in request.headers.get("accept-encoding", ""))

    def parse_chat_prompt(self, request: Request) -> Answer:
        """A rendered prompt as the turns of a chat, if it is one. Needs the tokenizer alone, so it is never busy."""
        asked = requests.read(request.body, requests.ParseChatPrompt)
        tokenizer = self.tracer.model.tokenizer
        prompt = chats.without_bos(tokenizer, asked.prompt)
        messages = chats.parse(prompt, self._turns)
        try:
            first = getattr(tokenizer, "bos", None)
            ids = self._tokens(prompt)[0] if prompt.strip() else []
            fixed = [at for at, token in enumerate(ids) if token == first]
        except InputError:  # what the model cannot read cannot be steered either
            fixed = []
        return json_answer(
            {
                "messages": messages,
                "is_chat": messages is not None,
                "prompt": prompt,
                "unsteerable_positions": fixed,
            }
        )

    def steer(self, request: Request) -> Answer:
        """Generation under intervention, where something was given for it."""
        asked = requests.read(request.body, requests.Steer)
        self._check_model(asked.model_id)
        steer = self.settings.steer
        if steer is None:
            raise _refused(501, NO_STEERING)
        found = self._done(request, lambda report: steer(asked))
        return found if isinstance(found, Answer) else json_answer(found.result)

    @cached_property
    def _turns(self) -> dict[str, chats.Turn]:
        return chats.turns(self.tracer.model.tokenizer, date.today())

    def _guard(self, request: Request) -> None:
        no_browser(request)
        secret = self.settings.secret
        if secret is None:
            return
        given = request.headers.get("x-secret-key")
        if not given:
            raise _refused(400, "the header x-secret-key is missing")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode("utf-8", "replace")):
            raise _refused(403, "the header x-secret-key is wrong")

    def _check_model(self, name: str) -> None:
        if name not in self.settings.model_ids:
            known = " or ".join(self.settings.model_ids)
            raise _refused(400, f"the model {name:.100} is not loaded here, only {known}")

    def _prompt(self, asked: requests.Generation | requests.ForwardPass) -> str:
        if not asked.messages:
            return asked.prompt
        turns = [{"role": one.role, "content": one.content} for one in asked.messages]
        return chats.render(self.tracer.model.tokenizer, turns, date.today())

    def _tokens(self, prompt: str) -> tuple[list[int], str | list[int]]:
        """The tokens of a prompt, and what to trace: a text where the tokenizer makes these tokens of it.

        A prompt may begin with the token that begins texts (chat templates write it); it is not put there twice.
        """
        tokenizer = self.tracer.model.tokenizer
        bare = chats.without_bos(tokenizer, prompt)
        if bare == prompt:
            return self.tracer.tokens(prompt).tolist(), prompt
        ids = list(tokenizer.encode(prompt, bos=False))
        if bare.strip() and list(tokenizer.encode(bare)) == ids:
            return self.tracer.tokens(bare).tolist(), bare
        return self.tracer.tokens(ids).tolist(), ids

    def _done(self, request: Request, work: Callable[[Report], Any]) -> Status | Answer:
        """What the work came to, or the answer if it did not; stopped when the asker is gone."""
        try:
            number = self.jobs.submit(work, alone=True)
        except Busy:
            raise _refused(503, BUSY) from None
        gone: threading.Event | None = getattr(request, "gone", None)
        while (found := self.jobs.wait(number, _POLL)) is not None:
            if found.state == DONE:
                return found
            if found.state == CANCELLED or self.jobs.closed:
                raise _refused(503, STOPPING)
            if found.error is not None:
                return json_answer({"error": found.error})
            if gone is not None and gone.is_set():
                self.jobs.cancel(number)
        raise _refused(503, STOPPING)

    def _make(self, asked: requests.Generation, wanted: Asked, prompt: str, report: Report) -> bytes | None:
        graph = self.tracer.graph(wanted, report)
        document = self._document(graph, asked, prompt)
        report.check()
        text = msgspec.json.encode(document)
        if asked.signed_url is None:
            return text
        report("uploading")
        upload.put(asked.signed_url, text, compress=asked.compress, allowed=self.settings.uploads)
        return None

    def _document(self, graph: Graph, asked: requests.Generation, prompt: str) -> dict[str, Any]:
        if len(graph.weights) > LINK_LIMIT:
            raise InputError(
                f"the graph has {len(graph.weights)} links, more than the {LINK_LIMIT} that JSON is written for: ask "
                "for lower thresholds"
            )
        document = json_document(graph)
        metadata = document["metadata"]
        metadata["prompt"] = prompt
        metadata["slug"] = _slug(asked.slug_identifier, metadata["slug"])
        if self.settings.scan:
            metadata["scan"] = _slug(self.settings.scan, metadata["scan"])
        info = metadata.setdefault("info", {})
        if self.settings.source_set:
            source = _slug(self.settings.source_set, "jaxinterp")
            metadata["feature_details"] = {"neuronpedia_source_set": source}
            info["neuronpedia_source_set"] = source
        metadata["generation_settings"] |= {
            "max_n_logits": asked.max_n_logits,
            "desired_logit_prob": asked.desired_logit_prob,
            "max_feature_nodes": asked.max_feature_nodes,
        }
        if asked.signed_url is not None:
            info["creator_name"] = asked.user_id or "Anonymous"
            info["create_time_ms"] = int(time.time() * 1000)
        return document


def no_browser(request: Request) -> None:
    """Refuse what a page sent: browsers say where from, servers do not."""
    if "origin" in request.headers or "sec-fetch-site" in request.headers:
        raise _refused(403, "this address is for servers, not for pages")


def _validated(handler: Callable[[Request], Answer]) -> Callable[[Request, Mapping[str, str]], Answer]:
    def answer(request: Request, names: Mapping[str, str]) -> Answer:
        del names
        try:
            return handler(request)
        except requests.Invalid as invalid:
            return invalid.answer()

    return answer


def _refused(status: int, text: str) -> Refused:
    """Under both names: callers look for ``error`` first, and for ``detail`` as the original server writes it."""
    return Refused(status, text, detail=text)


def _error(error: InputError) -> Answer:
    return json_answer({"error": " ".join(str(error).split())})


def _slug(text: str, otherwise: str) -> str:
    """As it is where that is allowed."""
    fits = 2 <= len(text) <= 200 and all(c.isascii() and (c.isalnum() or c in "_.-") for c in text)
    return text if fits else safe_name(text, otherwise)


def _graph(document: bytes, compressed: bool) -> Answer:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if compressed and len(document) >= _SMALL:
        return Answer(
            200, gzip.compress(document, upload.LEVEL, mtime=0), {**headers, "Content-Encoding": "gzip"}
        )
    return Answer(200, document, headers)


__all__ = ["GraphServer", "Settings", "no_browser"]
