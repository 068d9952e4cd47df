"""Weights declared once: shape, logical axes and initialiser.

Initial values, abstract values, shardings, restore targets and checks all come from one declaration, a
nested dict (tuples allowed) with `Weight` leaves.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.trees import paths
from jaxinterp.parallel.rules import DEFAULT_RULES, MeshAxes, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh

Initialiser = Callable[[Array, tuple[int, ...], Any], Array]
"""(key, shape, dtype) → array."""


class Weight(NamedTuple):
    """One weight. ``axes`` names a logical axis per dimension; ``init`` is a function or zeros/ones."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: Initialiser | str = "zeros"


def normal(scale: float) -> Initialiser:
    """Independent normal values with standard deviation ``scale``."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        import jax

        return scale * jax.random.normal(key, shape, dtype)

    return init


def uniform(limit: float) -> Initialiser:
    """Independent uniform values in (-``limit``, ``limit``)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        import jax

        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def constant(value: float) -> Initialiser:
    """Every entry ``value``."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        import jax.numpy as jnp

        del key
        return jnp.full(shape, value, dtype)

    return init


def is_weight(node: Any) -> bool:
    """Whether a node of a declaration is a leaf."""
    return isinstance(node, Weight)


def _map(function: Callable[[str, Weight], Any], tree: Tree) -> Tree:
    import jax

    def visit(path: Any, weight: Weight) -> Any:
        name = ".".join(str(getattr(p, "key", getattr(p, "idx", p))) for p in path)
        if len(weight.shape) != len(weight.axes):
            raise InputError(f"{name}: shape {weight.shape} and axes {weight.axes} differ in length")
        return function(name, weight)

    return jax.tree_util.tree_map_with_path(visit, tree, is_leaf=is_weight)


def initialise(tree: Tree, *, key: Array, dtype: Any) -> Tree:
    """Arrays for every declared weight. A weight's values depend on ``key`` and its own path only.

    Args:
      tree: declaration.
      key: a jax PRNG key.
      dtype: dtype of every array.
    """
    import jax
    import jax.numpy as jnp

    def make(name: str, weight: Weight) -> Array:
        if weight.init == "zeros":
            return jnp.zeros(weight.shape, dtype)
        if weight.init == "ones":
            return jnp.ones(weight.shape, dtype)
        assert callable(weight.init), f"{name}: unknown initialiser {weight.init!r}"
        own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        return weight.init(jax.random.fold_in(key, own), weight.shape, dtype)

    return _map(make, tree)


def shardings(tree: Tree, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Tree:
    """A `jax.sharding.NamedSharding` for every declared weight."""
    from jax.sharding import NamedSharding

    return _map(lambda name, w: NamedSharding(mesh, rules.spec(w.axes, w.shape, mesh, name)), tree)


def abstract(tree: Tree, dtype: Any, mesh: Mesh | None = None, rules: Rules = DEFAULT_RULES) -> Tree:
    """A `jax.ShapeDtypeStruct` for every declared weight, with its sharding when a mesh is given."""
    import jax
    from jax.sharding import NamedSharding

    def make(name: str, w: Weight) -> jax.ShapeDtypeStruct:
        if mesh is None:
            return jax.ShapeDtypeStruct(w.shape, dtype)
        sharding = NamedSharding(mesh, rules.spec(w.axes, w.shape, mesh, name))
        return jax.ShapeDtypeStruct(w.shape, dtype, sharding=sharding)

    return _map(make, tree)


def fitting(tree: Tree, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Rules:
    """Rules under which every declared weight can be placed on ``mesh``: axes that do not divide stay whole.

    Of a rule with several mesh axes the first ones that divide are kept. Compare with ``rules`` to see what changed.
    """
    sizes: dict[str, set[int]] = {}
    for weight in leaves(tree).values():
        for axis, length in zip(weight.axes, weight.shape, strict=True):
            sizes.setdefault(axis, set()).add(length)
    changes: dict[str, MeshAxes] = {}
    for axis, lengths in sizes.items():
        targets = rules.targets(axis, mesh)
        kept = targets
        while kept and any(length % math.prod(mesh.shape[name] for name in kept) for length in lengths):
            kept = kept[:-1]
        if kept != targets:
            changes[axis] = kept or None
    return rules.replace(**changes)


def size(tree: Tree) -> int:
    """How many numbers the declared weights hold."""
    return sum(math.prod(weight.shape) for weight in leaves(tree).values())


def bytes_per_device(tree: Tree, dtype: Any, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> int:
    """How many bytes of the declared weights each device of a mesh holds."""
    import jax
    import jax.numpy as jnp

    placed = jax.tree.leaves(abstract(tree, dtype, mesh, rules))
    numbers = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in placed)
    return numbers * jnp.dtype(dtype).itemsize


def leaves(tree: Tree) -> dict[str, Weight]:
    """Dotted path → weight, in the declaration's order."""
    found: dict[str, Weight] = {}
    _map(lambda name, weight: found.__setitem__(name, weight), tree)
    return found


def check(tree: Tree, params: Tree, where: str) -> None:
    """Compare arrays with their declaration: every name exactly once, every shape equal.

    Raises:
      InputError: a missing or unknown name or another shape, naming ``where``, the path and both shapes.
    """
    declared = leaves(tree)
    given = dict(paths(params))
    for name in given:
        if name not in declared:
            raise InputError(f"{where}: unknown weight {name!r}{near(name, declared)}")
    for name, weight in declared.items():
        if name not in given:
            raise InputError(f"{where}: the weight {name!r} of shape {weight.shape} is missing")
        if tuple(given[name].shape) != weight.shape:
            raise InputError(
                f"{where}: the weight {name!r} has shape {tuple(given[name].shape)}, expected {weight.shape}"
            )
