"""Programs that are started together and end together."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import ROOT


def free_address() -> str:
    """Where a coordinator can listen."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def together(
    commands: Sequence[Sequence[str]], settings: Sequence[Mapping[str, str]], folder: Path
) -> list[list[str]]:
    """What each program prints, by lines, Gloo's own left out; all have to succeed.

    Args:
      settings: of each program, environment variables besides those that are here.
      folder: where they run.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            command, env={**environment, **own}, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for command, own in zip(commands, settings, strict=True)
    ]  # fmt: skip
    found = []
    try:
        for process in started:
            out, errors = process.communicate(timeout=550)
            assert process.returncode == 0, errors[-3000:]
            found.append([line for line in out.splitlines() if not line.startswith("[Gloo]")])
    finally:
        for process in started:
            process.kill()
    return found
