"""Uvicorn on a socket that listens already, and a worker that is told to stop at once."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn

from jaxinterp.serve.jobs import Jobs
from jaxinterp.serve.web import application
from jaxinterp.viewer.routes import App

GRACE = 0.5  # seconds for work and for connections to end


class Server(uvicorn.Server):
    """Uvicorn with our application; when it is told to stop, so is the work.

    Args:
      app: the routes.
      jobs: the work.
      log: whether each request is written on the terminal.
    """

    def __init__(self, app: App, jobs: Jobs, *, log: bool = False) -> None:
        config = uvicorn.Config(
            application(app), http="h11", ws="none", lifespan="off", loop="asyncio", access_log=log,
            log_level="info" if log else "warning", server_header=False, date_header=False, proxy_headers=False,
            timeout_graceful_shutdown=1, timeout_keep_alive=30, limit_concurrency=200,
        )  # fmt: skip
        super().__init__(config)
        self.jobs = jobs

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends `run` in order, and a second SIGINT at once; neither is raised again afterwards."""
        del frame
        # In a thread: a signal may come while this one holds the lock of the jobs.
        threading.Thread(target=self.jobs.stop, daemon=True).start()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    def stop(self) -> None:
        """End `run` from another thread."""
        self.jobs.stop()
        self.should_exit = True


def serve(server: Server, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM.

    Work that does not hear (inside a compilation) is left where it is: the process ends without it, and nothing is half
    written, since files are renamed into place.
    """
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        if not server.jobs.close(GRACE):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
