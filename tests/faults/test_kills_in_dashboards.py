"""A run of dashboards that is killed anywhere, several times, ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxinterp.dashboards import own

WORK = """
import sys
from jaxinterp.activations.text import TextConfig
from jaxinterp.checkpoints import load_model
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.interpret import DashboardConfig, make_dashboards
text = TextConfig("jaxinterp.biology.pocket.mixture:batch", length=64)
config = DashboardConfig(tokens=40_000, text=text, top=3, quantiles=2, in_quantile=1, before=8, after=2, microbatch=8)
make_dashboards(load_model("pocket"), load_dictionary("pocket"), config, sys.argv[1], save_every=0.0)
"""


@pytest.mark.slow
def test_killed_at_random(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK]
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    wanted = own.digest(tmp_path / "whole")
    state = tmp_path / "killed" / ".progress" / "state.npz"
    draw, killed = random.Random(0), 0
    for _ in range(6):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen([*command, str(tmp_path / "killed")])
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.4))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    assert killed >= 2
    assert own.digest(tmp_path / "killed") == wanted
    assert not (tmp_path / "killed" / ".progress").exists()
