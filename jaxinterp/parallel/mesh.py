"""Meshes with named axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxinterp.core.errors import InputError

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh


def make(data: int | None = None, model: int = 1, *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes ``data`` and ``model``, in automatic mode.

    Args:
      data: devices along the batch; None takes all that are left.
      model: devices along features, heads and MLP width.
      devices: the devices to use; None means all.

    Raises:
      InputError: the sizes do not fit the number of devices.
    """
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh

    devices = list(jax.devices() if devices is None else devices)
    if data is None:
        data = len(devices) // model
    if data < 1 or model < 1 or math.prod((data, model)) > len(devices):
        raise InputError(f"a mesh of data={data} × model={model} does not fit {len(devices)} devices")
    grid = np.asarray(devices[: data * model]).reshape(data, model)
    return Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))


def place(tree: Any, shardings: Any) -> Any:
    """Put a pytree of host arrays onto devices, each leaf with its own sharding."""
    import jax

    return jax.device_put(tree, shardings)
