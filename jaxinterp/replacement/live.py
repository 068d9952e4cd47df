"""The replacement model live: what a dictionary writes stands in place of what was there, nothing frozen, no errors.

A dictionary between the two sides of MLPs takes the place of every MLP; any other one that of the values at the site
that it writes, in its layers. Later layers read what is there then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import encoder
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.dictionaries.config import MLP_READS, MLP_WRITES, DictionaryConfig
from jaxinterp.models.block import Reads
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST, MlpSwap, places
from jaxinterp.models.decoder import forward as model_forward
from jaxinterp.models.sites import VECTOR_SITES, Activations, Edit
from jaxinterp.models.swap import SiteSwap


def forward(
    params: Tree, config: ModelConfig, dictionary: Dictionary, tokens: Array, *, sites: Sequence[str] = (),
    edits: Sequence[Edit] = (), positions: Array | None = None, segments: Array | None = None,
    keep: Array | None = None, precision: Any = HIGHEST,
) -> tuple[Array, Activations]:  # fmt: skip
    """Run the model with a dictionary live (*Circuit Tracing*, "From cross-layer transcoder to replacement model").

    Arguments and results are those of `models.forward`: tokens [B, T] → logits [B, T, V] and activations.

    Args:
      dictionary: it must fit the model.
      keep: [B, T], positions at which the model's own values stay.

    Raises:
      InputError: features that read later layers, or a later site, than they write; see `why_not`.
    """
    if why := why_not(dictionary.config):
        raise InputError(f"{dictionary.name or 'the dictionary'} cannot replace values as they come: {why}")
    b, t = tokens.shape
    where = places(tokens, positions, segments)
    live = Live(dictionary, where)
    layers = dictionary.config.layers or tuple(range(config.n_layers))
    dtype = params["embed"]["tokens"].dtype
    written = jnp.zeros((dictionary.config.n_layers, b, t, dictionary.config.d_out), dtype)
    swap: MlpSwap | SiteSwap
    if keep is None and _of_mlps(dictionary.config) and layers == tuple(range(config.n_layers)):
        swap = MlpSwap(live.in_place_of_mlp, written, dictionary.config.write_site)
    else:
        read = jnp.zeros((b, t, dictionary.config.d_model), dtype)
        swap = SiteSwap(live.at_sites(layers, keep), (written, read))
    return model_forward(
        params, config, tokens, sites=sites, edits=edits, positions=where.positions, segments=where.segments,
        swap=swap, precision=precision,
    )  # fmt: skip


def why_not(config: DictionaryConfig) -> str:
    """Why a dictionary cannot be live, or nothing: all that features read must be there before what they write."""
    if kind_of(config).groups(config) != config.n_layers:
        return "its features read every layer before they write the first"
    if VECTOR_SITES.index(config.read_site) > VECTOR_SITES.index(config.write_site):
        return f"it reads {config.read_site}, which comes after {config.write_site}, which it writes"
    return ""


def _of_mlps(config: DictionaryConfig) -> bool:
    return config.read_site in MLP_READS and config.write_site in MLP_WRITES


class Live:
    """The functions that a forward pass calls; ``written [L, B, T, D']`` is what features wrote so far."""

    def __init__(self, dictionary: Dictionary, where: Any) -> None:
        self.params, self.config = dictionary.params, dictionary.config
        self.kind, self.where = kind_of(dictionary.config), where

    def read(self, written: Array, own: int, x: Array) -> Array:
        """``written``, and what the features of the dictionary's layer ``own`` add at ``x [B, T, D]``."""
        encode_layer: Any = self.kind.encode_layer
        if self.kind.sequences:
            from jaxinterp.dictionaries.attention import Places

            a = encode_layer(self.params, self.config, own, x, Places(*self.where[:2]))
        else:
            a = encode_layer(self.params, self.config, own, x)
        at = (x,) if self.kind.maps else ()
        return written + self.kind.decode_into(self.params, self.config, own, a, *at)

    def write(self, written: Array, own: int, x: Array) -> Array:
        """What stands at the written site of the dictionary's layer ``own``: [B, T, D']."""
        one = {name: self.params[name][own][None] for name in ("b_dec", "W_skip") if name in self.params}
        return encoder.bias_and_skip(one, self.config, written[own][None], x[None])[0]

    def in_place_of_mlp(self, written: Array, layer: int, reads: Reads) -> tuple[Array, Array]:
        """The step of an `MlpSwap`."""
        x = getattr(reads, self.config.read_site)
        written = self.read(written, layer, x)
        return written, self.write(written, layer, x)

    def at_sites(self, layers: tuple[int, ...], keep: Array | None) -> Any:
        """The step of a `SiteSwap`; its carry is ``written`` and what was read last."""

        def step(carry: tuple[Array, Array], layer: int, site: str, value: Array) -> Any:
            written, x = carry
            if layer not in layers:
                return carry, value
            own = layers.index(layer)
            if site == self.config.read_site:
                x = value
                written = self.read(written, own, x)
            if site == self.config.write_site:
                new = self.write(written, own, x).astype(value.dtype)
                value = new if keep is None else jnp.where(keep[:, :, None], value, new)
            return (written, x), value

        return step
