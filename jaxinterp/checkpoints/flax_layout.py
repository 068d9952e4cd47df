"""Where a layout stores each of our weights: one table, read both ways.

Letters of patterns are those of `huggingface.axis_sizes`, and l for a stack of layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxinterp.checkpoints import rearrange
from jaxinterp.checkpoints.flax_tree import Stored
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.trees import unflatten
from jaxinterp.models.config import ModelConfig


class Leaf(NamedTuple):
    """A stored leaf, or a part of one, and the weight of ours that it holds.

    Attributes:
      ours: our dotted path.
      stored: path in the tree.
      pattern: of `rearrange`, without merged axes. Our side begins with l where the leaf is a stack of layers, else
        with p or w where it is one of several parts.
      layers: the layers it holds, in its order; None for a weight that is not of a layer.
      part: which part of the leaf this is; None means all of it.
      factor: stored = ours · factor.
      pairs: (stored, ours): how the entries of a head, its last axis, are paired for rotary positions, where that
        differs.
    """

    ours: str
    stored: str
    pattern: str
    layers: tuple[int, ...] | None = None
    part: int | None = None
    factor: float = 1.0
    pairs: tuple[str, str] | None = None

    @property
    def stack(self) -> bool:
        """Whether the leaf has an axis of layers."""
        return "l" in rearrange.parse(self.pattern).ours


class Layout(Protocol):
    """A public layout of parameters.

    ``seen`` fills in what the tree itself shows of the layout's own options and raises for the rest;
    ``fields`` are the `ModelConfig` fields that tree and layout decide; ``table`` has every stored leaf;
    ``nested`` turns stored paths and arrays into the tree that the other program takes.
    """

    @property
    def name(self) -> str: ...
    def bare(self, name: str) -> str | None: ...
    def seen(self, leaves: Mapping[str, Stored], config: ModelConfig) -> Layout: ...
    def fields(self, leaves: Mapping[str, Stored]) -> dict[str, Any]: ...
    def check(self, config: ModelConfig) -> None: ...
    def table(self, config: ModelConfig) -> list[Leaf]: ...
    def nested(self, arrays: dict[str, Any]) -> dict[str, Any]: ...


def stored_shape(leaf: Leaf, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a stored leaf."""
    layers = {} if leaf.layers is None else {"l": len(leaf.layers)}
    return rearrange.stored_shape(leaf.pattern, {**sizes, **layers})


def assemble(xp: Any, leaves: Sequence[Leaf], arrays: Sequence[Any], dtype: Any) -> Any:
    """One of our weights from the stored leaves that hold it. ``xp`` is numpy or jax.numpy."""
    parts: list[Any] = []
    places: list[int] = []
    for leaf, array in zip(leaves, arrays, strict=True):
        pattern = rearrange.parse(leaf.pattern)
        stored = [letter for group in pattern.stored for letter in group]
        part = array.transpose([stored.index(letter) for letter in pattern.ours])
        if leaf.part is not None:
            part = part[:, leaf.part] if leaf.stack else part[leaf.part]
        if leaf.layers is not None:
            part = part if leaf.stack else part[None]
            places += leaf.layers
        if leaf.pairs is not None:
            part = _paired(part, *leaf.pairs)
        if leaf.factor != 1.0:
            # In the wider dtype of both, so that a narrow one is rounded once.
            wide = "float64" if "float64" in (np.dtype(dtype).name, np.dtype(part.dtype).name) else "float32"
            part = part.astype(wide) / np.dtype(wide).type(leaf.factor)
        parts.append(part if part.dtype == dtype else part.astype(dtype))
    whole = parts[0] if len(parts) == 1 else xp.concatenate(parts)
    order = np.argsort(places)
    return whole if np.array_equal(order, np.arange(len(order))) else whole[order]


def disassemble(leaves: Sequence[Leaf], weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """A stored leaf from the weights of ours that it holds: the inverse of `assemble`."""
    parts = []
    for leaf in sorted(leaves, key=lambda leaf: leaf.part or 0):
        part = weights[leaf.ours]
        if leaf.layers is not None:
            part = part[list(leaf.layers)] if leaf.stack else part[leaf.layers[0]]
        if leaf.pairs is not None:
            part = _paired(part, *leaf.pairs[::-1])
        if leaf.factor != 1.0:
            wide = part.astype(np.float64 if part.dtype == np.float64 else np.float32)
            part = np.multiply(wide, leaf.factor, dtype=wide.dtype).astype(part.dtype)
        parts.append(part)
    first = leaves[0]
    whole = parts[0] if first.part is None else np.stack(parts, axis=1 if first.stack else 0)
    pattern = rearrange.parse(first.pattern)
    back = [pattern.ours.index(letter) for group in pattern.stored for letter in group]
    return np.ascontiguousarray(whole.transpose(back))


def _paired(array: Any, given: str, wanted: str) -> Any:
    """The last axis reordered from one pairing of rotary entries to the other."""
    assert {given, wanted} == {"half", "adjacent"}
    half = array.shape[-1] // 2
    split = (2, half) if given == "half" else (half, 2)
    return array.reshape(*array.shape[:-1], *split).swapaxes(-1, -2).reshape(array.shape)


def match(
    where: str, layout: Layout, table: Sequence[Leaf], found: Mapping[str, Stored], sizes: Mapping[str, int]
) -> None:
    """Every stored leaf is in the table exactly once and has the shape that the config asks for.

    Raises:
      InputError: a leaf that is missing, unknown (with near matches) or of another shape (with both).
    """
    expected = {leaf.stored: stored_shape(leaf, sizes) for leaf in table}
    for name, stored in found.items():
        if name not in expected:
            raise InputError(
                f"{where}: unexpected leaf {name!r} in the {layout.name} layout{near(name, expected)}"
            )
        if stored.shape != expected[name]:
            raise InputError(
                f"{where}: the leaf {name!r} has shape {stored.shape}, the config asks for {expected[name]}"
            )
    for name, shape in expected.items():
        if name not in found:
            raise InputError(f"{where}: the leaf {name!r} of shape {shape} is missing{near(name, found)}")


def only(config: ModelConfig, layout: str, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """The fields of ``config`` that a layout fixes have one of the values that it allows.

    Raises:
      InputError: the first that has not, with both values.
    """
    for name, values in allowed.items():
        value = getattr(config, name)
        near_by = isinstance(value, float) and any(
            isinstance(v, float) and math.isclose(v, value, rel_tol=1e-6) for v in values
        )
        if value not in values and not near_by:
            raise InputError(
                f"the {layout} layout has no models with {name} = {value!r}, only {' or '.join(map(repr, values))}"
            )


def nest(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose paths, joined by ``/``, are the keys of ``arrays``."""
    return unflatten(arrays, "/")
