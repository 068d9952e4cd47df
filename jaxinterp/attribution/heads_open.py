"""Pairs of a source and a reading, opened into the heads that carry what goes from one to the other.

Sources are followed forward and readings back (`heads_paths`), so that all pairs between S sources and C readings cost
S walks of one end and C of the other.

Letters: C readings, D width, E' width of a value head, H heads, L layers, m pairs, S sources of a block, T position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution.heads_paths import (
    Entering,
    Leaving,
    direct,
    pull,
    pull_final,
    pull_local,
    push,
    push_local,
    weigh,
)  # fmt: skip
from jaxinterp.attribution.nodes import ATTENTION, DECODER, MLP, NORM, POSITION
from jaxinterp.attribution.replaced import Replaced
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.graphs.kinds import BIAS, EMBEDDING, ERROR, FEATURE
from jaxinterp.replacement.parts import JUNCTIONS, site_width

STREAM_BYTES = 1 << 27
"""Of residual streams that are followed at once."""
READINGS, PAIRS = 64, 1024
MOST_READINGS = 1024
"""Readings whose view of every layer is kept at once; sources are followed again for more."""


class Reading(NamedTuple):
    """A vector that reads at a place of the operator (-1: after the final norm; its layer is L)."""

    place: int
    layer: int
    position: int
    vector: np.ndarray


class Alone(NamedTuple):
    """What readings see along paths that pass no head.

    Attributes:
      layers: of each layer below the highest reading, entries of [C, ...].
      x: [C, D] of the residual stream before layer 0. final: [C] of the final norm's bias.
    """

    layers: list[Leaving]
    x: np.ndarray
    final: np.ndarray


def opened(
    at: Replaced, source: np.ndarray, readings: Sequence[Reading], reading: np.ndarray, by: str
) -> tuple[np.ndarray, np.ndarray]:
    """Heads [m, L, H] and what passes no head [m], for pairs of numbers of sources and readings, [m] each.

    Args:
      by: "last" or "first", see `heads_record.HeadLoadings`.
    """
    config, dtype = at.operator.config, at.operator.dtype
    heads = np.zeros((len(source), config.n_layers, config.n_heads), dtype)
    rest = np.zeros(len(source), dtype)
    if len(readings) > MOST_READINGS:
        for low in range(0, len(readings), MOST_READINGS):
            few = np.flatnonzero((reading >= low) & (reading < low + MOST_READINGS))
            own = readings[low : low + MOST_READINGS]
            heads[few], rest[few] = opened(at, source[few], own, reading[few] - low, by)
        return heads, rest
    origin, place = (
        at.sources["position"].astype(np.int32),
        np.asarray([r.position for r in readings], np.int32),
    )
    alone = _alone(at, readings)
    used = np.unique(source)
    used = used[np.argsort(at.sources["layer"][used], kind="stable")]
    number = np.zeros(len(at.sources), np.int32)
    number[used] = np.arange(len(used))
    size = _block_size(at)
    values = [
        np.zeros((len(used) + size, leaving.heads.shape[1]), dtype)
        for leaving in alone.layers
        if by == "first"
    ]

    for start in range(0, len(used), size):
        block = _padded(used[start : start + size], size)
        mine = np.flatnonzero((number[source] >= start) & (number[source] < start + size))
        within = mine[origin[source[mine]] == place[reading[mine]]]
        begun = _begun(at, block)
        rest[within] += (begun[number[source[within]] - start] * alone.x[reading[within]]).sum(axis=1)
        positions, x_alone = origin[block], jnp.asarray(begun)
        x = (
            jnp.zeros((size, at.operator.n_tokens, config.d_model), dtype)
            .at[np.arange(size), positions]
            .set(x_alone)
        )
        for layer in range(max(int(at.sources["layer"][block[0]]), 0), len(alone.layers)):
            entering, leaving = _entering(at, block, layer), alone.layers[layer]
            if by == "last":
                x, moved = push(at.operator, np.int32(layer), x, positions, entering)
                for few in _few(mine):
                    ends = _ends(number[source[few]] - start, place[reading[few]], reading[few])
                    heads[few, layer] = weigh(moved, leaving.heads, ends, config.n_heads)[: len(few)]
            else:
                x_alone, seen = push_local(at.operator, np.int32(layer), x_alone, positions, entering)
                values[layer][start : start + size] = seen
            for few in _few(within):
                ends = _ends(number[source[few]] - start, reading[few])
                rest[few] += direct(entering, leaving.entering, ends)[: len(few)]
    final = (at.sources["kind"] == BIAS) & (at.sources["layer"] == config.n_layers)
    ended = np.flatnonzero(final[source] & (origin[source] == place[reading]))
    rest[ended] += alone.final[reading[ended]]
    if by == "first":
        _follow_readings(at, readings, values, heads, number[source], origin[source], reading)
    return heads, rest


def _follow_readings(
    at: Replaced, readings: Sequence[Reading], values: Sequence[np.ndarray], heads: np.ndarray,
    number: np.ndarray, origin: np.ndarray, reading: np.ndarray,
) -> None:  # fmt: skip
    """Fill in ``heads`` with what heads carry of ``values`` (by layer, of every source) to readings, along any path."""
    config, t = at.operator.config, at.operator.n_tokens
    for block, size in _of_one_place(readings, _block_size(at)):
        chosen = _padded(block, size)
        vectors, positions, layers, place = _stacked(readings, chosen)
        x_bar = jnp.zeros((size, t, config.d_model), at.operator.dtype)
        if place is None:
            begun, _ = pull_final(at.operator, positions, vectors)
            x_bar = x_bar.at[np.arange(size), positions].set(begun)
        within = np.full(len(readings), -1, np.int32)
        within[block] = np.arange(len(block))
        mine = np.flatnonzero(within[reading] >= 0)
        for layer in reversed(range(min(int(layers.max()) + 1, config.n_layers))):
            here = np.where((layers == layer)[:, None], vectors, 0).astype(vectors.dtype)
            x_bar, seen = pull(at.operator, np.int32(layer), x_bar, positions, here, place)
            stopped = jnp.asarray(values[layer])
            for few in _few(mine):
                ends = _ends(within[reading[few]], origin[few], number[few])
                heads[few, layer] = weigh(seen, stopped, ends, config.n_heads)[: len(few)]


def _alone(at: Replaced, readings: Sequence[Reading]) -> Alone:
    config = at.operator.config
    stop = min(max(one.layer for one in readings) + 1, config.n_layers)
    final = np.zeros(len(readings), at.operator.dtype)
    x = np.zeros((len(readings), config.d_model), at.operator.dtype)
    whole: list[Any] = [None] * stop
    for block, size in _of_one_place(readings, READINGS):
        vectors, positions, layers, place = _stacked(readings, _padded(block, size))
        x_bar = jnp.zeros((size, config.d_model), at.operator.dtype)
        if place is None:
            x_bar, bias = pull_final(at.operator, positions, vectors)
            final[block] = bias[: len(block)]
        for layer in reversed(range(stop)):
            here = np.where((layers == layer)[:, None], vectors, 0).astype(vectors.dtype)
            x_bar, found = pull_local(at.operator, np.int32(layer), x_bar, positions, here, place)
            if whole[layer] is None:
                whole[layer] = jax.tree.map(
                    lambda leaf: np.zeros((len(readings), *leaf.shape[1:]), leaf.dtype), found
                )
            for kept, new in zip(jax.tree.leaves(whole[layer]), jax.tree.leaves(found), strict=True):
                kept[block] = new[: len(block)]
        x[block] = x_bar[: len(block)]
    return Alone([jax.tree.map(jnp.asarray, one) for one in whole], x, final)


def _of_one_place(readings: Sequence[Reading], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks of at most ``size`` readings of one place, by layer; and the size."""
    place = np.asarray([one.place for one in readings])
    layer = np.asarray([one.layer for one in readings])
    for one in np.unique(place):
        own = np.flatnonzero(place == one)
        own = own[np.argsort(layer[own], kind="stable")]
        for start in range(0, len(own), size):
            yield own[start : start + size], size


def _stacked(
    readings: Sequence[Reading], block: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int | None]:
    """Vectors [C, D], positions [C], layers [C] and the place (None: the final norm) of a block."""
    few = [readings[i] for i in block]
    positions, layers = (
        np.asarray(column, np.int32) for column in zip(*((r.position, r.layer) for r in few), strict=True)
    )
    return np.stack([r.vector for r in few]), positions, layers, None if few[0].place < 0 else few[0].place


def _begun(at: Replaced, block: np.ndarray) -> np.ndarray:
    """[S, D] what sources bring into the residual stream before layer 0."""
    rows = at.sources[block]
    out = np.zeros((len(block), at.operator.config.d_model), at.operator.dtype)
    embedding = rows["kind"] == EMBEDDING
    out[embedding] = np.asarray(at.setup.walker.embed)[rows["position"][embedding]]
    learned = (rows["kind"] == BIAS) & (rows["index"] == POSITION)
    if learned.any():
        out[learned] = np.asarray(at.operator.positions)[rows["position"][learned]]
    return out


def _entering(at: Replaced, block: np.ndarray, layer: int) -> Entering:
    """What sources bring into a layer."""
    rows = at.sources[block]
    biases = (rows["kind"] == BIAS) & (rows["layer"] == layer)

    def factor(index: int, part: int | None = None) -> np.ndarray:
        own = biases & (rows["index"] == index)
        return (own if part is None else own & (rows["part"] == part)).astype(at.operator.dtype)

    return Entering(
        tuple(_written(at, number, block, layer) for number in range(len(at.operator.places))),
        tuple(factor(DECODER, JUNCTIONS.index(place.junction)) for place in at.operator.places),
        factor(ATTENTION),
        factor(NORM),
        factor(MLP),
    )


def _written(at: Replaced, number: int, block: np.ndarray, layer: int) -> np.ndarray:
    """[S, D] what sources write at a place of the operator in a layer."""
    setup, rows, place = at.setup, at.sources[block], at.operator.places[number]
    out = np.zeros((len(block), site_width(at.operator.config, place.write_site)), at.operator.dtype)
    own = rows["part"] == JUNCTIONS.index(place.junction)
    if (error := setup.writes.errors.get((number, layer))) is not None:
        here = own & (rows["kind"] == ERROR) & (rows["layer"] == layer)
        out[here] = error[rows["position"][here]]
    reader, features = setup.readers[number], own & (rows["kind"] == FEATURE)
    if reader is None or layer not in place.layers:
        return out
    pairs = set(kind_of(reader.config).writes(reader.config))
    target = place.layers.index(layer)
    for source in range(len(place.layers)):
        here = features & (rows["layer"] == place.layers[source])
        if (source, target) in pairs and here.any():
            vectors = reader.decoder(source, target, rows["index"][here])
            out[here] = vectors * rows["activation"][here].astype(out.dtype)[:, None]
    return out


def _block_size(at: Replaced) -> int:
    stream = at.operator.n_tokens * at.operator.config.d_model * np.dtype(at.operator.dtype).itemsize
    return int(max(1, min(64, STREAM_BYTES // stream)))


def _padded(block: np.ndarray, size: int) -> np.ndarray:
    """``size`` numbers, the last one repeated."""
    return np.pad(block, (0, size - len(block)), mode="edge")


def _few(pairs: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pairs), PAIRS):
        yield pairs[start : start + PAIRS]


def _ends(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """Columns of `_few` pairs, padded to one length so that one program serves them all."""
    return tuple(np.pad(one, (0, PAIRS - len(one))).astype(np.int32) for one in columns)
