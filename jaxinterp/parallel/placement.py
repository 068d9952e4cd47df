"""Where on a mesh rows and features are inside a step, said while it is traced.

Rows (tokens) have two places. At rest they are divided over the whole mesh: what is as large as rows × width takes its
share of a chip only. For a product with weights that are divided by features a chip needs all rows of its part of the
batch; they are gathered for that product, and partial sums over features are scattered again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxinterp.core.letters import Array
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh, PartitionSpec


class Placement(NamedTuple):
    """A mesh and the rules by which features and the batch are divided over it."""

    mesh: Mesh
    rules: Rules = DEFAULT_RULES

    def dividing(self, size: int, axes: tuple[str, ...]) -> tuple[str, ...]:
        """As many of these mesh axes, the first ones, as divide an array's axis of this size."""
        while axes and size % math.prod(self.mesh.shape[axis] for axis in axes):
            axes = axes[:-1]
        return axes


class Rows(NamedTuple):
    """The places of a number of rows and of features.

    Attributes:
      mesh: of all of them.
      batch: mesh axes over which rows stay divided inside a product.
      features: mesh axes of features.
      resting: those of ``features`` over which rows are divided at rest too.
    """

    mesh: Mesh
    batch: tuple[str, ...]
    features: tuple[str, ...]
    resting: tuple[str, ...]

    @property
    def at_rest(self) -> PartitionSpec:
        """Of ``[R, D]`` between products."""
        return jax.P((*self.batch, *self.resting) or None, None)

    @property
    def active(self) -> PartitionSpec:
        """Of ``[R, N]``."""
        return jax.P(self.batch or None, self.features or None)

    @property
    def by_feature(self) -> PartitionSpec:
        """Of weights ``[N, D]``."""
        return jax.P(self.features or None, None)

    def gather(self, x: Array) -> Array:
        """Inside a product: the rows that this chip has at rest → all of its part of the batch."""
        x = jax.lax.all_gather(x, self.resting, axis=0, tiled=True) if self.resting else x
        rest = tuple(axis for axis in self.features if axis not in self.resting)
        return jax.lax.pcast(x, rest, to="varying") if rest else x

    def weights(self, w: Array) -> Array:
        """Inside a product: this chip's weights; their gradients from all parts of the batch are added up."""
        return jax.lax.pcast(w, self.batch, to="varying") if self.batch else w

    def scatter(self, x: Array) -> Array:
        """Inside a product: partial sums over a chip's features → whole sums of the rows that it has at rest."""
        if self.resting:
            x = jax.lax.psum_scatter(x, self.resting, scatter_dimension=0, tiled=True)
        rest = tuple(axis for axis in self.features if axis not in self.resting)
        return jax.lax.psum(x, rest) if rest else x

    def product(self, local: Callable[..., Array], ins: tuple[PartitionSpec, ...], out: PartitionSpec) -> Any:
        """``local`` on every chip's parts."""
        return jax.shard_map(local, mesh=self.mesh, in_specs=ins, out_specs=out)


_CURRENT: ContextVar[Placement | None] = ContextVar("placement", default=None)


def current() -> Placement | None:
    """The placement under which this is traced, or None."""
    return _CURRENT.get()


@contextlib.contextmanager
def placed(mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Iterator[Placement]:
    """Trace what is inside for ``mesh``. Belongs inside the function that is jitted, not around it."""
    token = _CURRENT.set(Placement(mesh, rules))
    try:
        yield Placement(mesh, rules)
    finally:
        _CURRENT.reset(token)


def rows_of(rows: int, features: int) -> Rows:
    """The places of so many rows and features; axes of the mesh that do not divide them are left out."""
    placement = current()
    assert placement is not None
    mesh, rules = placement.mesh, placement.rules
    by_feature = placement.dividing(features, rules.targets("features", mesh))
    free = tuple(axis for axis in rules.targets("batch", mesh) if axis not in by_feature)
    batch = placement.dividing(rows, free)
    resting = placement.dividing(rows // math.prod(mesh.shape[a] for a in batch), by_feature)
    return Rows(mesh, batch, by_feature, resting)


def resting(mesh: Mesh, rows: int, rules: Rules = DEFAULT_RULES) -> PartitionSpec:
    """Of sites ``[L, R, D]`` that wait for a step: rows over all of the mesh that divides them."""
    places = Placement(mesh, rules)
    axes = (*rules.targets("batch", mesh), *rules.targets("features", mesh))
    return jax.P(None, places.dividing(rows, tuple(dict.fromkeys(axes))) or None)
