"""Training by two real processes: with sums in fixed order the bytes of one, over features within rounding."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxinterp.training import metrics, train
from tests.faults.test_kills_in_training import content
from tests.support import ROOT
from tests.training import tiny_run


def launch(processes: int, jobs: list[Any]) -> list[dict[str, Any]]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(Path(__file__).with_name("train_worker.py")), address, str(processes)]
    started = [
        subprocess.Popen(
            [*command, str(index), json.dumps(jobs)], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for index in range(processes)
    ]  # fmt: skip
    found = []
    try:
        for process in started:
            out, errors = process.communicate(timeout=1500)
            assert process.returncode == 0, errors[-3000:]
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in started:
            process.kill()
    assert [one["devices"] for one in found] == [4] * processes
    return found


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    folder = tiny_run.make(tmp_path)
    exact = tiny_run.config(
        folder,
        "exact",
        reduce="exact",
        steps=6,
        sparsity={"method": "batch-top-k", "l0": 4, "pre_activation": 0},
    )
    plain = tiny_run.config(folder, "plain", steps=6)
    several = tiny_run.config(
        folder, "several", reduce="exact", steps=6, dictionaries={"a": {}, "b": {"seed": 2}}
    )
    jobs = [
        (str(exact), str(folder / "exact-2"), {"data": 4}),
        (str(several), str(folder / "several-2"), {"data": 4}),
        (str(plain), str(folder / "plain-2"), {"data": 2, "model": 2}),
        (str(exact), str(folder / "refused"), {"data": 2, "model": 2}),
    ]
    for one in launch(2, jobs):
        assert one["errors"][:3] == ["", "", ""]
        assert "the mesh has model=2" in one["errors"][3]
    for name, config in (("exact", exact), ("several", several), ("plain", plain)):
        train(config, out=folder / name, quiet=True)
    assert content(folder / "exact-2") == content(folder / "exact")
    for member in ("a", "b"):
        cards = [
            (folder / name / member / "dictionary/card.json").read_bytes()
            for name in ("several", "several-2")
        ]
        assert cards[0] == cards[1]
    one, two = (
        [row["loss"] for row in metrics.read(folder / name / "metrics.jsonl") if "loss" in row]
        for name in ("plain", "plain-2")
    )
    assert one == pytest.approx(two, rel=1e-3) and len(one) == 3
