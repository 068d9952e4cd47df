"""What a way of keeping features sparse is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses, sparse
from jaxinterp.dictionaries.config import DictionaryConfig


@dataclass(frozen=True)
class SparsityConfig:
    """How features are kept sparse.

    Attributes:
      method: one of
        "straight-through": JumpReLU, a threshold a feature, trained by the straight-through estimator, with a
        ``penalty``;
        "layer-threshold": JumpReLU, one threshold a layer on activation times decoder length, moved so that L0 meets
        a target;
        "top-k", "group-max": ``l0`` features of a row compete; "batch-top-k": of all rows together, which ends as
        JumpReLU with one threshold a layer;
        "l1": ReLU with activation times decoder length as penalty; "gated": the same on a gate of its own.
      l0: target of active features a row and layer, a whole number where features compete; None leaves it to
        ``coefficient`` (straight-through, l1 and gated only).
      start_l0: the target before step ``anneal`` × steps falls linearly (in the logarithm) from it to ``l0``;
        None means ``l0`` from the start.
      anneal: share of the run in which the target moves.
      rate: how fast the controller moves towards the target, per step; of batch-top-k's threshold, its moving average.
      damping: how strongly a coefficient answers to the movement of L0 itself (where it is driven to a target).
      coefficient: λ_S, weight of the penalty; where ``l0`` is given, its first value.
      ramp: share of the run in which λ_S rises linearly from 0.
      penalty: of straight-through: "tanh" (``tanh(c ‖W_dec‖ a)``), "step" (L0 itself), "quadratic" (of the mean L0 from
        the target) or "quadratic-rows" (of each row's).
      scale: c in ``tanh(c ‖W_dec‖ a)``.
      pre_activation: λ_P, weight of the pre-activation loss.
      pre_activation_of: "all" features or the "dead".
      bandwidth: ε of the straight-through estimator.
      variant: its reach, "threshold" or "all" parameters.
      threshold: first threshold.
      ranked: features compete by activation times decoder length.
      recall: of top-k, the share of winners that is found on TPU, by `jax.lax.approx_max_k`; elsewhere all are.
      pooled: ``l0`` is of the mean over layers, and one threshold or coefficient serves them all, so that a layer
        takes as many features as pay there (straight-through, layer-threshold, l1 and gated). On scaled sites the
        square of activation times decoder length is what a feature takes off the error, whatever its layer.
    """

    method: str = "straight-through"
    l0: float | None = None
    start_l0: float | None = None
    anneal: float = 0.5
    rate: float = 0.05
    damping: float = 5.0
    coefficient: float = 0.1
    ramp: float = 1.0
    penalty: str = "tanh"
    scale: float = 4.0
    pre_activation: float = 3e-6
    pre_activation_of: str = "all"
    bandwidth: float = 1.0
    variant: str = "threshold"
    threshold: float = 0.03
    ranked: bool = True
    recall: float = 1.0
    pooled: bool = False


COMPETING = ("top-k", "group-max", "batch-top-k")
"""Methods whose features compete for a number of places."""


class Pass(NamedTuple):
    """What a gate sees of a step. Shapes: G groups of N features, L layers, R rows.

    Attributes:
      params: as the gate stores them. config: the dictionary's.
      norms: ``[G, N]``, lengths of joined decoders.
      control: what the gate keeps between steps.
      h: ``[G, R, N]`` pre-activations of x; x, y: ``[L, R, D]`` scaled sites.
      dead: ``[G, N]``, the features that count as dead.
      progress: 0 to 1 over training.
      unit: what squared errors are divided by.
    """

    params: Tree
    config: DictionaryConfig
    norms: Array
    control: dict[str, Array]
    h: Array
    x: Array
    y: Array
    dead: Array
    progress: Array
    unit: float


class Gated(NamedTuple):
    """What a gate makes of a step.

    Attributes:
      a: ``[G, R, N]`` activations, or their `sparse.Code`.
      penalties: name → ``[G]`` (or ``[L]``), weighted.
      seen: what `Gate.update` is to know.
    """

    a: Array | sparse.Code
    penalties: dict[str, Array]
    seen: dict[str, Array]


class Few(NamedTuple):
    """A gate's side of the sparse way through a step (`jaxinterp.training.few`), which has no penalties.

    Attributes:
      slots: ``(N)`` → K, features of a row that may be active, 0 where that way is not open.
      choose: ``(h [R, N], norms [N], K)`` → their numbers, ``[R, K]``.
      values: ``(Pass, indices [G, R, K], h [G, R, K])`` → activations.
    """

    slots: Callable[[int], int]
    choose: Callable[[Array, Array, int], Array]
    values: Callable[[Pass, Array, Array], Array]


class Gate(NamedTuple):
    """Pure functions; ``control`` is what a gate keeps between steps, a dict of arrays.

    Attributes:
      config: ``(DictionaryConfig)`` → the same with the activation function of training and of the finished dictionary.
      init: ``(params, norms [G, N])`` → ``(params, control)``: the trainable parameters as this gate stores them.
      apply: ``(Pass)`` → `Gated`.
      update: ``(control, l0 [G], seen, progress)`` → control after a step.
      thresholds: ``(params, norms [G, N], control)`` → ``[G, N]``, those of the finished dictionary, or 0.
      plain: ``(params, norms [G, N], control)`` → parameters as the dictionary's kind declares them.
      few: the sparse way, where there is one.
    """

    config: Callable[[DictionaryConfig], DictionaryConfig]
    init: Callable[[Tree, Array], tuple[Tree, dict[str, Array]]]
    apply: Callable[[Pass], Gated]
    update: Callable[[dict[str, Array], Array, dict[str, Array], Array], dict[str, Array]]
    thresholds: Callable[[Tree, Array, dict[str, Array]], Array]
    plain: Callable[[Tree, Array, dict[str, Array]], Tree]
    few: Few | None = None


def make_gate(config: SparsityConfig) -> Gate:
    """The gate that ``config`` describes.

    Raises:
      InputError: an unknown method or variant, or settings that do not go together.
    """
    from jaxinterp.training.sparsity import competing, layer_threshold, penalised, straight_through

    methods = {
        "straight-through": straight_through.gate,
        "layer-threshold": layer_threshold.gate,
        "top-k": competing.top_k_gate,
        "group-max": competing.group_max_gate,
        "batch-top-k": competing.batch_top_k_gate,
        "l1": penalised.l1_gate,
        "gated": penalised.gated_gate,
    }
    if config.method not in methods:
        raise InputError(
            f"sparsity: method is {config.method!r}, expected one of {', '.join(methods)}"
            f"{near(config.method, methods)}"
        )
    if not 0 < config.recall <= 1:
        raise InputError(f"sparsity: recall is {config.recall}, expected a share above 0 and at most 1")
    if config.pre_activation_of not in ("all", "dead"):
        raise InputError(f"sparsity: pre_activation_of is {config.pre_activation_of!r}, expected all or dead")
    if config.pooled and config.method in COMPETING:
        raise InputError(f"sparsity: features of {config.method} compete within a layer, leave pooled out")
    return methods[config.method](config)


def felt(config: SparsityConfig, l0: Array) -> Array:
    """The L0 of each layer ``[G]`` that is compared with the target: its own, or the mean of all."""
    import jax.numpy as jnp

    return jnp.full_like(l0, jnp.mean(l0)) if config.pooled else l0


def jumprelu(config: DictionaryConfig) -> DictionaryConfig:
    """The config of a gate whose dictionary is a JumpReLU one."""
    return dataclasses.replace(config, activation="jumprelu", k=0, ranked=False)


def no_thresholds(params: Tree, norms: Array, control: dict[str, Array]) -> Array:
    """`Gate.thresholds` where features are active above 0."""
    import jax.numpy as jnp

    del params, control
    return jnp.zeros_like(norms)


def as_stored(params: Tree, norms: Array, control: dict[str, Array]) -> Tree:
    """`Gate.plain` where parameters are trained as they are."""
    del norms, control
    return params


def pre_activation_penalty(config: SparsityConfig, given: Pass, threshold: Array) -> dict[str, Array]:
    """The pre-activation loss where it has a weight; ``threshold [G, N]``."""
    if not config.pre_activation:
        return {}
    only = given.dead if config.pre_activation_of == "dead" else None
    found = losses.pre_activation(given.h, threshold, given.norms, only)
    return {"pre_activation": config.pre_activation * found}


def target_l0(config: SparsityConfig, progress: Array) -> Array:
    """The target of L0 at this point of the run."""
    import jax.numpy as jnp

    assert config.l0 is not None
    start = config.l0 if config.start_l0 is None else config.start_l0
    share = jnp.clip(progress / max(config.anneal, 1e-9), 0.0, 1.0)
    return jnp.exp((1 - share) * jnp.log(start) + share * jnp.log(config.l0))
