"""Features that compete: top-k (Gao et al. 2024), batch top-k (Bussmann et al. 2024), the largest of each group.

The number that wins may fall over the first part of a run, from ``start_l0`` to ``l0``. Batch top-k ends as a JumpReLU
dictionary: the threshold of a layer is a moving average of the smallest contribution that won.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import sparse
from jaxinterp.dictionaries.activations import batch_top_k, group_max, top_k
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.training.sparsity import base
from jaxinterp.training.sparsity.base import Few, Gate, Gated, Pass, SparsityConfig, target_l0


def _count(config: SparsityConfig) -> int:
    if config.l0 is None or config.l0 != round(config.l0) or config.l0 < 1:
        raise InputError(
            f"sparsity: the method {config.method} needs a whole number of features, l0, not {config.l0}"
        )
    return round(config.l0)


def _at_first(config: SparsityConfig) -> int:
    """The largest number that ever wins."""
    return max(_count(config), round(config.start_l0 or 0))


def _keep(config: SparsityConfig, progress: Array, rows: int = 1) -> Array | None:
    """How many win at this point; None where it is always the same number."""
    if _at_first(config) == _count(config):
        return None
    return jnp.round(target_l0(config, progress) * rows).astype(jnp.int32)


def _lengths(config: SparsityConfig, given: Pass) -> Array | None:
    return given.norms[:, None, :] if config.ranked else None


def _start(params: Tree, norms: Array) -> tuple[Tree, dict[str, Array]]:
    del norms
    return {name: value for name, value in params.items() if name != "threshold"}, {}


def _same(control: dict[str, Array], l0: Array, seen: dict[str, Array], progress: Array) -> dict[str, Array]:
    del l0, seen, progress
    return control


def _penalties(config: SparsityConfig, given: Pass) -> dict[str, Array]:
    return base.pre_activation_penalty(config, given, jnp.zeros_like(given.norms))


def top_k_gate(config: SparsityConfig) -> Gate:
    """The ``l0`` largest of every row and layer."""
    k = _count(config)

    def finished(dictionary: DictionaryConfig) -> DictionaryConfig:
        return dataclasses.replace(dictionary, activation="topk", k=k, ranked=config.ranked)

    def apply(given: Pass) -> Gated:
        at_most = min(_at_first(config), given.h.shape[-1])
        a = top_k(given.h, at_most, _lengths(config, given), _keep(config, given.progress), config.recall)
        return Gated(a, _penalties(config, given), {})

    def choose(h: Array, norms: Array, slots: int) -> Array:
        return sparse.winners(h, slots, norms if config.ranked else None, config.recall)

    def values(given: Pass, indices: Array, h: Array) -> Array:
        del indices  # the largest first
        keep = _keep(config, given.progress)
        kept = jnp.ones((), bool) if keep is None else jnp.arange(h.shape[-1], dtype=keep.dtype) < keep
        return jnp.where(jnp.broadcast_to(kept, h.shape), jax.nn.relu(h), jnp.zeros_like(h))

    few = Few(lambda n: 0 if config.pre_activation else min(_at_first(config), n), choose, values)
    return Gate(finished, _start, apply, _same, base.no_thresholds, base.as_stored, few)


def group_max_gate(config: SparsityConfig) -> Gate:
    """The largest of each of ``l0`` groups of neighbours."""
    k = _count(config)
    if _at_first(config) != k:
        raise InputError("sparsity: group-max cannot start with another number of groups, leave start_l0 out")

    def finished(dictionary: DictionaryConfig) -> DictionaryConfig:
        return dataclasses.replace(dictionary, activation="groupmax", k=k, ranked=config.ranked)

    def apply(given: Pass) -> Gated:
        return Gated(group_max(given.h, k, _lengths(config, given)), _penalties(config, given), {})

    def choose(h: Array, norms: Array, slots: int) -> Array:
        return sparse.group_winners(h, slots, norms if config.ranked else None)

    few = Few(lambda n: 0 if config.pre_activation else k, choose, lambda given, indices, h: jax.nn.relu(h))
    return Gate(finished, _start, apply, _same, base.no_thresholds, base.as_stored, few)


def batch_top_k_gate(config: SparsityConfig) -> Gate:
    """The ``l0`` × rows largest of every layer, over all rows of the batch."""
    _count(config)

    def init(params: Tree, norms: Array) -> tuple[Tree, dict[str, Array]]:
        return _start(params, norms)[0], {"threshold": jnp.zeros_like(norms[:, 0])}

    def apply(given: Pass) -> Gated:
        rows, most = given.h.shape[1], given.h[0].size
        count = min(_at_first(config) * rows, most)
        a = batch_top_k(given.h, count, _lengths(config, given), _keep(config, given.progress, rows))
        size = a * given.norms[:, None, :] if config.ranked else a
        least = jnp.min(jnp.where(size > 0, size, jnp.inf), axis=(1, 2))
        return Gated(a, _penalties(config, given), {"least": jax.lax.stop_gradient(least)})

    def update(
        control: dict[str, Array], l0: Array, seen: dict[str, Array], progress: Array
    ) -> dict[str, Array]:
        del l0, progress
        old, least = control["threshold"], seen["least"]
        moved = (1 - config.rate) * old + config.rate * least
        return {"threshold": jnp.where(jnp.isfinite(least), moved, old)}

    def thresholds(params: Tree, norms: Array, control: dict[str, Array]) -> Array:
        del params
        cut = jnp.broadcast_to(control["threshold"][:, None], norms.shape)
        return cut / jnp.maximum(norms, 1e-6) if config.ranked else cut

    def plain(params: Tree, norms: Array, control: dict[str, Array]) -> dict[str, Any]:
        return {**params, "threshold": thresholds(params, norms, control)}

    return Gate(base.jumprelu, init, apply, update, thresholds, plain)
