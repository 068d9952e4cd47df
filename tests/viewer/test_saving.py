"""Saving: atomic, counted, refused where it would overwrite what was not seen or cannot be written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.graphs import load_graph
from jaxinterp.viewer import saving
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.messages import Refused
from jaxinterp.viewer.view import empty
from tests.graphs.graph_examples import random_graph
from tests.viewer.graphs_to_view import app_for, ask, chain, told


@pytest.fixture(params=["json", "jigraph"])
def path(request, tmp_path):
    place = tmp_path / f"graph.{request.param}"
    random_graph(0).save(place)
    return place


def pinned(*nodes):
    return {**empty(), "pinned": list(nodes)}


def test_autosave_then_save_then_reopen(path):
    opened = Library([path]).open(0)
    assert opened.current().saved_from == "none"
    before = path.read_bytes()
    assert opened.save(pinned(1), 0, into_file=False) == 1
    assert path.read_bytes() == before
    again = Library([path]).open(0).current()
    assert (again.view["pinned"], again.revision, again.saved_from) == ([1], 1, "sidecar")
    assert opened.save(pinned(1, 2), 1, into_file=True) == 2
    assert not saving.sidecar(path).exists()
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]
    again = Library([path]).open(0).current()
    assert (again.view["pinned"], again.revision, again.saved_from) == ([1, 2], 2, "file")
    # the graph itself is untouched
    old, new = random_graph(0), load_graph(path)
    assert new.nodes.tobytes() == old.nodes.tobytes()
    assert new.weights.tobytes() == old.weights.tobytes()
    assert new.labels == old.labels


def test_two_windows(path):
    app = app_for(path)
    first = {"revision": 0, "view": {"pinned": [1]}}
    assert told(ask(app, "/api/graph/0/autosave", first)) == {"revision": 1, "where": "sidecar"}
    late = ask(app, "/api/graph/0/autosave", {"revision": 0, "view": {"pinned": [2]}})
    assert late.status == 409
    assert told(late)["revision"] == 1
    assert "another window" in told(late)["error"]
    assert told(ask(app, "/api/graph/0/save", {"revision": 1, "view": {"pinned": [3]}}))["where"] == "file"
    assert ask(app, "/api/graph/0/save", {"revision": 1, "view": {"pinned": [4]}}).status == 409
    assert Library([path]).open(0).current().view["pinned"] == [3]


def test_two_programs(path):
    one, two = Library([path]).open(0), Library([path]).open(0)
    one.save(pinned(1), 0, into_file=False)
    with pytest.raises(Refused) as refused:
        two.save(pinned(2), 0, into_file=False)
    assert refused.value.status == 409
    assert two.current().view["pinned"] == [1]


def test_another_graph_in_the_file_refuses_the_old_page(path):
    app = app_for(path)
    assert ask(app, "/api/graph/0/bundle").status == 200
    assert ask(app, "/api/graph/0/autosave", {"revision": 0, "view": {"pinned": [1]}}).status == 200
    random_graph(9, layers=4).save(path)  # traced anew: numbers mean other nodes
    found = ask(app, "/api/graph/0/autosave", {"revision": 1, "view": {"pinned": [2]}})
    assert found.status == 409
    newest = told(found)["revision"]
    assert ask(app, "/api/graph/0/autosave", {"revision": newest, "view": {"pinned": [2]}}).status == 200


def test_a_sidecar_that_is_older_than_the_file_is_left(path):
    opened = Library([path]).open(0)
    opened.save(pinned(1), 0, into_file=False)
    old = saving.sidecar(path).read_bytes()
    opened.save(pinned(2), 1, into_file=True)
    saving.sidecar(path).write_bytes(old)  # as if killed between writing the file and removing the sidecar
    assert Library([path]).open(0).current().view["pinned"] == [2]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"jaxinterp_view": 9}', b"\xff\xfe", b"[" * 100_000])
def test_a_broken_sidecar_is_said(path, content):
    saving.sidecar(path).write_bytes(content)
    found = Library([path]).open(0).current()
    assert found.saved_from == "none"
    assert len(found.notes) == 1
    assert "was not used" in found.notes[0]
    warnings = told(ask(app_for(path), "/api/graph/0/report"))["warnings"]
    assert any("was not used" in line for line in warnings)


def test_read_only_folder(path):
    path.parent.chmod(0o555)
    try:
        app = app_for(path)
        for where in ("autosave", "save"):
            found = ask(app, f"/api/graph/0/{where}", {"revision": 0, "view": {}})
            assert found.status == 423
            assert "read-only" in told(found)["error"]
            assert str(path.parent) not in told(found)["error"]
    finally:
        path.parent.chmod(0o755)


def test_full_disk(path, monkeypatch):
    def full(*args, **kwargs):
        raise InputError(f"cannot write {path}: No space left on device") from OSError(
            28, "No space left on device"
        )

    monkeypatch.setattr(saving, "write_json", full)
    found = ask(app_for(path), "/api/graph/0/autosave", {"revision": 0, "view": {}})
    assert found.status == 423
    assert "No space left on device" in told(found)["error"]


def test_private_files_stay_private(path):
    path.chmod(0o600)
    opened = Library([path]).open(0)
    opened.save(pinned(1), 0, into_file=False)
    assert saving.sidecar(path).stat().st_mode & 0o777 == 0o600
    opened.save(pinned(1), 1, into_file=True)
    assert path.stat().st_mode & 0o777 == 0o600


def test_saving_through_a_link_changes_the_file(tmp_path):
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "g.json", tmp_path / "link.json"
    chain().save(real)
    link.symlink_to(real)
    Library([link]).open(0).save(pinned(1), 0, into_file=True)
    assert link.is_symlink()
    assert load_graph(real).view["pinnedIds"] == load_graph(link).view["pinnedIds"] != []


WORKER = """
import sys, itertools
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.view import empty
opened = Library([sys.argv[1]]).open(0)
revision = opened.current().revision
print("ready", flush=True)
for step in itertools.count():
    n = len(opened.graph)
    view = {**empty(), "pinned": list(range(revision % n + 1)), "notes": "x" * 20_000}
    revision = opened.save(view, revision, into_file=step % int(sys.argv[2]) == 0)
    print(revision, flush=True)
"""


def killed_at_random(path: Path, rounds: int, every: int, seed: int) -> None:
    draw = random.Random(seed)
    whole = load_graph(path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for _ in range(rounds):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(every)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.0, 0.15))
        worker.send_signal(signal.SIGKILL)
        said = worker.stdout.read().split()
        worker.wait()
        graph = load_graph(path)  # whole, at any moment
        assert graph.nodes.tobytes() == whole.nodes.tobytes()
        assert graph.weights.tobytes() == whole.weights.tobytes()
        now = Library([path]).open(0).current()
        assert not now.notes
        # what was answered is there; at most one more was under way
        last = int(said[-1]) if said else 0
        assert now.revision in (last, last + 1) or not said
        if now.revision:
            assert len(now.view["pinned"]) == (now.revision - 1) % len(graph) + 1
            assert now.view["notes"] == "x" * 20_000


def test_killed_while_saving(path):
    killed_at_random(path, rounds=2, every=3, seed=1)


@pytest.mark.slow
def test_killed_while_saving_often(path):
    killed_at_random(path, rounds=40, every=2, seed=2)


def test_what_killed_saves_left_is_swept(path):
    old, new = path.with_name(f".{path.name}.a1.tmp"), path.with_name(f".{path.name}.view.json.b2.tmp")
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (1, 1))
    Library([path]).open(0).save(pinned(1), 0, into_file=True)
    assert not old.exists()
    assert new.exists()  # another program may be at it


def test_documents_are_json_with_ids(path):
    opened = Library([path]).open(0)
    opened.save(pinned(3), 0, into_file=False)
    document = json.loads(saving.sidecar(path).read_text())
    assert document["file"] == path.name
    assert document["qParams"]["pinnedIds"] == [opened.names.ids[3]]
