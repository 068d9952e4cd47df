"""JumpReLU with a trained threshold a feature, by the straight-through estimator.

With the tanh penalty the recipe of *Circuits Updates, January 2025*, and of *Circuit Tracing*; with L0 itself that of
Rajamanoharan et al. 2024 (arXiv 2407.14435); with the square of its distance from a target that of Gemma Scope 2.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses
from jaxinterp.dictionaries.activations import VARIANTS, jumprelu
from jaxinterp.training.sparsity import base, controller
from jaxinterp.training.sparsity.base import Gate, Gated, Pass, SparsityConfig, target_l0

PENALTIES = ("tanh", "step", "quadratic", "quadratic-rows")


def gate(config: SparsityConfig) -> Gate:
    """Thresholds are stored as logarithms, so that they stay positive and steps are relative."""
    if config.variant not in VARIANTS:
        raise InputError(f"sparsity: variant is {config.variant!r}, expected one of {', '.join(VARIANTS)}")
    if config.penalty not in PENALTIES:
        raise InputError(f"sparsity: penalty is {config.penalty!r}, expected one of {', '.join(PENALTIES)}")
    quadratic = config.penalty.startswith("quadratic")
    if quadratic and config.l0 is None:
        raise InputError(f"sparsity: the penalty {config.penalty} needs a target, l0")
    if quadratic and config.pooled:
        raise InputError(f"sparsity: the penalty {config.penalty} is of each layer, leave pooled out")
    # The quadratic penalties hold L0 at the target themselves.
    driven = config if not quadratic else SparsityConfig(coefficient=config.coefficient, ramp=config.ramp)

    def init(params: Tree, norms: Array) -> tuple[Tree, dict[str, Array]]:
        threshold = jnp.log(jnp.full_like(params["threshold"], config.threshold))
        return {**params, "threshold": threshold}, controller.start(driven, norms.shape[0], norms.dtype)

    def penalty(given: Pass, a: Array, threshold: Array) -> Array:
        if config.penalty == "tanh":
            return losses.tanh_sparsity(a, given.norms, config.scale)
        if config.penalty == "step":
            return losses.step_sparsity(given.h, threshold, config.bandwidth)
        each_row = config.penalty == "quadratic-rows"
        target = target_l0(config, given.progress)
        return losses.quadratic_sparsity(given.h, threshold, config.bandwidth, target, each_row)

    def apply(given: Pass) -> Gated:
        threshold = jnp.exp(given.params["threshold"])
        a = jumprelu(given.h, threshold[:, None, :], config.bandwidth, config.variant)
        weight = controller.weight(driven, given.control, given.progress)
        penalties = {"sparsity": weight * penalty(given, a, threshold)}
        return Gated(a, penalties | base.pre_activation_penalty(config, given, threshold), {})

    def thresholds(params: Tree, norms: Array, control: dict[str, Array]) -> Array:
        del norms, control
        return jnp.exp(params["threshold"])

    def plain(params: Tree, norms: Array, control: dict[str, Array]) -> dict[str, Any]:
        return {**params, "threshold": thresholds(params, norms, control)}

    return Gate(base.jumprelu, init, apply, partial(controller.update, driven), thresholds, plain)
