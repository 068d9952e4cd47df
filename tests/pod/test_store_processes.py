"""Collection by several real processes: the same bytes for one, two and four, and one's failure stops them all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.activations.collect import CollectConfig, collect
from jaxinterp.activations.text import TextConfig
from jaxinterp.checkpoints import load_model, save_model
from tests.activations.store_cases import content
from tests.support import ROOT, tiny_model

SIZES = {
    "batches": 14, "microbatch": 2, "shard_batches": 2, "sites": ["mlp_in", "resid_post@1"],
    "text": {"source": "", "length": 8, "batch": 4, "start": -1},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("processes")
    save_model(tiny_model("llama", n_kv_heads=4), place / "model")
    np.save(place / "ids.npy", np.random.default_rng(0).integers(0, 40, 3000))
    return place


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**SIZES, "text": {**SIZES["text"], "source": str(folder / "ids.npy")}, **changes}


def alone(folder: Path, out: str, **changes: Any) -> dict[str, str]:
    """The store that this process makes on one device."""
    plain = settings(folder, **changes)
    config = CollectConfig(**{**plain, "sites": tuple(plain["sites"]), "text": TextConfig(**plain["text"])})
    return content(collect(load_model(folder / "model"), config, folder / out).folder)


def launch(folder: Path, processes: int, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each process said."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(Path(__file__).with_name("store_worker.py")), address, str(processes)]
    started = [
        subprocess.Popen(
            [*command, str(index), str(folder), json.dumps(jobs)], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for index in range(processes)
    ]  # fmt: skip
    found = []
    try:
        for process in started:
            out, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors[-3000:]
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in started:
            process.kill()
    assert {one["devices"] for one in found} == {4}
    return found


def test_two_processes_write_what_one_does(folder: Path) -> None:
    """Finished by two; begun by two of which one meets a full disk, and finished by one; a model over two processes."""
    data, int8 = settings(folder), settings(folder, dtype="int8")
    jobs = [
        {"out": "two", "config": data, "mesh": {"data": 4}},
        {"out": "two-int8", "config": int8, "mesh": {"data": 4}},
        {"out": "stopped", "config": data, "mesh": {"data": 4}, "fail": 1},
        {"out": "divided", "config": data, "mesh": {"data": 1, "model": 4}},
        {"out": "stopped", "config": {**data, "dtype": "bfloat16"}, "mesh": {"data": 4}},
    ]
    found = launch(folder, 2, jobs)
    wanted = alone(folder, "one")
    assert content(folder / "two") == wanted
    assert content(folder / "two-int8") == alone(folder, "one-int8", dtype="int8")
    for one in found:
        assert [bool(error) for error in one["jobs"]] == [False, False, True, False, True]
    assert "another process could not go on" in found[0]["jobs"][2]
    assert "cannot write shard 5" in found[1]["jobs"][2] and "no space left" in found[1]["jobs"][2]
    assert "layout.dtype: 'float32' there, 'bfloat16' here" in found[0]["jobs"][4]
    assert "process 0 cannot prepare the store" in found[1]["jobs"][4]
    # What was reported saved is there, and one process goes on with what two began.
    assert sorted(p.name for p in (folder / "stopped").glob("ledger*")) == [
        "ledger.00000.jsonl",
        "ledger.00001.jsonl",
    ]
    assert alone(folder, "stopped") == wanted
    from jaxinterp.activations.store_reader import Store

    whole, divided = Store(folder / "one"), Store(folder / "divided")
    np.testing.assert_allclose(
        divided.read("mlp_in", slice(None)), whole.read("mlp_in", slice(None)), atol=2e-5
    )


@pytest.mark.slow
def test_four_processes_write_what_one_does(folder: Path) -> None:
    launch(folder, 4, [{"out": "four", "config": settings(folder), "mesh": {"data": 4}}])
    assert content(folder / "four") == alone(folder, "one")
