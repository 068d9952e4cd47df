"""Where the leaves of a training state live on a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from jaxinterp.core.letters import Tree
from jaxinterp.core.trees import paths

if TYPE_CHECKING:
    from jax.sharding import Mesh


def like_params(abstract: Tree, declared: Tree, mesh: Mesh) -> Tree:
    """A sharding for every leaf of a state: that of the parameter it belongs to, or a copy everywhere.

    A leaf belongs to a parameter if its dotted path ends in the parameter's and it has as many axes:
    ``params.W_enc``, and also the optimiser's ``optimiser.1.mu.W_enc``.

    Args:
      abstract: the state's shapes.
      declared: the parameters' shardings (`jaxinterp.parallel.weights.shardings`).
      mesh: the mesh.
    """
    from jax.sharding import NamedSharding, PartitionSpec

    known = dict(paths(declared))
    copies = NamedSharding(mesh, PartitionSpec())

    def one(path: str, ndim: int) -> NamedSharding:
        for name, sharding in known.items():
            if (path == name or path.endswith("." + name)) and len(sharding.spec) == ndim:
                return sharding
        return copies

    found = [one(path, leaf.ndim) for path, leaf in paths(abstract)]
    return jax.tree.unflatten(jax.tree.structure(abstract), found)
