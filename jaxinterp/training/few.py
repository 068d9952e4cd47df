"""The sparse way through a training step: which features are active is found first, and only they are computed with.

Nothing of the size rows × features is kept. The result is that of the dense way; see `jaxinterp.dictionaries.sparse`.
Letters: L layers, G groups of N features, R rows, K slots, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import sparse
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.parallel import placement
from jaxinterp.training.sparsity.base import Few, Pass

MOST = {"cpu": 16, "default": 512}
"""Sparse is faster where there are at least so many features for each slot of a row. On two CPU cores it was measured
(docs/measurements.md, "Dictionary training"); elsewhere where moving a slot's rows, about 24 bytes a slot and unit
of width, takes less time than the products it saves, 8 operations a feature and unit of width, at 200 operations a byte
of memory bandwidth, with a factor of about 3 because gathers do not reach it. It was not measured on an accelerator."""


def wins(wanted: bool | str, few: Few | None, config: DictionaryConfig, x: Array, needs: str) -> bool:
    """Whether a step on ``x [L, R, D]`` goes the sparse way.

    Args:
      wanted: True, False or "auto": where it is possible and faster.
      needs: what the objective needs all pre-activations for; empty where nothing.

    Raises:
      InputError: it is asked for and not possible.
    """
    if wanted is False:
        return False
    reason = needs
    if few is None or not (slots := few.slots(config.n_features)):
        slots, reason = (
            0,
            reason or "the method of sparsity, or its pre_activation, needs all pre-activations",
        )
    elif config.kind not in sparse.KINDS or kind_of(config).maps:
        reason = f"features of the kind {config.kind} are not read one by one"
    elif placement.current() is not None or _spread(x):
        reason = "rows or features are divided over a mesh"
    if wanted is True and reason:
        raise InputError(f"objective: sparse is not possible here: {reason}")
    if wanted is True or reason:
        return not reason
    return slots * MOST.get(jax.default_backend(), MOST["default"]) <= config.n_features


def _spread(x: Array) -> bool:
    """Whether this is traced for several devices, not as each one's own program."""
    mesh = jax.typeof(x).sharding.mesh
    return mesh.size > 1 and not all(kind == jax.sharding.AxisType.Manual for kind in mesh.axis_types)


class Candidates(NamedTuple):
    """Dead features that may predict what is left of the error: ``k`` a row, by ``h`` or ``h * lengths [G, N]``."""

    k: int
    lengths: Array | None


def apply(few: Few, given: Pass, auxiliary: Candidates | None) -> tuple[sparse.Code, sparse.Code | None]:
    """The activations of a step, and those of the candidates.

    Args:
      given: without pre-activations.
    """
    config, n = given.config, given.config.n_features
    slots = few.slots(n)
    belongs: dict[str, Any] = {"norms": given.norms}
    if auxiliary is not None:
        belongs |= {"dead": given.dead, "lengths": auxiliary.lengths}

    def choose(h: Array, own: Tree) -> Any:
        indices = few.choose(h, own["norms"], slots)
        found = (indices, sparse.at(h, indices), ())
        if auxiliary is None:
            return found
        rank = h if own["lengths"] is None else h * own["lengths"][None, :]
        dead = jnp.broadcast_to(own["dead"][None, :], h.shape)
        dying, _ = sparse.fitting(dead, rank, auxiliary.k)
        return found, (dying, sparse.at(h, dying), ())

    found = sparse.read(given.params, config, given.x, choose, belongs)
    (indices, h, _), others = (found, None) if auxiliary is None else (found[0], found[1])
    nothing_lost = jnp.zeros(len(indices), jnp.int32)
    values = few.values(given, indices, h)
    code = sparse.Code(indices, values, nothing_lost)
    return code, None if others is None else sparse.Code(others[0], others[1], nothing_lost)
