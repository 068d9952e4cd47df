"""JumpReLU with a trained threshold a feature, tanh sparsity and pre-activation loss (methods.md §1.2)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses
from jaxinterp.dictionaries.activations import VARIANTS, jumprelu
from jaxinterp.training.sparsity.base import Gate, SparsityConfig, target_l0

FEWEST = 1e-3  # active features a row, where the logarithm of none is wanted
MEMORY = 0.9  # of the moving average of log L0, per step


def gate(config: SparsityConfig) -> Gate:
    """Thresholds are stored as logarithms, so that they stay positive and steps are relative.

    Where ``config.l0`` is given, each layer's coefficient λ is multiplied after every step by
    ``exp(rate log(l0 / target) + damping Δ)``, the first logarithm kept within ±1, Δ the step's change of a moving
    average of log l0. L0 follows λ tens of steps late and a silenced feature gets no gradient, so λ must fall while
    L0 falls, not once it is too low.
    """
    if config.variant not in VARIANTS:
        raise InputError(f"sparsity: variant is {config.variant!r}, expected one of {', '.join(VARIANTS)}")

    def init(params: Tree, norms: Array) -> tuple[Tree, dict[str, Array]]:
        del norms
        start = jnp.full_like(params["threshold"], config.threshold)
        layers = params["threshold"].shape[0]
        coefficient = jnp.full((layers,), config.coefficient, params["threshold"].dtype)
        control = {"coefficient": coefficient}
        if config.l0 is not None:  # NaN: no step yet
            control["log_l0"] = jnp.full_like(coefficient, jnp.nan)
        return {**params, "threshold": jnp.log(start)}, control

    def apply(
        params: Tree, norms: Array, control: dict[str, Array], h: Array, progress: Array
    ) -> tuple[Array, dict[str, Array]]:
        threshold = jnp.exp(params["threshold"])
        a = jumprelu(h, threshold[:, None, :], config.bandwidth, config.variant)
        ramp = jnp.clip(progress / max(config.ramp, 1e-9), 0.0, 1.0) if config.l0 is None else 1.0
        penalties = {"sparsity": control["coefficient"] * ramp * losses.tanh_sparsity(a, norms, config.scale)}
        if config.pre_activation:
            penalties["pre_activation"] = config.pre_activation * losses.pre_activation(h, threshold, norms)
        return a, penalties

    def update(control: dict[str, Array], l0: Array, progress: Array) -> dict[str, Array]:
        if config.l0 is None:
            return control
        now = jnp.log(jnp.maximum(l0, FEWEST))
        before = jnp.where(jnp.isnan(control["log_l0"]), now, control["log_l0"])
        change = (1 - MEMORY) * (now - before)
        off = jnp.clip(now - jnp.log(target_l0(config, progress)), -1.0, 1.0)
        factor = jnp.exp(config.rate * off + config.damping * change)
        return {"coefficient": control["coefficient"] * factor, "log_l0": before + change}

    def thresholds(params: Tree, norms: Array, control: dict[str, Array]) -> Array:
        del norms, control
        return jnp.exp(params["threshold"])

    def plain(params: Tree, norms: Array, control: dict[str, Array]) -> dict[str, Any]:
        return {**params, "threshold": thresholds(params, norms, control)}

    return Gate(init, apply, update, thresholds, plain)
