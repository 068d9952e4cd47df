"""Reading a store of activations: every byte that is missing or wrong is an error that names the shard."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.activations import store_ledger
from jaxinterp.activations.store_layout import COLUMNS, HEADER, LEDGER, TOKENS, Site, read_header
from jaxinterp.activations.store_quantise import decode
from jaxinterp.activations.store_shard import damage, look
from jaxinterp.activations.store_writer import open_arrays, reason
from jaxinterp.core.errors import InputError, near

Rows = slice | np.ndarray


class Place(NamedTuple):
    """Where a row comes from: its sequence, its place there, its document, its place there, and its token."""

    row: int
    sequence: int
    offset: int
    document: int
    position: int
    token: int


class TokenRows(NamedTuple):
    """Tokens of rows [R] each: id, position in the document, document, and whether the row is used."""

    token: np.ndarray
    position: np.ndarray
    document: np.ndarray
    use: np.ndarray


class Store:
    """A finished store.

    Opening it compares the size of every file with the ledger. Reading compares the file of a shard with the ledger's
    fingerprint before its first use, and every chunk with its crc32c. `verify` does so for all of them.

    Args:
      folder: of the store.
      cache: bytes of decoded chunks that are kept in memory.

    Raises:
      InputError: no store, an unfinished one, or a damaged one (the shard and its file are named).
    """

    def __init__(self, folder: str | os.PathLike[str], *, cache: int = 0) -> None:
        self.folder = Path(folder)
        self.layout, self.made_by = read_header(self.folder)
        self.lines = store_ledger.read(self.folder, self.layout)
        if len(self.lines) < self.layout.shards:
            raise InputError(
                f"{self.folder} is not finished: {len(self.lines)} of {self.layout.shards} shards are there; the "
                "command that began it goes on with it"
            )
        for shard in sorted(self.lines):
            if why := damage(self.folder, self.layout, self.lines[shard]):
                raise InputError(f"{self.folder}: {why}")
        self.arrays = open_arrays(self.folder, self.layout, cache=cache)
        self._infos = {info.name: info for info in self.layout.arrays()}
        self._seen: set[tuple[str, int]] = set()
        ordered = [self.lines[n] for n in range(self.layout.shards)]
        self.used = np.array([n for line in ordered for n in line.used], np.int64)
        self.later = np.array([n for line in ordered for n in line.later], np.int64)

    def __repr__(self) -> str:
        names = ", ".join(f"{s.name} [{len(s.layers)}, {s.width}]" for s in self.layout.sites)
        return f"Store({self.layout.rows} rows of {names} as {self.layout.dtype})"

    def __len__(self) -> int:
        return self.layout.rows

    def digest(self) -> str:
        """sha256 of header and ledger: what the store holds and what made it."""
        return hashlib.sha256(
            b"".join((self.folder / name).read_bytes() for name in (HEADER, LEDGER))
        ).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What the store is, as JSON values: sites as [layers, width], tokens, bytes and the model's digest."""
        return {
            "store": str(self.folder),
            "sites": {s.name: [len(s.layers), s.width] for s in self.layout.sites},
            "dtype": self.layout.dtype,
            "tokens": self.layout.rows,
            "usable": int(self.used.sum()),
            "shards": self.layout.shards,
            "bytes": sum(size for line in self.lines.values() for size, _ in line.files.values()),
            "model": self.made_by["model"]["digest"],
        }

    def site(self, name: str) -> Site:
        """What is stored of a site; unknown names raise."""
        known = {site.name: site for site in self.layout.sites}
        if name not in known:
            raise InputError(f"{self.folder} holds no site {name!r}{near(name, known)}: {', '.join(known)}")
        return known[name]

    def verify(self) -> None:
        """Compare every byte of every shard with the ledger; `InputError` for the first that is wrong."""
        for shard in sorted(self.lines):
            if why := damage(self.folder, self.layout, self.lines[shard], self.arrays):
                raise InputError(f"{self.folder}: {why}")

    def read(self, name: str, rows: Rows, layers: Sequence[int] | None = None) -> np.ndarray:
        """Rows of a site: float32 [L, R, D].

        Args:
          name: of the site.
          rows: a slice without step, or row numbers in any order.
          layers: of the model, of those that are stored; None takes all.
        """
        return self.start(name, rows, layers)()

    def start(self, name: str, rows: Rows, layers: Sequence[int] | None = None) -> Callable[[], np.ndarray]:
        """Begin what `read` does; the returned function waits for it."""
        site = self.site(name)
        rows = self._rows(rows)
        chosen: Any = slice(None)
        if layers is not None:
            missing = [layer for layer in layers if layer not in site.layers]
            if missing:
                raise InputError(f"{self.folder}: layer {missing[0]} of {name} is not stored: {site.layers}")
            chosen = [site.layers.index(layer) for layer in layers]
        names = [f"sites/{name}", *([f"sites/{name}.scale"] if self.layout.dtype == "int8" else [])]
        for array in names:
            self._look(array, rows)
        waiting = [self.arrays[n].oindex[chosen, rows].read() for n in names]

        def finish() -> np.ndarray:
            return decode(*[self._wait(n, f, rows) for n, f in zip(names, waiting, strict=True)])

        return finish

    def tokens(self, rows: Rows) -> TokenRows:
        """Which tokens rows are."""
        rows = self._rows(rows)
        self._look(TOKENS, rows)
        values = self._wait(TOKENS, self.arrays[TOKENS].oindex[rows, :].read(), rows)
        columns = {name: values[:, i] for i, name in enumerate(COLUMNS)}
        return TokenRows(**{**columns, "use": columns["use"] != 0})

    def usable(self, chunk: int, first_tokens: bool = True) -> np.ndarray:
        """Numbers of the usable rows of a chunk, ascending; without the first token of every document if asked."""
        shard, inside = divmod(chunk, self.layout.shard_rows // self.layout.chunk_rows)
        begin = shard * self.layout.shard_rows + inside * self.layout.chunk_rows
        end = min(begin + self.layout.chunk_rows, self.layout.rows)
        if (self.used if first_tokens else self.later)[chunk] == end - begin:
            return np.arange(begin, end)
        found = self.tokens(slice(begin, end))
        mask = found.use if first_tokens else found.use & (found.position > 0)
        return begin + np.flatnonzero(mask)

    def place(self, row: int) -> Place:
        """Where a row comes from."""
        found = self.tokens(np.array([row]))
        sequence, offset = divmod(int(row), self.layout.length)
        return Place(
            int(row), sequence, offset, int(found.document[0]), int(found.position[0]), int(found.token[0])
        )

    def context(self, row: int, before: int = 16, after: int = 8) -> tuple[np.ndarray, int]:
        """Token ids around a row, of its own document and sequence, and where in them the row's own token is."""
        start = row - row % self.layout.length
        begin, end = max(start, row - before), min(start + self.layout.length, row + after + 1)
        found = self.tokens(slice(begin, end))
        same = np.flatnonzero(found.document == found.document[row - begin])
        return found.token[same], int(np.searchsorted(same, row - begin))

    def _rows(self, rows: Rows) -> Rows:
        if isinstance(rows, slice):
            begin, end, step = rows.indices(self.layout.rows)
            if step != 1:
                raise InputError(f"{self.folder}: rows {rows} have a step")
            return slice(begin, max(begin, end))
        rows = np.asarray(rows, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.layout.rows):
            raise InputError(
                f"{self.folder} has rows 0 to {self.layout.rows - 1}, not {rows.min()} to {rows.max()}"
            )
        return rows

    def _shards(self, rows: Rows) -> Sequence[int]:
        """The shards that rows are in."""
        size = self.layout.shard_rows
        if isinstance(rows, slice):
            return range(rows.start // size, -(-rows.stop // size))
        return np.unique(rows // size).tolist()

    def _look(self, name: str, rows: Rows) -> None:
        """Compare each shard's fingerprint with the ledger's before it is read for the first time."""
        for shard in self._shards(rows):
            if (name, shard) not in self._seen:
                why = look(self.folder, self.layout, self.lines[shard], self._infos[name], deep=True)
                if why:
                    raise InputError(f"{self.folder}: {why}")
                self._seen.add((name, shard))

    def _wait(self, name: str, future: Any, rows: Rows) -> np.ndarray:
        try:
            return np.asarray(future.result())
        except Exception as error:
            for shard in self._shards(rows):
                if why := damage(self.folder, self.layout, self.lines[shard], self.arrays):
                    raise InputError(f"{self.folder}: {why}") from error
            raise InputError(f"{self.folder}: {name} cannot be read: {reason(error)}") from error
