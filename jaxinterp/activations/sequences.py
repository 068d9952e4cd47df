"""Activations of whole sequences, for dictionaries whose features look at other positions.

As `Stream`, but what is permuted and cut into batches are sequences, and every batch says where its tokens stand.
Everything is a pure function of (seed, step).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.stream import StreamConfig, activations
from jaxinterp.activations.text import Source
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.models.model import Model

if TYPE_CHECKING:
    from jax.sharding import Mesh


class Sequences(NamedTuple):
    """Sequences in one axis of rows: row ``b T + t`` is token t of sequence b.

    Attributes:
      sites: ``[L, B T, D]`` each.
      positions, segments: ``[B, T]``, places in documents and their numbers.
      rows: ``[B T]``, numbers of rows to learn from: all of them, or where some are not used the others, some twice.
    """

    sites: tuple[Array, ...]
    positions: Array
    segments: Array
    rows: Array


class _Pool(NamedTuple):
    sites: tuple[Array, ...]  # [L, sequences, T, D] each
    positions: np.ndarray
    segments: np.ndarray
    use: np.ndarray


class SequenceStream:
    """Training batches of whole sequences.

    Args:
      model: where they come from.
      sites: per-layer sites, in the order in which they are returned.
      source: text.
      sequences: how many a training batch has.
      seed: of the shuffle.
      config: see `StreamConfig`; ``shuffle`` is of sequences.
      mesh: spread the forward pass over its axes.
    """

    def __init__(
        self, model: Model | FlaxSource, sites: tuple[str, ...], source: Source, *, sequences: int, seed: int,
        config: StreamConfig | None = None, mesh: Mesh | None = None,
    ) -> None:  # fmt: skip
        self.model, self.sites, self.source, self.sequences, self.seed = model, sites, source, sequences, seed
        self.config, self.mesh = config or StreamConfig(), mesh
        self._pools: dict[int, _Pool] = {}

    def batch(self, step: int) -> Sequences:
        """Training batch ``step``."""
        in_pool = len(self.pool(0).use)
        per_pass = max(1, in_pool // self.sequences)
        index, inside = divmod(step, per_pass * self.config.reuse)
        turn, place = divmod(inside, per_pass)
        order = np.arange(in_pool)
        if self.config.shuffle:
            order = np.random.default_rng([self.seed, index, turn]).permutation(in_pool)
        order = np.resize(order, per_pass * self.sequences)
        return self.take(index, order[place * self.sequences : (place + 1) * self.sequences])

    def take(self, index: int, which: np.ndarray) -> Sequences:
        """Some sequences of pool ``index`` by number."""
        pool = self.pool(index)
        usable = np.flatnonzero(pool.use[which].reshape(-1))
        if not usable.size:
            raise InputError("the text has no usable token in a whole batch of sequences")
        rows = usable if usable.size == pool.use[which].size else np.resize(usable, pool.use[which].size)
        return Sequences(
            _take(pool.sites, jnp.asarray(which.astype(np.int32))),
            jnp.asarray(pool.positions[which]),
            jnp.asarray(pool.segments[which]),
            jnp.asarray(rows.astype(np.int32)),
        )

    def pool(self, index: int) -> _Pool:
        """All sequences of a few text batches."""
        count = self.config.text_batches
        if self.source.limit and self.source.limit % count == 0:
            index %= self.source.limit // count
        if index not in self._pools:
            while len(self._pools) >= self.config.keep:
                del self._pools[next(iter(self._pools))]  # before the new one is made
            batches = [self.source.batch(index * count + i) for i in range(count)]
            values = [activations(self.model, batch, self.sites, self.config, self.mesh) for batch in batches]
            joined = tuple(jnp.concatenate(parts, axis=1) for parts in zip(*values, strict=True))
            tokens, segments, positions, use = (np.concatenate(parts) for parts in zip(*batches, strict=True))
            if not self.config.first_tokens:
                use = use & (positions > 0)
            shape = tokens.shape
            sites = tuple(v.reshape(v.shape[0], *shape, v.shape[-1]) for v in joined)
            self._pools[index] = _Pool(sites, positions, segments, use)
        return self._pools[index]


@jax.jit
def _take(pool: tuple[Array, ...], which: Array) -> tuple[Array, ...]:
    taken = (jnp.take(values, which, axis=1) for values in pool)
    return tuple(v.reshape(v.shape[0], -1, v.shape[-1]) for v in taken)
