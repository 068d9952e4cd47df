"""Counting co-activation over text, from a model or a store: one pass, block by block.

A block is a fixed number of sequences and is computed by one device whatever others there are; the host adds blocks in
their order in float64. The bytes of a counter therefore do not depend on the number of devices, and a counter that was
saved in between goes on as if it had not been.

Letters: L layers, B sequences, T positions, R rows (tokens that count), D width, N features, n chosen ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.stream import StreamConfig, activations
from jaxinterp.activations.text import Batch
from jaxinterp.attribution.coactivation import BUDGET, Coactivation
from jaxinterp.attribution.layer_features import LayerEncoder
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.lazy import AnyDictionary
from jaxinterp.models.model import Model

ROWS = 256
"""So many rows, or a multiple, are multiplied at a time, so that few shapes are compiled."""


class Block(NamedTuple):
    """Whole sequences.

    Attributes:
      values: site → [layers of the site, B, T, D]. layers: site → the model's layers that these are.
      positions, segments, use: [B, T] places, documents and which tokens count.
    """

    values: dict[str, Any]
    layers: dict[str, tuple[int, ...]]
    positions: np.ndarray
    segments: np.ndarray
    use: np.ndarray


def from_model(
    model: Model, sites: Sequence[str], batches: Iterable[Batch], size: int = 8, skip: int = 0
) -> Iterator[Block]:
    """Blocks of ``size`` sequences of a text, but for the first ``skip`` blocks."""
    names = tuple(dict.fromkeys(sites))
    layers = dict.fromkeys(names, tuple(range(model.config.n_layers)))
    for batch in batches:
        for start in range(0, len(batch.tokens), size):
            if skip > 0:
                skip -= 1
                continue
            part = Batch(*(array[start : start + size] for array in batch))
            found = activations(model, part, names, StreamConfig(microbatch=0))
            shape = part.tokens.shape
            values = {
                name: v.reshape(len(v), *shape, v.shape[-1]) for name, v in zip(names, found, strict=True)
            }
            yield Block(values, layers, part.positions, part.segments, part.use)


def from_store(
    store: Store, sites: Sequence[str], size: int = 8, skip: int = 0, *, first_tokens: bool = True
) -> Iterator[Block]:
    """The same from a store, all of it in its order."""
    length = store.layout.length
    layers = {site: tuple(store.site(site).layers) for site in sites}
    for begin in range(skip * size * length, store.layout.rows, size * length):
        where = slice(begin, min(begin + size * length, store.layout.rows))
        waiting = {site: store.start(site, where) for site in layers}
        tokens = store.tokens(where)
        values = {}
        for site, finish in waiting.items():
            found = finish()
            values[site] = found.reshape(len(found), -1, length, found.shape[-1])
        use = tokens.use if first_tokens else tokens.use & (tokens.position > 0)
        yield Block(values, layers, *(a.reshape(-1, length) for a in (tokens.position, tokens.document, use)))


def count(
    counter: Coactivation, blocks: Iterable[Block], source: AnyDictionary, target: AnyDictionary | None = None, *,
    devices: Sequence[Any] | None = None, budget: int = BUDGET, after: Callable[[Coactivation], None] | None = None,
) -> Coactivation:  # fmt: skip
    """Add what is active together in a text to a counter.

    Args:
      counter: of `coactivation.new_counter`.
      blocks: with the sites that the dictionaries read; ``skip=counter.blocks`` goes on with a text.
      source, target: the dictionaries; ``target`` None means the source.
      devices: that compute blocks, in turn; None means the first there is.
      budget: bytes that sparse sums may take.
      after: called with the counter after every few blocks; it may save it.

    Returns:
      The same counter.

    Raises:
      InputError: activations that are not finite, or sums beyond the budget; the counter then holds what came before.
    """
    chosen = list(devices) if devices is not None else jax.local_devices()[:1]
    sides = {("source", "target"): source} if target is None else {("source",): source, ("target",): target}
    todo = iter(blocks)
    while group := list(itertools.islice(todo, len(chosen))):
        found: list[dict[tuple[str, int], Any]] = [{} for _ in group]
        for names, dictionary in sides.items():
            ids = {side: counter.sources if side == "source" else counter.targets for side in names}
            for layer in sorted({layer for side in names for layer in ids[side]}):
                encoder = LayerEncoder(dictionary, layer)
                for block, device, mine in zip(group, chosen, found, strict=False):
                    a = _encode(encoder, block, device)
                    for side in names:
                        if layer in ids[side]:
                            mine[side, layer] = _take(a, ids[side][layer], dictionary.config, counter.dense)
        for block, mine in zip(group, found, strict=True):
            one = {key: _side_sums(a) for key, a in mine.items()}
            both = {
                (s, t): _pair_sums(mine["source", s], mine["target", t], counter.dense)
                for s, t in counter.pairs
            }
            counter.add(int(block.use.sum()), one, both, budget)
        if after is not None:
            after(counter)
    return counter


def _encode(encoder: LayerEncoder, block: Block, device: Any) -> Array:
    """Activations of the tokens of a block that count, and rows of zeros up to a multiple of `ROWS`."""
    site = encoder.config.read_site
    if encoder.model_layer not in block.layers[site]:
        raise InputError(f"layer {encoder.model_layer} of {site} is not among what was collected")
    x = block.values[site][block.layers[site].index(encoder.model_layer)]
    used = np.flatnonzero(block.use)
    rows = np.pad(used, (0, -len(used) % ROWS), constant_values=block.use.size).astype(np.int32)
    x, positions, segments, rows = jax.device_put((x, block.positions, block.segments, rows), device)
    return _rows(encoder(x, positions, segments, device)[1], x, rows)


@jax.jit
def _rows(a: Array, x: Array, rows: Array) -> Array:
    a, x = (jnp.take(v.reshape(-1, v.shape[-1]), rows, axis=0, mode="fill", fill_value=0) for v in (a, x))
    # What is not finite would pass for not active.
    return jnp.where(jnp.isfinite(x).all(), a, jnp.full((), jnp.nan, a.dtype))


def _take(a: Array, ids: np.ndarray, config: DictionaryConfig, dense: bool) -> Any:
    """The chosen columns, on the device or as a sparse matrix on the host."""
    if dense:
        return a if len(ids) == config.n_features else jnp.take(a, jnp.asarray(ids, jnp.int32), axis=1)
    found = np.asarray(a)
    return sparse.csr_array(found if len(ids) == config.n_features else found[:, ids]).astype(np.float64)


def _side_sums(a: Any) -> tuple[np.ndarray, np.ndarray]:
    """Counts of rows on which each feature is active [n], and sums of activations."""
    fired, total = ((a > 0).sum(axis=0), a.sum(axis=0)) if sparse.issparse(a) else _dense_sums(a)
    return np.asarray(fired, np.int64).reshape(-1), np.asarray(total, np.float64).reshape(-1)


@jax.jit
def _dense_sums(a: Array) -> tuple[Array, Array]:
    return (a > 0).sum(axis=0), a.sum(axis=0)


def _pair_sums(source: Any, target: Any, dense: bool) -> tuple[Any, Any]:
    """``Σ 1(a_t > 0) a_s`` and ``Σ a_s a_t``, [n, m]."""
    if dense:
        gated, products = _dense_pair(source, target)
        return np.asarray(gated, np.float64), np.asarray(products, np.float64)
    return source.T @ (target > 0).astype(np.float64), source.T @ target


@jax.jit
def _dense_pair(source: Array, target: Array) -> tuple[Array, Array]:
    active = (target > 0).astype(source.dtype)
    return einsum("rs,rt->st", source, active), einsum("rs,rt->st", source, target)
