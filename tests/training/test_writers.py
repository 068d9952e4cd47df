"""Copies of the metrics for TensorBoard and Weights & Biases: every point once, whatever was interrupted."""

from __future__ import annotations

import builtins
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.training.metrics import Metrics, open_metrics
from jaxinterp.training.writers import scalars

TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    TABLE.append(number)


def masked(data: bytes) -> int:
    """The checksum of the format of records: crc32c (Castagnoli), turned by 15 bits, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def fields(data: bytes) -> list[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields."""

    def whole() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    at, found = 0, []
    while at < len(data):
        key = whole()
        kind = key & 7
        if kind == 0:
            found.append((key >> 3, whole()))
            continue
        size = {1: 8, 5: 4}.get(kind) or whole()
        found.append((key >> 3, data[at : at + size]))
        at += size
    return found


def points(folder: Path) -> list[tuple[str, int, float]]:
    """Every (tag, step, value) of the event files in a folder, read without the library that wrote them."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            header = data[at : at + 8]
            (size,) = struct.unpack("<Q", header)
            assert struct.unpack("<I", data[at + 8 : at + 12])[0] == masked(header)
            record = data[at + 12 : at + 12 + size]
            assert struct.unpack("<I", data[at + 12 + size : at + 16 + size])[0] == masked(record)
            at += 16 + size
            event = dict(fields(record))
            for number, summary in fields(event.get(5, b"")):
                assert number == 1
                value = dict(fields(summary))
                found.append((value[1].decode(), event.get(2, 0), struct.unpack("<f", value[2])[0]))
    return found


def run(metrics: Metrics, start: int, stop: int) -> None:
    """What a loop does from one checkpoint to another step."""
    metrics.truncate(start)
    for step in range(start + 1, stop + 1):
        metrics.write(step, {"loss": [1.0 / step, float("nan")], "rate": 0.5 * step})
        if step % 2 == 0:
            metrics.write(step, {"evaluation": {"fve": 1 - 1 / step, "name": "x"}})
    metrics.sync()


def test_event_files_hold_every_point_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    first = open_metrics(tmp_path, tensorboard=True)
    run(first, 0, 5)
    first.sync()  # and killed here: nothing is closed, and the newest checkpoint is that of step 3
    second = open_metrics(tmp_path, tensorboard=True)
    run(second, 3, 6)
    second.truncate(6)
    second.write(6, {"final": {"fve": 0.75}})
    second.close()
    expected = [(f"loss/{0}", step, 1 / step) for step in range(1, 7)]
    expected += [("rate", step, 0.5 * step) for step in range(1, 7)]
    expected += [("evaluation/fve", step, 1 - 1 / step) for step in (2, 4, 6)]
    expected += [("final/fve", 6, 0.75)]
    found = points(tmp_path / "tensorboard")
    assert sorted((tag, step) for tag, step, _ in found) == sorted((tag, step) for tag, step, _ in expected)
    values = {(tag, step): value for tag, step, value in found}
    for tag, step, value in expected:
        assert values[tag, step] == pytest.approx(value, rel=1e-6)


class FakeRun:
    """A run as the service keeps it: a log of a step that is past is not taken."""

    def __init__(self, settings: dict[str, Any], rows: dict[int, dict[str, float]]) -> None:
        self.settings, self.rows, self.finished = settings, rows, False
        self.step = max(rows) + 1 if rows else 0

    def log(self, values: dict[str, float], step: int) -> None:
        assert step >= self.step, "sent twice"
        row = self.rows.setdefault(step, {})
        assert not set(row) & set(values), "sent twice"
        row.update(values)
        self.step = step

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A module ``wandb`` whose runs are kept by id."""
    kept: dict[str, Any] = {"rows": {}, "runs": []}

    def init(**settings: Any) -> FakeRun:
        made = FakeRun(settings, kept["rows"].setdefault(settings["id"], {}))
        kept["runs"].append(made)
        return made

    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return kept


def test_a_resumed_run_goes_on_with_the_same_run(tmp_path: Path, service: dict[str, Any]) -> None:
    (tmp_path / "config.yaml").write_text("steps: 6\n")
    run(open_metrics(tmp_path, wandb="my-project"), 0, 5)
    second = open_metrics(tmp_path, wandb="my-project")
    run(second, 3, 6)
    second.close()
    (rows,) = service["rows"].values()
    assert sorted(rows) == [1, 2, 3, 4, 5, 6]
    assert rows[4] == {"loss/0": 0.25, "rate": 2.0, "evaluation/fve": 0.75}
    settings = [made.settings for made in service["runs"]]
    assert settings[0] == settings[1]
    assert settings[0]["project"] == "my-project" and settings[0]["resume"] == "allow"
    assert settings[0]["config"] == {"steps": 6}
    assert service["runs"][1].finished


def test_lines_that_the_service_never_got_are_sent_again(tmp_path: Path, service: dict[str, Any]) -> None:
    run(open_metrics(tmp_path, wandb="p"), 0, 4)
    (rows,) = service["rows"].values()
    del rows[3], rows[4]  # lost with the machine
    run(open_metrics(tmp_path, wandb="p"), 4, 5)
    assert sorted(rows) == [1, 2, 3, 4, 5]


def test_names_of_numbers() -> None:
    line = {
        "step": 3,
        "a": {"b": [1, None, 2.5], "text": "x", "yes": True},
        "long": [0.0] * 300,
        "c": {"step": 4},
    }
    assert dict(scalars(line)) == {"a/b/0": 1.0, "a/b/2": 2.5, "c/step": 4.0}


@pytest.mark.parametrize(
    ("option", "extra"), [({"tensorboard": True}, "tensorboard"), ({"wandb": "p"}, "wandb")]
)
def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, Any], extra: str
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name in ("tensorboardX", "wandb"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=rf"pip install 'jaxinterp\[{extra}\]'"):
        open_metrics(tmp_path, **option)


def test_a_service_that_refuses_is_one_line(
    tmp_path: Path, service: dict[str, Any], monkeypatch: Any
) -> None:
    def refuse(**settings: Any) -> None:
        raise RuntimeError("no network\nand a long story")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(InputError, match=r"loop\.wandb: the run cannot be opened: no network$"):
        run(open_metrics(tmp_path, wandb="p"), 0, 1)
    (tmp_path / "wandb.json").write_text("[]")
    with pytest.raises(InputError, match=r"wandb\.json is not the record of a run"):
        run(open_metrics(tmp_path, wandb="p"), 0, 1)


def test_a_training_run_writes_them(tmp_path: Path) -> None:
    """Stopped and gone on with, and finished again: each point once, the figures at the end too."""
    pytest.importorskip("tensorboardX")
    import jax.numpy as jnp

    from jaxinterp.training.loop import LoopConfig, Task
    from jaxinterp.training.loop import run as train

    task = Task(
        init=lambda key: {"w": jnp.zeros(())},
        batch=lambda step: jnp.asarray(float(step)),
        step=lambda state, batch: ({"w": state["w"] + batch}, {"loss": state["w"]}),
        evaluate=lambda state: {"fve": 0.5},
        finish=lambda state, out: {"fve": 0.75},
    )
    loop = LoopConfig(log_every=1, evaluate_every=2, checkpoint_every=2, tensorboard=True)
    train(task, steps=3, out=tmp_path, seed=0, loop=loop, quiet=True)
    train(task, steps=5, out=tmp_path, seed=0, loop=loop, quiet=True)
    found = [(tag, step) for tag, step, _ in points(tmp_path / "tensorboard") if tag != "cpu_seconds"]
    expected = [("loss", step) for step in range(1, 6)] + [("evaluation/fve", 2), ("evaluation/fve", 4)]
    assert sorted(t for t in found if not t[0].startswith("final")) == sorted(expected)
    assert [t for t in found if t[0] == "final/fve"] == [("final/fve", 5)]
