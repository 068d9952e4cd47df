"""Meshes with named axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxinterp.core.errors import InputError, near
from jaxinterp.parallel.rules import AXES

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh


def make(
    data: int | None = None, model: int = 1, *, expert: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh with the axes ``data`` and ``model``, and ``expert`` between them where asked for, in automatic mode.

    Args:
      data: devices along the batch; None takes all that are left.
      model: devices along features, heads and MLP width.
      expert: devices along experts, over which the batch is divided too.
      devices: the devices to use; None means all. TPU chips are laid out along the links between them.

    Raises:
      InputError: the sizes do not fit the number of devices.
    """
    import jax
    import numpy as np
    from jax.sharding import AxisType, Mesh

    devices = list(jax.devices() if devices is None else devices)
    rest = max(model, 1) * max(expert, 1)
    if data is None:
        data = len(devices) // rest
    if min(data, model, expert) < 1 or data * rest > len(devices):
        middle = f" × expert={expert}" if expert != 1 else ""
        raise InputError(f"a mesh of data={data}{middle} × model={model} does not fit {len(devices)} devices")
    sizes = {"data": data, "expert": expert, "model": model}
    if expert == 1:
        del sizes["expert"]
    shape, chosen = tuple(sizes.values()), devices[: data * rest]
    if devices[0].platform == "tpu" and len(chosen) == len(devices):
        from jax.experimental.mesh_utils import create_device_mesh

        grid = create_device_mesh(shape, chosen, allow_split_physical_axes=True)
    else:
        grid = np.asarray(chosen).reshape(shape)
    return Mesh(grid, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def parse(text: str) -> dict[str, int]:
    """The sizes of mesh axes in ``"data=4,model=2"``, to be given to `make`.

    Raises:
      InputError: an unknown axis, one given twice, or a size that is no positive whole number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if name not in AXES:
            raise InputError(f"mesh {text!r}: no axis {name!r}{near(name, AXES)}; axes are {', '.join(AXES)}")
        if name in sizes:
            raise InputError(f"mesh {text!r}: the axis {name!r} is given twice")
        if not number.isdecimal() or int(number) < 1:
            raise InputError(
                f"mesh {text!r}: the size of {name!r} is {number!r}, expected a positive whole number"
            )
        sizes[name] = int(number)
    return sizes


def describe(mesh: Mesh) -> str:
    """``"data=4,model=2"``, the inverse of `parse`."""
    return ",".join(f"{name}={size}" for name, size in mesh.shape.items())


def place(tree: Any, shardings: Any) -> Any:
    """Put a pytree of host arrays onto devices, each leaf with its own sharding."""
    import jax

    return jax.device_put(tree, shardings)
