"""Checkpoints of a training run: Orbax behind a few functions.

A step's state, counters and data position go in one atomic Orbax step, so that a checkpoint is whole or
absent. Nothing else in this package touches Orbax's checkpoint manager.
"""

from __future__ import annotations

import itertools
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Tree
from jaxinterp.core.trees import paths
from jaxinterp.parallel import hosts

_TEMPORARY = ".orbax-checkpoint-tmp"
_meetings = itertools.count()


def open_folder(folder: Path, keep: int = 2) -> Any:
    """An Orbax checkpoint manager for ``folder``; leftovers of interrupted saves are removed.

    Args:
      folder: made where missing.
      keep: how many newest checkpoints stay.

    Raises:
      InputError: the folder cannot be made or written.
    """
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if hosts.lead():
            for left in folder.glob(f"*{_TEMPORARY}*"):
                shutil.rmtree(left)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write checkpoints to {folder}: {error.strerror or error}") from error
    hosts.wait("checkpoints opened")
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
    handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def meet(name: str, minutes: float = 60.0) -> None:
    """Go on when all processes are here; unlike `hosts.wait` without a collective, whose own patience is short."""
    if jax.process_count() > 1:
        import orbax.checkpoint as ocp

        key = f"{name} {next(_meetings)}"
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=round(60_000 * minutes))


def latest(manager: Any) -> int | None:
    """The newest whole step, None when there is none."""
    return manager.latest_step()


def save(manager: Any, step: int, state: Tree, meta: dict[str, Any]) -> None:
    """Save a step; when this returns it is on disk.

    Raises:
      InputError: the disk is full or not writable; earlier steps are untouched.
    """
    import orbax.checkpoint as ocp

    try:
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        manager.save(step, args=items, force=True)
        manager.wait_until_finished()
    except Exception as error:
        reason = _reason(error)
        raise InputError(
            f"cannot save the checkpoint of step {step} in {manager.directory}: {reason}; "
            "earlier checkpoints are whole"
        ) from error


def restore(manager: Any, step: int, abstract: Tree) -> tuple[Tree, dict[str, Any]]:
    """The state and the meta data of a step.

    Args:
      abstract: tree of `jax.ShapeDtypeStruct` (with shardings on a mesh) that the state must match.

    Raises:
      InputError: the saved state has other names, shapes or dtypes, or cannot be read.
    """
    import orbax.checkpoint as ocp

    where = f"checkpoint {manager.directory / str(step)}"
    try:
        saved = manager.item_metadata(step)["state"]
        _compare(where, dict(paths(getattr(saved, "tree", saved))), dict(paths(abstract)))
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        found = manager.restore(step, args=items)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where} cannot be read: {_reason(error)}") from error
    return found["state"], found["meta"]


def _compare(where: str, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Orbax would cast a dtype silently, so dtypes are compared before anything is read."""
    for name in wanted.keys() ^ saved.keys():
        side = "lacks" if name in wanted else "has an unknown"
        raise InputError(f"{where} {side} {name!r}: it was written by another kind of run")
    for name, value in wanted.items():
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            continue
        found = (tuple(saved[name].shape), np.dtype(saved[name].dtype))
        expected = (tuple(value.shape), np.dtype(value.dtype))
        if found != expected:
            raise InputError(
                f"{where}: {name} is {found[1]} {found[0]}, expected {expected[1]} {expected[0]}"
            )


def _reason(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return text.splitlines()[0][:300]
