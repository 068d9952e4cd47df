"""Tracing by several real processes: the file of each is, byte for byte, that of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxinterp.attribution import trace
from jaxinterp.checkpoints import save_model
from jaxinterp.dictionaries import save_dictionary
from jaxinterp.graphs import FEATURE, load_graph
from tests.attribution.cases import TOKENS, random_dictionary
from tests.pod.processes import free_address, together
from tests.support import tiny_model

CAPPED = {"family": "gpt2", "dictionary": "clt", "max_feature_nodes": 30, "rank_every": 8}
# Longer than any trace takes: no process stops, but they agree about it after every ranking.
TIMED = {"family": "llama", "dictionary": "skip-plt", "seconds": 3600.0, "rank_every": 16}
LONGER = {"family": "gemma2", "dictionary": "raw-clt", "tokens": list(range(3, 27))}


def launch(folder: Path, processes: int, devices: int, jobs: list[dict[str, Any]]) -> list[list[str]]:
    """What went wrong in each process, for each job."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("trace_worker.py")),
        free_address(),
        str(processes),
    ]
    commands = [
        [*command, str(index), str(folder), str(devices), json.dumps(jobs)] for index in range(processes)
    ]
    found = [json.loads(lines[-1]) for lines in together(commands, [{}] * processes, folder)]
    assert [one["devices"] for one in found] == [devices] * processes
    return [one["said"] for one in found]


def alone(path: Path, job: dict[str, Any], devices: int) -> bytes:
    """The file of this process, on so many of its devices."""
    job = dict(job)
    model = tiny_model(job.pop("family"))
    dictionary = random_dictionary(model, job.pop("dictionary"), dtype="float32")
    prompt = job.pop("tokens", TOKENS)
    trace(model, dictionary, prompt, devices=jax.devices()[:devices], **job).save(path)
    return path.read_bytes()


def test_two_processes_write_what_one_does(tmp_path: Path) -> None:
    """A capped graph, whose choice every ranking depends on; and weights over both processes, which are refused."""
    spread = {"family": "gpt2", "dictionary": "clt", "spread": True}
    for said in launch(tmp_path, 2, 2, [CAPPED, spread]):
        assert said[0] == ""
        assert "spread over several processes" in said[1]
    wanted = alone(tmp_path / "one.jigraph", CAPPED, 1)
    assert [(tmp_path / f"2-{index}-0.jigraph").read_bytes() for index in range(2)] == [wanted] * 2


@pytest.mark.slow
def test_any_number_of_processes_and_devices(tmp_path: Path) -> None:
    jobs = [CAPPED, TIMED, LONGER]
    wanted = [alone(tmp_path / "one.jigraph", job, 1) for job in jobs]
    for devices in (2, 4, 8):
        assert [alone(tmp_path / "some.jigraph", job, devices) for job in jobs] == wanted
    for processes, devices in ((1, 4), (2, 4), (4, 4), (2, 8)):
        assert launch(tmp_path, processes, devices, jobs) == [["", "", ""]] * processes
        for index in range(processes):
            for number, one in enumerate(wanted):
                assert (tmp_path / f"{processes}-{index}-{number}.jigraph").read_bytes() == one


@pytest.mark.slow
def test_when_one_has_no_time_left_all_stop(tmp_path: Path) -> None:
    launch(tmp_path, 2, 2, [{**TIMED, "hasty": True}])
    one, other = (load_graph(tmp_path / f"2-{index}-0.jigraph") for index in range(2))
    assert 0 < one.settings["max_feature_nodes"] == (one.nodes["kind"] == FEATURE).sum()
    assert one.settings["max_feature_nodes"] < one.settings["active_features"]
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.settings == other.settings


@pytest.mark.slow
def test_the_first_process_writes_and_prints(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    save_model(model, tmp_path / "model")
    save_dictionary(random_dictionary(model, "clt", dtype="float32"), tmp_path / "dictionary")
    command = [
        sys.executable, "-m", "jaxinterp.cli.main", "trace", "--model", "model", "--dictionary", "dictionary",
        "--quiet", "--tokens", ",".join(map(str, TOKENS)), "--out",
    ]  # fmt: skip
    where = {"JAXINTERP_PROCESSES": "2", "JAXINTERP_COORDINATOR": free_address()}
    settings = [{**where, "JAXINTERP_PROCESS": str(index)} for index in range(2)]
    said = together([[*command, "two.json", "--multihost"]] * 2, settings, tmp_path)
    assert said[0][-1] == "saved two.json" and said[1] == []
    together([[*command, "one.json"]], [{}], tmp_path)
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
