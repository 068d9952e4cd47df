"""Where a dictionary starts: random or from data points, with biases that set the firing rate.

Starts from the weights of a model are in `dictionaries.from_model`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import DictionaryConfig, Kind, kind_of, read_layers
from jaxinterp.parallel import weights

NO_TRANSPOSE = (
    "an encoder cannot be its decoder's transpose where features write something else than they read"
)


def random(config: DictionaryConfig, key: Array, dtype: Any = jnp.float32) -> Tree:
    """Every weight as its kind declares it."""
    return weights.initialise(kind_of(config).declare(config), key=key, dtype=dtype)


def from_data(
    config: DictionaryConfig, key: Array, x: Array, y: Array, *, noise: float = 0.1, decoder: float = 0.1
) -> Tree:
    """Data-point initialisation: encoder and decoder rows point at noisy real activations.

    Feature i of a group takes one row of the data. Its encoder is that row's centred ``x`` of each layer that it reads,
    each scaled to length one; its decoder into layer t is the same row's centred ``y[t]``, all of them joined scaled to
    length ``decoder``. ``noise`` mixes in that share of a random direction. The decoder bias is the mean
    of y. A feature that is a linear map sends its row's x to that decoder, with rank one.

    Args:
      x, y: what is read and written, ``[L, R, D]``, as the dictionary will see them in training.

    Returns:
      Parameters with every encoder bias zero; see `set_firing_rate`.
    """
    kind = kind_of(config)
    params = dict(random(config, key, x.dtype))
    centre_x = x - jnp.mean(x, axis=1, keepdims=True)
    mean_y = jnp.mean(y, axis=1)
    centre_y = y - mean_y[:, None, :]
    picks, kicks = jax.random.split(jax.random.fold_in(key, 1))
    layers, n, groups = config.n_layers, config.n_features, kind.groups(config)
    rows = jax.random.randint(picks, (groups, n), 0, x.shape[1])
    chosen = jnp.stack([centre_x[layer, rows[layer % groups]] for layer in range(layers)])
    params["W_enc"] = _noisy(chosen, params["W_enc"], noise)

    def decoders(source: int, target: int) -> Array:
        return _noisy(
            centre_y[target, rows[source]],
            jax.random.normal(
                jax.random.fold_in(kicks, source * layers + target), (n, config.d_out), x.dtype
            ),
            noise,
        )

    at = jnp.stack([x[layer, rows[layer % groups]] for layer in range(layers)]) if kind.maps else None
    params = kind.with_decoders(params, config, {pair: decoders(*pair) for pair in kind.writes(config)}, at)
    return {**with_lengths(params, config, decoder), "b_dec": mean_y}


def transposed(
    config: DictionaryConfig, key: Array, dtype: Any = jnp.float32, *, decoder: float = 0.1, factor: float = 1.0
) -> Tree:  # fmt: skip
    """Random decoders and encoders that are their transpose: what a feature writes is what it reads.

    Decoders as the kind declares them, all of a feature's joined scaled to length ``decoder`` (SAELens: 0.1; sparsify,
    dictionary_learning: 1); the encoder of each layer read is ``factor`` times the decoder into it; biases zero.

    Raises:
      InputError: what is written is not as wide as what is read, or features are linear maps.
    """
    params = with_lengths(random(config, key, dtype), config, decoder)
    return {**params, "W_enc": factor * _transpose(params, config)}


def anthropic(config: DictionaryConfig, key: Array, dtype: Any = jnp.float32) -> Tree:
    """The start of *Circuits Updates, January 2025*: ``W_d ~ U(-1/√n, 1/√n)``, ``W_e = (n / m) W_dᵀ``.

    n is the width of a layer and m the number of features; of a feature that reads several layers every encoder is the
    transpose of the decoder into that layer. The encoder biases are left to `set_firing_rate`, at a rate of 10,000 / m.

    Raises:
      InputError: see `transposed`.
    """
    limit, start, shape = config.d_out**-0.5, random(config, key, dtype), (config.n_features, config.d_out)
    decoders = {
        pair: jax.random.uniform(jax.random.fold_in(key, number), shape, dtype, -limit, limit)
        for number, pair in enumerate(kind_of(config).writes(config))
    }
    if kind_of(config).maps:
        raise InputError(f"start: {NO_TRANSPOSE}")
    params = kind_of(config).with_decoders(start, config, decoders)
    return {**params, "W_enc": config.d_model / config.n_features * _transpose(params, config)}


def _transpose(params: Tree, config: DictionaryConfig) -> Array:
    """``[L, N, D]``, the decoder of every feature into each layer that it reads."""
    kind = kind_of(config)
    if kind.maps or config.d_out != config.d_model:
        raise InputError(f"start: {NO_TRANSPOSE}")
    every = jnp.arange(config.n_features)
    return jnp.stack(
        [
            kind.decoder_rows(params, config, group, layer, every)
            for group, layers in enumerate(read_layers(config))
            for layer in layers
        ]
    )


def set_firing_rate(
    params: Tree, config: DictionaryConfig, x: Array, rate: float, kind: Kind | None = None
) -> dict[str, Any]:
    """Encoder biases for which every feature is active on a share ``rate`` of the rows of ``x [L, R, D]``.

    Args:
      kind: the functions of the kind, where they know more than x (`lorsa.on_rows`); None means its own.
    """
    silent = {**params, "b_enc": jnp.zeros_like(params["b_enc"])}
    h = (kind or kind_of(config)).pre_activations(silent, config, x)
    keep = max(1, round(rate * h.shape[1]))
    cut = jnp.min(jax.lax.top_k(jnp.swapaxes(h, 1, 2), keep)[0], axis=-1)
    threshold = params["threshold"] if "threshold" in params else jnp.zeros_like(cut)
    return {**params, "b_enc": threshold - cut}


def _noisy(rows: Array, random_rows: Array, noise: float) -> Array:
    """``rows`` and random rows, each scaled to length one, mixed."""
    return (1 - noise) * _unit(rows) + noise * _unit(random_rows)


def _unit(rows: Array) -> Array:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def with_lengths(params: Tree, config: DictionaryConfig, length: Array | float) -> dict[str, Any]:
    """Every feature's joined decoder scaled to ``length [G, N]`` (or a number); those of length zero stay."""
    norms = kind_of(config).decoder_norms(params, config)
    return divide_decoders(params, config, jnp.where(norms > 0, norms, jnp.ones_like(norms)) / length)


def divide_decoders(params: Tree, config: DictionaryConfig, by: Array) -> dict[str, Any]:
    """Decoders divided by ``by [G, N]`` by source feature, encoders untouched."""
    scaled = kind_of(config).scale_features(params, config, by)
    return {**params, **{name: value for name, value in scaled.items() if name.startswith("W_dec")}}
