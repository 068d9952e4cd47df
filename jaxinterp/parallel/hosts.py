"""Starting on several hosts."""

from __future__ import annotations

import os

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


def _integer(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{name}={text!r} is not a whole number") from error
