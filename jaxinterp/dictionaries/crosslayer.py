"""Cross-layer transcoders (CLT): features of a layer write the MLP outputs of that and all later layers."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries import encoder
from jaxinterp.dictionaries.base import DictionaryConfig, Kind
from jaxinterp.parallel.weights import Weight, uniform


def declare(config: DictionaryConfig) -> dict[str, Any]:
    """Encoder parameters and ``W_dec``, one array ``(t + 1, N, D)`` per target layer t.

    Entry ``W_dec[t][s]`` holds the decoders from source layer s. They start uniform in ±1/sqrt(L D)
    (methods.md §1.2).
    """
    n, d = config.n_features, config.d_model
    init = uniform((config.n_layers * d) ** -0.5)
    decoders = tuple(
        Weight((target + 1, n, d), ("layers", "features", "width"), init) for target in range(config.n_layers)
    )
    return {**encoder.declare(config), "W_dec": decoders}


def _from_source(params: Tree, config: DictionaryConfig, layer: int, a: Array) -> list[Array]:
    """What ``a [..., N]`` of one layer writes into layers ``layer, layer + 1, ...``: each ``[..., D]``."""
    # One product with all targets side by side is about twice as fast, with its gradient, as one a target.
    joined = jnp.concatenate([params["W_dec"][t][layer] for t in range(layer, config.n_layers)], axis=1)
    return jnp.split(einsum("...n,nd->...d", a, joined), config.n_layers - layer, axis=-1)


def decode(params: Tree, config: DictionaryConfig, a: Array, x: Array | None = None) -> Array:
    """``Σ_{s<=t} W_dec[t][s]ᵀ a[s] + b_dec[t]`` (+ skip) for ``a [L, ..., N]`` → ``[L, ..., D]``."""
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
    return params["W_dec"][target][source, features]


def decode_into(params: Tree, config: DictionaryConfig, layer: int, a: Array) -> Array:
    """What ``a [..., N]`` of one layer writes into every layer: ``[L, ..., D]``, zero before ``layer``."""
    parts = _from_source(params, config, layer, a)
    return jnp.stack([jnp.zeros_like(parts[0])] * layer + parts)


def decoder_norms(params: Tree, config: DictionaryConfig) -> Array:
    """``[L, N]``, the length of all decoder vectors of a feature joined end to end."""
    squares = [encoder.squared_norms(decoder) for decoder in params["W_dec"]]
    return jnp.stack(
        [
            encoder.root(jnp.sum(jnp.stack([squares[t][s] for t in range(s, config.n_layers)]), axis=0))
            for s in range(config.n_layers)
        ]
    )


def with_decoders(
    params: Tree, config: DictionaryConfig, rows: dict[tuple[int, int], Array]
) -> dict[str, Any]:
    """See `Kind.with_decoders`."""
    whole = tuple(
        jnp.stack(
            [rows.get((source, target), params["W_dec"][target][source]) for source in range(target + 1)]
        )
        for target in range(config.n_layers)
    )
    return {**params, "W_dec": whole}


def scale_features(params: Tree, config: DictionaryConfig, scale: Array) -> dict[str, Any]:
    """See `Kind.scale_features`."""
    decoders = tuple(decoder / scale[: target + 1, :, None] for target, decoder in enumerate(params["W_dec"]))
    del config
    return {**params, **encoder.scale_features(params, scale), "W_dec": decoders}


def scale_sites(params: Tree, config: DictionaryConfig, read: Array, write: Array) -> dict[str, Any]:
    """See `Kind.scale_sites`."""
    changed = encoder.scale_sites(params, read, write)
    decoders = tuple(params["W_dec"][target] * write[target] for target in range(config.n_layers))
    return {**params, **changed, "W_dec": decoders}


KIND = Kind(
    declare=declare,
    pre_activations=encoder.pre_activations,
    encode=encoder.encode,
    encode_layer=encoder.encode_layer,
    decode=decode,
    writes=writes,
    encoder_rows=encoder.encoder_rows,
    decoder_rows=decoder_rows,
    decode_into=decode_into,
    decoder_norms=decoder_norms,
    with_decoders=with_decoders,
    scale_features=scale_features,
    scale_sites=scale_sites,
)
