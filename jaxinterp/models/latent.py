"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): one vector a token for all keys and values.

Letters: B batch, T position, D width, H heads, E head width, C width of the latent of keys and values, R of that of
queries. The latents go through RMS norms, whose denominators linearisation freezes for values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import wide
from jaxinterp.models.norms import Line, add_bias, along, secant

if TYPE_CHECKING:
    from jaxinterp.models.config import ModelConfig

Turner = Callable[[Array], Array]
"""Rotates [B, T, H, E'] by position."""
Normer = Callable[[Array, str], Array]
"""(latent, name) -> latent: a norm by its name among the weights."""


@dataclass(frozen=True)
class Latent:
    """Sizes of latent attention.

    Attributes:
      kv_rank: C.
      d_plain, d_turned: entries of a query or key head that do not turn with the position, and that do; the turning
        part of keys is common to all heads.
      d_value: width of a value head.
      q_rank: R; None means that queries come straight from the residual stream.
      norm_eps: of the norms of the latents.
    """

    kv_rank: int
    d_plain: int
    d_turned: int
    d_value: int
    q_rank: int | None = None
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("kv_rank", "d_plain", "d_turned", "d_value", "q_rank"):
            value = getattr(self, name)
            if name == "q_rank" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"latent: {name} is {value!r}, expected a whole number of at least 1")
        if not 0 < self.norm_eps < 1:
            raise InputError(f"latent: norm_eps is {self.norm_eps!r}, expected a small positive number")

    @staticmethod
    def from_dict(values: Any) -> Latent:
        """The inverse of `dataclasses.asdict`. An unknown field raises an `InputError` that names it."""
        if not isinstance(values, dict):
            raise InputError(f"latent is {values!r}, expected fields and values")
        known = [f.name for f in dataclasses.fields(Latent)]
        for name in values:
            if name not in known:
                raise InputError(f"latent: unknown field {name!r}{near(name, known)}")
        try:
            return Latent(**values)
        except TypeError as error:
            raise InputError(f"latent: {error}") from error


def compress(w: Tree, x: Array, unit: Array | None, precision: Any) -> Array:
    """x [B, T, D] -> the latent [B, T, C] of keys and values before its norm. Linear in x and in ``unit``."""
    return add_bias(
        jnp.einsum("btd,dc->btc", x, w["kv_down"], precision=precision), w.get("kv_down_bias"), unit
    )


def scale(latent: Array, w: Tree, name: str, config: ModelConfig) -> Array:
    """The denominator [B, T, 1] of a latent's RMS norm; [B, T, C] of a Dynamic Tanh in its place."""
    if config.norm == "tanh":
        return secant(wide(latent), wide(w[f"{name}_alpha"]))
    assert config.latent is not None
    latent = wide(latent)
    return jnp.sqrt(jnp.mean(latent * latent, axis=-1, keepdims=True) + config.latent.norm_eps)


def normalise(latent: Array, w: Tree, name: str, line: Line, unit: Array | None = None) -> Array:
    """A latent [B, T, C] through a given `Line` in place of its norm; gain and bias. Linear in it and in ``unit``."""
    gain, bias = w[name], w.get(f"{name}_bias")
    out = along(latent, line, unit) * wide(gain)[None, None]
    return add_bias(out, None if bias is None else wide(bias), unit).astype(gain.dtype)


def values(w: Tree, latent: Array, line: Line, unit: Array | None, precision: Any) -> Array:
    """Value vectors [B, T, H, d_value] of a latent with its norm given. Linear in the latent and in ``unit``."""
    return jnp.einsum(
        "btc,ych->bthy", normalise(latent, w, "kv_norm", line, unit), w["v_up"], precision=precision
    )


def queries_and_keys(
    w: Tree, model: ModelConfig, x: Array, turn: Turner, precision: Any, norm: Normer | None = None,
    unit: Array | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Queries and keys [B, T, H, E] of x [B, T, D], turned; see `attention.queries_and_keys`."""
    config = model.latent
    assert config is not None
    normed = norm or (lambda latent, name: normalise(latent, w, name, Line(scale(latent, w, name, model))))

    if config.q_rank is None:
        q = jnp.einsum("btd,dhe->bthe", x, w["q"], precision=precision)
    else:
        low = add_bias(
            jnp.einsum("btd,dr->btr", x, w["q_down"], precision=precision), w.get("q_down_bias"), unit
        )
        q = jnp.einsum("btr,rhe->bthe", normed(low, "q_norm"), w["q_up"], precision=precision)
    latent = compress(w, x, unit, precision)
    plain = jnp.einsum("btc,nch->bthn", normed(latent, "kv_norm"), w["k_up"], precision=precision)
    common = add_bias(
        jnp.einsum("btd,du->btu", x, w["k_turned"], precision=precision), w.get("k_turned_bias"), unit
    )
    common = jnp.broadcast_to(turn(common[:, :, None, :]), (*plain.shape[:3], config.d_turned))
    q = jnp.concatenate([q[..., : config.d_plain], turn(q[..., config.d_plain :])], axis=-1)
    return q, jnp.concatenate([plain, common], axis=-1)
