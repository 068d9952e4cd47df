"""The recorder that every test of the page relies on does see what must not happen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.viewer.browser.chromium import Browser

PAGE = b"""<!doctype html><title>bad</title><p>text</p>
<script>1 + 1</script>
<script src="/page.js"></script>
<img src="http://elsewhere.example/picture.png">"""
SCRIPT = b"""console.error("a complaint"); setTimeout(() => { throw new Error("a failure"); }, 0);
fetch("https://elsewhere.example/data").catch(() => { document.title = "tried"; });"""


class Bad(BaseHTTPRequestHandler):
    """A page that does everything wrong."""

    def do_GET(self) -> None:
        script = self.path == "/page.js"
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if script else "text/html")
        self.send_header(
            "Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src *; img-src *"
        )
        self.end_headers()
        self.wfile.write(SCRIPT if script else PAGE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bad() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bad)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_errors_breaches_and_requests_outside_are_seen(browser: Browser, bad: str) -> None:
    page = browser.page()
    try:
        page.goto(bad)
        page.wait("document.title === 'tried'")
        found = page.problems()
    finally:
        page.close()
    of = {kind: [p["text"] for p in found if p["kind"] == kind] for kind in {p["kind"] for p in found}}
    assert any("a complaint" in text for text in of["console error"])
    assert any("a failure" in text for text in of["page error"])
    assert any("script-src-elem inline" in text for text in of["policy"])
    assert sorted(of["request outside"]) == [
        "http://elsewhere.example/picture.png",
        "https://elsewhere.example/data",
    ]
