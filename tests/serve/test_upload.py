"""Uploads: to this machine and to hosts that were named, never further."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.serve import upload

DOCUMENT = json.dumps({"nodes": ["é"] * 100}).encode()


class Store(BaseHTTPRequestHandler):
    """Keeps what is put; /moved sends elsewhere, /no refuses."""

    got: list[tuple[str, str, dict[str, str], bytes]] = []  # noqa: RUF012

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.command, self.path, dict(self.headers), body))
        status = {"/moved": 307, "/no": 403}.get(self.path.split("?")[0], 200)
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "/there")
        self.end_headers()

    do_GET = do_PUT

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def store() -> Iterator[str]:
    Store.got.clear()
    server = HTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("compress", [False, True])
def test_a_document_is_put(store: str, compress: bool) -> None:
    upload.put(f"{store}/bucket/a.json?signature=x%2Fy", DOCUMENT, compress=compress)
    [(method, path, headers, body)] = Store.got
    assert (method, path) == ("PUT", "/bucket/a.json?signature=x%2Fy")
    assert headers["Content-Type"] == "application/json"
    assert headers.get("Content-Encoding") == ("gzip" if compress else None)
    assert (gzip.decompress(body) if compress else body) == DOCUMENT


def test_nothing_is_followed_and_refusals_are_told(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"127\.0\.0\.1 answered 307"):
        upload.put(f"{store}/moved", DOCUMENT, compress=False)
    with pytest.raises(InputError, match=r"127\.0\.0\.1 answered 403"):
        upload.put(f"{store}/no?secret=1", DOCUMENT, compress=False)
    assert [path for _, path, _, _ in Store.got] == ["/moved", "/no?secret=1"]
    with pytest.raises(InputError, match=r"^the graph could not be uploaded: no answer from 127\.0\.0\.1$"):
        upload.put("http://127.0.0.1:9/a?secret=1", DOCUMENT, compress=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a", "https://127.0.0.1.example.org/", "http://localhost.example.org/",
        "http://127.0.0.1@example.org/", "http://10.0.0.1/", "http://169.254.169.254/latest/", "http://0.0.0.0/",
        "http://[fe80::1]/", "http://2130706434.example/", "http://evil-allowed.example.com/", "http://allowed.example/",
    ],
)  # fmt: skip
def test_other_hosts_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="signed_url"):
        upload.check(url, ["*.allowed.example.com"])


@pytest.mark.parametrize(
    "url",
    ["", "a", "ftp://localhost/", "file:///etc/passwd", "http://", "http:///a", "http://localhost:99999/",
     "http://localhost:x/", "http://[::1", "http://localhost/a b", "http://localhost/a\r\nHost: x",
     "http://user:pass@localhost/", "http://localhost/\u00e9", "http://localhost/" + "a" * 9000],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="signed_url"):
        upload.check(url)


def test_allowed_hosts() -> None:
    allowed = ["graphs.example.org", "*.S3.example.com"]
    assert upload.check("https://graphs.example.org/a?b=c#d", allowed) == (
        "https",
        "graphs.example.org",
        443,
        "/a?b=c",
    )
    assert upload.check("http://Bucket.s3.example.com:8080", allowed) == (
        "http",
        "bucket.s3.example.com",
        8080,
        "/",
    )
    assert upload.check("http://[::1]:90/", ())[1:3] == ("::1", 90)
    assert upload.check("http://LOCALHOST/x")[1] == "localhost"
    with pytest.raises(InputError, match=r"--allow-upload s3\.example\.com"):
        upload.check("http://s3.example.com/", allowed)
