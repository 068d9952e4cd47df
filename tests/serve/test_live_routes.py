"""Tracing from the page: a real server, real sockets, pocket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxinterp as ji
from jaxinterp.serve.jobs import Cancelled, Report
from tests.serve.running import PROMPT, TOKEN, Running, running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that targets may name files of."""
    folder = tmp_path_factory.mktemp("targets")
    (folder / "inner").mkdir()
    np.save(folder / "inner" / "probe.npy", np.linspace(-1, 1, 128))
    (folder / "list.json").write_text(
        '["reed", {"sort": "feature", "layer": 0, "index": 648, "position": 2}]'
    )
    (folder.parent / "secret.json").write_text('["paul"]')
    (folder / "link.json").symlink_to(folder.parent / "secret.json")
    return folder


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("graphs"), target_files=files) as found:
        yield found


def traced(live: Running, **asked: Any) -> dict[str, Any]:
    reply = live.page("/api/live/trace", asked)
    assert reply.status == 202, reply
    return live.ended(reply.json()["job"])


def test_info(live: Running) -> None:
    assert live.get("/api/live/info") == {
        "model": "pocket",
        "dictionary": "pocket",
        "context": 64,
        "convention": "paper",
        "busy": False,
        "steering": False,
    }


def test_a_prompt_becomes_the_graph_that_the_library_makes(live: Running, tmp_path: Path) -> None:
    job = traced(live, prompt=PROMPT, targets=None, node_threshold=0.7, edge_threshold=0.9)
    assert job == {"state": "done", "stage": "done", "fraction": 1.0, "graph": job["graph"], "error": None}
    opened = live.library.open(job["graph"])
    own = ji.trace(live.tracer.model, live.tracer.dictionary, PROMPT).prune(0.7, 0.9)
    own.save(tmp_path / "own.json")
    assert opened.path.read_bytes() == (tmp_path / "own.json").read_bytes()
    assert opened.path.parent == live.folder and opened.path.name.startswith("emma-stewart-met-paul")
    [listed] = [one for one in live.library.listed() if one["id"] == job["graph"]]
    assert listed["prompt"] == PROMPT and listed["error"] is None and listed["nodes"] == len(own.nodes)


def test_every_sort_of_target(live: Running) -> None:
    lines = [
        "stewart",
        "637@3",
        '"emma"@-2',
        "stewart - reed",
        "feature:0/648@2",
        "supernode:names=0/648@2,1/10@5*0.5",
        "salient:@3",
        "direction:inner/probe.npy",
        "direction:1/inner/probe.npy@4",
    ]
    job = traced(live, prompt=PROMPT, targets="\n".join(lines), max_feature_nodes=40)
    assert job["state"] == "done", job
    graph = live.library.open(job["graph"]).graph
    own = ji.trace(
        live.tracer.model,
        live.tracer.dictionary,
        PROMPT,
        targets=live.tracer.targets("\n".join(lines)),
        max_feature_nodes=40,
    ).prune()
    assert graph.labels == own.labels and len(graph.targets) >= len(lines)
    job = traced(live, prompt=PROMPT, targets="list.json", completion=" stewart , paul", max_feature_nodes=20)
    assert job["state"] == "done" and len(live.library.open(job["graph"]).graph.targets) == 5


def test_token_ids_and_names_that_are_taken(live: Running) -> None:
    ids = live.tracer.tokens(PROMPT).tolist()
    paths = [live.library.open(traced(live, tokens=ids)["graph"]).path for _ in range(2)]
    assert paths[0] != paths[1] and paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({}, "give either prompt, a text, or tokens"),
        ({"prompt": "emma", "tokens": [1]}, "give either prompt"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "  \n"}, "the prompt is empty"),
        ({"prompt": 7}, "prompt: expected a text"),
        ({"prompt": "a\ud800"}, "half of a character"),
        ({"prompt": "emma zzz"}, "'zzz' in 'emma zzz' is outside the vocabulary"),
        ({"prompt": "emma " * 64}, "is longer than the model's context of 64, by 1"),
        ({"tokens": [1, 99999]}, "token 99999 at position 1 is outside the vocabulary"),
        ({"tokens": [1, 2.5]}, "tokens: expected a list of token ids"),
        ({"tokens": [10**30]}, "tokens: expected a list of token ids"),
        ({"prompt": "emma", "targets": ["x"]}, "targets: expected a text"),
        ({"prompt": "emma", "targets": "nowhere"}, "nowhere"),
        ({"prompt": "emma", "targets": "feature:0/999999@0"}, "999999"),
        ({"prompt": "emma", "targets": "feature:x"}, "expected feature:LAYER/FEATURE@POSITION"),
        ({"prompt": "emma", "targets": "emma@9"}, "position"),
        ({"prompt": "emma", "targets": "emma\n" * 101}, "101 targets are more than the 100 allowed"),
        ({"prompt": "emma", "max_feature_nodes": 0}, "max_feature_nodes is 0"),
        ({"prompt": "emma", "max_feature_nodes": "many"}, "max_feature_nodes: expected a whole number"),
        ({"prompt": "emma", "node_threshold": 1.5}, "node_threshold is 1.5: expected a share"),
        ({"prompt": "emma", "edge_threshold": "all"}, "edge_threshold: expected a number"),
        ({"prompt": "emma", "colour": "red"}, "'colour' is not asked for"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_runs(
    live: Running, asked: dict[str, Any], line: str
) -> None:
    reply = live.page("/api/live/trace", asked)
    assert reply.status == 400 and list(reply.json()) == ["error"]
    assert line in reply.json()["error"] and "\n" not in reply.json()["error"]
    assert not live.jobs.busy()


@pytest.mark.parametrize(
    "name",
    ["../secret.json", "link.json", "/etc/passwd.json", "direction:../secret.json", "direction:/etc/passwd",
     "none.json", "direction:inner", "direction:1//etc/passwd", "a\x00.json"],
)  # fmt: skip
def test_targets_name_no_file_outside_their_folder(live: Running, name: str) -> None:
    reply = live.page("/api/live/trace", {"prompt": "emma", "targets": name})
    assert reply.status == 400 and "in the folder of --target-files" in reply.json()["error"]


def test_a_broken_file_of_targets_is_named_as_it_was_asked_for(live: Running, files: Path) -> None:
    (files / "broken.json").write_text("[")
    reply = live.page("/api/live/trace", {"prompt": "emma", "targets": "broken.json"})
    assert reply.status == 400 and reply.json()["error"].startswith("broken.json is not JSON")


def test_without_a_folder_targets_name_no_file(live: Running) -> None:
    tracer = type(live.tracer)(live.tracer.model, live.tracer.dictionary)
    with pytest.raises(ji.InputError, match="start with --target-files FOLDER"):
        tracer.targets("list.json")


def test_progress_cancel_and_the_queue(live: Running) -> None:
    before = sorted(live.folder.iterdir())
    with live.tracer.held():
        first = live.page("/api/live/trace", {"prompt": PROMPT}).json()["job"]
        assert live.tracer.inside.wait(20)
        now = live.get(f"/api/live/job/{first}")
        assert now["state"] == "running" and now["stage"] == "tracing" and 0 < now["fraction"] < 0.9
        assert live.get("/api/live/info")["busy"] is True
        waiting = [live.page("/api/live/trace", {"prompt": "paul reed met"}).json()["job"] for _ in range(2)]
        full = live.page("/api/live/trace", {"prompt": PROMPT})
        assert full.status == 429 and "2 prompts are waiting already" in full.json()["error"]
        assert live.get(f"/api/live/job/{waiting[1]}")["state"] == "queued"
        assert live.page(f"/api/live/job/{waiting[1]}/cancel", {}).json()["state"] == "cancelled"
        assert live.page(f"/api/live/job/{first}/cancel", {}).json()["stage"] == "stopping"
        live.tracer.hold = False
        live.tracer.go.set()
        assert live.ended(first)["state"] == "cancelled"
        assert live.ended(waiting[0])["state"] == "done"
    assert [path.name[:13] for path in live.folder.iterdir() if path not in before] == ["paul-reed-met"]


def test_progress_is_monotone(live: Running) -> None:
    seen: list[float] = []
    whole = live.tracer.graph
    try:
        # What the page would see, were it asked at every step.
        def graph(asked: Any, report: Any) -> Any:
            def told(stage: str, fraction: float | None) -> None:
                report(stage, fraction)
                seen.append(live.jobs.status(live.jobs._running).fraction or 0.0)  # type: ignore[union-attr,arg-type]

            return whole(asked, type(report)(told, lambda: False))

        live.tracer.graph = graph  # type: ignore[method-assign]
        assert traced(live, prompt=PROMPT)["state"] == "done"
    finally:
        del live.tracer.graph
    assert len(seen) > 5 and seen == sorted(seen) and seen[0] == 0 and 0.9 <= seen[-1] < 1


def test_a_failure_inside_says_nothing_of_itself(live: Running, caplog: pytest.LogCaptureFixture) -> None:
    def fail(asked: Any, report: Any) -> Any:
        raise RuntimeError("/secret/place exploded")

    live.tracer.graph = fail  # type: ignore[method-assign]
    try:
        job = traced(live, prompt=PROMPT)
    finally:
        del live.tracer.graph
    assert job["state"] == "failed" and "exploded" not in job["error"] and "log of the server" in job["error"]
    assert "exploded" in caplog.text


def test_a_graph_over_the_memory_budget_fails_in_one_line(live: Running) -> None:
    live.tracer.memory_budget = 1000
    try:
        job = traced(live, prompt=PROMPT)
    finally:
        live.tracer.memory_budget = None
    assert job["state"] == "failed" and "GiB" in job["error"] and "\n" not in job["error"]


def test_unknown_jobs(live: Running) -> None:
    assert live.send("GET", "/api/live/job/987654").status == 404
    assert live.page("/api/live/job/987654/cancel", {}).status == 404
    assert live.send("GET", "/api/live/job/x").status == 404


def test_the_viewer_s_checks_hold_here(live: Running) -> None:
    port = live.port
    ours = {"X-Jaxinterp-Token": TOKEN}
    body = {"prompt": PROMPT}
    for headers in (
        {},
        {"X-Jaxinterp-Token": "wrong"},
        {**ours, "Origin": "http://evil.example"},
        {**ours, "Origin": "null"},
        {**ours, "Host": f"evil.example:{port}"},
        {**ours, "Host": "127.0.0.1"},
        {**ours, "Sec-Fetch-Site": "cross-site"},
    ):
        reply = live.send("POST", "/api/live/trace", body, headers)
        assert reply.status == 403 and "error" in reply.json(), headers
    assert live.send("GET", "/api/live/info", headers={"Host": "evil.example"}).status == 403
    assert live.send("DELETE", "/api/live/info", headers=ours).status == 405
    own = {**ours, "Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert live.send("POST", "/api/live/trace", {"prompt": ""}, own).status == 400
    assert not live.jobs.busy()


def raw(live: Running, data: bytes, end: bool = True) -> bytes:
    """Everything that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=20) as wire:
        wire.sendall(data)
        if end:
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_WR)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := wire.recv(1 << 16):
                parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    "target",
    ["/../../../etc/hostname", "/assets/../../etc/hostname", "/%2e%2e/%2e%2e/etc/hostname", "/assets/%2Fetc%2Fhostname",
     "//etc/hostname", "/assets/page.js%00", "/api/graph/0/file/../../x", "/" + "a" * 3000, "http://evil.example/",
     "*", "/api/graph/-1/bundle", "/api/graph/99999999999999999999/bundle"],
)  # fmt: skip
def test_no_address_leads_outside(live: Running, target: str) -> None:
    found = raw(
        live, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nConnection: close\r\n\r\n".encode()
    )
    assert (
        found.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400"))
        and b"root:" not in found
        and b"Traceback" not in found
    )


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000,
     b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
     b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_request_is_refused(live: Running, data: bytes) -> None:
    found = raw(live, data)
    assert found.split(b" ")[1] in (b"400", b"403", b"431") and b"Traceback" not in found
    assert live.get("/api/live/info")["model"] == "pocket"


def test_a_body_in_chunks_is_counted(live: Running) -> None:
    head = (
        f"POST /api/live/trace HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nX-Jaxinterp-Token: {TOKEN}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    ).encode()
    small = raw(live, head + b'e\r\n{"prompt": "z"\r\n1\r\n}\r\n0\r\n\r\n', end=False)
    assert small.startswith(b"HTTP/1.1 400") and b"outside the vocabulary" in small
    piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    assert raw(live, head + piece * 5 + b"0\r\n\r\n", end=False).startswith(b"HTTP/1.1 413")


def test_files_come_in_pieces_and_may_be_gone(live: Running) -> None:
    number = traced(live, prompt="paul reed met")["graph"]
    path = live.library.open(number).path
    whole = path.read_bytes()
    assert live.send("GET", f"/api/graph/{number}/file").body == whole
    part = live.send("GET", f"/api/graph/{number}/file", headers={"Range": "bytes=10-19"})
    assert part.status == 206 and part.body == whole[10:20]
    bare = live.send("HEAD", f"/api/graph/{number}/file")
    assert bare.body == b"" and bare.headers["content-length"] == str(len(whole))
    path.unlink()
    gone = live.send("GET", f"/api/graph/{number}/file")
    assert gone.status in (400, 404) and str(path.parent) not in gone.json()["error"]


def test_warming_up_can_be_stopped(live: Running) -> None:
    seen: list[str] = []
    with pytest.raises(Cancelled):
        live.tracer.warm(Report(lambda stage, fraction: seen.append(stage), lambda: bool(seen)))
    assert seen == ["preparing"]


def test_large_and_broken_bodies(live: Running) -> None:
    ours = {"X-Jaxinterp-Token": TOKEN}
    assert live.send("POST", "/api/live/trace", b"x" * (5 << 20), ours).status == 413
    assert (
        live.send("POST", "/api/live/trace", b"", {**ours, "Content-Length": "99999999999999999999"}).status
        == 413
    )
    assert live.send("POST", "/api/live/trace", b"[" * 100_000, ours).status == 400
    assert live.send("POST", "/api/live/trace", b"\xff\xfe", ours).status == 400
    assert live.get("/api/live/info")["model"] == "pocket"


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ("prompt", "tokens", "targets", "completion", "max_feature_nodes", "node_threshold", "x")
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values, max_size=4) | st.binary(max_size=40))
def test_nothing_sent_breaks_it(live: Running, body: Any) -> None:
    reply = live.page("/api/live/trace", body)
    if reply.status == 202:
        assert live.ended(reply.json()["job"])["state"] in ("done", "failed")
    else:
        assert reply.status == 400 and list(reply.json()) == ["error"], reply
        assert "internal" not in reply.json()["error"]
