"""Patterns of low-rank sparse attention: who looks where, from queries and keys that many features share.

Letters: L layers, B sequences, T query position, S key position, D width, Q query-key heads, E their width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.models.rotary import RopeScaling, rates, rotate

PAIRS = ("half", "adjacent")
NORMS = ("none", "rms")


@dataclass(frozen=True)
class Attention:
    """What decides where the heads of a Lorsa look (arXiv 2504.20938; Llamascopium's ``LorsaConfig``).

    Attributes:
      heads: Q. Feature i belongs to head ``i // (N / Q)``.
      width: E.
      scale: factor on scores; None means ``E ** -0.5``.
      rope_base: base of the rotary embedding of queries and keys; None means that positions do not turn.
      rope_pairs: entries that turn together: "half" (i, i + R/2) or "adjacent" (2i, 2i + 1).
      rope_width: R, entries that turn, the first ones; None means all.
      rope_scaling: for longer contexts; not "longrope", whose rates depend on the sequence.
      softcap: ``cap * tanh(score / cap)``; None means absent.
      window: keys further back than so many tokens (the query's own included) are not seen; 0 means all are. One number
        for every layer, or one for each.
      qk_norm: "rms": queries and keys are divided by their root mean square and multiplied by a gain, before they turn.
      qk_gain_offset: added to that gain (1 in Gemma).
      eps: of that norm.
    """

    heads: int
    width: int
    scale: float | None = None
    rope_base: float | None = 10000.0
    rope_pairs: str = "half"
    rope_width: int | None = None
    rope_scaling: RopeScaling | None = None
    softcap: float | None = None
    window: tuple[int, ...] = (0,)
    qk_norm: str = "none"
    qk_gain_offset: float = 0.0
    eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("heads", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"attention: {name} is {value!r}, expected a whole number of at least 1")
        for name in ("scale", "rope_base", "softcap", "eps"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and 0 < value < float("inf")) and not (value is None and name != "eps"):
                raise InputError(f"attention: {name} is {value!r}, expected a positive number")
        for name, allowed in (("rope_pairs", PAIRS), ("qk_norm", NORMS)):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"attention: {name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}"
                )
        turns = self.rope_width if self.rope_width is not None else self.width
        if self.rope_base is not None and (
            not isinstance(turns, int) or turns % 2 or not 2 <= turns <= self.width
        ):
            raise InputError(
                f"attention: {turns!r} entries turn, expected an even number of at most {self.width}"
            )
        if self.rope_scaling is not None and self.rope_scaling.kind == "longrope":
            raise InputError("attention: the scaling longrope is not supported for a Lorsa")
        object.__setattr__(self, "window", tuple(self.window))
        if not self.window or any(
            not isinstance(w, int) or isinstance(w, bool) or w < 0 for w in self.window
        ):
            raise InputError(f"attention: window is {self.window}, expected whole numbers, 0 for all keys")

    @property
    def score_scale(self) -> float:
        """The factor on scores."""
        return self.width**-0.5 if self.scale is None else self.scale

    @classmethod
    def from_dict(cls, values: Any, where: str = "attention") -> Attention:
        """The inverse of `dataclasses.asdict`. An unknown field raises an `InputError` that names it."""
        if not isinstance(values, dict):
            raise InputError(f"{where} is {values!r}, expected fields and values")
        known = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(f"{where}: unknown field {name!r}{near(name, known)}")
        found = dict(values)
        if found.get("rope_scaling") is not None:
            found["rope_scaling"] = RopeScaling.from_dict(found["rope_scaling"])
        if not isinstance(found.get("window", []), list | tuple):
            raise InputError(f"{where}: window is {found['window']!r}, expected a list of whole numbers")
        try:
            return cls(**found)
        except TypeError as error:
            raise InputError(f"{where}: {error}") from error


class Places(NamedTuple):
    """Where tokens stand: their position in their document and the number of that document, ``[B, T]`` each."""

    positions: Array
    segments: Array


def whole(batch: int, length: int) -> Places:
    """One document a sequence, positions from 0: ``[B, T]`` each."""
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None, :], (batch, length))
    return Places(positions, jnp.zeros((batch, length), jnp.int32))


def seen(places: Places, window: Array) -> Array:
    """``[L, B, T, S]``: keys of the query's own document, not after it and no further back than ``window [L]``."""
    query, key = places.positions[:, :, None], places.positions[:, None, :]
    here = (key <= query) & (places.segments[:, :, None] == places.segments[:, None, :])
    width = window[:, None, None, None]
    return here[None] & ((width == 0) | ((query - key)[None] < width))


def queries_and_keys(params: Tree, attention: Attention, x: Array, places: Places) -> tuple[Array, Array]:
    """Queries and keys ``[L, B, T, Q, E]`` of ``x [L, B, T, D]``: projected, normed, turned, in this order.

    ``params``: ``W_q, W_k [L, Q, D, E]``, ``b_q, b_k [L, Q, E]`` and, with a norm, its gains
    ``q_norm, k_norm [L, Q, E]``.
    """

    def one(side: str) -> Array:
        value = einsum("lbtd,lqde->lbtqe", x, params[f"W_{side}"]) + params[f"b_{side}"][:, None, None]
        if attention.qk_norm == "rms":
            size = jnp.sqrt(jnp.mean(value * value, axis=-1, keepdims=True) + attention.eps)
            value = value / size * (params[f"{side}_norm"] + attention.qk_gain_offset)[:, None, None]
        return _turned(value, attention, places)

    return one("q"), one("k")


def _turned(value: Array, attention: Attention, places: Places) -> Array:
    if attention.rope_base is None:
        return value
    scaling = attention.rope_scaling
    table = rates(attention.rope_width or attention.width, attention.rope_base, scaling)
    angles = places.positions.astype(value.dtype)[:, :, None] * jnp.asarray(table, value.dtype)[None, None]
    size = 1.0 if scaling is None else scaling.size
    turn = (size * jnp.cos(angles), size * jnp.sin(angles))
    return jax.vmap(lambda layer: rotate(layer, turn, attention.rope_pairs))(value)


def pattern(params: Tree, attention: Attention, x: Array, places: Places, first_layer: int = 0) -> Array:
    """Probabilities ``[L, B, Q, T, S]`` of ``x [L, B, T, D]``: ``softmax(scale q kᵀ)`` over the keys that are seen.

    Args:
      params: see `queries_and_keys`; ``first_layer`` is the number of their first layer.
    """
    q, k = queries_and_keys(params, attention, x, places)
    scores = einsum("lbtqe,lbsqe->lbqts", q, k) * attention.score_scale
    if attention.softcap is not None:
        scores = attention.softcap * jnp.tanh(scores / attention.softcap)
    layers = range(first_layer, first_layer + x.shape[0])
    widths = [attention.window[layer if len(attention.window) > 1 else 0] for layer in layers]
    mask = seen(places, jnp.asarray(widths, jnp.int32))
    return jax.nn.softmax(jnp.where(mask[:, :, None], scores, jnp.finfo(scores.dtype).min), axis=-1)
