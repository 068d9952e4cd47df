"""The sources of a graph: active features laid out by place, layer and position, and what else is written there.

Letters: A active features, n those of one place and layer, K slots of a position, P pages, T position, D width,
N features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinterp.attribution.feature_rows import FeatureRows
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries import encoder, lorsa
from jaxinterp.dictionaries.base import DictionaryConfig
from jaxinterp.dictionaries.lazy import AnyDictionary, LazyDictionary, encoder_of, norms_of
from jaxinterp.replacement import Place, Run
from jaxinterp.replacement.parts import JUNCTIONS

AT_ONCE = 1 << 28  # bytes of pre-activations up to which all layers are encoded by one program
VECTORS = 3  # slots of a position before its features: error, what is left out, decoder bias
PAGE = 64  # features of a page
LEAST_PAGES = 8  # their number is a power of two from here on, so that few programs are compiled
SLOTS = (4, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)


class Active(NamedTuple):
    """Active features in node order, by (layer, part, position, feature); host arrays [A].

    Attributes:
      place: which of the replacement model's places; part: its junction's number.
      layer, position, feature: which.
      activation: a.
      pre_activation: h = W_enc x + b_enc.
      bias: the pre-activation of an input of zero, b_enc in most dictionaries.
    """

    place: np.ndarray
    part: np.ndarray
    layer: np.ndarray
    position: np.ndarray
    feature: np.ndarray
    activation: np.ndarray
    pre_activation: np.ndarray
    bias: np.ndarray

    def __len__(self) -> int:
        return len(self.layer)


class Group(NamedTuple):
    """The active features of one place and layer, and how they sit in slots and pages.

    A position has K slots, the first `VECTORS` of which are no features; features beyond them are on pages, so that
    a position with many (often the first) does not widen all others.

    Attributes:
      place, own, layer: which place, the dictionary's own number of the layer, the model's.
      first: node number of the first.
      position, feature, activation: [n], by position, then feature.
      slot: [n] slot at its position; -1 on a page.
      page, place_on_page: [n] where the slot is -1.
      slots: K.
      pages: [P] position of each page, padded with T.
      start: [T + 1] first of each position among the n.
    """

    place: int
    own: int
    layer: int
    first: int
    position: np.ndarray
    feature: np.ndarray
    activation: np.ndarray
    slot: np.ndarray
    page: np.ndarray
    place_on_page: np.ndarray
    slots: int
    pages: np.ndarray
    start: np.ndarray


def find_active(
    dictionaries: Sequence[AnyDictionary], places: Sequence[Place], readers: Sequence[FeatureRows | None],
    run: Run, n_tokens: int, skip_first: bool,
) -> Active:  # fmt: skip
    """Encode what each place reads and keep what is active.

    Args:
      dictionaries: in memory or lazy, which gives the same numbers; of a lazy one a layer at a time is in memory.
      places: where they stand. readers: of each place, which keep encoder rows of lazy dictionaries.
      run: the model's run on the padded prompt, batch of one.
      n_tokens: of the prompt without its padding.
      skip_first: leave out position 0.
    """
    found: list[tuple[int, int, tuple[np.ndarray, ...]]] = []
    for number, place in enumerate(places):
        if place.dictionary is None:
            continue
        part = JUNCTIONS.index(place.junction)
        encoded = _encoded(dictionaries[place.dictionary], place, run, number)
        for own, (h, a, bias) in enumerate(encoded):
            values = a[:n_tokens]
            if not (np.isfinite(h[:n_tokens]).all() and np.isfinite(values).all()):
                raise InputError(
                    f"{_named(dictionaries, place, own)}: a pre-activation is not finite, so encoder weights are not"
                )
            mask = values != 0
            if skip_first:
                mask[0] = False
            position, feature = (x.astype(np.int32) for x in np.nonzero(mask))
            at = (position, feature)
            columns = (position, feature, values[at], h[at], bias[feature])
            found.append((place.layers[own] * len(JUNCTIONS) + part, number, columns))
            reader = readers[number]
            assert reader is not None
            if isinstance(reader.dictionary, LazyDictionary):
                kept = np.unique(feature)
                rows = reader.dictionary.pieces.encoder(own).rows(kept).astype(reader.dictionary.dtype)
                reader.keep(own, kept, rows, bias[kept])
    found.sort(key=lambda one: one[0])
    n_parts = len(JUNCTIONS)
    whole = [
        (*(np.full(len(c[0]), value) for value in (number, stage % n_parts, stage // n_parts)), *c)
        for stage, number, c in found
    ]
    if not whole:
        empty = [np.zeros(0, np.int32) for _ in range(5)] + [np.zeros(0, run.logits.dtype) for _ in range(3)]
        return Active(*empty)
    return Active(*(np.concatenate(column) for column in zip(*whole, strict=True)))


def _named(dictionaries: Sequence[AnyDictionary], place: Place, own: int) -> str:
    number = place.dictionary
    assert number is not None
    return f"{dictionaries[number].name or f'dictionary {number}'}, layer {place.layers[own]}"


def _encoded(dictionary: AnyDictionary, place: Place, run: Run, number: int) -> Any:
    """For each of the dictionary's layers pre-activations [T, N], activations [T, N], biases [N]; on the host."""
    config, norms, read = dictionary.config, norms_of(dictionary), run.read[number]
    assert read is not None
    every = len(place.layers) == read.shape[0]
    covered = read if every else read[np.asarray(place.layers, np.int32)]  # [L', 1, T, D]
    size = config.n_layers * covered.shape[2] * config.n_features * covered.dtype.itemsize
    whole = not isinstance(dictionary, LazyDictionary) and size <= AT_ONCE
    pattern = run.patterns[number]
    if whole:
        assert not isinstance(dictionary, LazyDictionary)
        h, a, bias = _encode(dictionary.params, config, covered, norms, pattern)
        yield from zip(np.asarray(h), np.asarray(a), np.asarray(bias), strict=True)
        return
    for own in range(config.n_layers):
        one = None if norms is None else norms[own][None]
        looks = None if pattern is None else pattern[own][None]
        found = _encode(encoder_of(dictionary, own), config, covered[own][None], one, looks)
        yield tuple(np.asarray(x[0]) for x in found)


@partial(jax.jit, static_argnums=1)
def _encode(
    params: Any, config: DictionaryConfig, read: Array, norms: Array | None, pattern: Array | None
) -> tuple[Array, Array, Array]:
    """Pre-activations and activations [L', T, N] and biases [L', N] for what is read, [L', 1, T, D]."""
    read = read[:, 0]
    if pattern is None:
        h = encoder.pre_activations(params, config, read)
    else:
        h = lorsa.pre_activations(params, config, read, pattern=pattern)
    return h, encoder.activations(params, config, h, norms), encoder.encoder_bias(params, config)


def lay_out(active: Active, places: Sequence[Place], n_layers: int, n_tokens: int) -> list[Group]:
    """Groups of the active features in node order: one for every junction that is replaced, with features or not."""
    spots = [
        (
            layer,
            JUNCTIONS.index(place.junction),
            number,
            place.layers.index(layer) if layer in place.layers else -1,
        )
        for number, place in enumerate(places)
        for layer in (range(n_layers) if place.constant else place.layers)
    ]
    stage = active.layer * len(JUNCTIONS) + active.part
    found: list[tuple[slice, int, int, int]] = []
    counts: dict[int, list[np.ndarray]] = {number: [] for number in range(len(places))}
    for layer, part, number, own in sorted(spots):
        low, high = (
            int(np.searchsorted(stage, layer * len(JUNCTIONS) + part, side=side))
            for side in ("left", "right")
        )
        found.append((slice(low, high), number, own, layer))
        counts[number].append(np.bincount(active.position[low:high], minlength=n_tokens) + VECTORS)
    # One number of slots for all layers of a place, so that one program serves them.
    slots = {number: _slots(np.concatenate(some)) for number, some in counts.items() if some}
    return [_group(active, *one, n_tokens, slots[one[1]]) for one in found]


def _group(
    active: Active, own_nodes: slice, place: int, own: int, layer: int, n_tokens: int, slots: int
) -> Group:
    position = active.position[own_nodes]
    counts = np.bincount(position, minlength=n_tokens)
    start = np.concatenate([[0], np.cumsum(counts)])
    number = np.arange(len(position)) - start[position] + VECTORS
    beyond = np.maximum(number - slots, 0)
    pages_of = -(-np.maximum(counts + VECTORS - slots, 0) // PAGE)  # of each position
    first_page = np.concatenate([[0], np.cumsum(pages_of)])
    count = int(first_page[-1])
    pages = np.full(0 if not count else max(LEAST_PAGES, 1 << (count - 1).bit_length()), n_tokens, np.int32)
    pages[:count] = np.repeat(np.arange(n_tokens), pages_of)
    on_page = number >= slots
    return Group(
        place, own, layer, own_nodes.start, position, active.feature[own_nodes], active.activation[own_nodes],
        np.where(on_page, -1, number), np.where(on_page, first_page[position] + beyond // PAGE, -1),
        np.where(on_page, beyond % PAGE, -1), slots, pages, start,
    )  # fmt: skip


def _slots(needed: np.ndarray) -> int:
    """The number of slots for which least is computed, given how many each position needs."""
    top = int(needed.max(initial=1))
    allowed = [size for size in SLOTS if size < top] + [next((s for s in SLOTS if s >= top), SLOTS[-1])]

    def cost(size: int) -> float:
        # A page costs a copy of its position's gradient besides its product.
        pages = (-(-np.maximum(needed - size, 0) // PAGE)).sum()
        return float(len(needed) * size + 1.6 * PAGE * pages)

    return min(allowed, key=cost)
