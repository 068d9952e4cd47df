"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) and the ways of stretching it to longer contexts.

Letters: B batch, T position, H heads, E head width, R entries that turn (R <= E).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import wide

if TYPE_CHECKING:
    from jaxinterp.models.config import ModelConfig

KINDS = ("linear", "llama3", "yarn", "longrope")


@dataclass(frozen=True)
class RopeScaling:
    """How rates of rotation are changed for contexts longer than the one first trained on.

    Attributes:
      kind: "linear" (Chen et al. 2023, 2306.15595: every rate divided by ``factor``); "llama3" (Llama 3.1: slow rates
        divided, fast ones kept, a ramp between); "yarn" (Peng et al. 2023, 2309.00071: the same with a ramp over
        entries); "longrope" (Ding et al. 2024, 2402.13753: a divisor for every pair, ``long`` where a run goes beyond
        ``original_context``, else ``short``).
      factor: the divisor (not used by longrope).
      original_context: tokens of the context first trained on (not used by linear).
      low, high: llama3: rates of fewer than ``low`` turns in the original context are divided, of more
        than ``high`` kept.
      slow, fast, truncate: yarn: the same in turns at the ends of the ramp; whether its ends are whole entries.
      short, long: longrope: R/2 divisors.
      size: factor on rotated queries and keys alike.
    """

    kind: str
    factor: float = 1.0
    original_context: int = 0
    low: float = 1.0
    high: float = 4.0
    slow: float = 1.0
    fast: float = 32.0
    truncate: bool = True
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    size: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"rope_scaling: kind is {self.kind!r}, expected one of {KINDS}")
        for name in ("factor", "low", "high", "slow", "fast", "size"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 < value < float("inf")):
                raise InputError(f"rope_scaling: {name} is {value!r}, expected a positive number")
        needed = self.kind != "linear"
        whole = isinstance(self.original_context, int) and not isinstance(self.original_context, bool)
        if not whole or self.original_context < needed:
            raise InputError(
                f"rope_scaling: original_context is {self.original_context!r}, expected a whole number"
            )
        if self.kind == "llama3" and self.low >= self.high:
            raise InputError(f"rope_scaling: low is {self.low} and high {self.high}, low must be below")
        for name in ("short", "long"):
            values = tuple(getattr(self, name))
            good = all(
                isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < float("inf")
                for v in values
            )
            if not good or (self.kind == "longrope") != bool(values):
                raise InputError(
                    f"rope_scaling: {name} is {list(values)}, expected positive numbers for longrope only"
                )
            object.__setattr__(self, name, tuple(float(v) for v in values))

    @staticmethod
    def from_dict(values: Any) -> RopeScaling:
        """The inverse of `dataclasses.asdict`. An unknown field raises an `InputError` that names it."""
        if not isinstance(values, dict):
            raise InputError(f"rope_scaling is {values!r}, expected fields and values")
        known = [f.name for f in dataclasses.fields(RopeScaling)]
        for name in values:
            if name not in known:
                raise InputError(f"rope_scaling: unknown field {name!r}{near(name, known)}")
        if "kind" not in values:
            raise InputError("rope_scaling: the field 'kind' is missing")
        read: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return RopeScaling(**read)


def rates(width: int, base: float, scaling: RopeScaling | None = None, *, long: bool = False) -> np.ndarray:
    """Radians a token by which each pair turns, [R/2] float64.

    Args:
      width: R.
      base: the slowest pair turns by base ** -((R - 2) / R) before scaling.
      scaling: how rates are changed; None keeps them.
      long: which divisors of "longrope" are meant.
    """
    plain = float(base) ** (-np.arange(0, width, 2) / width)
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "longrope":
        return plain / np.array(scaling.long if long else scaling.short)
    turns = scaling.original_context * plain / (2 * math.pi)
    if scaling.kind == "llama3":
        kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0)
    else:
        kept = _yarn_kept(width, base, scaling)
    return kept * plain + (1 - kept) * plain / scaling.factor


def _yarn_kept(width: int, base: float, scaling: RopeScaling) -> np.ndarray:
    """Share [R/2] of each pair's own rate that YaRN keeps: a ramp from 1 to 0 over pairs."""

    def pair_of(turns: float) -> float:
        """The (fractional) pair that turns so often in the original context."""
        return width * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair_of(scaling.fast), pair_of(scaling.slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    last = last + 0.001 if first == last else last
    return 1 - np.clip((np.arange(width // 2) - first) / (last - first), 0.0, 1.0)


def tables(config: ModelConfig, positions: Array, dtype: Any) -> tuple[Array, Array]:
    """Cosines and sines [K, B, T, R/2] for positions [B, T].

    K is 1, or 2 where layers with a window have a base of their own: then the second is theirs, without scaling.
    With "longrope" the largest position of a row decides which divisors its tokens get.
    """
    width, scaling = config.rope_width or config.d_head, config.rope_scaling
    found = [rates(width, config.rope_base, scaling)]
    size = [1.0 if scaling is None else scaling.size]
    if config.rope_local_base is not None:
        found.append(rates(width, config.rope_local_base))
        size.append(1.0)
    table = jnp.asarray(np.stack(found), dtype)[:, None, :]
    if scaling is not None and scaling.kind == "longrope":
        far = jnp.asarray(rates(width, config.rope_base, scaling, long=True), dtype)
        beyond = jnp.max(positions, axis=1, keepdims=True) >= scaling.original_context
        table = jnp.broadcast_to(table, (table.shape[0], positions.shape[0], table.shape[2]))
        table = table.at[0].set(jnp.where(beyond, far[None, :], table[0]))
    angles = positions.astype(dtype)[None, :, :, None] * table[:, :, None, :]
    factor = jnp.asarray(size, dtype)[:, None, None, None]
    return factor * jnp.cos(angles), factor * jnp.sin(angles)


def rotate(x: Array, turn: tuple[Array, Array], pairs: str) -> Array:
    """Turn pairs of entries of every head.

    Args:
      x: [B, T, H, E] queries or keys; entries after the first R stay.
      turn: cosines and sines [B, T, R/2].
      pairs: "half" pairs entry i with i + R/2 (Hugging Face), "adjacent" pairs 2i with 2i + 1.

    Returns:
      [B, T, H, E].
    """
    cos, sin = (part[:, :, None, :] for part in turn)
    width = 2 * cos.shape[-1]
    turning, rest = x[..., :width], x[..., width:]
    if pairs == "half":
        first, second = jnp.split(turning, 2, axis=-1)
    else:
        first, second = turning[..., 0::2], turning[..., 1::2]
    first, second = wide(first), wide(second)
    turned = (first * cos - second * sin, second * cos + first * sin)
    out = jnp.concatenate(turned, -1) if pairs == "half" else jnp.stack(turned, -1).reshape(turning.shape)
    out = out.astype(x.dtype)
    return jnp.concatenate([out, rest], -1) if rest.shape[-1] else out
