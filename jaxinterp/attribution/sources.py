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
from jaxinterp.dictionaries import encoder
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.dictionaries.lazy import AnyDictionary, encoder_of, norms_of, restrict
from jaxinterp.replacement.freeze import Run

SLOT_MULTIPLE = 8
ROW_MULTIPLE = 256


class Active(NamedTuple):
    """Active features in node order, by (layer, position, feature); host arrays [A].

    Attributes:
      layer, position, feature: which.
      place: the number of the feature among those of its layer that are active anywhere on the prompt.
      activation: a.
      pre_activation: h = W_enc x + b_enc.
      bias: the pre-activation of an input of zero, b_enc in most dictionaries.
    """

    layer: np.ndarray
    position: np.ndarray
    feature: np.ndarray
    place: np.ndarray
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
    place: np.ndarray  # [L, T, K], 0 where empty
    activation: np.ndarray  # [L, T, K], 0 where empty


class Found(NamedTuple):
    """The active features of a prompt.

    Attributes:
      active: which they are, in node order.
      rows: what they read and write, as a small dictionary: feature ``active.place`` of it is ``active.feature``.
      activations: [L, T, n] of the small dictionary's features, position 0 included.
    """

    active: Active
    rows: Dictionary
    activations: np.ndarray


def find_active(dictionary: AnyDictionary, run: Run, skip_first: bool) -> Found:
    """Encode layer by layer and keep what is active, so that no more than one layer's encoder is needed at a time.

    Args:
      dictionary: in memory or lazy, which gives the same numbers.
      run: the model's run on the prompt, batch of one.
      skip_first: leave out position 0.
    """
    config, norms = dictionary.config, norms_of(dictionary)
    chosen: list[np.ndarray] = []
    columns: list[tuple[np.ndarray, ...]] = []
    values: list[np.ndarray] = []
    for layer in range(config.n_layers):
        own = None if norms is None else norms[layer][None]
        h, a, bias = (
            np.asarray(x) for x in _encode(encoder_of(dictionary, layer), config, run.read[layer, 0], own)
        )
        features = np.flatnonzero((a != 0).any(axis=0))
        chosen.append(features)
        values.append(a[:, features])
        mask = values[-1] != 0
        if skip_first:
            mask[0] = False
        position, place = (x.astype(np.int32) for x in np.nonzero(mask))
        feature = features[place].astype(np.int32)
        at = (position, feature)
        columns.append((np.full_like(position, layer), position, feature, place, a[at], h[at], bias[feature]))
    active = Active(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    most = max(len(features) for features in chosen)
    # A multiple, so that another prompt seldom compiles again.
    size = min(max(-(-most // ROW_MULTIPLE), 1) * ROW_MULTIPLE, config.n_features)
    padded = [np.pad(found, [(0, 0), (0, size - found.shape[1])]) for found in values]
    return Found(active, restrict(dictionary, chosen, size), np.stack(padded))


def lay_out(active: Active, n_layers: int, n_tokens: int) -> Slots:
    """Features by layer and position, padded to the fullest place rounded up to a multiple of 8."""
    spot = active.layer.astype(np.int64) * n_tokens + active.position
    counts = np.bincount(spot, minlength=n_layers * n_tokens)
    width = max(-(-int(counts.max(initial=0)) // SLOT_MULTIPLE) * SLOT_MULTIPLE, SLOT_MULTIPLE)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    slot = np.arange(len(active)) - first[spot]
    shape = (n_layers, n_tokens, width)
    node = np.full(shape, -1, np.int64)
    place = np.zeros(shape, np.int32)
    activation = np.zeros(shape, active.activation.dtype)
    at = (active.layer, active.position, slot)
    node[at], place[at], activation[at] = np.arange(len(active)), active.place, active.activation
    return Slots(node, place, activation)


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
    """What features write and what they miss, for activations [L, T, N] of the dictionary's features."""
    kind = kind_of(config)
    parts = [kind.decode_into(params, config, layer, activations[layer]) for layer in range(config.n_layers)]
    rebuilt = kind.decode(params, config, activations, run.read[:, 0])
    return Written(sum(parts[1:], parts[0]), run.write[:, 0] - rebuilt)


def write_rows(dictionary: Dictionary, slots: Slots, all_written: Written, skip_first: bool) -> Writes:
    """Gather decoders of active features, scaled by activation, for every pair of layers.

    Args:
      dictionary: `Found.rows`.
      slots: the active features.
      all_written: what is written on the prompt.
      skip_first: features and errors at position 0 are no sources: what they write there is left out.
    """
    config = dictionary.config
    pairs = _pairs(config)
    start = np.searchsorted([t for _, t in pairs], np.arange(config.n_layers + 1)).astype(np.int32)
    rows, vectors = _gather(dictionary.params, config, slots.place, slots.activation, all_written, skip_first)
    return Writes(rows, np.asarray([s for s, _ in pairs], np.int32), start, vectors)


def _pairs(config: DictionaryConfig) -> list[tuple[int, int]]:
    return sorted(kind_of(config).writes(config), key=lambda pair: (pair[1], pair[0]))


@partial(jax.jit, static_argnums=1)
def _encode(
    one: Any, config: DictionaryConfig, read: Array, norms: Array | None
) -> tuple[Array, Array, Array]:
    """Pre-activations [T, N], activations [T, N] and encoder bias [N] of one layer for what it reads, [T, D]."""
    h = encoder.pre_activations(one, config, read[None])
    return h[0], encoder.activations(one, config, h, norms)[0], encoder.encoder_bias(one, config)[0]


@partial(jax.jit, static_argnums=(1, 5))
def _gather(
    params: Any, config: DictionaryConfig, place: Array, activation: Array, all_written: Written, skip_first: bool
) -> tuple[Array, Array]:  # fmt: skip
    kind = kind_of(config)
    rows = jnp.stack(
        [
            kind.decoder_rows(params, config, s, t, place[s]) * activation[s][..., None]
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
