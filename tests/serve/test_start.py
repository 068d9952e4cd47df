"""``jaxinterp view --model``: starting, what can be wrong with it, and ending, also in the middle of work."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jaxinterp.cli.main import main
from tests.support import ROOT

POCKET = ["view", "--model", "pocket", "--dictionary", "pocket", "--no-browser"]
PATIENCE = 10.0  # seconds to end, on a machine that is busy; alone it takes under one


@contextmanager
def started(*more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program and its address, once it answers."""
    program = subprocess.Popen(
        [sys.executable, "-m", "jaxinterp.cli.main", *POCKET, "--port", "0", "--json", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert program.stdout is not None
        port = json.loads(program.stdout.readline())["url"].rstrip("/").rpartition(":")[2]
        yield program, f"http://127.0.0.1:{port}/"
    finally:
        program.kill()
        program.communicate()


def ask(url: str, body: Any = None, **headers: str) -> Any:
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


def ended(program: subprocess.Popen[str], number: int) -> str:
    """Send a signal; the program ends in order and soon. What it wrote to stderr."""
    begun = time.monotonic()
    program.send_signal(number)
    _, errors = program.communicate(timeout=30)
    assert time.monotonic() - begun < PATIENCE
    assert program.returncode == 0 and "Traceback" not in errors, errors
    return errors


def token(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as page:
        text = page.read().decode()
    return str(text.split('name="jaxinterp-token" content="')[1].split('"')[0])


def test_from_the_command_line_to_a_graph_and_to_the_end(tmp_path: Path) -> None:
    out = tmp_path / "new" / "graphs"
    with started("--out", str(out), "--no-warm-up", "--secret", "s", "--model-id", "mine") as (program, url):
        job = ask(f"{url}api/live/trace", {"prompt": "paul reed met"}, **{"X-Jaxinterp-Token": token(url)})[
            "job"
        ]
        while (status := ask(f"{url}api/live/job/{job}"))["state"] in ("queued", "running"):
            time.sleep(0.02)
        assert status["state"] == "done"
        [listed] = ask(f"{url}api/files")["files"]
        assert (listed["id"], listed["prompt"], listed["error"]) == (status["graph"], "paul reed met", None)
        assert [path.name for path in out.iterdir()] == [listed["file"]]
        assert ask(f"{url}api/graph/{status['graph']}/report")["reading"]["text"]
        steer = {"model_id": "mine", "features": []}
        assert "steering" in ask(f"{url}steer", steer, **{"x-secret-key": "s"})["error"]
        # And out in the middle of the next one.
        long = {"prompt": "emma stewart met paul reed , paul reed met emma " * 4}
        assert ask(f"{url}api/live/trace", long, **{"X-Jaxinterp-Token": token(url)})["job"]
        errors = ended(program, signal.SIGINT)
    assert str(out) in errors and [path.name for path in out.iterdir()] == [listed["file"]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_while_it_compiles(number: int, tmp_path: Path) -> None:
    with started("--out", str(tmp_path)) as (program, url):
        assert ask(f"{url}api/live/info")["model"] == "pocket"
        ended(program, number)
    assert not list(tmp_path.iterdir())


def refused(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main([*POCKET, *more]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and errors.startswith("jaxinterp view: ")
    return errors


def test_a_port_in_use_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} is in use" in refused(capsys, "--port", str(port))


def test_what_can_be_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    free = ("--port", "0")
    assert "there is no such folder" in refused(capsys, *free, "--target-files", str(tmp_path / "none"))
    assert "--out" in refused(capsys, *free, "--out", str(tmp_path / "file" / "below"))
    assert "none.json" in refused(capsys, *free, str(tmp_path / "none.json"))
    assert main(["view", "--model", "pocket"]) == 2
    assert "both --model and --dictionary" in capsys.readouterr().err
    assert main(["view", "--model", str(tmp_path), "--dictionary", "pocket", *free, "--no-browser"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for name in [name for name in sys.modules if name.split(".")[0] in ("starlette", "uvicorn")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("jaxinterp.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'jaxinterp[serve]'" in refused(capsys, *free)


@pytest.mark.slow
def test_other_machines_reach_neuronpedia_s_routes_with_a_secret_only(tmp_path: Path) -> None:
    open_to_all = ("--host", "0.0.0.0", "--anyone", "--no-warm-up", "--out", str(tmp_path))
    body = {"prompt": "paul reed met"}
    with started(*open_to_all) as (program, url):
        assert "nothing at this address" in ask(f"{url}forward-pass", body)["error"]
        errors = ended(program, signal.SIGINT)
    assert "WARNING: anyone who can reach" in errors
    with started(*open_to_all, "--secret", "s") as (program, url):
        assert "x-secret-key" in ask(f"{url}forward-pass", body)["error"]
        assert ask(f"{url}forward-pass", body, **{"x-secret-key": "s"})["salient_logits"]
        ended(program, signal.SIGINT)
