"""The viewer's routes behind Starlette: the same checks, with bodies read after them and askers that may go away."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request as Incoming
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jaxinterp.viewer.messages import Answer, FileSlice, Refused, Request
from jaxinterp.viewer.routes import SAFETY, App

_CHUNK = 1 << 18
_DRAINED, _PATIENCE = 16 << 20, 0.5  # bytes, seconds


@dataclass(frozen=True)
class Waiting(Request):
    """A request whose sender may go away while it is answered."""

    gone: threading.Event = field(default_factory=threading.Event)


def application(app: App) -> Starlette:
    """An ASGI application with every route of ``app``."""
    return Starlette(routes=[Route("/{path:path}", _Endpoint(app))])


class _Endpoint:
    """Anything that comes in over HTTP."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(scope, receive)
        request = _request(incoming)
        try:
            route, _ = self.app.admit(request)
            body = await _body(incoming, route.most_body)
        except Refused as refused:
            await _drain(incoming)
            answer = _safe(refused)
            answer = Answer(answer.status, answer.body, {**answer.headers, "Connection": "close"})
        except _Gone:
            return
        else:
            answer = await self._answer(_request(incoming, body), receive)
        response = await _response(answer, incoming.method)
        await response(scope, receive, send)

    async def _answer(self, request: Waiting, receive: Receive) -> Answer:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            request.gone.set()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            try:
                return await anyio.to_thread.run_sync(self.app.handle, request, abandon_on_cancel=True)
            finally:
                group.cancel_scope.cancel()
        raise AssertionError("unreachable")


class _Gone(Exception):
    """The sender went away before its request was whole."""


def _request(incoming: Incoming, body: bytes = b"") -> Waiting:
    scope = incoming.scope
    raw = scope.get("raw_path") or scope["path"].encode()
    headers: dict[str, str] = {}
    for name, value in incoming.headers.items():  # given twice, it is two values and no name of ours
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path = raw.split(b"?", 1)[0].decode("latin-1")
    return Waiting(incoming.method, path, dict(incoming.query_params), headers, body)


async def _body(incoming: Incoming, most: int) -> bytes:
    """The body of a request that may have one of so many bytes. Raises Refused (413) before it is read whole."""
    too_large = Refused(413, f"the body is larger than {most} bytes")
    length = incoming.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > most:
        raise too_large
    parts, size = [], 0
    while True:
        message = await incoming.receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise too_large
        if not message.get("more_body"):
            return b"".join(parts)


async def _drain(incoming: Incoming) -> None:
    """Take in some of what nobody will read: an answer to one who is still sending may be lost otherwise."""
    size, more = 0, True
    with anyio.move_on_after(_PATIENCE):
        while more and size <= _DRAINED:
            message = await incoming.receive()
            size += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)


async def _response(answer: Answer, method: str) -> Response:
    body = answer.body
    headers: dict[str, Any] = {**answer.headers, "Content-Length": str(answer.length)}
    if method == "HEAD":
        return Response(b"", answer.status, headers)
    if not isinstance(body, FileSlice):
        return Response(body, answer.status, headers)
    try:
        stream = await anyio.open_file(body.path, "rb")
    except OSError:
        return await _response(_safe(Refused(404, "the file is not there any more")), method)
    return StreamingResponse(_pieces(stream, body), answer.status, headers)


def _safe(refused: Refused) -> Answer:
    refusal = refused.answer()
    return Answer(refusal.status, refusal.body, {**SAFETY, **refusal.headers})


async def _pieces(stream: Any, part: FileSlice) -> AsyncIterator[bytes]:
    left = part.length
    async with stream:
        await stream.seek(part.start)
        while left:
            piece = await stream.read(min(_CHUNK, left))
            if not piece:
                raise OSError("the file became shorter while it was read")
            left -= len(piece)
            yield piece
