"""The weight of a penalty, layer by layer: raised in a ramp, or driven so that L0 meets a target."""

from __future__ import annotations

import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.training.sparsity.base import SparsityConfig, felt, target_l0

FEWEST = 1e-3  # active features a row, where the logarithm of none is wanted
MEMORY = 0.9  # of the moving average of log L0, per step


def start(config: SparsityConfig, groups: int, dtype: jnp.dtype) -> dict[str, Array]:
    """The coefficient of each group; where it is driven, also the moving average of log L0."""
    coefficient = jnp.full((groups,), config.coefficient, dtype)
    if config.l0 is None:
        return {"coefficient": coefficient}
    return {"coefficient": coefficient, "log_l0": jnp.full_like(coefficient, jnp.nan)}  # NaN: no step yet


def weight(config: SparsityConfig, control: dict[str, Array], progress: Array) -> Array:
    """λ_S of each group ``[G]`` at this point of the run."""
    ramp = jnp.clip(progress / max(config.ramp, 1e-9), 0.0, 1.0) if config.l0 is None else 1.0
    return control["coefficient"] * ramp


def update(
    config: SparsityConfig, control: dict[str, Array], l0: Array, seen: dict[str, Array], progress: Array
) -> dict[str, Array]:
    """After a step with this L0 ``[G]``.

    Where ``config.l0`` is given, each group's coefficient is multiplied by ``exp(rate log(l0 / target) + damping Δ)``,
    the first logarithm kept within ±1, Δ the step's change of a moving average of log l0. L0 follows λ tens of steps
    late and a silenced feature gets no gradient, so λ must fall while L0 falls, not once it is too low.
    """
    del seen
    if config.l0 is None:
        return control
    now = jnp.log(jnp.maximum(felt(config, l0), FEWEST))
    before = jnp.where(jnp.isnan(control["log_l0"]), now, control["log_l0"])
    change = (1 - MEMORY) * (now - before)
    off = jnp.clip(now - jnp.log(target_l0(config, progress)), -1.0, 1.0)
    factor = jnp.exp(config.rate * off + config.damping * change)
    return {"coefficient": control["coefficient"] * factor, "log_l0": before + change}
