"""From the logical axes of a weight to the axes of a mesh."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from jaxinterp.core.errors import InputError, near

if TYPE_CHECKING:
    from jax.sharding import Mesh, PartitionSpec

_DEFAULT = {
    "batch": "data",
    "heads": "model",
    "kv_heads": "model",
    "mlp": "model",
    "experts": "model",
    "expert_width": None,
    "vocab": "model",
    "features": "model",
    "layers": None,
    "width": None,
    "head_width": None,
    "position": None,
    "replicated": None,
}


@dataclass(frozen=True)
class Rules:
    """Logical axis name → mesh axis name, or None for "not divided".

    Every logical axis that a weight declares must have a rule, so that nothing is replicated by
    accident. Two axes of one array that land on the same mesh axis raise, naming both.
    """

    to_mesh: MappingProxyType[str, str | None] = field(
        default_factory=lambda: MappingProxyType(dict(_DEFAULT))
    )

    def replace(self, **changes: str | None) -> Rules:
        """A copy with some rules changed: ``rules.replace(vocab=None)``."""
        for name in changes:
            if name not in self.to_mesh:
                raise InputError(f"no logical axis {name!r}{near(name, self.to_mesh)}")
        return Rules(MappingProxyType({**self.to_mesh, **changes}))

    def spec(
        self, axes: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh, where: str = ""
    ) -> PartitionSpec:
        """The partition of an array with these logical ``axes`` on ``mesh``.

        Raises:
          InputError: an unknown logical axis, two axes on one mesh axis, or a size that the mesh axis
            does not divide. The message names the array, the axis and both numbers.
        """
        from jax.sharding import PartitionSpec

        used: dict[str, str] = {}
        parts: list[str | None] = []
        for axis, size in zip(axes, shape, strict=True):
            if axis not in self.to_mesh:
                raise InputError(f"{where}: no rule for the logical axis {axis!r}{near(axis, self.to_mesh)}")
            target = self.to_mesh[axis]
            if target is None or target not in mesh.shape:
                parts.append(None)
                continue
            if target in used:
                raise InputError(
                    f"{where}: the logical axes {used[target]!r} and {axis!r} both map to the mesh axis {target!r}"
                )
            if size % mesh.shape[target]:
                raise InputError(
                    f"{where}: axis {axis!r} of size {size} is not divisible by the mesh axis {target!r} "
                    f"of size {mesh.shape[target]}"
                )
            used[target] = axis
            parts.append(target)
        return PartitionSpec(*parts)


DEFAULT_RULES = Rules()
