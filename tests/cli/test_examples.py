"""The examples run and say what they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support import ROOT


def run(name: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_trace_a_prompt() -> None:
    text = run("trace_a_prompt.py")
    assert "replacement" in text
    assert "exact" in text


def test_compose_vmap_and_grad() -> None:
    """The derivative of an edge by the weights agrees with finite differences."""
    slopes = re.search(r"gradient: (\S+), by finite differences: (\S+)", run("compose_vmap_and_grad.py"))
    assert slopes is not None
    analytic, numeric = (float(x) for x in slopes.groups())
    assert analytic == pytest.approx(numeric, rel=0.02)
