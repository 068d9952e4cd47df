"""Which request goes where, and every check that comes before: one place, whatever the transport.

``App.handle(request)`` gives an answer to anything and raises nothing. ``App.admit`` does all checks that need no
body, so that a transport can refuse before it reads one. Others add routes with ``App.add`` (live mode does).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from jaxinterp.viewer.messages import Answer, FileSlice, Refused, Request, json_answer

__all__ = ["Answer", "App", "FileSlice", "Handler", "Refused", "Request", "Route", "json_answer"]

LOG = logging.getLogger("jaxinterp.viewer")
TOKEN_HEADER = "x-jaxinterp-token"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_BODY = 8 << 20  # bytes of a request's body, unless a route says otherwise
MOST_PATH = 400
INTERNAL = "internal error; see the terminal"
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_NUMBER = re.compile(r"[0-9]{1,9}")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFETY = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# A handler gets the request and what the path's "{names}" stood for; it may raise Refused.
Handler = Callable[[Request, Mapping[str, str]], Answer]
Guard = Callable[[Request], None]


@dataclass(frozen=True)
class Route:
    """method, path in segments ("{name}" takes any one segment, "{name:int}" a number), handler, and limits.

    guard: takes the place of the token's check on POST; it raises Refused. navigates: whether another site may
    link here (the page itself alone).
    """

    method: str
    segments: tuple[str, ...]
    handler: Handler
    most_body: int = MOST_BODY
    guard: Guard | None = None
    navigates: bool = False

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """What the names stand for, or None where the path is another."""
        if len(segments) != len(self.segments):
            return None
        found = {}
        for pattern, segment in zip(self.segments, segments, strict=True):
            if pattern.startswith("{"):
                name, _, kind = pattern[1:-1].partition(":")
                if kind == "int" and not _NUMBER.fullmatch(segment):
                    return None
                found[name] = segment
            elif pattern != segment:
                return None
        return found


class App:
    """Routes behind checks.

    token: what every POST must carry. port: ours, which Host and Origin must name. anyone: whether other machines
    may ask; then Host may also be an address or this machine's name, never another name (which is how a web page
    elsewhere would reach us).
    """

    def __init__(self, *, token: str, port: int, anyone: bool = False) -> None:
        self.token, self.port, self.anyone = token, port, anyone
        self.routes: list[Route] = []

    def add(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        most_body: int = MOST_BODY,
        guard: Guard | None = None,
        navigates: bool = False,
    ) -> None:
        """Add a route, such as ("POST", "/api/live/job/{id}/cancel", handler)."""
        segments = tuple(path.strip("/").split("/")) if path != "/" else ()
        self.routes.append(Route(method, segments, handler, most_body, guard, navigates))

    def handle(self, request: Request) -> Answer:
        """The answer to any request; never raises. A failure inside says nothing of itself to the reader."""
        try:
            route, names = self.admit(request)
            if len(request.body) > route.most_body:
                raise Refused(413, f"the body is larger than {route.most_body} bytes")
            answer = route.handler(request, names)
        except Refused as refused:
            answer = refused.answer()
        except Exception:
            LOG.exception("%s %s failed", request.method, request.path[:MOST_PATH])
            answer = json_answer({"error": INTERNAL}, 500)
        return Answer(answer.status, answer.body, {**SAFETY, **answer.headers})

    def admit(self, request: Request) -> tuple[Route, dict[str, str]]:
        """The route of a request and its names, after all checks that need no body. Raises Refused."""
        self._check_host(request.headers)
        method = "GET" if request.method == "HEAD" else request.method
        segments = split_path(request.path)
        others = []
        for route in self.routes:
            names = route.match(segments)
            if names is None:
                continue
            if route.method != method:
                others.append(route.method)
                continue
            self._check_sender(request, route)
            return route, names
        if others:
            allow = ", ".join(sorted({*others, *(["HEAD"] if "GET" in others else [])}))
            raise Refused(405, f"{method[:20]} is not possible here, only {allow}", {"Allow": allow})
        raise Refused(404, "there is nothing at this address")

    def _check_host(self, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if self._ours(host):
            return
        raise Refused(403, f"this server answers at http://127.0.0.1:{self.port} alone")

    def _ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or port != str(self.port):
            return False
        name = name.lower()
        if name in LOOPBACK:
            return True
        if not self.anyone:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name == socket.gethostname().lower()
        return True

    def _check_sender(self, request: Request, route: Route) -> None:
        """Refuse what another site's page sends, and writes without the token."""
        headers = request.headers
        site = headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none") and not route.navigates:
            raise Refused(403, "requests from other sites are refused")
        origin = headers.get("origin")
        if origin is not None and not self._own_origin(origin):
            raise Refused(403, "requests from other origins are refused")
        if route.guard is not None:
            route.guard(request)
        elif route.method != "GET":
            given = headers.get(TOKEN_HEADER, "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
                raise Refused(403, "the token is missing or wrong: reload the page")

    def _own_origin(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme == "http" and origin == f"http://{parts.netloc}" and self._ours(parts.netloc)


def split_path(path: str) -> tuple[str, ...]:
    """The segments of a path as sent. Raises Refused (404) on anything but plain names: no address here has a
    character that needs an encoding, so none is decoded."""
    if not path.startswith("/") or len(path) > MOST_PATH:
        raise Refused(404, "there is nothing at this address")
    if path == "/":
        return ()
    segments = tuple(path[1:].split("/"))
    if not all(_SEGMENT.fullmatch(s) and s not in (".", "..") for s in segments):
        raise Refused(404, "there is nothing at this address")
    return segments
