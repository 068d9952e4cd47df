"""Adam with clipping, linear warm-up and linear decay over the last part of a run."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from jaxinterp.core.errors import InputError


@dataclass(frozen=True)
class OptimiserConfig:
    """Settings of the optimiser.

    Attributes:
      learning_rate: peak rate.
      warmup: steps of linear rise from 0.
      decay: share of the run, at its end, over which the rate falls linearly to ``final`` times the peak.
      final: see ``decay``.
      beta1, beta2, epsilon: Adam's.
      clip: largest global norm of a gradient; 0 means no clipping.
    """

    learning_rate: float = 1e-2
    warmup: int = 100
    decay: float = 0.2
    final: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1 or self.warmup < 0 or self.learning_rate <= 0 or self.clip < 0:
            raise InputError(
                f"optimiser: decay {self.decay} must be in 0..1, warmup {self.warmup} and clip {self.clip} at "
                f"least 0, learning_rate {self.learning_rate} above 0"
            )


def schedule(config: OptimiserConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: warm-up, constant, linear decay."""
    warmup = min(config.warmup, steps)
    decay = min(round(config.decay * steps), steps - warmup)
    parts = [
        optax.linear_schedule(
            config.learning_rate / max(warmup, 1), config.learning_rate, max(warmup - 1, 1)
        ),
        optax.constant_schedule(config.learning_rate),
        optax.linear_schedule(config.learning_rate, config.final * config.learning_rate, max(decay, 1)),
    ]
    return optax.join_schedules(parts, [warmup, steps - decay])


def make_optimiser(config: OptimiserConfig, steps: int) -> optax.GradientTransformation:
    """The optimiser for a run of ``steps`` steps."""
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    return optax.chain(clip, adam, optax.scale_by_learning_rate(schedule(config, steps)))
