"""The named places of a forward pass, and edits there as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array

LAYER_SITES = (
    "resid_pre", "attn_scale", "attn_normalized", "attn_in", "latent_scale", "pattern", "attn_z", "attn_out_raw",
    "attn_post_scale", "attn_out", "resid_mid", "mlp_scale", "mlp_normalized", "mlp_in", "mlp_out_raw",
    "mlp_post_scale", "mlp_out", "resid_post",
)  # fmt: skip
# Those that hold a vector for each token, which a dictionary can read or write.
VECTOR_SITES = (
    "resid_pre", "attn_normalized", "attn_in", "attn_z", "attn_out_raw", "attn_out", "resid_mid", "mlp_normalized",
    "mlp_in", "mlp_out_raw", "mlp_out", "resid_post",
)  # fmt: skip
END_SITES = ("embed", "final_scale", "final_norm")
SITES = (*END_SITES[:1], *LAYER_SITES, *END_SITES[1:])


Asked = Any
"""An array, or None when the site was not asked for."""


class Activations(NamedTuple):
    """What a forward pass returns besides logits: the sites that were asked for, the others None.

    Per-layer sites are stacked on a leading L. The scale sites hold the denominators of the norms,
    [L, B, T, 1]; those of Dynamic Tanh are of each entry, [L, B, T, D].
    """

    embed: Asked = None  # B T D    token (and learned position) embeddings, scaled
    resid_pre: Asked = None  # L B T D
    attn_scale: Asked = None  # L B T 1
    attn_normalized: Asked = None  # L B T D  before gain and bias
    attn_in: Asked = None  # L B T D  after gain and bias
    latent_scale: Asked = None  # L B T 1  of the latent of keys and values
    pattern: Asked = None  # L B H T S
    attn_z: Asked = None  # L B T HE'  what heads moved, side by side, before the output projection
    attn_out_raw: Asked = None  # L B T D  before a post-norm
    attn_post_scale: Asked = None  # L B T 1
    attn_out: Asked = None  # L B T D  as added to the residual stream
    resid_mid: Asked = None  # L B T D
    mlp_scale: Asked = None  # L B T 1
    mlp_normalized: Asked = None  # L B T D  before gain and bias
    mlp_in: Asked = None  # L B T D  after gain and bias
    mlp_out_raw: Asked = None  # L B T D  before a post-norm
    mlp_post_scale: Asked = None  # L B T 1
    mlp_out: Asked = None  # L B T D  as added to the residual stream
    resid_post: Asked = None  # L B T D
    final_scale: Asked = None  # B T 1
    final_norm: Asked = None  # B T D


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Edit:
    """A change at a site, as data. New numbers do not compile again; a new site or op does.

    Attributes:
      site: one of `SITES`.
      op: "add", "scale" (multiply) or "replace".
      value: array broadcastable to the site's [B, T, ...] (pattern: [B, H, T, S]) from the right; with
        ``per_layer`` it has a leading L and every layer gets its own.
      layer: the layer to change, -1 for every layer. An int or an integer array.
      position: the (query) position to change, -1 for every position. An int or an integer array, one number for all
        rows or one for each [B].
      per_layer: see ``value``.
    """

    site: str = dataclasses.field(metadata={"static": True})
    op: str = dataclasses.field(metadata={"static": True})
    value: Any
    layer: Any = -1
    position: Any = -1
    per_layer: bool = dataclasses.field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise InputError(f"edit: no site {self.site!r}{near(self.site, SITES)}")
        if self.op not in ("add", "scale", "replace"):
            raise InputError(f"edit at {self.site}: op is {self.op!r}, expected add, scale or replace")


def check_sites(sites: Iterable[str]) -> frozenset[str]:
    """The set of asked sites; an unknown name raises."""
    asked = frozenset(sites)
    for site in asked:
        if site not in SITES:
            raise InputError(f"no site {site!r}{near(site, SITES)}; sites are {', '.join(SITES)}")
    return asked


Touch = Callable[[str, Array], Array]
"""(site, value) → the value after edits; records it if asked for."""


def toucher(asked: frozenset[str], edits: tuple[Edit, ...], layer: Any, record: dict[str, Array]) -> Touch:
    """The function that a block calls at each of its sites."""

    def touch(site: str, value: Array) -> Array:
        for edit in edits:
            if edit.site == site:
                value = _apply(edit, value, layer)
        if site in asked:
            record[site] = value
        return value

    return touch


def _apply(edit: Edit, value: Array, layer: Any) -> Array:
    new = jnp.asarray(edit.value)
    if edit.per_layer:
        new = jax.lax.dynamic_index_in_dim(new, jnp.asarray(layer), 0, keepdims=False)
    if new.ndim > value.ndim:
        raise InputError(f"edit at {edit.site}: a value of shape {new.shape} does not fit {value.shape}")
    new = new.reshape((1,) * (value.ndim - new.ndim) + new.shape).astype(value.dtype)
    changed = {"add": value + new, "scale": value * new, "replace": jnp.broadcast_to(new, value.shape)}[
        edit.op
    ]
    axis = 2 if edit.site == "pattern" else 1
    position, where = jnp.asarray(edit.position, jnp.int32).reshape(-1, 1), jnp.asarray(edit.layer, jnp.int32)
    if position.shape[0] not in (1, value.shape[0]):
        raise InputError(f"edit at {edit.site}: {position.shape[0]} positions for {value.shape[0]} rows")
    here = (jnp.arange(value.shape[axis], dtype=jnp.int32)[None, :] == position) | (position < 0)
    if edit.site not in END_SITES and not edit.per_layer:
        here = here & ((where < 0) | (where == jnp.asarray(layer, jnp.int32)))
    rows, length = here.shape
    mask = here.reshape((rows,) + (1,) * (axis - 1) + (length,) + (1,) * (value.ndim - axis - 1))
    return jnp.where(mask, changed, value)
