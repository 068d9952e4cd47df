"""The server over real sockets: broken, slow, large and hostile requests; it lives on after each."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.core.errors import InputError
from jaxinterp.viewer import server as server_module
from jaxinterp.viewer.features import Dashboards
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.messages import Refused
from jaxinterp.viewer.pages import Viewer
from jaxinterp.viewer.routes import App
from jaxinterp.viewer.server import listen
from jaxinterp.viewer.wire import parse_head
from tests.graphs.graph_examples import random_graph
from tests.viewer.graphs_to_view import TOKEN, parsed


@contextmanager
def serving(*paths):
    server = listen(port=0)
    server.app = App(token=TOKEN, port=server.port)
    viewer = Viewer(Library(paths), Dashboards())
    viewer.add(server.app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        server.close()
        thread.join(5)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    random_graph(0).save(folder / "a.json")
    random_graph(1, layers=30, per_place=8).save(folder / "b.jigraph")
    return folder


@pytest.fixture(scope="module")
def port(place):
    with serving(place) as found:
        yield found


def raw(port, data, *, end=False, patience=5.0):
    """What comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while piece := connection.recv(1 << 16):
                found += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return found


def alive(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/api/files")
    answer = connection.getresponse()
    assert answer.status == 200
    assert len(json.loads(answer.read())["files"]) == 2
    connection.close()


def head(port, line="GET /api/files HTTP/1.1", *more):
    return "\r\n".join([line, f"Host: 127.0.0.1:{port}", *more, "", ""]).encode("latin-1")


def test_many_requests_on_one_connection(port, place):
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    for path in ("/", "/api/files", "/api/graph/1/bundle", "/nothing", "/api/graph/1/report"):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert len(body) == int(answer.headers["Content-Length"])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if path.endswith("bundle"):
            assert parsed(body)[0]["file"] == "b.jigraph"
    connection.request("HEAD", "/api/graph/1/bundle")
    answer = connection.getresponse()
    assert answer.read() == b""
    assert int(answer.headers["Content-Length"]) > 1000
    connection.request("GET", "/api/graph/1/file", headers={"Range": "bytes=8-19"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (206, (place / "b.jigraph").read_bytes()[8:20])
    connection.request("GET", "/api/graph/1/file")
    assert connection.getresponse().read() == (place / "b.jigraph").read_bytes()
    connection.request("GET", "/api/files", headers={"If-None-Match": "x"})
    assert connection.getresponse().read()
    connection.request("GET", "/assets/page.css")
    answer = connection.getresponse()
    tag = answer.headers["ETag"]
    answer.read()
    connection.request("GET", "/assets/page.css", headers={"If-None-Match": tag})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (304, b"")
    connection.request("GET", "/api/files")  # the connection is still in step
    assert connection.getresponse().status == 200
    connection.close()


def test_two_requests_at_once_in_one_packet(port):
    found = raw(port, head(port) + head(port, "GET /nothing HTTP/1.1", "Connection: close"))
    assert found.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 200 OK" in found
    assert b"HTTP/1.1 404 Not Found" in found


BROKEN = [
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1 x\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"get / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET http://127.0.0.1/ HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n\r\n",
    b"<script>alert(1)</script>\r\n\r\n", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", b"A" * 100_000,
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
    b"GET /?" + b"&".join(b"a=1" for _ in range(50)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("data", BROKEN, ids=lambda data: repr(data[:32]))
def test_broken_lines(port, data):
    found = raw(port, data, end=True)
    status = int(found.split(b" ")[1])
    assert status in (400, 403, 405, 431, 505)
    body = found.split(b"\r\n\r\n", 1)[1]
    assert set(json.loads(body)) == {"error"}
    assert b"Content-Security-Policy" in found
    assert b"Traceback" not in found
    assert b"<script>" not in found
    alive(port)


def test_headers_that_smuggle(port):
    post = "POST /api/graph/0/save HTTP/1.1"
    token = f"X-Jaxinterp-Token: {TOKEN}"
    for more in (
        ("Transfer-Encoding: chunked",), ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5",) * 2, ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: -1",),
        ("Content-Length: +5",),
        ("Content-Length: 0x5",), ("Content-Length: 5, 5",), ("Content-Length: ",), ("Content-Length: 99999999999999",),
        ("Host: evil.example",), ("Content-Length: \u0665",),
    ):  # fmt: skip
        data = "\r\n".join([post, f"Host: 127.0.0.1:{port}", token, *more, "", "hello"]).encode("utf-8")
        found = raw(port, data, end=True)
        assert int(found.split(b" ")[1]) in (400, 501), more
        assert found.count(b"HTTP/1.1") == 1, more
    alive(port)


def test_refused_before_the_body_is_read(port):
    """A body of a gigabyte is announced; the answer comes without it."""
    for token, status in (("wrong", 403), (TOKEN, 413)):
        begin = time.monotonic()
        found = raw(
            port,
            head(
                port,
                "POST /api/graph/0/save HTTP/1.1",
                f"X-Jaxinterp-Token: {token}",
                "Content-Length: 1000000000",
            ),
            end=True,
        )
        assert found.startswith(f"HTTP/1.1 {status} ".encode())
        assert time.monotonic() - begin < 3
    alive(port)


def test_a_refusal_reaches_one_who_is_still_sending(port):
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    body = b"x" * (9 << 20)
    try:
        connection.request("POST", "/api/graph/0/save", body, {"X-Jaxinterp-Token": TOKEN})
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # more than is drained: the connection ends under the sender
    connection.close()
    alive(port)


def test_waiting_for_leave_to_send(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        body = b'{"at_least": 0.3}'
        more = (
            f"X-Jaxinterp-Token: {TOKEN}",
            f"Content-Length: {len(body)}",
            "Expect: 100-continue",
            "Connection: close",
        )
        connection.sendall(head(port, "POST /api/graph/0/propose HTTP/1.1", *more))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(body)
        found = b""
        while piece := connection.recv(1 << 16):
            found += piece
        assert found.startswith(b"HTTP/1.1 200 OK")


def test_slow_senders_are_dropped(place, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD", 0.3)
    monkeypatch.setattr(server_module, "BODY", 0.3)
    monkeypatch.setattr(server_module, "IDLE", 0.3)
    with serving(place) as port:
        begin = time.monotonic()
        with socket.create_connection(
            ("127.0.0.1", port), timeout=5
        ) as connection:  # a byte now and then, for ever
            found = b""
            try:
                for byte in head(port) * 10:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                pass
            try:
                found = connection.recv(1000)
            except OSError:
                found = b"HTTP/1.1 408"  # the connection was cut under the sender
        assert found.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - begin < 4
        body = head(
            port, "POST /api/graph/0/save HTTP/1.1", f"X-Jaxinterp-Token: {TOKEN}", "Content-Length: 50"
        )
        assert raw(port, body + b"{") == b""
        assert raw(port, b"") == b""  # silent
        alive(port)


def test_slow_readers_do_not_stop_others(port):
    idle = []
    for _ in range(10):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.sendall(head(port, "GET /api/graph/1/file HTTP/1.1"))
        idle.append(connection)
    alive(port)
    for connection in idle:
        connection.close()
    alive(port)


def test_too_many_connections(place, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 3)
    with serving(place) as port:
        held = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(3)]
        time.sleep(0.2)
        assert raw(port, b"").startswith(b"HTTP/1.1 503")
        for connection in held:
            connection.close()
        time.sleep(0.2)
        alive(port)


def test_noise(port):
    draw = random.Random(0)
    parts = [
        b"GET ",
        b"POST ",
        b"/",
        b"/api/files",
        b" HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"Host: ",
        b":",
        b"%2e%2e",
        b"\x00",
    ]
    for _ in range(60):
        data = b"".join(draw.choice([*parts, draw.randbytes(5)]) for _ in range(draw.randint(1, 30)))
        found = raw(port, data, end=True)
        assert b"Traceback" not in found
        assert not found or found.startswith(b"HTTP/1.1 ")
    alive(port)


def test_a_file_that_shrinks_while_it_is_sent(tmp_path, port):
    random_graph(0).save(tmp_path / "a.json")
    random_graph(0).save(tmp_path / "b.json")
    with serving(tmp_path) as other:
        connection = HTTPConnection("127.0.0.1", other, timeout=5)
        connection.request("GET", "/api/graph/0/file")
        assert connection.getresponse().read()
        (tmp_path / "a.json").unlink()
        connection.request("GET", "/api/graph/0/file")
        answer = connection.getresponse()
        assert answer.status == 400
        assert "a.json" in json.loads(answer.read())["error"]
        connection.close()


def test_port_in_use():
    with listen(port=0) as server:
        with pytest.raises(InputError, match=f"port {server.port} is in use: give another with --port"):
            listen(port=server.port)
        with listen() as one, listen() as two:
            assert one.port != two.port
    with pytest.raises(InputError, match="expected 0 to 65535"):
        listen(port=70_000)
    with pytest.raises(InputError, match="cannot listen"):
        listen("203.0.113.7", 0)


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"Host:", b"a", b":"]))
)
@settings(max_examples=200, deadline=None)
def test_any_head_is_understood_or_refused(data):
    data = data if isinstance(data, bytes) else b"".join(data)
    try:
        head = parse_head(data)
    except Refused:  # and nothing else
        return
    assert head.path.startswith("/")
    assert head.length >= 0
