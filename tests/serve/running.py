"""A live server with pocket on a free port of this machine, and a client that sends exactly what it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import jaxinterp as ji
from jaxinterp.serve.jobs import Jobs, Report
from jaxinterp.serve.live import Live
from jaxinterp.serve.neuronpedia import GraphServer, Settings
from jaxinterp.serve.server import Server
from jaxinterp.serve.tracer import Asked, Tracer
from jaxinterp.viewer.library import Library
from jaxinterp.viewer.pages import viewer_app
from jaxinterp.viewer.server import listen

TOKEN = "a-token-of-the-tests"
PROMPT = "emma stewart met paul reed , paul reed met emma"


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Held(Tracer):
    """A tracer that can be made to wait in the middle of a graph."""

    def __init__(self, model: Any, dictionary: Any, **more: Any) -> None:
        super().__init__(model, dictionary, **more)
        self.hold = False
        self.inside, self.go = threading.Event(), threading.Event()

    def graph(self, asked: Asked, report: Report) -> Any:
        """As always, but where it is held it waits after the first rows."""

        def told(stage: str, fraction: float | None) -> None:
            report(stage, fraction)
            if self.hold and stage == "tracing" and fraction:
                self.inside.set()
                assert self.go.wait(20)

        return super().graph(asked, Report(told, lambda: False))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Graphs begun in here wait until the end of it, or until ``go`` is set."""
        self.inside.clear()
        self.go.clear()
        self.hold = True
        try:
            yield
        finally:
            self.hold = False
            self.go.set()


class Running(NamedTuple):
    """What runs."""

    port: int
    tracer: Held
    jobs: Jobs
    library: Library
    folder: Path

    def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request as it is: ``body`` as JSON unless it is bytes, ``headers`` over those of a plain client."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            given = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
            if data is not None:
                given.setdefault("Content-Length", str(len(data)))
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON at an address."""
        found = self.send("GET", path)
        assert found.status == 200, found
        return found.json()

    def page(self, path: str, body: Any) -> Reply:
        """What the page sends."""
        return self.send("POST", path, body, {"X-Jaxinterp-Token": TOKEN})

    def ended(self, job: int) -> dict[str, Any]:
        """The last word on a job."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = self.get(f"/api/live/job/{job}")
            if found["state"] not in ("queued", "running"):
                return dict(found)
            time.sleep(0.01)
        raise AssertionError("the job does not end")


@contextmanager
def running(
    folder: Path, *, secret: str | None = None, target_files: Path | None = None
) -> Iterator[Running]:
    """Serve pocket until the end of the block."""
    tracer = Held(ji.load_model("pocket"), ji.load_dictionary("pocket"), target_files=target_files)
    jobs, library, listening = Jobs(most=2), Library(), listen("127.0.0.1", 0)
    port = listening.port
    app = viewer_app(library, token=TOKEN, port=port, live=True)
    Live(tracer, jobs, folder, library.add, model="pocket", dictionary="pocket").add(app)
    GraphServer(tracer, jobs, Settings(("pocket",), scan="pocket-4l", source_set="clt", secret=secret)).add(
        app
    )
    server = Server(app, jobs)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening.socket]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield Running(port, tracer, jobs, library, folder)
    finally:
        server.stop()
        thread.join(10)
        listening.server_close()
        assert jobs.close(10) and not thread.is_alive()
