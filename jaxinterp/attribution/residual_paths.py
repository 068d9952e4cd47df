"""What sites of a model mean in the residual stream: when a vector is written or read there, and which.

Global weights are of no prompt. Along the residual stream, between the place where one feature writes and the place
where another reads, nothing happens but the norm before the reader: its gain is part of the vector read, its
denominator is not known and counts as one, or as `Factors` say. A path through attention heads is there too, for an
attention of one: ``W_V W_O`` of each head, its norm in the same way.

Letters: L layers, D width, H heads, E width of a value head, n vectors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum, wide
from jaxinterp.models import norms
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model

NORMS = ("attn", "mlp", "attn_post", "mlp_post", "latent", "final")
_RESIDUAL = {"resid_pre": 0, "resid_mid": 1, "resid_post": 2}
_ATTENTION, _MLP = ("attn_normalized", "attn_in"), ("mlp_normalized", "mlp_in")
_HEADS = ("attn_z", "attn_out_raw", "attn_out")


class Factors(NamedTuple):
    """What stands for one over the denominator of each norm: [L] (the final norm: one number) or None for one.

    Of Dynamic Tanh it is the slope of each entry, [L, D], and None means the slope at 0, alpha.
    """

    attn: Any = None
    mlp: Any = None
    attn_post: Any = None
    mlp_post: Any = None
    latent: Any = None
    final: Any = None


class Read(NamedTuple):
    """Vectors ``[n, D]`` that are read, and when.

    Attributes:
      vectors: of the residual stream, or of the site ``branch``.
      order: what was written at a lower number is seen; see `when_read`.
      branch: None, or (site, layer) of an output of attention, which sees the residual stream through heads only.
    """

    vectors: Array
    order: int
    branch: tuple[str, int] | None = None


def when_written(site: str, layer: int) -> int:
    """A number in the order of reading and writing along the residual stream: when what is written there is there.

    Point p of the stream lies before attention (2 layer), between attention and MLP, or after the MLP (2 layer + 2).
    Outputs of attention and MLP arrive before anything is read at their point (4p - 1); an autoencoder of the stream
    reads first (4p) and writes (4p + 1), and everything else reads what it wrote (4p + 2).

    Raises:
      InputError: a site whose values are not added to the residual stream.
    """
    if site in _RESIDUAL:
        return 4 * (2 * layer + _RESIDUAL[site]) + 1
    if site in _HEADS:
        return 4 * (2 * layer + 1) - 1
    if site in ("mlp_out", "mlp_out_raw"):
        return 4 * (2 * layer + 2) - 1
    raise InputError(f"nothing written at {site} reaches the residual stream by itself: no global weights")


def when_read(site: str, layer: int, config: ModelConfig, write_site: str = "") -> int:
    """When a site is read, in the order of `when_written`.

    Args:
      write_site: what the reader writes; one that writes where it reads is an autoencoder of that site.
    """
    if site in _RESIDUAL:
        return 4 * (2 * layer + _RESIDUAL[site]) + (0 if write_site == site else 2)
    if site in _ATTENTION:
        return 4 * (2 * layer) + 2
    if site in _MLP:
        return 4 * (2 * layer + (0 if config.parallel else 1)) + 2
    raise InputError(f"nothing is read at {site} of the residual stream: no global weights")


def replaces(site: str) -> bool:
    """Whether what is written there takes the place of the residual stream, and of what was written before."""
    return site in _RESIDUAL


def written(model: Model, site: str, layer: int, rows: Array, factors: Factors) -> Array:
    """Vectors ``rows [n, D']`` written at a site, as they are added to the residual stream: ``[n, D]``."""
    rows, w = wide(rows), model.params["layers"]
    if site == "attn_z":
        rows = einsum("nhe,hed->nd", _by_head(rows, model.config), wide(w["o"][layer]))
    if model.config.post_norms and site in ("attn_z", "attn_out_raw"):
        return _through(rows, model, "attn_post", layer, factors)
    if model.config.post_norms and site == "mlp_out_raw":
        return _through(rows, model, "mlp_post", layer, factors)
    return rows


def read(model: Model, site: str, layer: int, rows: Array, factors: Factors, write_site: str = "") -> Read:
    """Vectors ``rows [n, D']`` read at a site, as vectors of the residual stream."""
    rows, config = wide(rows), model.config
    if site in _HEADS:
        return Read(rows, -1, (site, layer))
    order = when_read(site, layer, config, write_site)
    if site in _RESIDUAL or not config.pre_norms:
        return Read(rows, order)
    name = "attn" if site in _ATTENTION else "mlp"
    return Read(_back(rows, model, name, layer, factors, gain=site.endswith("_in")), order)


def read_at_end(model: Model, rows: Array, factors: Factors) -> Read:
    """Vectors ``[n, D]`` read after the final norm (of logits: columns of the unembedding)."""
    order = 4 * 2 * model.config.n_layers + 2
    return Read(_back(wide(rows), model, "final", None, factors, gain=True), order)


def through_head(model: Model, what: Read, layer: int, head: int, factors: Factors) -> Read:
    """What is read through a head: vectors before its layer, for an attention of one between the two tokens.

    `nowhere` where the head writes after that is read.

    Raises:
      InputError: no such head.
    """
    config, w = model.config, model.params["layers"]
    if not (0 <= layer < config.n_layers and 0 <= head < config.n_heads):
        raise InputError(
            f"no head {head} in layer {layer}: the model has layers 0 to {config.n_layers - 1} with heads 0 to "
            f"{config.n_heads - 1}"
        )
    rows, site, own = what.vectors, "attn_out", layer
    if what.branch is not None:
        site, own = what.branch
    elif what.order < when_written("attn_out", layer):
        own = -1
    if own != layer:
        return nowhere(rows)
    if site == "attn_out" and config.post_norms:
        rows = _back(rows, model, "attn_post", layer, factors, gain=True)
    if site == "attn_z":
        rows = _by_head(rows, config)[:, head]
    else:
        rows = einsum("nd,ed->ne", rows, wide(w["o"][layer, head]))
    rows = _values_back(rows, model, layer, head, factors)
    if config.pre_norms:
        rows = _back(rows, model, "attn", layer, factors, gain=True)
    return Read(rows, when_read("attn_in", layer, config))


def nowhere(rows: Array) -> Read:
    """What sees nothing: there is no path."""
    return Read(jnp.zeros_like(rows), -1)


def mean_factors(model: Model, batches: Iterable[Any]) -> Factors:
    """The mean over tokens of one over every norm's denominator; global weights are linear in it.

    Args:
      batches: `activations.text.Batch`, of which used tokens count.
    """
    config = model.config
    sites = {"attn": "attn_scale", "mlp": "mlp_scale", "final": "final_scale"} if config.pre_norms else {
        "final": "final_scale"
    }  # fmt: skip
    if config.post_norms:
        sites |= {"attn_post": "attn_post_scale", "mlp_post": "mlp_post_scale"}
    if config.latent is not None:
        sites["latent"] = "latent_scale"
    sums: dict[str, np.ndarray] = {}
    count = 0
    for batch in batches:
        _, found = forward(
            model.params, config, jnp.asarray(batch.tokens), sites=sorted(sites.values()),
            segments=jnp.asarray(batch.segments), positions=jnp.asarray(batch.positions),
        )  # fmt: skip
        count += int(batch.use.sum())
        for name, site in sites.items():
            values = 1.0 / np.asarray(getattr(found, site), np.float64)[..., batch.use, :]
            sums[name] = sums.get(name, 0.0) + values.sum(axis=-2)
    if not count:
        raise InputError("no used token to take the mean denominators of norms over")
    one = config.norm != "tanh"
    return Factors(**{name: (v[..., 0] if one else v) / count for name, v in sums.items()})


def _weights(model: Model, name: str, layer: int | None) -> Tree:
    if layer is None:
        return model.params["final_norm"]
    return {key: leaf[layer] for key, leaf in model.params["layers"][f"{name}_norm"].items()}


def _factor(model: Model, name: str, layer: int | None, factors: Factors, weights: Tree) -> Array | float:
    given = getattr(factors, name)
    if given is None:
        return wide(weights["alpha"]) if model.config.norm == "tanh" else 1.0
    found = np.asarray(given) if layer is None else np.asarray(given)[layer]
    values = jnp.asarray(found, wide(weights["scale"]).dtype)
    return values[None, :] if values.ndim else values


def _gain(weights: Tree, config: ModelConfig) -> Array:
    return wide(norms.gain(weights, config))[None, :]


def _through(rows: Array, model: Model, name: str, layer: int | None, factors: Factors) -> Array:
    """A norm as a linear map of ``rows [n, D]``: without its bias, its denominator given."""
    weights = _weights(model, name, layer)
    factor = _factor(model, name, layer, factors, weights)
    return norms.centre(rows, model.config) * factor * _gain(weights, model.config)


def _back(rows: Array, model: Model, name: str, layer: int | None, factors: Factors, gain: bool) -> Array:
    """The transpose of `_through`, with or without the gain."""
    weights = _weights(model, name, layer)
    rows = rows * _factor(model, name, layer, factors, weights)
    return norms.centre(rows * _gain(weights, model.config) if gain else rows, model.config)


def _by_head(rows: Array, config: ModelConfig) -> Array:
    return rows.reshape(len(rows), config.n_heads, config.d_value)


def _values_back(rows: Array, model: Model, layer: int, head: int, factors: Factors) -> Array:
    """The transpose of a head's values: ``[n, E]`` to ``[n, D]`` at ``attn_in``."""
    config, w = model.config, model.params["layers"]
    if config.latent is None:
        return einsum("ne,de->nd", rows, wide(w["v"][layer][:, head // config.group_size]))
    low = einsum("ne,ec->nc", rows, wide(w["v_up"][layer][:, :, head]))
    if config.norm == "tanh":
        slope = wide(w["kv_norm_alpha"][layer])
    else:
        slope = jnp.ones((), low.dtype)
    if factors.latent is not None:
        slope = jnp.asarray(np.asarray(factors.latent)[layer], low.dtype)
    low = low * (slope[None, :] if slope.ndim else slope) * wide(w["kv_norm"][layer])[None, :]
    return einsum("nc,dc->nd", low, wide(w["kv_down"][layer]))
