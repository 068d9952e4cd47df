"""Training killed with signal 9 at random moments ends with the bytes of a run that never was."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.training import metrics
from tests.support import ROOT
from tests.training import tiny_run

STEPS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a store of its activations, and a run in which saving takes as long as everything else."""
    from jaxinterp.activations.collect import CollectConfig, collect
    from jaxinterp.activations.text import TextConfig
    from jaxinterp.checkpoints import load_model

    place = tiny_run.make(tmp_path_factory.mktemp("killed"))
    np.save(place / "ids.npy", np.random.default_rng(0).integers(0, 23, 3000))
    text = TextConfig(source=str(place / "ids.npy"), length=16, batch=16, start=-1)
    sites = ("mlp_normalized", "mlp_out")
    collect(load_model(place / "model"), CollectConfig(4, sites, text, shard_batches=2), place / "store")
    return place


def start(config: Path, out: Path, devices: int = 1) -> subprocess.Popen[str]:
    """The program, with compiled steps kept between its starts."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(config.parent / "compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.training.tiny_run", str(config), str(out), str(devices)]
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors[-2000:]


def content(out: Path) -> dict[str, Any]:
    """The dictionary's files and the rows of metrics without CPU seconds."""
    rows = metrics.read(out / "metrics.jsonl")
    for row in rows:
        row.pop("cpu_seconds", None)
        row.get("final", {}).pop("cpu_seconds", None)
    files = {p.name: p.read_bytes() for p in sorted((out / "dictionary").glob("*")) if p.is_file()}
    assert len(files) > 1
    return {"metrics": rows, **files}


def saved(out: Path) -> list[int]:
    return sorted(int(p.name) for p in (out / "checkpoints").glob("*") if p.name.isdigit())


def killed(config: Path, out: Path, kills: int, devices: tuple[int, ...]) -> None:
    """Train with so many kills; each comes at a random moment after the run said that it goes on."""
    moments, counts = random.Random(kills), itertools.cycle(devices)
    done = told = 0
    while done < kills:
        process = start(config, out, next(counts))
        deadline = time.monotonic() + 300
        before = saved(out)
        while process.poll() is None and saved(out) == before and time.monotonic() < deadline:
            time.sleep(0.01)  # to the first step that this start has saved
        time.sleep(moments.uniform(0, 0.5))
        if process.poll() is None:
            process.kill()
            done += 1
        errors = process.communicate()[1]
        assert process.returncode in (0, -9), errors[-2000:]
        said = [int(line.rsplit(" ", 1)[1]) for line in errors.splitlines() if "saved step" in line]
        told = max([told, *said])
        assert not said or saved(out)[-1] >= told  # nothing is lost that was reported saved
        if process.returncode == 0:  # it had ended: begin again
            import shutil

            shutil.rmtree(out)
            told = 0
    finish(start(config, out, next(counts)))
    assert not list((out / "checkpoints").glob("*tmp*"))


def settings(stored: bool, folder: Path, name: str, **changes: Any) -> Path:
    source = {"store": str(folder / "store"), "stored": {"window": 2}} if stored else {}
    text = {"source": str(folder / "ids.npy"), "length": 16, "batch": 16, "start": -1, "limit": 4}
    loop = {"log_every": 1, "checkpoint_every": 3, "keep": 2}
    return tiny_run.config(folder, name, **{"steps": STEPS, "text": text, "loop": loop, **source, **changes})


def test_a_kill(folder: Path) -> None:
    config = settings(False, folder, "streamed")
    finish(start(config, folder / "whole"))
    killed(config, folder / "killed", 1, (1,))
    assert content(folder / "killed") == content(folder / "whole")


@pytest.mark.slow
def test_twenty_kills_of_a_run_from_a_store_in_fixed_order_on_1_2_4_and_8_devices(folder: Path) -> None:
    """Every start has another number of devices, and dead features are restarted."""
    config = settings(
        True, folder, "stored", reduce="exact", steps=400,
        sparsity={"method": "batch-top-k", "l0": 4, "pre_activation": 0}, resample={"every": 7, "dead_after": 5},
    )  # fmt: skip
    finish(start(config, folder / "exact"))
    killed(config, folder / "exact-killed", 20, (1, 8, 2, 4))
    assert content(folder / "exact-killed") == content(folder / "exact")


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_twenty_kills_of_a_streamed_run(folder: Path, devices: int) -> None:
    config = settings(False, folder, "long", steps=400)
    finish(start(config, folder / f"long-{devices}", devices))
    killed(config, folder / f"long-killed-{devices}", 20, (devices,))
    assert content(folder / f"long-killed-{devices}") == content(folder / f"long-{devices}")
