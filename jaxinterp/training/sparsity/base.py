"""What a way of keeping features sparse is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree


@dataclass(frozen=True)
class SparsityConfig:
    """How features are kept sparse.

    Attributes:
      method: "straight-through" (a threshold a feature, trained by the straight-through estimator, with
        tanh sparsity) or "layer-threshold" (one threshold a layer on activation times decoder length, moved
        so that the layer's L0 meets a target).
      l0: target of active features a row and layer; None leaves it to ``coefficient`` (straight-through only).
      start_l0: the target before step ``anneal`` × steps falls linearly (in the logarithm) from it to ``l0``;
        None means ``l0`` from the start.
      anneal: share of the run in which the target moves.
      rate: how fast the controller moves towards the target, per step.
      damping: how strongly a coefficient answers to the movement of L0 itself (straight-through only).
      coefficient: λ_S, weight of the tanh sparsity; where ``l0`` is given, its first value.
      ramp: share of the run in which λ_S rises linearly from 0.
      scale: c in ``tanh(c ‖W_dec‖ a)``.
      pre_activation: λ_P, weight of the pre-activation loss.
      bandwidth: ε of the straight-through estimator.
      variant: its reach, "threshold" or "all" parameters.
      threshold: first threshold.
    """

    method: str = "straight-through"
    l0: float | None = None
    start_l0: float | None = None
    anneal: float = 0.5
    rate: float = 0.05
    damping: float = 5.0
    coefficient: float = 0.1
    ramp: float = 1.0
    scale: float = 4.0
    pre_activation: float = 3e-6
    bandwidth: float = 1.0
    variant: str = "threshold"
    threshold: float = 0.03


class Gate(NamedTuple):
    """Pure functions; ``control`` is what a gate keeps between steps, a dict of arrays.

    Attributes:
      init: ``(params, norms [L, N])`` → ``(params, control)``: the trainable parameters as this gate stores them.
      apply: ``(params, norms [L, N], control, h [L, R, N], progress)`` → activations ``[L, R, N]`` and a
        dict of weighted penalties, each ``[L]``. ``progress`` runs from 0 to 1 over training.
      update: ``(control, l0 [L], progress)`` → control after a step.
      thresholds: ``(params, norms [L, N], control)`` → ``[L, N]``, those of the finished dictionary.
      plain: ``(params, norms [L, N], control)`` → parameters as the dictionary's kind declares them.
    """

    init: Callable[[Tree, Array], tuple[Tree, dict[str, Array]]]
    apply: Callable[[Tree, Array, dict[str, Array], Array, Array], tuple[Array, dict[str, Array]]]
    update: Callable[[dict[str, Array], Array, Array], dict[str, Array]]
    thresholds: Callable[[Tree, Array, dict[str, Array]], Array]
    plain: Callable[[Tree, Array, dict[str, Array]], Tree]


def make_gate(config: SparsityConfig) -> Gate:
    """The gate that ``config`` describes.

    Raises:
      InputError: an unknown method or variant, or settings that do not go together.
    """
    from jaxinterp.training.sparsity import layer_threshold, straight_through

    methods = {"straight-through": straight_through.gate, "layer-threshold": layer_threshold.gate}
    if config.method not in methods:
        raise InputError(
            f"sparsity: method is {config.method!r}, expected one of {', '.join(methods)}"
            f"{near(config.method, methods)}"
        )
    return methods[config.method](config)


def target_l0(config: SparsityConfig, progress: Array) -> Array:
    """The target of L0 at this point of the run."""
    import jax.numpy as jnp

    assert config.l0 is not None
    start = config.l0 if config.start_l0 is None else config.start_l0
    share = jnp.clip(progress / max(config.anneal, 1e-9), 0.0, 1.0)
    return jnp.exp((1 - share) * jnp.log(start) + share * jnp.log(config.l0))
