"""From the logical axes of a weight to the axes of a mesh."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from jaxinterp.core.errors import InputError, near

if TYPE_CHECKING:
    from jax.sharding import Mesh, PartitionSpec

AXES = ("data", "expert", "model")
"""Mesh axes that rules may always name; one that a mesh has not counts as an axis of size one."""

MeshAxes = str | tuple[str, ...] | None
"""What a rule maps to: a mesh axis, several of them (the first varies slowest), or None for "not divided"."""

_DEFAULT: dict[str, MeshAxes] = {
    "batch": ("data", "expert"),
    "heads": "model",
    "kv_heads": "model",
    "mlp": "model",
    "experts": ("expert", "model"),
    "expert_width": None,
    "vocab": "model",
    "features": "model",
    "record": "model",
    "layers": None,
    "width": None,
    "head_width": None,
    "rank": None,
    "position": None,
    "replicated": None,
}


@dataclass(frozen=True)
class Rules:
    """Logical axis name → mesh axes, or None for "not divided".

    Every logical axis that a weight declares must have a rule, so that nothing is replicated by
    accident. Two axes of one array that land on the same mesh axis raise, naming both.
    """

    to_mesh: MappingProxyType[str, MeshAxes] = field(default_factory=lambda: MappingProxyType(dict(_DEFAULT)))

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.to_mesh.items(), key=lambda item: item[0])))

    def replace(self, **changes: MeshAxes) -> Rules:
        """A copy with some rules changed: ``rules.replace(vocab=None)``."""
        for name in changes:
            if name not in self.to_mesh:
                raise InputError(f"no logical axis {name!r}{near(name, self.to_mesh)}")
        return Rules(MappingProxyType({**self.to_mesh, **changes}))

    def changed(self, text: str) -> Rules:
        """A copy with the rules that ``text`` changes: ``"kv_heads=none,rank=model,batch=data+expert"``.

        Raises:
          InputError: an unknown logical axis, or something else than changes.
        """
        changes: dict[str, MeshAxes] = {}
        for part in (part.strip() for part in text.split(",") if part.strip()):
            name, equals, value = part.partition("=")
            if not equals or not value:
                raise InputError(
                    f"rules {text!r}: {part!r} is no change, expected axis=mesh axis or axis=none"
                )
            axes = tuple(value.split("+"))
            changes[name] = None if value == "none" else axes[0] if len(axes) == 1 else axes
        return self.replace(**changes)

    def targets(self, axis: str, mesh: Mesh, where: str = "rules") -> tuple[str, ...]:
        """The axes of ``mesh`` that the logical ``axis`` is divided over, () for none.

        Raises:
          InputError: no rule for ``axis``, or its rule names an axis that neither the mesh nor `AXES` has.
        """
        if axis not in self.to_mesh:
            raise InputError(f"{where}: no rule for the logical axis {axis!r}{near(axis, self.to_mesh)}")
        rule = self.to_mesh[axis]
        named = (rule,) if isinstance(rule, str) else (rule or ())
        for name in named:
            if name not in mesh.shape and name not in AXES:
                raise InputError(
                    f"{where}: the rule for {axis!r} names the mesh axis {name!r}{near(name, AXES)}, the mesh has "
                    f"{', '.join(mesh.axis_names)}"
                )
        return tuple(name for name in named if name in mesh.shape)

    def spec(
        self, axes: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh, where: str = ""
    ) -> PartitionSpec:
        """The partition of an array with these logical ``axes`` on ``mesh``.

        Raises:
          InputError: an unknown logical or mesh axis, two axes on one mesh axis, or a size that the mesh axis
            does not divide. The message names the array, the axis and both numbers.
        """
        from jax.sharding import PartitionSpec

        used: dict[str, str] = {}
        parts: list[MeshAxes] = []
        for axis, size in zip(axes, shape, strict=True):
            targets = self.targets(axis, mesh, where)
            for name in targets:
                if name in used:
                    raise InputError(
                        f"{where}: the logical axes {used[name]!r} and {axis!r} both map to the mesh axis {name!r}"
                    )
                used[name] = axis
            ways = math.prod(mesh.shape[name] for name in targets)
            if size % ways:
                several = "axis" if len(targets) == 1 else "axes"
                raise InputError(
                    f"{where}: axis {axis!r} of size {size} is not divisible by the mesh {several} "
                    f"{' × '.join(map(repr, targets))} of size {ways}"
                )
            parts.append(targets[0] if len(targets) == 1 else (targets or None))
        return PartitionSpec(*parts)


DEFAULT_RULES = Rules()
