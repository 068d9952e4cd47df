"""The real server as a program of its own: `jaxinterp view FILE... --port 0`, on a free port of the loopback."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from tests.viewer.browser.chromium import ROOT

ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):(\d+)\S*")
START = 120.0  # seconds until a server that has not said where it is counts as failed


class Server:
    """A running `jaxinterp view`. started: time of its start; seconds: until it said where it is."""

    def __init__(self, *arguments: Any, port: int = 0, command: str = "view") -> None:
        words = [
            sys.executable,
            "-m",
            "jaxinterp.cli.main",
            command,
            *map(str, arguments),
            "--port",
            str(port),
        ]
        words += ["--no-browser"]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)}
        self.started = time.time()
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self._address()
        self.seconds = time.time() - self.started
        self.port = int(ADDRESS.search(self.url)[1])  # type: ignore[index]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _address(self) -> str:
        end = time.monotonic() + START
        while True:
            try:
                line = self.lines.get(timeout=max(0.1, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                self.stop()
                raise AssertionError(f"the server did not start: {''.join(self.said)}\n{self.complaints()}")
            self.said.append(line)
            found = ADDRESS.search(line)
            if found:
                return found[0].rstrip(".,)")

    def complaints(self) -> str:
        """What it wrote to its error stream."""
        self.errors.seek(0)
        return self.errors.read()

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C does; kill it if it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.errors.close()
