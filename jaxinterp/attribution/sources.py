"""The sources of a graph: active features laid out by layer and position, and error vectors.

Letters: A active features, K slots (the most features active at one layer and position, padded), T
position, D width, L layers, N features.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.replacement.freeze import Run

SLOT_MULTIPLE = 8


class Active(NamedTuple):
    """Active features in node order, by (layer, position, feature); host arrays [A].

    Attributes:
      layer, position, feature: which.
      activation: a.
      pre_activation: h = W_enc x + b_enc.
      bias: b_enc.
    """

    layer: np.ndarray
    position: np.ndarray
    feature: np.ndarray
    activation: np.ndarray
    pre_activation: np.ndarray
    bias: np.ndarray

    def __len__(self) -> int:
        return len(self.layer)


class Writes(NamedTuple):
    """What sources write, laid out for contraction with gradients.

    Attributes:
      rows: [P, T, K, D] activation times decoder, for every pair (source layer, target layer) that the
        dictionary writes, pairs sorted by target.
      pair_source: [P] source layer of each pair.
      pair_start: [L + 1] first pair of each target layer.
      vectors: [L, T, 3, D] error vectors, what is written but left out of the graph, and decoder biases.
    """

    rows: Array
    pair_source: Array
    pair_start: Array
    vectors: Array


class Slots(NamedTuple):
    """Where features sit in `Writes.rows`: ``node [L, T, K]`` is the node number, -1 where empty."""

    node: np.ndarray
    feature: np.ndarray  # [L, T, K], 0 where empty
    activation: np.ndarray  # [L, T, K], 0 where empty


def find_active(dictionary: Dictionary, read: Array, skip_first: bool) -> tuple[Active, Array]:
    """The active features of a prompt and their dense activations.

    Args:
      read: [L, T, D] what the encoders read.
      skip_first: leave out position 0.

    Returns:
      `Active`, and activations [L, T, N].
    """
    h, a = _encode(dictionary.params, dictionary.config, read)
    dense, pre = np.asarray(a), np.asarray(h)
    mask = dense != 0
    if skip_first:
        mask[:, 0] = False
    layer, position, feature = (x.astype(np.int32) for x in np.nonzero(mask))
    bias = np.asarray(dictionary.params["b_enc"])[layer, feature]
    at = (layer, position, feature)
    return Active(layer, position, feature, dense[at], pre[at], bias), a


def lay_out(active: Active, n_layers: int, n_tokens: int) -> Slots:
    """Features by layer and position, padded to the fullest place rounded up to a multiple of 8."""
    place = active.layer.astype(np.int64) * n_tokens + active.position
    counts = np.bincount(place, minlength=n_layers * n_tokens)
    width = max(-(-int(counts.max(initial=0)) // SLOT_MULTIPLE) * SLOT_MULTIPLE, SLOT_MULTIPLE)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    slot = np.arange(len(active)) - first[place]
    shape = (n_layers, n_tokens, width)
    node = np.full(shape, -1, np.int64)
    feature = np.zeros(shape, np.int32)
    activation = np.zeros(shape, active.activation.dtype)
    at = (active.layer, active.position, slot)
    node[at], feature[at], activation[at] = np.arange(len(active)), active.feature, active.activation
    return Slots(node, feature, activation)


def error_vectors(dictionary: Dictionary, run: Run, activations: Array) -> Array:
    """[L, T, D] what the dictionary misses: write site minus reconstruction (bias and skip included)."""
    return _errors(dictionary.params, dictionary.config, run.read[:, 0], run.write[:, 0], activations)


def written(dictionary: Dictionary, activations: Array) -> Array:
    """[L, T, D] what features write, without bias and skip."""
    return _written(dictionary.params, dictionary.config, activations)


def write_rows(dictionary: Dictionary, slots: Slots, errors: Array, omitted: Array) -> Writes:
    """Gather decoders of active features, scaled by activation, for every pair of layers.

    Args:
      errors: [L, T, D]; omitted: [L, T, D] what is written at places that the graph leaves out.
    """
    config = dictionary.config
    pairs = _pairs(config)
    start = np.searchsorted([t for _, t in pairs], np.arange(config.n_layers + 1)).astype(np.int32)
    rows = _gather(dictionary.params, config, jnp.asarray(slots.feature), jnp.asarray(slots.activation))
    bias = jnp.broadcast_to(dictionary.params["b_dec"][:, None], errors.shape)
    source = jnp.asarray([s for s, _ in pairs], jnp.int32)
    return Writes(rows, source, jnp.asarray(start), jnp.stack([errors, omitted, bias], axis=2))


def _pairs(config: DictionaryConfig) -> list[tuple[int, int]]:
    return sorted(kind_of(config).writes(config), key=lambda pair: (pair[1], pair[0]))


@partial(jax.jit, static_argnums=1)
def _encode(params: Any, config: DictionaryConfig, read: Array) -> tuple[Array, Array]:
    kind = kind_of(config)
    return kind.pre_activations(params, config, read), kind.encode(params, config, read)


@partial(jax.jit, static_argnums=1)
def _errors(params: Any, config: DictionaryConfig, read: Array, write: Array, a: Array) -> Array:
    return write - kind_of(config).decode(params, config, a, read)


@partial(jax.jit, static_argnums=1)
def _written(params: Any, config: DictionaryConfig, a: Array) -> Array:
    kind = kind_of(config)
    parts = [kind.decode_into(params, config, layer, a[layer]) for layer in range(config.n_layers)]
    return sum(parts[1:], parts[0])


@partial(jax.jit, static_argnums=1)
def _gather(params: Any, config: DictionaryConfig, feature: Array, activation: Array) -> Array:
    kind = kind_of(config)
    return jnp.stack(
        [
            kind.decoder_rows(params, config, s, t, feature[s]) * activation[s][..., None]
            for s, t in _pairs(config)
        ]
    )
