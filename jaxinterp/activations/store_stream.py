"""Training batches from a store, in orders that are pure functions of (seed, step) and need no buffer.

Letters: L layers, R rows, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.store_shuffle import Permutation
from jaxinterp.activations.stream import Stream, StreamConfig
from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.models.model import Model

ORDERS = ("window", "full", "stored", "stream")
_KEPT = 256


@dataclass(frozen=True)
class StoredConfig:
    """In which order rows are read.

    Attributes:
      order: "window": chunks are permuted, ``window`` of them at a time are read and their rows permuted. Every chunk
        is read once an epoch, from beginning to end; the rows of a batch come from ``window`` places of the text.
        "full": all rows are permuted; a batch reads a chunk for nearly each of its rows.
        "stored": the order of the text.
        "stream": the batches that a `Stream` over the same text gives, with its own settings.
      cache: MiB of chunks that `open_store` keeps in memory, for "full"; what does not fit is read again and again.
      window: chunks; their rows of the asked sites are in memory, in float32, and those of the next window too.
    """

    order: str = "window"
    window: int = 64
    cache: int = 0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(f"stored: order {self.order!r}, expected one of {', '.join(ORDERS)}")
        if self.window < 1 or self.cache < 0:
            raise InputError(
                f"stored: window is {self.window} and cache {self.cache}, expected at least 1 and 0"
            )


class StoredStream:
    """What a `Stream` is to a model, this is to a store: ``batch(step)`` gives the sites, [L, R, D] each.

    An epoch goes through all usable rows; those left over when it is cut into batches come in another epoch.

    Args:
      store: a finished store.
      sites: names, in the order in which they are returned.
      rows: rows a batch.
      seed: of the order; another epoch has another order.
      config: which order.
      first_tokens: whether the first token of every document is used.

    Raises:
      InputError: a site that is not stored, or fewer usable rows than a batch has.
    """

    def __init__(
        self, store: Store, sites: tuple[str, ...], *, rows: int, seed: int,
        config: StoredConfig | None = None, first_tokens: bool = True,
    ) -> None:  # fmt: skip
        self.store, self.sites, self.rows, self.seed = store, sites, rows, seed
        self.config, self.first_tokens = config or StoredConfig(), first_tokens
        for site in sites:
            store.site(site)
        self.counts = store.used if first_tokens else store.later
        self.ends = np.cumsum(self.counts)
        self.steps = int(self.ends[-1]) // rows
        if not self.steps:
            raise InputError(f"{store.folder} has {self.ends[-1]} usable rows, fewer than a batch of {rows}")
        self._numbers: dict[int, np.ndarray] = {}
        self._windows: dict[tuple[int, int], _Window] = {}
        self._plan: tuple[int, np.ndarray, np.ndarray] | None = None

    def batch(self, step: int) -> tuple[Array, ...]:
        """The sites of training batch ``step``: float32 [L, rows, D] each."""
        epoch, inside = divmod(step, self.steps)
        begin, end = inside * self.rows, (inside + 1) * self.rows
        if self.config.order == "window":
            return self._from_windows(epoch, begin, end)
        return self._read(self._row_numbers(epoch, np.arange(begin, end)))

    def row_numbers(self, step: int) -> np.ndarray:
        """Which rows of the store batch ``step`` has, [rows]: with `Store.place`, the text that they come from."""
        epoch, inside = divmod(step, self.steps)
        begin, end = inside * self.rows, (inside + 1) * self.rows
        if self.config.order == "window":
            return np.concatenate([self._order(epoch, w)[a:b] for w, a, b in self._pieces(epoch, begin, end)])
        return self._row_numbers(epoch, np.arange(begin, end))

    def pool(self, index: int) -> tuple[tuple[Array, ...], np.ndarray]:
        """A sample for initialisation, as a `Stream` gives: the rows of window ``index``, all of them usable."""
        rows = self._order(index, 0) if self.config.order == "window" else self._sample(index)
        return self._read(np.sort(rows)), np.arange(len(rows), dtype=np.int32)

    def _sample(self, index: int) -> np.ndarray:
        count = min(int(self.ends[-1]), self.config.window * self.store.layout.chunk_rows)
        return self._row_numbers(index, np.arange(count))

    def _row_numbers(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Rows at these places of an epoch in the order "full" or "stored"."""
        if self.config.order == "full":
            places = Permutation(int(self.ends[-1]), self.seed, epoch)(places)
        chunks = np.searchsorted(self.ends, places, side="right")
        starts = self.ends - self.counts
        out = np.empty(len(places), np.int64)
        for chunk in np.unique(chunks):
            here = chunks == chunk
            out[here] = self._usable(int(chunk))[places[here] - starts[chunk]]
        return out

    def _usable(self, chunk: int) -> np.ndarray:
        if chunk not in self._numbers:
            while len(self._numbers) >= _KEPT:
                del self._numbers[next(iter(self._numbers))]
            self._numbers[chunk] = self.store.usable(chunk, self.first_tokens)
        return self._numbers[chunk]

    def _windows_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The chunks in the order of an epoch, and where in it each window ends."""
        if self._plan is None or self._plan[0] != epoch:
            count = len(self.counts)
            order = Permutation(count, self.seed, epoch, 0)(np.arange(count))
            ends = np.cumsum(np.add.reduceat(self.counts[order], np.arange(0, count, self.config.window)))
            self._plan = epoch, order, ends
        return self._plan[1], self._plan[2]

    def _pieces(self, epoch: int, begin: int, end: int) -> list[tuple[int, int, int]]:
        """(window, from, to) for places [begin, end) of an epoch."""
        _, ends = self._windows_of(epoch)
        found = []
        while begin < end:
            window = int(np.searchsorted(ends, begin, side="right"))
            start = int(ends[window - 1]) if window else 0
            stop = min(end, int(ends[window]))
            found.append((window, begin - start, stop - start))
            begin = stop
        return found

    def _order(self, epoch: int, window: int) -> np.ndarray:
        """The usable rows of a window in the order in which they are used."""
        chunks = self._chunks(epoch, window)
        rows = np.concatenate([self._usable(int(c)) for c in chunks])
        return rows[Permutation(len(rows), self.seed, epoch, 1 + window)(np.arange(len(rows)))]

    def _chunks(self, epoch: int, window: int) -> np.ndarray:
        order, _ = self._windows_of(epoch)
        return order[window * self.config.window : (window + 1) * self.config.window]

    def _from_windows(self, epoch: int, begin: int, end: int) -> tuple[Array, ...]:
        parts = []
        for window, start, stop in self._pieces(epoch, begin, end):
            parts.append(self._window(epoch, window).take(start, stop))
        self._ahead(epoch, self._pieces(epoch, begin, end)[-1][0] + 1)
        joined = zip(*parts, strict=True)
        return tuple(jnp.asarray(p[0] if len(p) == 1 else np.concatenate(p, axis=1)) for p in joined)

    def _window(self, epoch: int, window: int) -> _Window:
        if (epoch, window) not in self._windows:
            while len(self._windows) >= 2:
                del self._windows[next(iter(self._windows))]
            self._windows[epoch, window] = _Window(self, epoch, window)
        return self._windows[epoch, window]

    def _ahead(self, epoch: int, window: int) -> None:
        """Begin to read the next window, in place of one that is done with."""
        _, ends = self._windows_of(epoch)
        if window < len(ends):
            self._windows.pop((epoch, window - 2), None)
            self._window(epoch, window)

    def _read(self, rows: np.ndarray) -> tuple[Array, ...]:
        """Rows in any order; each chunk is read once."""
        order = np.argsort(rows, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        waiting = [self.store.start(site, rows[order]) for site in self.sites]
        return tuple(jnp.asarray(finish()[:, back]) for finish in waiting)


class _Window:
    """The chunks of a window, being read; their rows in the window's order."""

    def __init__(self, stream: StoredStream, epoch: int, window: int) -> None:
        self.rows = stream._order(epoch, window)
        layout = stream.store.layout
        self.chunks = np.sort(stream._chunks(epoch, window))
        self.size = layout.chunk_rows
        per_shard = layout.shard_rows // self.size
        begins = self.chunks // per_shard * layout.shard_rows + self.chunks % per_shard * self.size
        self.begins = begins
        self.waiting: list[list[Callable[[], np.ndarray]]] = [
            [stream.store.start(site, slice(b, min(b + self.size, layout.rows))) for b in begins.tolist()]
            for site in stream.sites
        ]
        self.values: list[list[np.ndarray]] | None = None

    def take(self, start: int, stop: int) -> list[np.ndarray]:
        """Rows at places [start, stop) of the window, of every site."""
        if self.values is None:
            self.values = [[finish() for finish in site] for site in self.waiting]
            self.waiting = []
        rows = self.rows[start:stop]
        which = np.searchsorted(self.begins, rows, side="right") - 1
        found = []
        for parts in self.values:
            out = np.empty((parts[0].shape[0], len(rows), parts[0].shape[2]), np.float32)
            for i in np.unique(which):
                here = which == i
                out[:, here] = parts[i][:, rows[here] - self.begins[i]]
            found.append(out)
        return found


class _Pools(Stream):
    """A `Stream` whose pools come from a store instead of from a model."""

    def __init__(
        self, store: Store, sites: tuple[str, ...], rows: int, seed: int, config: StreamConfig
    ) -> None:
        layout = store.layout
        size = layout.batch_rows
        batches = layout.rows // size

        def batch(index: int) -> Batch:
            found = store.tokens(slice(index % batches * size, (index % batches + 1) * size))
            shape = (-1, layout.length)
            return Batch(
                *(a.reshape(shape) for a in (found.token, found.document, found.position, found.use))
            )

        if batches % config.text_batches:
            raise InputError(
                f"{store.folder} has {batches} text batches, which are not whole pools of {config.text_batches}"
            )
        none: Any = None
        super().__init__(none, sites, Source(batch, size, batches), rows=rows, seed=seed, config=config)
        self.store = store

    def pool(self, index: int) -> tuple[tuple[Array, ...], np.ndarray]:
        """All rows of pool ``index`` for every site, and the numbers of the usable rows."""
        count = self.config.text_batches
        index %= (self.source.limit or 0) // count
        if index not in self._pools:
            while len(self._pools) >= self.config.keep:
                del self._pools[next(iter(self._pools))]
            size = self.source.tokens * count
            waiting = [self.store.start(site, slice(index * size, (index + 1) * size)) for site in self.sites]
            used = [self._usable(self.source.batch(index * count + i)).reshape(-1) for i in range(count)]
            usable = np.flatnonzero(np.concatenate(used)).astype(np.int32)
            if not usable.size:
                raise InputError("the store has no usable token in a whole pool of activations")
            self._pools[index] = tuple(jnp.asarray(finish()) for finish in waiting), usable
        return self._pools[index]


def open_store(path: str, model: Model | FlaxSource, config: StoredConfig, sites: tuple[str, ...]) -> Store:
    """A finished store of this very model's activations, with all layers of these sites.

    Raises:
      InputError: see `Store`; another model's store, or one without a site or with some of its layers only.
    """
    store = Store(path, cache=config.cache << 20)
    if store.made_by["model"]["digest"] != model.digest():
        raise InputError(
            f"{path} holds activations of another model (or of other weights) than {model.name!r}"
        )
    for site in sites:
        layers = store.site(site).layers
        if layers != tuple(range(model.config.n_layers)):
            raise InputError(
                f"{path} has layers {layers} of {site}, and the model has {model.config.n_layers}"
            )
    return store


def stored_stream(
    store: Store, sites: tuple[str, ...], *, rows: int, seed: int, config: StoredConfig | None = None,
    stream: StreamConfig | None = None,
) -> StoredStream | Stream:  # fmt: skip
    """Training batches from a store.

    Args:
      store, sites, rows, seed, config: see `StoredStream`.
      stream: of the order "stream", and whether first tokens are used.

    Raises:
      InputError: see `StoredStream`; or pools of the order "stream" that do not divide the store's text.
    """
    config, stream = config or StoredConfig(), stream or StreamConfig()
    if config.order == "stream":
        for site in sites:
            store.site(site)
        return _Pools(store, sites, rows, seed, stream)
    return StoredStream(store, sites, rows=rows, seed=seed, config=config, first_tokens=stream.first_tokens)
