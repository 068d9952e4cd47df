"""Training from a configuration file: ``train(config, overrides, out)``."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import write_text
from jaxinterp.parallel import hosts
from jaxinterp.training import configs
from jaxinterp.training.loop import LoopConfig, run

if TYPE_CHECKING:
    from jax.sharding import Mesh

TASKS = {
    "dictionary": "jaxinterp.training.dictionary",
    "language_model": "jaxinterp.training.language_model",
}
"""Task name → module. A module has ``CONFIG``, a frozen dataclass with the fields ``steps`` and ``seed``, and
``task(config) -> Task``."""


def load(path: str | Path, overrides: Iterable[str] = ()) -> tuple[str, Any, LoopConfig]:
    """The task's name, its config and the loop's config in a file.

    The file's keys are those of the task's config, and ``task`` and ``loop``.

    Raises:
      InputError: anything in the file or the overrides that is not understood.
    """
    values = configs.read(path, overrides)
    name = values.pop("task", None)
    if name not in TASKS:
        raise InputError(f"{path}: task is {name!r}, expected one of {', '.join(TASKS)}{near(name, TASKS)}")
    loop = configs.parse(LoopConfig, values.pop("loop", {}), f"{path}: loop")
    module = importlib.import_module(TASKS[name])
    return name, configs.parse(module.CONFIG, values, str(path)), loop


def resolved(name: str, config: Any, loop: LoopConfig) -> dict[str, Any]:
    """The whole configuration as plain values, defaults included: what ``out/config.yaml`` holds."""
    return {"task": name, **configs.to_dict(config), "loop": configs.to_dict(loop)}


def train(
    config_path: str | Path, overrides: Sequence[str] = (), out: str | Path = "out", quiet: bool = False,
    mesh: Mesh | None = None,
) -> Path:  # fmt: skip
    """Run the training that a configuration file describes, or go on with it.

    Args:
      config_path: YAML file with ``task: dictionary`` or ``task: language_model``.
      overrides: ``key=value`` strings with dotted keys.
      out: folder for metrics, checkpoints, the resolved config and the result. A folder that holds an
        unfinished run of the same configuration is gone on with.
      quiet: no progress lines.
      mesh: devices to spread over.

    Returns:
      ``out``.

    Raises:
      InputError: see `load` and `jaxinterp.training.loop.run`; or ``out`` holds another configuration's run.
      Interrupted: a signal came; everything is saved.
    """
    import yaml

    name, config, loop = load(config_path, overrides)
    out, whole = Path(out), resolved(name, config, loop)
    record = out / "config.yaml"
    if record.exists() and _has_checkpoint(out):
        old = configs.read(record)
        different = configs.first_difference({**old, "loop": None}, {**whole, "loop": None})
        if different:
            raise InputError(
                f"{out} holds a run of another configuration ({different}); choose another folder"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from error
    hosts.wait("configuration compared")
    if hosts.lead():
        write_text(record, yaml.safe_dump(whole, sort_keys=False))
    task = importlib.import_module(TASKS[name]).task(config, mesh=mesh)
    run(task, steps=config.steps, out=out, seed=config.seed, loop=loop, quiet=quiet, mesh=mesh, label=name)
    return out


def _has_checkpoint(out: Path) -> bool:
    return any(p.name.isdigit() for p in (out / "checkpoints").glob("*"))
