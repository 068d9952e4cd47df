"""Where a dictionary starts: random, or from data points, with biases that set the firing rate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.parallel import weights


def random(config: DictionaryConfig, key: Array, dtype: Any = jnp.float32) -> Tree:
    """Every weight as its kind declares it."""
    return weights.initialise(kind_of(config).declare(config), key=key, dtype=dtype)


def from_data(
    config: DictionaryConfig, key: Array, x: Array, y: Array, *, noise: float = 0.1, decoder: float = 0.1
) -> Tree:
    """Data-point initialisation: encoder and decoder rows point at noisy real activations.

    Feature i of layer s takes one row of the data. Its encoder is that row's centred ``x[s]``, scaled to
    length one; its decoder into layer t is the same row's centred ``y[t]``, all of them joined scaled to
    length ``decoder``. ``noise`` mixes in that share of a random direction. The decoder bias is the mean
    of y.

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

    params = kind.with_decoders(params, config, {pair: decoders(*pair) for pair in kind.writes(config)})
    norms = kind.decoder_norms(params, config)
    params = _rescale_decoders(params, config, decoder / jnp.where(norms > 0, norms, jnp.ones_like(norms)))
    params["b_dec"] = mean_y
    return params


def set_firing_rate(params: Tree, config: DictionaryConfig, x: Array, rate: float) -> dict[str, Any]:
    """Encoder biases for which every feature is active on a share ``rate`` of the rows of ``x [L, R, D]``."""
    h = kind_of(config).pre_activations({**params, "b_enc": jnp.zeros_like(params["b_enc"])}, config, x)
    keep = max(1, round(rate * h.shape[1]))
    cut = jnp.min(jax.lax.top_k(jnp.swapaxes(h, 1, 2), keep)[0], axis=-1)
    threshold = params["threshold"] if "threshold" in params else jnp.zeros_like(cut)
    return {**params, "b_enc": threshold - cut}


def _noisy(rows: Array, random_rows: Array, noise: float) -> Array:
    """``rows`` and random rows, each scaled to length one, mixed."""
    return (1 - noise) * _unit(rows) + noise * _unit(random_rows)


def _unit(rows: Array) -> Array:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def _rescale_decoders(params: Tree, config: DictionaryConfig, scale: Array) -> dict[str, Any]:
    """Decoders times ``scale [G, N]`` by source feature, encoders untouched."""
    scaled = kind_of(config).scale_features(params, config, 1 / scale)
    return {**params, **{name: scaled[name] for name in ("W_dec", "W_dec_shared") if name in scaled}}
