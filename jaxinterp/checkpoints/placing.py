"""Host arrays to device arrays: dtype, finiteness, and a sharding when a mesh is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh, NamedSharding

Place = tuple[int, ...]
Spans = Sequence[tuple[int, int]]
Read = Callable[[Place, Spans | None], np.ndarray]
"""What stands at a place; with spans (start and stop along each of its axes) only that part of it."""

_DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


def as_dtype(dtype: Any, *, on_device: bool = True) -> np.dtype:
    """The numpy dtype meant by ``dtype``: a name or anything numpy understands.

    Raises:
      InputError: not one of float16, bfloat16, float32, float64; or float64 for the device while jax's
        64-bit types are off.
    """
    try:
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in _DTYPES:
        raise InputError(
            f"no dtype {name!r} for weights{near(name, _DTYPES)}: give one of {', '.join(_DTYPES)}"
        )
    if on_device and name == "float64":
        import jax.numpy as jnp

        if jnp.asarray(0.0).dtype != np.float64:
            raise InputError("dtype float64 needs 64-bit types: put jax.enable_x64(True) around the call")
    return _DTYPES[name]


def cast(array: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """``array`` in another floating-point dtype.

    Raises:
      InputError: a NaN or an infinity, or a number too large for ``dtype``; ``where`` says whose.
    """
    # Two numbers tell of all where they are quick to find; a NaN is both the least and the greatest.
    ends = np.array([array.min(), array.max()]) if array.dtype.kind == "f" and array.size else array
    if not np.isfinite(ends).all():
        raise InputError(f"{where} holds numbers that are not finite")
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
        fits = np.isfinite(ends.astype(dtype) if ends is not array else result).all()
    if not fits:
        largest = float(np.max(np.abs(array)))
        raise InputError(f"{where} holds {largest:.6g}, too large for {dtype.name}")
    return result


def shardings(config: ModelConfig, mesh: Mesh | None, rules: Rules | None) -> dict[str, NamedSharding | None]:
    """Dotted path → sharding for every weight of ``config``; None each when there is no mesh."""
    tree = declare(config)
    if mesh is None:
        return dict.fromkeys(weights.leaves(tree))
    rules = DEFAULT_RULES if rules is None else rules
    return {
        name: _sharding(mesh, rules, weight, name) for name, weight in weights.leaves(tree).items()
    }  # fmt: skip


def _sharding(mesh: Mesh, rules: Rules, weight: weights.Weight, name: str) -> NamedSharding:
    from jax.sharding import NamedSharding

    return NamedSharding(mesh, rules.spec(weight.axes, weight.shape, mesh, name))


def whole(shape: tuple[int, ...], read: Callable[[Any], np.ndarray], sharding: NamedSharding | None) -> Array:
    """A device array of ``shape`` from ``read(index)``, which is asked only for what this host holds."""
    import jax
    import jax.numpy as jnp

    if sharding is None:
        return jnp.asarray(read(...))
    # A copy: a view would keep alive all of what was read.
    return jax.make_array_from_callback(shape, sharding, lambda index: np.array(read(index)))


def stacked(
    shape: tuple[int, ...], dtype: np.dtype, places: Sequence[Place], read: Read,
    sharding: NamedSharding | None,
) -> Array:  # fmt: skip
    """A device array from its parts: ``read(place)`` is what stands at ``array[place]``, all of it at ``()``.

    The host holds its own part of the array and one part that was read, never the whole array of a big model; parts
    that none of its devices needs are not read.
    """
    import jax

    if sharding is None:
        host = np.empty(shape, dtype)
        for place in places:
            host[place] = read(place, None)
        return jax.device_put(host)
    indices = {
        device: index
        for device, index in sharding.addressable_devices_indices_map(shape).items()
        if index is not None
    }
    parts = own_parts(shape, dtype, places, read, list(indices.values()))
    arrays = [jax.device_put(parts[str(index)], device) for device, index in indices.items()]
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def own_parts(
    shape: tuple[int, ...], dtype: np.dtype, places: Sequence[Place], read: Read,
    indices: Sequence[tuple[slice, ...]],
) -> dict[str, np.ndarray]:  # fmt: skip
    """What the devices of one host hold of an array: ``str(index)`` → ``array[index]``.

    Only what stands at places that one of ``indices`` touches is read, one place at a time, and of that the part from
    the first to the last entry along each axis that they touch.
    """
    spans = {str(index): [s.indices(n)[:2] for s, n in zip(index, shape, strict=True)] for index in indices}
    parts = {key: np.empty([stop - start for start, stop in span], dtype) for key, span in spans.items()}
    for place in places:
        lead = len(place)
        wanted = [
            key
            for key, span in spans.items()
            if all(start <= at < stop for at, (start, stop) in zip(place, span[:lead], strict=True))
        ]
        if not wanted:
            continue
        inner = [spans[key][lead:] for key in wanted]
        box = [
            (min(starts), max(stops))
            for starts, stops in (zip(*axis, strict=True) for axis in zip(*inner, strict=True))
        ]
        values = read(place, box)
        for key in wanted:
            own = tuple(at - start for at, (start, _) in zip(place, spans[key][:lead], strict=True))
            here = zip(spans[key][lead:], box, strict=True)
            parts[key][own] = values[
                tuple(slice(start - low, stop - low) for (start, stop), (low, _) in here)
            ]
        del values
    return parts
