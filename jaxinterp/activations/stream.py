"""Activations straight from the model, nothing stored: pools of rows, shuffled, cut into training batches.

A pool is the rows of a few text batches. Its rows are permuted, so that neighbours in a training batch come
from many sequences, and cut into ``steps_per_pool`` batches. Everything is a pure function of
(seed, step): a resumed run sees what an uninterrupted one sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.expert_parallel import OnMesh
from jaxinterp.models.experts import Dispatch
from jaxinterp.models.model import Model
from jaxinterp.parallel import DEFAULT_RULES

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True)
class StreamConfig:
    """How rows are pooled and shuffled.

    Attributes:
      text_batches: text batches in a pool.
      shuffle: permute the rows of a pool; without it batches are runs of neighbouring tokens.
      reuse: how many times a pool is gone through, each time in another order, before the next is made.
      first_tokens: whether the first token of every document is used.
      keep: pools kept in memory, the oldest dropped first; with a limited text this can spare the model from
        running over the same text again. One pool takes 8 · L · D bytes a token in float32.
      microbatch: sequences that go through the model at a time; 0 means a whole text batch.
    """

    text_batches: int = 4
    shuffle: bool = True
    reuse: int = 1
    first_tokens: bool = True
    keep: int = 1
    microbatch: int = 16

    def __post_init__(self) -> None:
        if self.text_batches < 1 or self.reuse < 1 or self.keep < 1 or self.microbatch < 0:
            raise InputError("stream: text_batches, reuse and keep must be at least 1, microbatch at least 0")


@partial(jax.jit, static_argnames=("config", "sites", "dispatch"))
def collect(
    params: Tree,
    config: ModelConfig,
    tokens: Array,
    segments: Array,
    positions: Array,
    sites: tuple[str, ...],
    dispatch: Dispatch = "sparse",
) -> tuple[Array, ...]:
    """Per-layer sites of a batch with all its rows in one axis: tokens ``[B, T]`` → ``[L, B·T, D]`` each."""
    _, found = forward(
        params, config, tokens, sites=sites, segments=segments, positions=positions, dispatch=dispatch
    )
    values = (getattr(found, site) for site in sites)
    return tuple(v.reshape(v.shape[0], -1, v.shape[-1]) for v in values)


@jax.jit
def _rows(pool: tuple[Array, ...], rows: Array) -> tuple[Array, ...]:
    return tuple(jnp.take(values, rows, axis=1) for values in pool)


class Stream:
    """Training batches of activations.

    Args:
      model: where they come from: a model of ours, or a `FlaxSource` with sites of these names.
      sites: per-layer sites, in the order in which they are returned.
      source: text.
      rows: rows a training batch.
      seed: of the shuffle.
      config: see `StreamConfig`.
      mesh: spread the forward pass over its axes.
    """

    def __init__(
        self, model: Model | FlaxSource, sites: tuple[str, ...], source: Source, *, rows: int, seed: int,
        config: StreamConfig | None = None, mesh: Mesh | None = None,
    ) -> None:  # fmt: skip
        self.model, self.sites, self.source, self.rows, self.seed = model, sites, source, rows, seed
        self.config, self.mesh = config or StreamConfig(), mesh
        self._steps: int | None = None
        self._pools: dict[int, tuple[tuple[Array, ...], np.ndarray]] = {}
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def batch(self, step: int) -> tuple[Array, ...]:
        """The sites of training batch ``step``: ``[L, rows, D]`` each."""
        per_pass = self._steps_per_pass()
        index, inside = divmod(step, per_pass * self.config.reuse)
        turn, place = divmod(inside, per_pass)
        pool, usable = self.pool(index)
        if self._order is None or self._order[0] != (index, turn):
            self._order = (index, turn), self._permutation(index, turn, usable, per_pass * self.rows)
        order = self._order[1]
        return _rows(pool, order[place * self.rows : (place + 1) * self.rows])

    def pool(self, index: int) -> tuple[tuple[Array, ...], np.ndarray]:
        """All rows of pool ``index`` for every site, and the numbers of the usable rows."""
        count = self.config.text_batches
        if self.source.limit and self.source.limit % count == 0:
            index %= self.source.limit // count
        if index not in self._pools:
            while len(self._pools) >= self.config.keep:
                del self._pools[next(iter(self._pools))]  # before the new one is made
            batches = [self.source.batch(index * count + i) for i in range(count)]
            values = [activations(self.model, batch, self.sites, self.config, self.mesh) for batch in batches]
            joined = tuple(jnp.concatenate(parts, axis=1) for parts in zip(*values, strict=True))
            usable = np.flatnonzero(np.concatenate([self._usable(batch).reshape(-1) for batch in batches]))
            if not usable.size:
                raise InputError("the text has no usable token in a whole pool of activations")
            self._pools[index] = joined, usable.astype(np.int32)
        return self._pools[index]

    def _usable(self, batch: Batch) -> np.ndarray:
        return batch.use if self.config.first_tokens else batch.use & (batch.positions > 0)

    def _steps_per_pass(self) -> int:
        if self._steps is None:
            self._steps = max(1, self.source.tokens * self.config.text_batches // self.rows)
        return self._steps

    def _permutation(self, index: int, turn: int, usable: np.ndarray, size: int) -> np.ndarray:
        """``size`` row numbers; where too few rows are usable, some come again."""
        repeats = -(-size // len(usable))
        if not self.config.shuffle:
            return np.tile(usable, repeats)[:size]
        random = np.random.default_rng([self.seed, index, turn])
        return np.concatenate([random.permutation(usable) for _ in range(repeats)])[:size]


def activations(
    model: Model | FlaxSource,
    batch: Batch,
    sites: tuple[str, ...],
    config: StreamConfig,
    mesh: Mesh | None = None,
) -> tuple[Array, ...]:
    """The sites of a text batch, ``[L, B·T, D]`` each, a microbatch at a time."""
    if isinstance(model, FlaxSource):
        model.check(batch)
        run: Callable[..., tuple[Array, ...]] = model.collect
    else:
        dispatch = "sparse" if mesh is None else OnMesh(mesh)
        run = partial(collect, model.params, model.config, dispatch=dispatch)
    total, length = batch.tokens.shape
    place, ways = _placer(mesh), _ways(mesh)
    # Every way computes as many sequences at a time as one device would, so that their bytes are those of one device.
    size = (config.microbatch or total) * ways
    missing = -total % size if ways > 1 else 0
    arrays = [
        np.concatenate([array, np.zeros((missing, length), array.dtype)]) if missing else array
        for array in (batch.tokens, batch.segments, batch.positions)
    ]
    parts = []
    for start in range(0, total, size):
        parts.append(run(*(place(array[start : start + size]) for array in arrays), sites))
    joined = (jnp.concatenate(values, axis=1) for values in zip(*parts, strict=True))
    return tuple(values[:, : total * length] if missing else values for values in joined)


def _ways(mesh: Mesh | None) -> int:
    """Into how many parts a mesh divides sequences."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in DEFAULT_RULES.targets("batch", mesh))


def _placer(mesh: Mesh | None) -> Callable[[np.ndarray], Any]:
    if mesh is None:
        return jnp.asarray
    made = mesh

    def place(array: np.ndarray) -> Any:
        spec = DEFAULT_RULES.spec(("batch", "position"), array.shape, made, "sequences of a forward pass")
        return jax.device_put(array, jax.NamedSharding(made, spec))

    return place
