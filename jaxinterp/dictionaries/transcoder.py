"""Each layer by itself: features read one site of a layer and write one.

Between the two sides of an MLP that is a per-layer transcoder (PLT), with one site for both a sparse autoencoder (SAE).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import divided, encoder
from jaxinterp.dictionaries.base import Kind
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.parallel.weights import Weight, uniform


def declare(config: DictionaryConfig) -> dict[str, Any]:
    """Encoder parameters and ``W_dec (L, N, D)``; decoders start uniform in ±1/sqrt(D)."""
    shape = (config.n_layers, config.n_features, config.d_out)
    decoder = Weight(shape, ("layers", "features", "width"), uniform(config.d_out**-0.5))
    return {**encoder.declare(config), "W_dec": decoder}


def decode(params: Tree, config: DictionaryConfig, a: Array, x: Array | None = None) -> Array:
    """``W_dec[l]ᵀ a[l] + b_dec[l]`` (+ skip) for ``a [L, ..., N]`` → ``[L, ..., D]``."""
    product = divided.write if divided.divides(a) else partial(einsum, "l...n,lnd->l...d")
    return encoder.bias_and_skip(params, config, product(a, params["W_dec"]), x)


def writes(config: DictionaryConfig) -> tuple[tuple[int, int], ...]:
    """Every layer writes to itself only."""
    return tuple((layer, layer) for layer in range(config.n_layers))


def decoder_rows(params: Tree, config: DictionaryConfig, source: int, target: int, features: Array) -> Array:
    """Decoder vectors ``[..., D]``; ``source`` must be ``target``."""
    del config
    if source != target:
        raise ValueError(f"a per-layer transcoder of layer {source} does not write to layer {target}")
    return params["W_dec"][source, features]


def decode_into(
    params: Tree, config: DictionaryConfig, layer: int, a: Array, x: Array | None = None
) -> Array:
    """What ``a [..., N]`` of one layer writes into every layer: ``[L, ..., D]``, zero elsewhere."""
    del x
    y = einsum("...n,nd->...d", a, params["W_dec"][layer])
    return jnp.zeros((config.n_layers, *y.shape), y.dtype).at[layer].set(y)


def decoder_norms(params: Tree, config: DictionaryConfig) -> Array:
    """``[L, N]``, the length of each decoder vector."""
    del config
    return encoder.root(encoder.squared_norms(params["W_dec"]))


def with_decoders(
    params: Tree, config: DictionaryConfig, rows: dict[tuple[int, int], Array], at: Array | None = None
) -> dict[str, Any]:
    """See `Kind.with_decoders`."""
    del at
    whole = [rows.get((layer, layer), params["W_dec"][layer]) for layer in range(config.n_layers)]
    return {**params, "W_dec": jnp.stack(whole)}


def belongs(config: DictionaryConfig, which: Array) -> dict[str, Any]:
    """See `Kind.belongs`."""
    del config
    return {**encoder.belongs(which), "W_dec": which[:, :, None]}


def scale_features(params: Tree, config: DictionaryConfig, scale: Array) -> dict[str, Any]:
    """See `Kind.scale_features`."""
    del config
    return {**params, **encoder.scale_features(params, scale), "W_dec": params["W_dec"] / scale[:, :, None]}


def scale_sites(params: Tree, config: DictionaryConfig, read: Array, write: Array) -> dict[str, Any]:
    """See `Kind.scale_sites`."""
    del config
    changed = encoder.scale_sites(params, read, write)
    return {**params, **changed, "W_dec": params["W_dec"] * write[:, None, None]}


def encode(params: Tree, config: DictionaryConfig, x: Array) -> Array:
    """Feature activations ``[L, ..., N]`` of ``x [L, ..., D]``."""
    norms = decoder_norms(params, config) if config.ranked else None
    return encoder.activations(params, config, encoder.pre_activations(params, config, x), norms)


def encode_layer(params: Tree, config: DictionaryConfig, layer: Any, x: Array) -> Array:
    """Feature activations ``[..., N]`` of one layer for its read-site values ``x [..., D]``."""
    norms = decoder_norms(params, config) if config.ranked else None
    return encoder.encode_layer(params, config, layer, x, norms)


KIND = Kind(
    declare=declare,
    groups=encoder.layer_groups,
    pre_activations=encoder.pre_activations,
    encode=encode,
    encode_layer=encode_layer,
    decode=decode,
    writes=writes,
    encoder_rows=encoder.encoder_rows,
    decoder_rows=decoder_rows,
    decode_into=decode_into,
    decoder_norms=decoder_norms,
    with_decoders=with_decoders,
    scale_features=scale_features,
    scale_sites=scale_sites,
    belongs=belongs,
)
