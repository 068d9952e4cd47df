"""Which tokens an evaluation goes through, and the activations of their sites.

Letters: L layers, B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.stream import StreamConfig, activations
from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.evaluation.reconstruction import Rows
from jaxinterp.models.model import Model

EMPTY = 64
"""Batches without a usable token after which a text counts as empty."""


def take(source: Source, tokens: int, *, first_tokens: bool = True, distinct: bool = False) -> list[Batch]:
    """Batches of a text whose usable tokens add up to ``tokens``; later ones are marked as not used.

    Args:
      source: the text.
      tokens: how many.
      first_tokens: whether the first token of every document is used.
      distinct: a sequence that came before is not used again, and a text without enough others is refused.

    Raises:
      InputError: no usable tokens, or with ``distinct`` fewer than asked for.
    """
    if tokens < 1:
        raise InputError(f"evaluation: {tokens} tokens, expected at least 1")
    found: list[Batch] = []
    seen: set[bytes] = set()
    left, empty, index = tokens, 0, 0
    while left > 0:
        batch = source.batch(index)
        use = batch.use if first_tokens else batch.use & (batch.positions > 0)
        if distinct:
            use = use & _new(batch, seen)[:, None]
        flat = use.reshape(-1)
        kept = flat & (np.cumsum(flat) <= left)
        count = int(kept.sum())
        left, index = left - count, index + 1
        empty = 0 if count else empty + 1
        have = tokens - left
        if empty >= (1 if distinct and have else EMPTY):
            if not have:
                raise InputError("evaluation: the text has no usable token")
            raise InputError(
                f"evaluation: the text has {have} different usable tokens, fewer than the {tokens} asked for"
            )
        found.append(batch._replace(use=kept.reshape(use.shape)))
    return found


def _new(batch: Batch, seen: set[bytes]) -> np.ndarray:
    """[B], which sequences did not come before; they are then in ``seen``."""
    fresh = np.zeros(len(batch.tokens), bool)
    for i, row in enumerate(np.ascontiguousarray(batch.tokens)):
        key = row.tobytes()
        fresh[i] = key not in seen
        seen.add(key)
    return fresh


def split(batches: list[Batch], size: int) -> Iterator[Batch]:
    """Batches of at most ``size`` sequences; those with nothing to use are left out."""
    for batch in batches:
        for start in range(0, len(batch.tokens), size):
            piece = Batch(*(array[start : start + size] for array in batch))
            if piece.use.any():
                yield piece


def rows(
    model: Model | FlaxSource,
    dictionary: Dictionary,
    layers: tuple[int, ...],
    batches: list[Batch],
    size: int,
) -> Iterator[Rows]:
    """What a dictionary reads and writes, from the model: ``size`` sequences at a time."""
    sites = (dictionary.config.read_site, dictionary.config.write_site)
    chosen = None if layers == tuple(range(model.config.n_layers)) else jnp.asarray(layers, jnp.int32)
    for batch in split(batches, size):
        shape = batch.tokens.shape
        x, y = (
            (v if chosen is None else jnp.take(v, chosen, axis=0)).reshape(len(layers), *shape, v.shape[-1])
            for v in activations(model, batch, sites, StreamConfig(microbatch=0))
        )
        yield Rows(x, y, batch.use, batch.positions, batch.segments)


def stored_source(store: Store) -> Source:
    """The text of a store, batch by batch."""
    size, length = store.layout.batch_rows, store.layout.length
    batches = -(-store.layout.rows // size)

    def batch(index: int) -> Batch:
        begin = index % batches * size
        found = store.tokens(slice(begin, begin + size))
        arrays = (found.token, found.document, found.position, found.use)
        return Batch(*(a.reshape(-1, length) for a in arrays))

    return Source(batch, size, batches)


def stored_rows(
    store: Store, dictionary: Dictionary, layers: tuple[int, ...], batches: list[Batch], size: int
) -> Iterator[Rows]:
    """The same from a store, whose first batches these are, in their order."""
    read = _reader(store, layers)
    length = store.layout.length
    for index, batch in enumerate(batches):
        begin = index * store.layout.batch_rows
        for start in range(0, len(batch.tokens), size):
            piece = Batch(*(array[start : start + size] for array in batch))
            if not piece.use.any():
                continue
            where = slice(begin + start * length, begin + (start + len(piece.tokens)) * length)
            x, y = (
                read(site, where).reshape(len(layers), *piece.tokens.shape, -1)
                for site in (dictionary.config.read_site, dictionary.config.write_site)
            )
            yield Rows(jnp.asarray(x), jnp.asarray(y), piece.use, piece.positions, piece.segments)


def _reader(store: Store, layers: tuple[int, ...]) -> Callable[[str, slice], np.ndarray]:
    def read(site: str, where: slice) -> np.ndarray:
        return store.read(site, where, layers)

    return read
