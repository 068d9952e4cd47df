"""HTTP/1.1 on this machine for an `App`, from the standard library alone.

Requests are parsed here, strictly: what is malformed, too large or too slow is refused or dropped, and no body is read
before every check that needs none has passed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import sys
import threading
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.viewer.messages import Answer, FileSlice, Refused, Request, json_answer
from jaxinterp.viewer.routes import SAFETY, App
from jaxinterp.viewer.wire import Broken, Reader, head_bytes, parse_head

LOG = logging.getLogger("jaxinterp.viewer")
FIRST_PORT = 8765
TRIED = 40
MOST_CONNECTIONS = 64
IDLE, HEAD, BODY, SEND = 75.0, 10.0, 60.0, 30.0  # seconds: between requests, for a head, a body, a piece sent
PIECE = 1 << 18
DRAINED = 1 << 20


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves one App. ``serve_forever`` runs it, ``close`` ends it from another thread or afterwards."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    # On Windows it would let two programs share the port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.app: App | None = None
        self.busy = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._at_work = 0
        self._idle = threading.Condition()
        super().__init__((host, port), Connection)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, unless there are too many."""
        if not self.busy.acquire(blocking=False):
            request.settimeout(1.0)
            with contextlib.suppress(OSError):
                request.sendall(head_bytes(_refusal(503, "too many connections"), close=True))
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, from its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.busy.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Said in the log alone."""
        LOG.debug("a connection ended badly", exc_info=True)

    def working(self, more: int) -> None:
        """Count requests that are being answered."""
        with self._idle:
            self._at_work += more
            self._idle.notify_all()

    def close(self, patience: float = 2.0) -> None:
        """Stop listening; wait for answers under way, so that no save is cut short."""
        self.server_close()
        with self._idle:
            self._idle.wait_for(lambda: self._at_work == 0, patience)


class Connection(socketserver.BaseRequestHandler):
    """One connection: requests one after the other."""

    server: Server
    request: socket.socket

    def handle(self) -> None:
        """Answer until the other side ends it, is silent too long, or sends what cannot be understood."""
        try:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = Reader(self.request)
            while self._one(reader):
                pass
        except (OSError, Broken):
            pass  # gone or too slow: nobody to tell

    def _one(self, reader: Reader) -> bool:
        """Answer one request; whether another may follow."""
        app = self.server.app
        if app is None or not reader.wait(IDLE):
            return False
        try:
            head = parse_head(reader.head(HEAD))
        except Refused as refused:
            return self._refuse(reader, refused)
        self.server.working(1)
        try:
            request = Request(head.method, head.path, head.query, head.headers)
            try:
                route, _ = app.admit(request)
                if head.length > route.most_body:
                    raise Refused(413, f"the body is larger than {route.most_body} bytes")
            except Refused as refused:
                return self._refuse(
                    reader, refused, head.method == "HEAD", keep=head.keep and not head.length
                )
            except Exception:
                LOG.exception("%s %s failed", head.method, head.path[:200])
                return self._refuse(reader, Refused(500, "internal error; see the terminal"))
            if head.waits and head.length:
                self.request.settimeout(SEND)
                self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = reader.body(head.length, BODY)
            answer = app.handle(Request(head.method, head.path, head.query, head.headers, body))
            LOG.debug("%s %s %d", head.method, head.path, answer.status)
            return self._send(answer, head.method == "HEAD", head.keep)
        finally:
            self.server.working(-1)

    def _refuse(self, reader: Reader, refused: Refused, bare: bool = False, keep: bool = False) -> bool:
        """Say no. Where the rest of the request was not read, the connection ends after it."""
        answer = refused.answer()
        self._send(Answer(answer.status, answer.body, {**SAFETY, **answer.headers}), bare, keep)
        if not keep:
            # A sender who is not done would lose the answer if the connection were cut under it.
            self.request.shutdown(socket.SHUT_WR)
            reader.drain(DRAINED, 2.0)
        return keep

    def _send(self, answer: Answer, bare: bool, keep: bool) -> bool:
        self.request.settimeout(SEND)
        body = answer.body
        if isinstance(body, FileSlice):
            try:
                with body.path.open("rb") as stream:
                    stream.seek(body.start)
                    self.request.sendall(head_bytes(answer, close=not keep, body=b""))
                    return keep and (bare or self._send_file(stream, body.length))
            except FileNotFoundError:
                return self._send(_refusal(404, "the file is not there any more"), bare, keep)
        whole = head_bytes(answer, close=not keep, body=b"" if bare or len(body) > PIECE else body)
        self.request.sendall(whole)
        if not bare and len(body) > PIECE:
            view = memoryview(body)
            for at in range(0, len(view), PIECE):
                self.request.sendall(view[at : at + PIECE])
        return keep

    def _send_file(self, stream: Any, length: int) -> bool:
        """Whether the file still had as many bytes as were promised."""
        while length:
            piece = stream.read(min(length, PIECE))
            if not piece:
                return False
            self.request.sendall(piece)
            length -= len(piece)
        return True


def _refusal(status: int, text: str) -> Answer:
    answer = json_answer({"error": text}, status)
    return Answer(answer.status, answer.body, {**SAFETY, **answer.headers})


def listen(host: str = "127.0.0.1", port: int | None = None) -> Server:
    """A server on this port; without one, on the first free port from 8765 on.

    Raises InputError where the port is in use or may not be used, or the host is none of this machine.
    """
    ports = range(FIRST_PORT, FIRST_PORT + TRIED) if port is None else (port,)
    for one in ports:
        try:
            return Server(host, one)
        except OSError as error:
            if port is None and error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    f"port {one} is in use: give another with --port, or none to take a free one"
                ) from error
            raise InputError(f"cannot listen at {host}:{one}: {error.strerror or error}") from error
        except OverflowError as error:
            raise InputError(f"port {one}: expected 0 to 65535") from error
    return listen(host, 0)
