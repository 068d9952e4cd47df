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
from jaxinterp.dictionaries.encoder import encoder_bias
from jaxinterp.replacement.freeze import Run

SLOT_MULTIPLE = 8


class Active(NamedTuple):
    """Active features in node order, by (layer, position, feature); host arrays [A].

    Attributes:
      layer, position, feature: which.
      activation: a.
      pre_activation: h = W_enc x + b_enc.
      bias: the pre-activation of an input of zero, b_enc in most dictionaries.
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
    pair_source: Any
    pair_start: Any
    vectors: Array


class Slots(NamedTuple):
    """Where features sit in `Writes.rows`: ``node [L, T, K]`` is the node number, -1 where empty."""

    node: np.ndarray
    feature: np.ndarray  # [L, T, K], 0 where empty
    activation: np.ndarray  # [L, T, K], 0 where empty


def find_active(dictionary: Dictionary, run: Run, skip_first: bool) -> tuple[Active, Array]:
    """The active features of a prompt and their dense activations.

    Args:
      run: the model's run on the prompt, batch of one.
      skip_first: leave out position 0.

    Returns:
      `Active`, and activations [L, T, N].
    """
    h, a = _encode(dictionary.params, dictionary.config, run.read)
    dense, pre = np.asarray(a), np.asarray(h)
    mask = dense != 0
    if skip_first:
        mask[:, 0] = False
    layer, position, feature = (x.astype(np.int32) for x in np.nonzero(mask))
    bias = np.asarray(encoder_bias(dictionary.params, dictionary.config))[layer, feature]
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


class Written(NamedTuple):
    """Everything that is written on a prompt, [L, T, D].

    Attributes:
      features: by features, without decoder bias and skip.
      errors: what the dictionary misses: write site minus reconstruction, bias and skip included.
    """

    features: Array
    errors: Array


@partial(jax.jit, static_argnums=1)
def written(params: Any, config: DictionaryConfig, run: Run, activations: Array) -> Written:
    """What features write and what they miss, for dense activations [L, T, N]."""
    kind = kind_of(config)
    parts = [kind.decode_into(params, config, layer, activations[layer]) for layer in range(config.n_layers)]
    rebuilt = kind.decode(params, config, activations, run.read[:, 0])
    return Written(sum(parts[1:], parts[0]), run.write[:, 0] - rebuilt)


def write_rows(dictionary: Dictionary, slots: Slots, all_written: Written, skip_first: bool) -> Writes:
    """Gather decoders of active features, scaled by activation, for every pair of layers.

    Args:
      slots: the active features.
      all_written: what is written on the prompt.
      skip_first: features and errors at position 0 are no sources: what they write there is left out.
    """
    config = dictionary.config
    pairs = _pairs(config)
    start = np.searchsorted([t for _, t in pairs], np.arange(config.n_layers + 1)).astype(np.int32)
    rows, vectors = _gather(
        dictionary.params, config, slots.feature, slots.activation, all_written, skip_first
    )
    return Writes(rows, np.asarray([s for s, _ in pairs], np.int32), start, vectors)


def _pairs(config: DictionaryConfig) -> list[tuple[int, int]]:
    return sorted(kind_of(config).writes(config), key=lambda pair: (pair[1], pair[0]))


@partial(jax.jit, static_argnums=1)
def _encode(params: Any, config: DictionaryConfig, read: Array) -> tuple[Array, Array]:
    kind = kind_of(config)
    return kind.pre_activations(params, config, read[:, 0]), kind.encode(params, config, read[:, 0])


@partial(jax.jit, static_argnums=(1, 5))
def _gather(
    params: Any, config: DictionaryConfig, feature: Array, activation: Array, all_written: Written, skip_first: bool
) -> tuple[Array, Array]:  # fmt: skip
    kind = kind_of(config)
    rows = jnp.stack(
        [
            kind.decoder_rows(params, config, s, t, feature[s]) * activation[s][..., None]
            for s, t in _pairs(config)
        ]
    )
    features, errors = all_written
    omitted = jnp.zeros_like(errors)
    if skip_first:
        omitted = omitted.at[:, 0].set(features[:, 0] + errors[:, 0])
        errors = errors.at[:, 0].set(0)
    bias = jnp.broadcast_to(params["b_dec"][:, None], errors.shape)
    return rows, jnp.stack([errors, omitted, bias], axis=2)
