"""The loop: exact resume, signals, kills, faults."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import digest
from jaxinterp.training import LoopConfig, checkpoint, metrics, run
from tests.training.toy import task

LOOP = LoopConfig(log_every=5, evaluate_every=15, checkpoint_every=10)
ROOT = Path(__file__).resolve().parents[2]


def lines(out: Path) -> list[dict]:
    """The metrics without their times."""
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("cpu_seconds", None)
        line.get("final", {}).pop("cpu_seconds", None)
    return found


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(task(), steps=40, out=tmp_path / "a", seed=0, loop=LOOP, quiet=True)
    for steps in (17, 40):
        state = run(task(), steps=steps, out=tmp_path / "b", seed=0, loop=LOOP, quiet=True)
    assert digest(state) == digest(whole)
    assert [line for line in lines(tmp_path / "b") if line["step"] != 17] == lines(tmp_path / "a")
    assert (tmp_path / "a/result.json").read_text() == (tmp_path / "b/result.json").read_text()
    again = run(task(), steps=40, out=tmp_path / "b", seed=0, loop=LOOP, quiet=True)
    assert digest(again) == digest(whole)


def test_metrics_are_cut_back_to_the_restored_step(tmp_path: Path) -> None:
    run(task(), steps=10, out=tmp_path, seed=0, loop=LOOP, quiet=True)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 15, "loss": 9}\n{"step": 20, "lo')
    run(task(), steps=20, out=tmp_path, seed=0, loop=LOOP, quiet=True)
    found = lines(tmp_path)
    assert [line["step"] for line in found if "loss" in line] == [5, 10, 15, 20]
    assert all(line.get("loss") != 9 for line in found)


def start(out: Path, steps: int = 400, pause: float = 0.01) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.toy", str(out), str(steps), str(pause)]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )


def saved_steps(out: Path) -> list[int]:
    return sorted(int(p.name) for p in (out / "checkpoints").glob("*") if p.name.isdigit())


def wait_for(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not any(s >= step for s in saved_steps(out)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_kill_9_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    process = start(tmp_path / "killed", 100_000)
    wait_for(tmp_path / "killed", 20, process)
    process.kill()
    process.wait()
    left = tmp_path / "killed" / "checkpoints" / "99.orbax-checkpoint-tmp-1"
    left.mkdir()
    (left / "part").write_text("half")
    steps = saved_steps(tmp_path / "killed")[-1] + 15
    whole, state = (
        run(task(), steps=steps, out=tmp_path / name, seed=0, loop=LoopConfig(5, 0, 10), quiet=True)
        for name in ("whole", "killed")
    )
    assert not left.exists()
    assert digest(state) == digest(whole)


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    whole = run(task(), steps=300, out=tmp_path / "whole", seed=0, loop=LoopConfig(5, 0, 10), quiet=True)
    reported = 0
    for attempt in range(8):
        process = start(tmp_path / "killed", 300, 0.002)
        if attempt == 0:
            wait_for(tmp_path / "killed", 10, process)
        time.sleep(random.Random(attempt).uniform(0, 4))
        process.kill()
        text = process.communicate()[1]
        said = [int(line.rsplit(" ", 1)[1]) for line in text.splitlines() if "saved step" in line]
        reported = max([reported, *said])
        assert saved_steps(tmp_path / "killed")[-1] >= reported
    state = run(task(), steps=300, out=tmp_path / "killed", seed=0, loop=LoopConfig(5, 0, 10), quiet=True)
    assert digest(state) == digest(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, number: int) -> None:
    process = start(tmp_path / "out", 100_000)
    wait_for(tmp_path / "out", 10, process)
    process.send_signal(number)
    text = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Interrupted: stopped after step" in text
    step = int(text.split("stopped after step ")[1].split(",")[0])
    assert saved_steps(tmp_path / "out")[-1] == step
    assert f"saved step {step}" in text


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss of step 24 is not finite; step 20 is the last good state"):
        run(task(bad_step=23), steps=40, out=tmp_path, seed=0, loop=LOOP, quiet=True)
    assert saved_steps(tmp_path) == [10, 20]
    with pytest.raises(InputError, match="the loss of step 4 is not finite; nothing was saved"):
        run(task(bad_step=3), steps=40, out=tmp_path / "b", seed=0, loop=LOOP, quiet=True)


def test_resume_can_be_refused_and_seeds_must_agree(tmp_path: Path) -> None:
    run(task(), steps=10, out=tmp_path, seed=0, loop=LOOP, quiet=True)
    with pytest.raises(InputError, match="already holds a run at step 10"):
        run(task(), steps=20, out=tmp_path, seed=0, loop=LOOP, resume=False, quiet=True)
    with pytest.raises(InputError, match="with seed 0, not 1"):
        run(task(), steps=20, out=tmp_path, seed=1, loop=LOOP, quiet=True)
    with pytest.raises(InputError, match="beyond the 5 steps"):
        run(task(), steps=5, out=tmp_path, seed=0, loop=LOOP, quiet=True)


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write checkpoints to") as caught:
        run(task(), steps=5, out=tmp_path / "file", seed=0, quiet=True)
    assert "\n" not in str(caught.value)


def test_a_failed_save_keeps_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(task(), steps=10, out=tmp_path, seed=0, loop=LOOP, quiet=True)
    manager = checkpoint.open_folder(tmp_path / "checkpoints")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manager, "save", full)
    with pytest.raises(
        InputError, match=r"step 20 .* No space left on device; earlier checkpoints are whole"
    ):
        checkpoint.save(manager, 20, {"a": jnp.ones(2)}, {})
    assert saved_steps(tmp_path) == [10]


def test_a_checkpoint_of_another_shape_or_dtype_is_refused(tmp_path: Path) -> None:
    manager = checkpoint.open_folder(tmp_path)
    state = {"a": jnp.ones(2), "b": (jnp.zeros(3, jnp.bfloat16), jax.random.key(0))}
    checkpoint.save(manager, 1, state, {"step": 1})

    def abstract(**changes: object) -> dict:
        single = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(
            lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=single), {**state, **changes}
        )

    found, meta = checkpoint.restore(manager, 1, abstract())
    assert meta == {"step": 1} and found["b"][0].dtype == jnp.bfloat16
    assert jax.random.key_data(found["b"][1]).tolist() == jax.random.key_data(state["b"][1]).tolist()
    for changes, message in (
        ({"a": jnp.ones(3)}, r"a is float32 \(2,\), expected float32 \(3,\)"),
        ({"a": jnp.ones(2, jnp.int32)}, "expected int32"),
        ({"c": jnp.ones(2)}, "lacks 'c'"),
    ):
        with pytest.raises(InputError, match=message):
            checkpoint.restore(manager, 1, abstract(**changes))
    manager.close()


def test_metrics_hold_no_number_that_json_does_not_have(tmp_path: Path) -> None:
    out = metrics.Metrics(tmp_path / "m.jsonl")
    out.write(
        1, {"a": np.float32("nan"), "b": np.arange(2), "c": {"d": jnp.float32(0.5)}, "e": None, "f": "x"}
    )
    assert metrics.read(out.path) == [
        {"step": 1, "a": None, "b": [0, 1], "c": {"d": 0.5}, "e": None, "f": "x"}
    ]
