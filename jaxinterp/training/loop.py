"""The training loop: any task, interruptible at any moment, and exact when resumed.

The position in the data is the step itself, the state holds everything else, so a resumed run computes the
same bytes as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from jaxinterp.core.errors import InputError, JaxinterpError
from jaxinterp.core.interrupt import signals
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.progress import Progress
from jaxinterp.parallel import hosts
from jaxinterp.training import checkpoint
from jaxinterp.training.metrics import Metrics, open_metrics

if TYPE_CHECKING:
    from jax.sharding import Mesh


PARTS = "_parts"
"""Name of a value of a step that holds the loss of each part of its batch; names with ``_`` are not written."""


class Task(NamedTuple):
    """What is trained, as pure functions.

    Attributes:
      init: ``(key)`` → the state before step 0, any pytree of arrays.
      batch: ``(step)`` → a pytree of arrays; a pure function of the step, called on the host.
      step: ``(state, batch)`` → the next state and a dict of scalars or small arrays with the key "loss".
        It is jitted, and the state is donated. On a mesh it is given the mesh too, if ``on_mesh`` says so.
      evaluate: ``(state)`` → a dict of figures, or None where there is nothing to evaluate.
      finish: ``(state, folder)`` writes the result into ``folder`` and returns a dict of figures.
      abstract: ``()`` → the state's `jax.ShapeDtypeStruct`, where ``init`` cannot be traced to find it.
      shardings: ``(mesh, abstract state)`` → the shardings of state and batch.
      init_on: ``(key, shardings)`` → as ``init``, made where it belongs; without it the result of ``init`` is moved.
      on_mesh: ``step`` takes ``mesh=``.
      tokens: rows of a batch, for the progress line.
      members: tasks by name, trained side by side on what one ``batch`` brings, a dict by name, as the state is. Each
        has a step and a compiled program of its own, and ``step`` here is not called.
    """

    init: Callable[[Array], Tree]
    batch: Callable[[int], Tree]
    step: Callable[[Tree, Tree], tuple[Tree, dict[str, Any]]]
    evaluate: Callable[[Tree], dict[str, Any] | None] | None = None
    finish: Callable[[Tree, Path], dict[str, Any] | None] | None = None
    abstract: Callable[[], Tree] | None = None
    shardings: Callable[[Mesh, Tree], tuple[Tree, Tree]] | None = None
    init_on: Callable[[Array, Tree], Tree] | None = None
    on_mesh: bool = False
    tokens: int = 0
    members: dict[str, Task] | None = None


@dataclass(frozen=True)
class LoopConfig:
    """How often things happen, in steps; 0 means only at the end.

    Attributes:
      log_every: a line of metrics.
      evaluate_every: the task's own evaluation.
      checkpoint_every: a checkpoint.
      keep: how many checkpoints stay.
      tensorboard: metrics as event files, too, in ``tensorboard`` of the run's folder (extra ``tensorboard``).
      wandb: a project at Weights & Biases that metrics are sent to, too (extra ``wandb``); empty for none.
    """

    log_every: int = 50
    evaluate_every: int = 0
    checkpoint_every: int = 500
    keep: int = 2
    tensorboard: bool = False
    wandb: str = ""

    def __post_init__(self) -> None:
        if self.log_every < 1 or self.evaluate_every < 0 or self.checkpoint_every < 0 or self.keep < 1:
            raise InputError(
                "loop: log_every and keep must be at least 1, evaluate_every and checkpoint_every at least 0"
            )


class Interrupted(JaxinterpError):
    """The run was stopped by a signal after saving; ``step`` says where."""

    exit_code = 130

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped after step {step}, saved in {folder}; the same command goes on from there")
        self.step = step


def run(
    task: Task, *, steps: int, out: Path | str, seed: int, loop: LoopConfig | None = None,
    resume: bool = True, mesh: Mesh | None = None, quiet: bool = False, label: str = "train",
) -> Tree:  # fmt: skip
    """Train to ``steps`` and finish.

    Writes ``out/metrics.jsonl`` and ``out/checkpoints``; ``task.finish`` writes the result into ``out``.
    On SIGINT or SIGTERM the step under way is finished and saved. A second signal stops at once.

    Args:
      task: what to train.
      steps: how many steps in all, those of an earlier run of the same folder included.
      out: folder, made where missing.
      seed: of ``task.init``.
      loop: how often to log, evaluate and save.
      resume: go on from the newest checkpoint in ``out``; False refuses a folder that has one.
      mesh: devices to spread over; needs ``task.shardings``.
      quiet: no progress lines.

    Returns:
      The final state.

    Raises:
      Interrupted: a signal came; everything is saved.
      InputError: a place that cannot be written, or a loss that is not finite (the step is named, and
        the newest checkpoint holds the last good state).
    """
    loop, out = loop or LoopConfig(), Path(out)
    manager = checkpoint.open_folder(out / "checkpoints", loop.keep)
    metrics: Metrics = Silent(out / "metrics.jsonl")
    try:
        if hosts.lead():
            metrics = open_metrics(out, tensorboard=loop.tensorboard, wandb=loop.wandb)
        return _run(task, steps, out, seed, loop, resume, mesh, quiet, label, manager, metrics)
    finally:
        metrics.close()
        manager.close()


def _run(
    task: Task, steps: int, out: Path, seed: int, loop: LoopConfig, resume: bool, mesh: Mesh | None,
    quiet: bool, label: str, manager: Any, metrics: Metrics,
) -> Tree:  # fmt: skip
    from jaxinterp.training.prepare import Clock, prepare

    progress = Progress(label, steps, unit="steps", quiet=quiet or not hosts.lead())
    clock = Clock()
    start = checkpoint.latest(manager)
    if start is not None and not resume:
        raise InputError(f"{out} already holds a run at step {start}; choose another folder or resume it")
    state, place, jitted = prepare(task, seed, mesh, manager, start, clock)
    start = start or 0
    if start > steps:
        raise InputError(f"{out} holds a run at step {start}, beyond the {steps} steps asked for")
    metrics.truncate(start)
    progress.begin(start)
    if start:
        progress.say(f"resumed at step {start}")

    pending: list[tuple[int, dict[str, Any]]] = []

    def settle() -> None:
        """Wait for the steps under way; stop at the first loss that is not finite."""
        for index, values in pending:
            if where := not_finite(index, values):
                last = checkpoint.latest(manager)
                held = (
                    f"step {last} is the last good state saved"
                    if last is not None
                    else "nothing was saved yet"
                )
                raise InputError(f"{where}; {held} in {out / 'checkpoints'}")
        pending.clear()

    def save(done: int) -> None:
        settle()
        metrics.sync()
        checkpoint.save(manager, done, state, {"step": done, "seed": seed, "cpu_seconds": clock.seconds()})
        progress.say(f"saved step {done}")

    saved, note = start, ""
    with signals() as asked:
        stopped = partial(hosts.any_asked, asked, every=loop.log_every)
        for step in range(start, steps):
            state, values = jitted(state, place(task.batch(step)))
            done = step + 1
            pending.append((done, values))
            if done % loop.log_every == 0 or done == steps:
                latest = pending[-1][1]
                settle()
                values = {k: v for k, v in jax.device_get(latest).items() if not k.startswith("_")}
                metrics.write(done, {**values, "cpu_seconds": round(clock.seconds(), 1)})
                note = f"loss {np.mean([np.mean(values[name]) for name in losses_of(values)]):.4g}"
            rate = f"{progress.rate() * task.tokens:,.0f} tokens/s  " if task.tokens else ""
            progress.advance(note=rate + note)
            if task.evaluate and done < steps and loop.evaluate_every and done % loop.evaluate_every == 0:
                _evaluate(task, state, done, metrics, progress)
            due, stop = loop.checkpoint_every and done % loop.checkpoint_every == 0, stopped(done)
            if due or done == steps or stop:
                save(done)
                saved = done
            if stop and done < steps:
                break
    progress.close()
    if saved < steps:
        raise Interrupted(saved, out / "checkpoints")
    if task.finish is not None:
        metrics.truncate(steps)
        figures = task.finish(state, out)
        if figures:
            metrics.write(steps, {"final": {**figures, "cpu_seconds": round(clock.seconds(), 1)}})
    return state


def _evaluate(task: Task, state: Tree, step: int, metrics: Metrics, progress: Progress) -> None:
    assert task.evaluate is not None
    figures = task.evaluate(state)
    if figures:
        metrics.write(step, {"evaluation": figures})
        flat = [
            (f"{name} {k}" if isinstance(of, dict) else name, v)
            for name, of in figures.items()
            for k, v in (of.items() if isinstance(of, dict) else [("", of)])
        ]
        short = ", ".join(f"{k} {v:.4g}" for k, v in flat if isinstance(v, int | float))
        progress.say(f"step {step}: {short}")


def losses_of(values: dict[str, Any]) -> list[str]:
    """The names of losses among the values of a step: "loss", and "NAME/loss" of several dictionaries."""
    return [name for name in values if name.rpartition("/")[2] == "loss"]


def not_finite(step: int, values: dict[str, Any]) -> str:
    """Which loss of a step is not finite, or ""."""
    for name in losses_of(values):
        if np.isfinite(np.asarray(values[name])).all():
            continue
        member = name.rpartition("/")[0]
        of = f" of {member}" if member else ""
        parts = np.asarray(values.get(name.removesuffix("loss") + PARTS, ()))
        bad = np.flatnonzero(~np.isfinite(parts)) if parts.size > 1 else ()
        where = f" (part {', '.join(str(i + 1) for i in bad)} of its {parts.size})" if len(bad) else ""
        return f"the loss{of} of step {step} is not finite{where}"
    return ""


class Silent(Metrics):
    """Metrics of a process that leaves writing to another."""

    def truncate(self, step: int) -> None:
        """Nothing."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""
