"""HTTP/1.1 on a socket: reading a request's head and body within limits and time, writing an answer's head."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl

from jaxinterp.viewer.messages import Answer, Refused

MOST_HEAD = 32 << 10
MOST_HEADERS = 100
MOST_BODY = 1 << 40  # of a Content-Length; routes have limits of their own
_METHOD = re.compile(rb"[A-Z]{1,20}")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}")
_LENGTH = re.compile(r"[0-9]{1,13}")
_ONCE = ("host", "content-length", "origin", "content-type", "x-jaxinterp-token")


class Broken(Exception):
    """The other side went away or took too long."""


@dataclass(frozen=True)
class Head:
    """A request without its body. keep: whether the connection may stay; waits: whether the sender waits to be told
    to go on."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    length: int
    keep: bool
    waits: bool


class Reader:
    """Bytes from a socket, each part with a time limit for the whole of it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._data = bytearray()

    def wait(self, seconds: float) -> bool:
        """Whether something comes within this time."""
        if self._data:
            return True
        try:
            return self._more(time.monotonic() + seconds)
        except Broken:
            return False

    def head(self, seconds: float) -> bytes:
        """Up to the empty line. Raises Refused (431, 408), Broken."""
        deadline, looked = time.monotonic() + seconds, 0
        while True:
            end = self._data.find(b"\r\n\r\n", max(looked - 3, 0))
            if 0 <= end <= MOST_HEAD:
                found = bytes(self._data[:end])
                del self._data[: end + 4]
                return found
            looked = len(self._data)
            if looked > MOST_HEAD or end > MOST_HEAD:
                raise Refused(431, "the headers are too large")
            try:
                if not self._more(deadline):
                    raise Broken
            except TimeoutError:
                raise Refused(408, "the request took too long") from None

    def body(self, length: int, seconds: float) -> bytes:
        """So many bytes. Raises Broken."""
        deadline = time.monotonic() + seconds
        while len(self._data) < length:
            try:
                if not self._more(deadline, min(length - len(self._data), 1 << 20)):
                    raise Broken
            except TimeoutError:
                raise Broken from None
        found = bytes(self._data[:length])
        del self._data[:length]
        return found

    def drain(self, most: int, seconds: float) -> None:
        """Read and forget what still comes."""
        deadline = time.monotonic() + seconds
        try:
            while most > 0 and self._more(deadline):
                most -= len(self._data)
                self._data.clear()
        except (TimeoutError, Broken, OSError):
            pass

    def _more(self, deadline: float, size: int = 1 << 16) -> bool:
        """Whether more came; False at the end. Raises TimeoutError, OSError."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        got = self._socket.recv(size)
        self._data += got
        return bool(got)


def parse_head(data: bytes) -> Head:
    """The request line and headers. Raises Refused (400, 414, 501, 505) on anything that is not plainly right."""
    first, *lines = data.split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or not _METHOD.fullmatch(words[0]) or not words[2].startswith(b"HTTP/"):
        raise Refused(400, "this is no HTTP request")
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refused(505, "only HTTP/1.1 is spoken here")
    if not _TARGET.fullmatch(words[1]):
        raise Refused(400, "the address is malformed")
    if len(lines) > MOST_HEADERS:
        raise Refused(431, "there are too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name) or any(byte in value for byte in b"\r\n\0"):
            raise Refused(400, "a header is malformed")
        key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
        if key in headers and key in _ONCE:
            raise Refused(400, "a header is given twice")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    if "transfer-encoding" in headers:
        raise Refused(501, "send bodies with a Content-Length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and _LENGTH.fullmatch(length)) or int(length) > MOST_BODY:
        raise Refused(400, "Content-Length is malformed")
    path, _, query = words[1].decode("ascii").partition("?")
    try:
        asked = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise Refused(400, "the query is malformed") from None
    connection = headers.get("connection", "").lower()
    keep = "close" not in connection and (words[2] == b"HTTP/1.1" or "keep-alive" in connection)
    waits = headers.get("expect", "").lower() == "100-continue"
    return Head(words[0].decode("ascii"), path, asked, headers, int(length), keep, waits)


def head_bytes(answer: Answer, close: bool, body: bytes | None = None) -> bytes:
    """An answer as bytes: its head, and the body where it is given here (None: the answer's own)."""
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Answer"
    lines = [f"HTTP/1.1 {answer.status} {phrase}"]
    lines += [f"{name}: {_plain(value)}" for name, value in answer.headers.items()]
    if answer.status != 304:
        lines.append(f"Content-Length: {answer.length}")
    lines.append(f"Connection: {'close' if close else 'keep-alive'}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    whole = answer.body if body is None else body
    return head + whole if isinstance(whole, bytes) else head


def _plain(value: str) -> str:
    """A header's value without line ends, which would begin another header."""
    return value.replace("\r", " ").replace("\n", " ")
