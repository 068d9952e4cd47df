"""``jaxinterp view`` as a program: without jax, with an address, an end, and clear lines for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

from jaxinterp.cli import view
from jaxinterp.cli.main import main
from tests.graphs.graph_examples import random_graph
from tests.support import ROOT

NO_JAX = """
import sys
from jaxinterp.cli.main import main
code = main(sys.argv[1:])
print("jax" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def graph(tmp_path):
    random_graph(0).save(tmp_path / "graph.json")
    return tmp_path / "graph.json"


def program(*words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    return subprocess.Popen(
        [sys.executable, "-c", NO_JAX, "view", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_without_jax_until_interrupted(graph, number):
    running = program(graph, "--json", "--port", "0")
    first = json.loads(running.stdout.readline())
    assert first["files"][0]["file"] == "graph.json"
    address = first["url"]
    assert address.startswith("http://127.0.0.1:")
    for path in ("", "api/files", "api/graph/0/bundle", "api/graph/0/report", "assets/page.js"):
        with urllib.request.urlopen(address + path, timeout=10) as answer:
            assert answer.status == 200
            assert answer.read()
    running.send_signal(number)
    out, errors = running.communicate(timeout=10)
    assert running.returncode == 0
    assert out == ""
    assert errors == "False\n"


def test_importing_the_viewer_imports_no_jax():
    code = (
        "import sys, pkgutil, importlib, jaxinterp.viewer as v\n"
        "for m in pkgutil.iter_modules(v.__path__): importlib.import_module('jaxinterp.viewer.' + m.name)\n"
        "print('jax' in sys.modules, 'matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_port_in_use(graph, capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", str(graph), "--port", str(port), "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"port {port} is in use" in error


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "which graph"),
        (["gone.json"], "no such file"),
        (["{folder}/broken.json"], "not JSON"),
        (["{folder}/empty"], "no .json or .jigraph file"),
        (["{graph}", "--host", "0.0.0.0"], "--anyone"),
        (["{graph}", "--features", "gone"], "gone"),
        (["{graph}", "--model", "pocket"], "both --model and --dictionary"),
        (["{graph}", "--export", "x.txt"], "ending in .html or .json or .jigraph"),
        (["{graph}", "--export", "gone/x.html"], "no folder"),
        (["{graph}", "{other}", "--export", "{folder}/x.json"], "holds one graph"),
        (["--export", "{folder}/x.json"], "which graph"),
    ],
)
def test_one_clear_line(graph, tmp_path, capsys, words, text):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty").mkdir()
    random_graph(1).save(tmp_path / "other.json")
    names = {"graph": graph, "folder": tmp_path, "other": tmp_path / "other.json"}
    assert main(["view", *(word.format(**names) for word in words), "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert text in error


def test_live_mode_names_the_extra_that_is_missing(graph, capsys, monkeypatch):
    for name in ("uvicorn", "starlette", "anyio"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("jaxinterp.serve")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["view", str(graph), "--model", "pocket", "--dictionary", "pocket", "--no-browser"]) == 2
    assert "pip install 'jaxinterp[serve]'" in capsys.readouterr().err


def test_exports(graph, tmp_path, capsys):
    for ending in ("html", "json", "jigraph"):
        out = tmp_path / f"out.{ending}"
        assert main(["view", str(graph), "--export", str(out)]) == 0
        assert out.stat().st_size > 1000
    random_graph(1).save(tmp_path / "b.json")
    both = tmp_path / "both.html"
    assert main(["view", str(graph), str(tmp_path / "b.json"), "--export", str(both), "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["graphs"] == 2
    assert b"jaxinterp-data" in both.read_bytes()


def test_addresses():
    assert view.address("127.0.0.1", 5) == view.address("localhost", 5) == "http://127.0.0.1:5/"
    assert view.address("::1", 5) == "http://[::1]:5/"
