"""JumpReLU with a trained threshold a feature, tanh sparsity and pre-activation loss (methods.md §1.2)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses
from jaxinterp.dictionaries.activations import VARIANTS, jumprelu
from jaxinterp.training.sparsity.base import Gate, SparsityConfig, target_l0


def gate(config: SparsityConfig) -> Gate:
    """Thresholds are stored as logarithms, so that they stay positive and steps are relative.

    Where ``config.l0`` is given, each layer's coefficient is multiplied after every step by
    ``exp(rate (l0 / target - 1))``, which drives its L0 to the target.
    """
    if config.variant not in VARIANTS:
        raise InputError(f"sparsity: variant is {config.variant!r}, expected one of {', '.join(VARIANTS)}")

    def init(params: Tree, norms: Array) -> tuple[Tree, dict[str, Array]]:
        del norms
        start = jnp.full_like(params["threshold"], config.threshold)
        layers = params["threshold"].shape[0]
        coefficient = jnp.full((layers,), config.coefficient, params["threshold"].dtype)
        return {**params, "threshold": jnp.log(start)}, {"coefficient": coefficient}

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
        off = jnp.clip(l0 / target_l0(config, progress) - 1, -1.0, 1.0)
        return {"coefficient": control["coefficient"] * jnp.exp(config.rate * off)}

    def thresholds(params: Tree, norms: Array, control: dict[str, Array]) -> Array:
        del norms, control
        return jnp.exp(params["threshold"])

    def plain(params: Tree, norms: Array, control: dict[str, Array]) -> dict[str, Any]:
        return {**params, "threshold": thresholds(params, norms, control)}

    return Gate(init, apply, update, thresholds, plain)
