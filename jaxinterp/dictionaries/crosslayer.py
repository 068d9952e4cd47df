"""Cross-layer transcoders (CLT): features of a layer write the MLP outputs of that and all later layers.

With one site for reading and writing it is a weakly causal crosscoder (Lindsey et al. 2024, *Sparse Crosscoders*).
Tied, a feature writes the same vector into every layer, so that what is written adds up from layer to layer.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import divided, encoder
from jaxinterp.dictionaries.base import Kind
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.parallel.weights import Weight, uniform


def declare(config: DictionaryConfig) -> dict[str, Any]:
    """Encoder parameters and ``W_dec``, one array ``(t + 1, N, D)`` per target layer t; tied, one ``(L, N, D)``.

    Entry ``W_dec[t][s]`` holds the decoders from source layer s. They start uniform in ±1/sqrt(L D)
    (*Circuit Tracing*, appendix on training).
    """
    layers, n, d = config.n_layers, config.n_features, config.d_out
    axes, init = ("layers", "features", "width"), uniform((layers * d) ** -0.5)
    if config.tied:
        return {**encoder.declare(config), "W_dec": Weight((layers, n, d), axes, init)}
    decoders = tuple(Weight((target + 1, n, d), axes, init) for target in range(layers))
    return {**encoder.declare(config), "W_dec": decoders}


def _decoder(params: Tree, config: DictionaryConfig, source: int, target: int) -> Array:
    """``[N, D]``, the decoders of one pair of layers."""
    return params["W_dec"][source] if config.tied else params["W_dec"][target][source]


def _from_source(params: Tree, config: DictionaryConfig, layer: int, a: Array) -> list[Array]:
    """What ``a [..., N]`` of one layer writes into layers ``layer, layer + 1, ...``: each ``[..., D]``."""
    targets = config.n_layers - layer
    if config.tied:
        return [einsum("...n,nd->...d", a, params["W_dec"][layer])] * targets
    # One product with all targets side by side is about twice as fast, with its gradient, as one a target.
    joined = jnp.concatenate(
        [_decoder(params, config, layer, t) for t in range(layer, config.n_layers)], axis=1
    )
    return jnp.split(einsum("...n,nd->...d", a, joined), targets, axis=-1)


def decode(params: Tree, config: DictionaryConfig, a: Array, x: Array | None = None) -> Array:
    """``Σ_{s<=t} W_dec[t][s]ᵀ a[s] + b_dec[t]`` (+ skip) for ``a [L, ..., N]`` → ``[L, ..., D]``."""
    if divided.divides(a) and not config.tied:
        return encoder.bias_and_skip(params, config, divided.write_across(a, params["W_dec"]), x)
    totals: dict[int, Array] = {}
    for source in range(config.n_layers):
        for target, part in enumerate(_from_source(params, config, source, a[source]), start=source):
            totals[target] = totals[target] + part if source else part
    return encoder.bias_and_skip(
        params, config, jnp.stack([totals[target] for target in range(config.n_layers)]), x
    )


def writes(config: DictionaryConfig) -> tuple[tuple[int, int], ...]:
    """Every layer writes to itself and to all later layers."""
    return tuple((s, t) for s in range(config.n_layers) for t in range(s, config.n_layers))


def decoder_rows(params: Tree, config: DictionaryConfig, source: int, target: int, features: Array) -> Array:
    """Decoder vectors ``[..., D]`` from ``source`` to ``target >= source``."""
    if not 0 <= source <= target < config.n_layers:
        raise ValueError(f"a cross-layer transcoder of layer {source} does not write to layer {target}")
    return _decoder(params, config, source, target)[features]


def decode_into(
    params: Tree, config: DictionaryConfig, layer: int, a: Array, x: Array | None = None
) -> Array:
    """What ``a [..., N]`` of one layer writes into every layer: ``[L, ..., D]``, zero before ``layer``."""
    del x
    parts = _from_source(params, config, layer, a)
    return jnp.stack([jnp.zeros_like(parts[0])] * layer + parts)


def decoder_norms(params: Tree, config: DictionaryConfig) -> Array:
    """``[L, N]``, the length of all decoder vectors of a feature joined end to end."""
    if config.tied:
        copies = jnp.arange(config.n_layers, 0, -1).astype(params["W_dec"].dtype)
        return encoder.root(copies[:, None] * encoder.squared_norms(params["W_dec"]))
    squares = [encoder.squared_norms(decoder) for decoder in params["W_dec"]]
    return jnp.stack(
        [
            encoder.root(jnp.sum(jnp.stack([squares[t][s] for t in range(s, config.n_layers)]), axis=0))
            for s in range(config.n_layers)
        ]
    )


def with_decoders(
    params: Tree, config: DictionaryConfig, rows: dict[tuple[int, int], Array], at: Array | None = None
) -> dict[str, Any]:
    """See `Kind.with_decoders`. Tied decoders become the mean of those given for a source layer."""
    del at
    layers = config.n_layers
    if config.tied:
        means = [[rows[s, t] for t in range(s, layers) if (s, t) in rows] for s in range(layers)]
        whole = [sum(given) / len(given) if given else params["W_dec"][s] for s, given in enumerate(means)]
        return {**params, "W_dec": jnp.stack(whole)}
    decoders = tuple(
        jnp.stack(
            [rows.get((source, target), params["W_dec"][target][source]) for source in range(target + 1)]
        )
        for target in range(layers)
    )
    return {**params, "W_dec": decoders}


def belongs(config: DictionaryConfig, which: Array) -> dict[str, Any]:
    """See `Kind.belongs`."""
    rows = which[:, :, None]
    decoders = rows if config.tied else tuple(rows[: target + 1] for target in range(config.n_layers))
    return {**encoder.belongs(which), "W_dec": decoders}


def scale_features(params: Tree, config: DictionaryConfig, scale: Array) -> dict[str, Any]:
    """See `Kind.scale_features`."""
    changed = {**params, **encoder.scale_features(params, scale)}
    if config.tied:
        return {**changed, "W_dec": params["W_dec"] / scale[:, :, None]}
    decoders = tuple(decoder / scale[: target + 1, :, None] for target, decoder in enumerate(params["W_dec"]))
    return {**changed, "W_dec": decoders}


def scale_sites(params: Tree, config: DictionaryConfig, read: Array, write: Array) -> dict[str, Any]:
    """See `Kind.scale_sites`. Tied decoders need one factor for all layers: see `untie`."""
    if config.tied:
        raise ValueError("tied decoders write the same into every layer: untie them before layers are scaled")
    changed = encoder.scale_sites(params, read, write)
    decoders = tuple(params["W_dec"][target] * write[target] for target in range(config.n_layers))
    return {**params, **changed, "W_dec": decoders}


def untie(params: Tree, config: DictionaryConfig) -> tuple[Tree, DictionaryConfig]:
    """The same function with decoders of their own for every pair of layers."""
    if not config.tied:
        return params, config
    decoders = tuple(params["W_dec"][: target + 1] for target in range(config.n_layers))
    return {**params, "W_dec": decoders}, dataclasses.replace(config, tied=False)


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
