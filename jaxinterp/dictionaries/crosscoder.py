"""Acausal crosscoders: one set of features reads and writes all layers, or the same layer of several models.

Lindsey et al. 2024, *Sparse Crosscoders for Cross-Layer Features and Model Diffing*. With designated shared features
(*Insights on Crosscoder Model Diffing*, 2025) the first ones have one decoder for all that they write.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import encoder
from jaxinterp.dictionaries.base import Kind
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.parallel.weights import Weight, uniform


def declare(config: DictionaryConfig) -> dict[str, Any]:
    """``W_enc (L, N, D)``, ``b_enc (1, N)``, ``W_dec (L, N - shared, D)`` and ``W_dec_shared (shared, D)``."""
    layers, n, d, shared = config.n_layers, config.n_features, config.d_out, config.shared
    init = uniform((layers * d) ** -0.5)
    tree = encoder.declare(config, groups=1)
    tree["W_dec"] = Weight((layers, n - shared, d), ("layers", "features", "width"), init)
    if shared:
        tree["W_dec_shared"] = Weight((shared, d), ("features", "width"), init)
    return tree


def groups(config: DictionaryConfig) -> int:
    """All layers share their features."""
    del config
    return 1


def decoders(params: Tree, config: DictionaryConfig) -> Array:
    """``[L, N, D]``, those of shared features repeated."""
    if not config.shared:
        return params["W_dec"]
    common = jnp.broadcast_to(params["W_dec_shared"][None], (config.n_layers, *params["W_dec_shared"].shape))
    return jnp.concatenate([common, params["W_dec"]], axis=1)


def pre_activations(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """``Σ_l W_enc[l] x[l] + b_enc`` for ``x [L, ..., D]`` → ``[1, ..., N]``."""
    del config
    h = einsum("l...d,lnd->...n", x, params["W_enc"])[None]
    return h + encoder.align(params["b_enc"], h)


def encode(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """Feature activations ``[1, ..., N]`` of ``x [L, ..., D]``."""
    norms = decoder_norms(params, config) if config.ranked else None
    return encoder.activations(params, config, pre_activations(params, config, x), norms)


def encode_layer(params: Tree, config: DictionaryConfig, layer: Any, x: Array) -> Array:
    """Not possible: features read every layer."""
    raise ValueError("a crosscoder's features read all layers at once, not one")


def decode(params: Tree, config: DictionaryConfig, a: Array, x: Array | None = None) -> Array:
    """``W_dec[l]ᵀ a + b_dec[l]`` (+ skip) for ``a [1, ..., N]`` → ``[L, ..., D]``."""
    return encoder.bias_and_skip(params, config, decode_into(params, config, 0, a[0]), x)


def decode_into(
    params: Tree, config: DictionaryConfig, layer: int, a: Array, x: Array | None = None
) -> Array:
    """What ``a [..., N]`` writes into every layer: ``[L, ..., D]``."""
    del layer, x
    return einsum("...n,lnd->l...d", a, decoders(params, config))


def writes(config: DictionaryConfig) -> tuple[tuple[int, int], ...]:
    """The one group writes to every layer."""
    return tuple((0, layer) for layer in range(config.n_layers))


def encoder_rows(params: Tree, config: DictionaryConfig, layer: Any, features: Array) -> Array:
    """``[..., D]``, what ``features [...]`` read of one layer."""
    del config
    return params["W_enc"][layer, features]


def decoder_rows(params: Tree, config: DictionaryConfig, source: int, target: int, features: Array) -> Array:
    """Decoder vectors ``[..., D]`` into ``target``."""
    del source
    return decoders(params, config)[target, features]


def decoder_norms(params: Tree, config: DictionaryConfig) -> Array:
    """``[1, N]``, the length of all decoder vectors of a feature joined end to end."""
    return encoder.root(jnp.sum(encoder.squared_norms(decoders(params, config)), axis=0))[None]


def with_decoders(
    params: Tree, config: DictionaryConfig, rows: dict[tuple[int, int], Array], at: Array | None = None
) -> dict[str, Any]:
    """See `Kind.with_decoders`. Shared decoders become the mean over layers."""
    del at
    whole = decoders(params, config)
    whole = jnp.stack([rows.get((0, layer), whole[layer]) for layer in range(config.n_layers)])
    changed = {**params, "W_dec": whole[:, config.shared :]}
    if config.shared:
        changed["W_dec_shared"] = jnp.mean(whole[:, : config.shared], axis=0)
    return changed


def belongs(config: DictionaryConfig, which: Array) -> dict[str, Any]:
    """See `Kind.belongs`; ``which [1, N]``."""
    shared = config.shared
    masks = {**encoder.belongs(which), "W_dec": which[:, shared:, None]}
    return masks | ({"W_dec_shared": which[0, :shared, None]} if shared else {})


def scale_features(params: Tree, config: DictionaryConfig, scale: Array) -> dict[str, Any]:
    """See `Kind.scale_features`; ``scale [1, N]``."""
    shared = config.shared
    changed = {**params, **encoder.scale_features(params, scale)}
    changed["W_dec"] = params["W_dec"] / scale[:, shared:, None]
    if shared:
        changed["W_dec_shared"] = params["W_dec_shared"] / scale[0, :shared, None]
    return changed


def scale_sites(params: Tree, config: DictionaryConfig, read: Array, write: Array) -> dict[str, Any]:
    """See `Kind.scale_sites`. Where decoders are shared, ``write`` must be one factor for all layers."""
    changed = {**params, **encoder.scale_sites(params, read, write)}
    changed["W_dec"] = params["W_dec"] * write[:, None, None]
    if config.shared:
        changed["W_dec_shared"] = params["W_dec_shared"] * write[0]
    return changed


KIND = Kind(
    declare=declare,
    groups=groups,
    pre_activations=pre_activations,
    encode=encode,
    encode_layer=encode_layer,
    decode=decode,
    writes=writes,
    encoder_rows=encoder_rows,
    decoder_rows=decoder_rows,
    decode_into=decode_into,
    decoder_norms=decoder_norms,
    with_decoders=with_decoders,
    scale_features=scale_features,
    scale_sites=scale_sites,
    belongs=belongs,
)
