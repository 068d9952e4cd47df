"""Every route, asked rightly and wrongly, without a socket: what is refused, and that nothing of the inside shows."""

from __future__ import annotations

import json
import string

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxinterp.graphs import load_graph
from jaxinterp.viewer.messages import Request
from jaxinterp.viewer.routes import SAFETY, split_path
from tests.graphs.graph_examples import random_graph
from tests.viewer.graphs_to_view import PORT, TOKEN, app_for, ask, parsed, told

POSTS = ("propose", "autosave", "save")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    random_graph(0).save(folder / "a.json")
    random_graph(1).save(folder / "b.jigraph")
    return folder


@pytest.fixture(scope="module")
def app(place):
    return app_for(place)


def fine(answer):
    """What holds of any answer."""
    assert 200 <= answer.status < 500
    for name, value in SAFETY.items():
        assert answer.headers[name] == value
    if answer.status >= 400:
        found = told(answer)
        assert "\n" not in found["error"]
        for word in ("Traceback", "Error(", "exception", 'File "', "jaxinterp/", "/tmp/"):
            assert word not in found["error"]
    return answer


def test_the_page(app):
    answer = fine(ask(app, "/"))
    assert f'name="jaxinterp-token" content="{TOKEN}"'.encode() in answer.body
    assert b'name="jaxinterp-mode" content="server"' in answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"http://" not in answer.body
    assert b"https://" not in answer.body
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css")):
        found = fine(ask(app, f"/assets/{name}"))
        assert found.headers["Content-Type"].startswith(kind)
        assert len(found.body) > 100
        again = ask(app, f"/assets/{name}", if_none_match=found.headers["ETag"])
        assert (again.status, again.body) == (304, b"")


def test_data(app, place):
    for number, name in enumerate(("a.json", "b.jigraph")):
        graph = load_graph(place / name)
        header, arrays = parsed(fine(ask(app, f"/api/graph/{number}/bundle")).body)
        assert (header["file"], header["revision"], header["saved_from"]) == (name, 0, "none")
        assert header["writable"] is True
        assert header["live"] is False
        assert len(arrays["kind"]) == len(graph)
        node = int(graph.targets[0])
        rows = told(ask(app, f"/api/graph/{number}/node/{node}"))
        assert rows["n_inputs"] == int(np.diff(graph.indptr)[node])
        assert ask(app, f"/api/graph/{number}/node/{len(graph)}").status == 404
    compared = told(ask(app, "/api/compare?a=0&b=1"))
    assert set(compared) == {"pairs", "only_a", "only_b", "edges", "notes"}
    listed = told(ask(app, "/api/files"))
    assert listed["live"] is False
    assert [one["id"] for one in listed["files"]] == [0, 1]


def test_proposals(app):
    found = told(ask(app, "/api/graph/0/propose", {"at_least": 0.2, "across_positions": True}))
    assert set(found) == {"groups", "single", "hidden_influence"}
    assert found["groups"]
    assert set(found["groups"][0]) == {"name", "members", "cohesion", "weakest", "influence"}
    wrong = [
        {"at_least": 2}, {"at_least": True}, {"at_least": "x"}, {"most": 0}, {"most": 1e9}, {"across_positions": 1},
        {"features": [10**6]}, {"features": "all"}, {"features": []}, {"features": [44]}, {"x": 1},
    ]  # fmt: skip
    for body in wrong:
        assert fine(ask(app, "/api/graph/0/propose", body)).status == 400, body


@pytest.mark.parametrize("form", ["json", "jigraph", "html"])
def test_exports(app, place, tmp_path, form):
    answer = fine(ask(app, f"/api/graph/0/export?format={form}"))
    assert answer.status == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="graph.{form}"'
    if form != "html":
        (tmp_path / f"x.{form}").write_bytes(answer.body)
        assert (
            load_graph(tmp_path / f"x.{form}").nodes.tobytes() == load_graph(place / "a.json").nodes.tobytes()
        )
    assert fine(ask(app, "/api/graph/0/export?format=exe")).status == 400


def test_the_file_and_parts_of_it(app, place):
    whole = (place / "b.jigraph").read_bytes()
    size = len(whole)

    def part(text, **headers):
        answer = fine(ask(app, "/api/graph/1/file", range=text, **headers))
        return answer, (answer.body.start, answer.body.length) if answer.status in (200, 206) else None

    assert part("")[1] == (0, size)
    for text, expected in (
        ("bytes=0-9", (0, 10)), ("bytes=5-", (5, size - 5)), ("bytes=-7", (size - 7, 7)),
        (f"bytes=3-{size + 50}", (3, size - 3)), (f"bytes=-{size + 50}", (0, size)),
    ):  # fmt: skip
        answer, found = part(text)
        assert answer.status == 206
        assert found == expected
        start, length = expected
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + length - 1}/{size}"
    for text in (
        "bytes=",
        "bytes=-",
        "bytes=9-5",
        "bytes=0-1,4-5",
        "lines=1-2",
        "bytes=a-b",
        "bytes= 0-1",
        "x" * 5000,
    ):
        answer, found = part(text)
        assert (answer.status, found) == (200, (0, size)), text
    for text in (f"bytes={size}-", f"bytes={size + 9}-{size + 10}", "bytes=-0"):
        answer, _ = part(text)
        assert answer.status == 416, text
        assert answer.headers["Content-Range"] == f"bytes */{size}"
    tag = part("")[0].headers["ETag"]
    assert part("bytes=0-1", if_range='"other"')[0].status == 200
    assert part("bytes=0-1", if_range=tag)[0].status == 206
    assert part("", if_none_match=tag)[0].status == 304


TRAVERSALS = [
    "/../etc/passwd", "/..", "/.", "//", "///etc/passwd", "/assets/../../etc/passwd", "/assets/..%2f..%2fetc%2fpasswd",
    "/assets/%2e%2e/%2e%2e/etc/passwd", "/assets/%252e%252e%252fetc", "/assets/..\\..\\etc", "/assets/%5c..%5c",
    "/assets/page.js%00.css", "/assets/%c0%ae%c0%ae/", "/assets/page.js/", "/assets/", "/assets/index.html",
    "/assets/page.js/..", "/api/graph/../files", "/api/graph/0/../1/file", "/api/graph/-1/file", "/api/graph/0x0/file",
    "/api/graph/1e0/file", "/api/graph/٣/file", "/api/graph/%d9%a3/file", "/api/graph/0/file/", "/api/graph/0/node/-1",
    "/api/graph/9999999999/bundle", "/api/graph//bundle", "/api/graph/0/file%3f", "/api/graph/0%2ffile",
    "/%2fetc/passwd", "/features/../../etc/hostname", "/data/../../etc/hostname", "http://127.0.0.1/", "*", "", "x",
    "/api/files\r\nX: y", "/" + "a" * 5000, "/" + "a/" * 200,
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(app, path):
    for method in ("GET", "POST", "HEAD"):
        answer = app.handle(
            Request(method, path, {}, {"host": f"127.0.0.1:{PORT}", "x-jaxinterp-token": TOKEN}, b"{}")
        )
        assert fine(answer).status in (404, 405), path
        assert b"root:" not in answer.body


def test_only_plain_segments_pass():
    assert split_path("/api/graph/0/node/12") == ("api", "graph", "0", "node", "12")
    assert split_path("/assets/page.js") == ("assets", "page.js")
    assert split_path("/") == ()


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{PORT}x", "localhost",
        f"127.0.0.1.evil.example:{PORT}", f"127.0.0.2:{PORT}", f"0.0.0.0:{PORT}", f"[::1%25x]:{PORT}", f"::1:{PORT}",
        f"user@127.0.0.1:{PORT}", f"127.0.0.1:{PORT},evil", f"2130706433:{PORT}", f"0x7f.1:{PORT}",
        f"localhost.:{PORT}", f"10.0.0.1:{PORT}", f"127.0.0.1:0{PORT}",
    ],
)  # fmt: skip
def test_other_hosts(app, host):
    for path in ("/", "/api/files", "/assets/page.js", "/api/graph/0/file"):
        answer = fine(ask(app, path, host=host))
        assert answer.status == 403
        assert TOKEN.encode() not in answer.body
    assert fine(ask(app, "/api/graph/0/save", {"revision": 0, "view": {}}, host=host)).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_own_hosts(app, host):
    assert ask(app, "/api/files", host=f"{host}:{PORT}").status == 200


def test_anyone(place):
    app = app_for(place, anyone=True)
    for host, status in (
        ("10.1.2.3", 200),
        ("[fe80::1]", 200),
        ("evil.example", 403),
        ("10.1.2.3.evil", 403),
    ):
        assert ask(app, "/api/files", host=f"{host}:{PORT}").status == status, host


@pytest.mark.parametrize("what", POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {"x_jaxinterp_token": ""}, {"x_jaxinterp_token": "wrong"}, {"x_jaxinterp_token": TOKEN + " "},
        {"x_jaxinterp_token": "\u00e9\u4e2d"}, {"x_jaxinterp_token": TOKEN[:-1]}, {"origin": "null"},
        {"origin": "http://evil.example"}, {"origin": f"https://127.0.0.1:{PORT}"}, {"origin": "http://127.0.0.1"},
        {"origin": f"http://127.0.0.1:{PORT}.evil"}, {"origin": f"http://127.0.0.1:{PORT}/"}, {"origin": "http://["},
        {"origin": f"http://evil@127.0.0.1:{PORT}"}, {"origin": ""},
        {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"sec_fetch_site": ""},
    ],
)  # fmt: skip
def test_writes_from_elsewhere(app, place, what, headers):
    before = sorted((p.name, p.read_bytes()) for p in place.iterdir())
    answer = fine(ask(app, f"/api/graph/0/{what}", {"revision": 0, "view": {"pinned": [1]}}, **headers))
    assert answer.status == 403
    assert sorted((p.name, p.read_bytes()) for p in place.iterdir()) == before


def test_reads_from_elsewhere(app):
    for headers in (
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://evil.example"},
    ):
        for path in ("/api/files", "/api/graph/0/bundle", "/assets/page.js"):
            assert fine(ask(app, path, **headers)).status == 403
    assert ask(app, "/", sec_fetch_site="cross-site").status == 200  # a link on another page may lead here
    own = {"sec_fetch_site": "same-origin", "origin": f"http://127.0.0.1:{PORT}"}
    assert ask(app, "/api/files", **own).status == 200


@pytest.mark.parametrize(
    "method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "GET", "POST", "get", "X" * 400]
)
def test_other_methods(app, method):
    for path in ("/", "/api/files", "/api/graph/0/save"):
        right = "POST" if path.endswith("save") else "GET"
        if method == right:
            continue
        answer = fine(ask(app, path, b"{}", method=method))
        assert answer.status == 405
        assert right in answer.headers["Allow"]


BODIES = [
    b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff", b"\x00", b"{}", b'{"revision": 0}', b'{"view": {}}',
    b"[" * 100_000,
    b'{"revision": 0, "view": ' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}", b'{"revision": NaN, "view": {}}',
    b'{"revision": 0, "view": [' + b"[" * 30 + b"]" * 30 + b"]}", b'{"revision": 1e3, "view": {}}',
    b'{"revision": -1, "view": {}}', b'{"revision": true, "view": {}}',
    b'{"revision": 99999999999999999999, "view": {}}', b'{"revision": 0, "view": {}, "x": 1}',
    b'{"revision": 0, "view": {"pinned": [99999]}}', b'{"revision": 0, "view": null}',
    b'{"revision": "0", "view": {}}', b'{"revision": 0, "view": {"notes": "' + b"x" * 200_000 + b'"}}',
    b'{"revision": ' + b"9" * 5000 + b', "view": {}}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:30]))
def test_malformed_bodies(app, place, body):
    before = (place / "a.json").read_bytes()
    for what in ("autosave", "save"):
        assert fine(ask(app, f"/api/graph/0/{what}", body)).status == 400
    assert (place / "a.json").read_bytes() == before
    assert len(list(place.iterdir())) == 2


def test_oversized_bodies(app):
    for what in POSTS:
        assert fine(ask(app, f"/api/graph/0/{what}", b" " * ((8 << 20) + 1))).status == 413


@pytest.mark.parametrize(
    "query", ["", "a=0", "a=0&b=x", "a=-1&b=0", "a=0&b=99", "a=0.5&b=0", "a=&b=", "a=1e1&b=0"]
)
def test_malformed_queries(app, query):
    assert fine(ask(app, f"/api/compare?{query}")).status in (400, 404)
    assert fine(ask(app, f"/api/feature?{query.replace('a=', 'graph=').replace('b=', 'node=')}")).status in (
        400,
        404,
    )


def test_what_fails_inside_stays_inside(app, place, caplog, monkeypatch):
    def broken(request, names):
        raise RuntimeError("the secret place is /etc/secret")

    other = app_for(place)
    other.add("GET", "/api/broken", broken)
    answer = ask(other, "/api/broken")
    assert answer.status == 500
    assert told(answer) == {"error": "internal error; see the terminal"}
    assert "/etc/secret" in caplog.text


TEXT = st.text(string.printable, max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["pinned", "groups", "labels", "clicked", "positions", "hidden", "link_type", "views", "notes"]
)


@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    path=st.one_of(
        st.text(max_size=60).map(lambda text: "/" + text),
        st.lists(
            st.sampled_from(["api", "graph", "0", "1", "7", "save", "node", "file", "..", "%2e%2e", ""]),
            max_size=6,
        ).map(lambda parts: "/" + "/".join(parts)),
    ),
    query=st.dictionaries(st.sampled_from(["a", "b", "graph", "node", "format", "target"]), TEXT, max_size=3),
    headers=st.dictionaries(
        st.sampled_from(["range", "origin", "sec-fetch-site", "if-range", "host"]), TEXT, max_size=2
    ),
    body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_at_all(app, method, path, query, headers, body):
    given = {"host": f"localhost:{PORT}", "x-jaxinterp-token": TOKEN, **headers}
    fine(app.handle(Request(method, path, query, given, body)))


@given(view=st.dictionaries(KEYS, JSON, max_size=4) | JSON, revision=st.just(10**9) | JSON)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_view(app, place, view, revision):
    revision = 10**9 if revision == 0 else revision  # never the right one: what is well-formed is a conflict
    answer = fine(ask(app, "/api/graph/0/save", {"revision": revision, "view": view}))
    assert answer.status in (400, 409)
    assert fine(ask(app, "/api/graph/0/propose", {"features": view})).status in (200, 400)
    assert len(list(place.iterdir())) == 2
