"""One threshold a layer on a feature's contribution, activation times decoder length, set by a target L0.

What batch top-k does with a sort: over many tokens the largest contributions of a layer are kept. Here the
threshold is carried from step to step and moved towards the target instead of being found anew. The finished
dictionary is an ordinary JumpReLU one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.training.sparsity import base
from jaxinterp.training.sparsity.base import Gate, Gated, Pass, SparsityConfig, felt, target_l0


def gate(config: SparsityConfig) -> Gate:
    """No sparsity penalty: the target decides. Thresholds get no gradient."""
    if config.l0 is None:
        raise InputError("sparsity: the method layer-threshold needs a target, l0")

    def init(params: Tree, norms: Array) -> tuple[Tree, dict[str, Array]]:
        params = {name: value for name, value in params.items() if name != "threshold"}
        return params, {"threshold": config.threshold * felt(config, jnp.mean(norms, axis=1))}

    def thresholds(params: Tree, norms: Array, control: dict[str, Array]) -> Array:
        del params
        return control["threshold"][:, None] / jnp.maximum(norms, 1e-6)

    def apply(given: Pass) -> Gated:
        cut = jax.lax.stop_gradient(thresholds(given.params, given.norms, given.control))
        a = jnp.where(given.h > cut[:, None, :], given.h, jnp.zeros_like(given.h))
        return Gated(a, base.pre_activation_penalty(config, given, cut), {})

    def update(
        control: dict[str, Array], l0: Array, seen: dict[str, Array], progress: Array
    ) -> dict[str, Array]:
        del seen
        off = jnp.clip(felt(config, l0) / target_l0(config, progress) - 1, -1.0, 1.0)
        return {"threshold": control["threshold"] * jnp.exp(config.rate * off)}

    def plain(params: Tree, norms: Array, control: dict[str, Array]) -> dict[str, Any]:
        return {**params, "threshold": thresholds(params, norms, control)}

    return Gate(base.jumprelu, init, apply, update, thresholds, plain)
