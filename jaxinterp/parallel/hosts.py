"""Starting on several hosts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from jaxinterp.core.errors import InputError


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Join the other hosts of a slice, before the first use of a device.

    On Cloud TPU nothing needs to be given: the metadata service knows the slice. Elsewhere give all
    three, or set JAXINTERP_COORDINATOR, JAXINTERP_PROCESSES and JAXINTERP_PROCESS.

    Args:
      coordinator: ``host:port`` of process 0.
      processes: number of processes.
      process: the index of this one.

    Raises:
      InputError: only some of the three are given.
    """
    import jax

    coordinator = coordinator or os.environ.get("JAXINTERP_COORDINATOR")
    count = processes if processes is not None else _integer("JAXINTERP_PROCESSES")
    index = process if process is not None else _integer("JAXINTERP_PROCESS")
    given = [coordinator is not None, count is not None, index is not None]
    if any(given) and not all(given):
        raise InputError(
            "several hosts need all of coordinator, number of processes and index of this process"
        )
    if all(given):
        jax.distributed.initialize(coordinator, count, index)
    else:
        jax.distributed.initialize()


def lead() -> bool:
    """Whether this process writes what all processes have: the first one does."""
    import jax

    return jax.process_index() == 0


def wait(name: str) -> None:
    """Go on when all processes are here; ``name`` says where that is."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


def any_asked(asked: Callable[[], bool], step: int, every: int = 1) -> bool:
    """Whether any process was asked to stop, the same answer in all of them: several look every so many steps only."""
    import jax

    if jax.process_count() == 1:
        return asked()
    if step % every:
        return False
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.any(process_allgather(np.asarray(asked()))))


def on_host(tree: Any) -> Any:
    """Arrays of a mesh over several processes as whole arrays in each of them; others as they are."""
    import jax
    from jax.experimental.multihost_utils import process_allgather

    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return process_allgather(leaf, tiled=True)
        return leaf

    return jax.tree.map(one, tree)


def _integer(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{name}={text!r} is not a whole number") from error
