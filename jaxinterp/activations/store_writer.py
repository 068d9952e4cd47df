"""Writing a store: shards in the background, a line of the ledger once a shard is on disk, and nothing left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.activations import store_ledger
from jaxinterp.activations.store_layout import (
    HEADER,
    LEDGER,
    Layout,
    file_of,
    read_header,
    spec,
    write_header,
)
from jaxinterp.activations.store_ledger import Line
from jaxinterp.activations.store_shard import chunks, damage, fingerprint
from jaxinterp.core.differences import first_difference
from jaxinterp.core.errors import InputError

PENDING = 3
"""Shards that may be on their way to the disk while the next is computed."""


def prepare(
    folder: Path, layout: Layout, made_by: dict[str, Any], *, repair: bool = False
) -> dict[int, Line]:
    """Make a store, or get an unfinished one ready to go on; called by one process.

    What a killed run left behind (files of shards that the ledger does not know, locks, temporary files, half a line)
    is removed.

    Args:
      folder: made where missing; it must be empty or hold a store of the same layout and origin.
      layout: of the store.
      made_by: digests and settings of what makes it, JSON values.
      repair: look at every byte of the shards that are there, and forget those that are damaged.

    Returns:
      The shards that are there.

    Raises:
      InputError: another store is there (the first difference is named), something else, a shard that the ledger knows
        is missing or has another size, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / HEADER).exists():
            old, old_made_by = read_header(folder)
            different = first_difference(
                {"layout": old.to_dict(), **old_made_by}, {"layout": layout.to_dict(), **made_by}
            )
            if different:
                raise InputError(
                    f"{folder} holds a store of other settings ({different}); choose another folder, or remove it"
                )
        else:
            strange = next((p.name for p in folder.iterdir() if not _temporary(p.name)), None)
            if strange is not None:
                raise InputError(f"{folder} is not empty (it holds {strange}) and is no store of activations")
            write_header(folder, layout, made_by)
        arrays = open_arrays(folder, layout, create=True)
        for name in {folder, folder / "sites"}:
            store_ledger.sync_folder(name)
        store_ledger.drop_torn(folder)
        lines = store_ledger.read(folder, layout)
        found = {n: damage(folder, layout, line, arrays if repair else None) for n, line in lines.items()}
        bad = {n: why for n, why in found.items() if why}
        if bad and not repair:
            raise InputError(
                f"{folder}: {next(iter(bad.values()))}; collect again with repair to write it anew"
            )
        if bad:
            lines = {n: line for n, line in lines.items() if n not in bad}
            _rewrite(folder, lines)
        _clean(folder, layout, lines)
    except OSError as error:
        raise InputError(f"cannot write the store {folder}: {error.strerror or error}") from error
    return lines


def open_arrays(folder: Path, layout: Layout, *, create: bool = False, cache: int = 0) -> dict[str, Any]:
    """TensorStore's handles of all arrays by name; they keep up to ``cache`` bytes of what was read last.

    Raises:
      InputError: an array is missing or is not what the layout says.
    """
    import tensorstore as ts

    context = ts.Context({"cache_pool": {"total_bytes_limit": cache}})
    waiting = {
        a.name: ts.open(spec(folder, a, layout.shard_rows), open=True, create=create, context=context)
        for a in layout.arrays()
    }
    found = {}
    for name, future in waiting.items():
        try:
            found[name] = future.result()
        except Exception as error:
            raise InputError(f"{folder / name}: the array cannot be opened: {reason(error)}") from error
    return found


def reason(error: BaseException) -> str:
    """The first line of an error, a full disk said plainly."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return "no space left on the disk"
    return text


class StoreWriter:
    """Writes whole shards in the background.

    Use as a context manager; leaving it without an error waits until everything is on disk.

    Args:
      folder: a prepared store.
      layout: of the store.
      process: whose ledger is written.
    """

    def __init__(self, folder: Path, layout: Layout, process: int = 0) -> None:
        self.folder, self.layout = folder, layout
        self.ledger = store_ledger.part(folder, process)
        self.arrays = open_arrays(folder, layout)
        self.pending: deque[Future[None]] = deque()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.failed = False

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.drain()
        finally:
            self.failed = True  # shards that wait are not begun
            self.pool.shutdown()

    def submit(self, shard: int, values: dict[str, np.ndarray]) -> None:
        """Write a shard. ``values`` has every array's rows and is not to be changed any more.

        Waits while `PENDING` others are under way.

        Raises:
          InputError: an earlier shard could not be written.
        """
        while len(self.pending) >= PENDING:
            self.pending.popleft().result()
        begin, end = self.layout.span(shard)
        futures = []
        for info in self.layout.arrays():
            where = (slice(None),) * info.rows_axis + (slice(begin, end),)
            target = self.arrays[info.name][where]
            if tuple(target.shape) != values[info.name].shape:
                raise ValueError(f"{info.name}: {values[info.name].shape} for {tuple(target.shape)}")
            write = target.write(values[info.name], can_reference_source_data_indefinitely=True)
            futures.append(write)
        self.pending.append(self.pool.submit(self._finish, shard, futures, values))

    def drain(self) -> None:
        """Wait until every shard is on disk and in the ledger."""
        while self.pending:
            self.pending.popleft().result()

    def _finish(self, shard: int, futures: list[Any], values: dict[str, np.ndarray]) -> None:
        if self.failed:
            return
        try:
            for future in futures:
                future.result()
            files = {}
            for info in self.layout.arrays():
                path = self.folder / (name := file_of(info, shard))
                store_ledger.sync_folder(path.parent)
                files[name] = (path.stat().st_size, fingerprint(path, chunks(self.layout, info)))
            use = values["tokens"][:, 3] != 0
            later = use & (values["tokens"][:, 1] > 0)
            line = Line(shard, self._counts(use), self._counts(later), files)
            store_ledger.append(self.ledger, line)
        except Exception as error:
            self.failed = True
            raise InputError(
                f"cannot write shard {shard} of the store {self.folder}: {reason(error)}; shards in its ledger are "
                "whole, and the same command goes on from there"
            ) from error

    def _counts(self, mask: np.ndarray) -> tuple[int, ...]:
        starts = np.arange(0, len(mask), self.layout.chunk_rows)
        return tuple(int(n) for n in np.add.reduceat(mask.astype(np.int64), starts))


class Lock:
    """Keeps a second collection on this machine out of a store; nothing is written for it."""

    def __init__(self, folder: Path) -> None:
        self.handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self.handle)
            raise InputError(f"{folder} is being written by another process") from error

    def release(self) -> None:
        """Let others in."""
        os.close(self.handle)


def _temporary(name: str) -> bool:
    return (
        re.fullmatch(rf"\.({re.escape(HEADER)}|{re.escape(LEDGER)}|ledger\.\d+\.jsonl)\..*\.tmp", name)
        is not None
    )


def _rewrite(folder: Path, lines: dict[int, Line]) -> None:
    """The ledger with these lines only, as of an unfinished store."""
    from jaxinterp.core.files import write_text

    target = store_ledger.part(folder, 0)
    write_text(target, "".join(lines[shard].text() for shard in sorted(lines)))
    for path in [folder / LEDGER, *store_ledger.parts(folder)]:
        if path != target:
            path.unlink(missing_ok=True)
    store_ledger.sync_folder(folder)


def _clean(folder: Path, layout: Layout, lines: dict[int, Line]) -> None:
    """Remove what the ledger does not know from the folders of the arrays, and our own temporary files."""
    known = {folder / name for line in lines.values() for name in line.files}
    for info in layout.arrays():
        for path in (folder / info.name).rglob("*"):
            if path.is_file() and path not in known and path != folder / info.name / "zarr.json":
                path.unlink()
    for path in folder.iterdir():
        if path.is_file() and _temporary(path.name):
            path.unlink()
