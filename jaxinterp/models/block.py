"""One layer, in two halves around the MLP. The same code runs live and frozen.

Frozen, the attention pattern and a straight line in place of each norm are given instead of computed, which makes
both halves linear in the residual stream and in the bias units (methods of *Circuit Tracing*, "local
replacement model").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.models import attention, norms
from jaxinterp.models.attention import Cache, Places, Turn
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.norms import Line
from jaxinterp.models.sites import Touch


class Frozen(NamedTuple):
    """What linearisation keeps of a layer: pattern [B, H, T, S], and a `Line` in place of each norm.

    Stacked over layers they have a leading L. The post-norms are None where there are none, as is the norm of the
    latent of keys and values.
    """

    pattern: Array
    attn: Line
    mlp: Line
    attn_post: Line | None = None
    mlp_post: Line | None = None
    latent: Line | None = None


class Units(NamedTuple):
    """Factors [B, T] on the biases of a layer, one for each kind; see `norms.affine`."""

    attention: Array | None = None
    norm: Array | None = None


class Reads(NamedTuple):
    """What an MLP or a dictionary can read [B, T, D]."""

    resid_mid: Array
    mlp_normalized: Array
    mlp_in: Array


def keep(site: str, value: Array) -> Array:
    """The toucher that edits and records nothing."""
    del site
    return value


def before_mlp(
    w: Tree, config: ModelConfig, x: Array, *, places: Places | None = None, turn: Turn = None, window: Any = 0,
    frozen: Frozen | None = None, units: Units | None = None, touch: Touch = keep, cache: Cache | None = None,
    precision: Any = None,
) -> tuple[Reads, Cache | None]:  # fmt: skip
    """Attention and the norm before the MLP.

    Args:
      w: the weights of one layer.
      x: [B, T, D] residual stream.
      places, turn, window, cache: for the live pattern.
      frozen: given instead of computed.
      units: factors on biases.

    Returns:
      What the MLP reads, and the extended cache if one was given.
    """
    units = units or Units()
    x = touch("resid_pre", x)
    line = frozen.attn if frozen else Line(touch("attn_scale", _scale(x, w, "attn_norm", config)))
    a = touch("attn_normalized", _divided(x, line, config, units))
    a = touch("attn_in", _gain(a, w, "attn_norm", config, units))
    latent = frozen.latent if frozen else None
    if config.latent is not None and not frozen:
        latent = Line(touch("latent_scale", attention.latent_scale(w, config, a, precision)))
    v = attention.values(w, a, units.attention, units.norm, precision, latent)
    if frozen:
        probabilities = frozen.pattern
    else:
        assert places is not None
        probabilities, k = attention.pattern(w, config, a, places, turn, window, precision, cache)
        probabilities = touch("pattern", probabilities)
        if cache is not None:
            cache = attention.extend(cache, k, v, places)
            v = cache.values
    z = touch("attn_z", attention.mix(config, probabilities, v, precision))
    out = touch("attn_out_raw", attention.read_out(w, config, z, units.attention, precision))
    if config.post_norms:
        out = _post(
            out, w["attn_post_norm"], config, "attn_post_scale", frozen and frozen.attn_post, units, touch
        )
    mid = touch("resid_mid", x + touch("attn_out", out))
    read = x if config.parallel else mid
    line = frozen.mlp if frozen else Line(touch("mlp_scale", _scale(read, w, "mlp_norm", config)))
    normalised = touch("mlp_normalized", _divided(read, line, config, units))
    return Reads(mid, normalised, touch("mlp_in", _gain(normalised, w, "mlp_norm", config, units))), cache


def _scale(x: Array, w: Tree, name: str, config: ModelConfig) -> Array:
    """The denominator of a norm before attention or MLP; one where there is none."""
    return norms.scale(x, w[name], config) if config.pre_norms else jnp.ones_like(x[..., :1])


def _divided(x: Array, line: Line, config: ModelConfig, units: Units) -> Array:
    return norms.divide(x, line, config, units.norm) if config.pre_norms else x


def _gain(x: Array, w: Tree, name: str, config: ModelConfig, units: Units) -> Array:
    return norms.affine(x, w[name], config, units.norm) if config.pre_norms else x


def _post(
    x: Array, weights: Tree, config: ModelConfig, site: str, line: Line | None, units: Units, touch: Touch
) -> Array:
    """The norm of what attention or an MLP adds."""
    line = line or Line(touch(site, norms.scale(x, weights, config)))
    return norms.affine(norms.divide(x, line, config, units.norm), weights, config, units.norm)


def after_mlp(
    w: Tree, config: ModelConfig, mid: Array, out: Array | None, raw: Array | None, *,
    frozen: Frozen | None = None, units: Units | None = None, touch: Touch = keep,
) -> Array:  # fmt: skip
    """Add the MLP's output to the residual stream.

    Args:
      mid: [B, T, D] residual stream before the MLP.
      out: what is added as it is; ``raw``: what goes through the post-norm first (where there is one).
        Either may be None, not both; both together add up.
    """
    total = out
    if raw is not None:
        raw = touch("mlp_out_raw", raw)
        if config.post_norms:
            line = frozen and frozen.mlp_post
            raw = _post(raw, w["mlp_post_norm"], config, "mlp_post_scale", line, units or Units(), touch)
        total = raw if out is None else out + raw
    assert total is not None
    return touch("resid_post", mid + touch("mlp_out", total))
