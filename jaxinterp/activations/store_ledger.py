"""Which shards of a store are whole: JSON lines, appended and synced only after a shard's files are on disk.

Every process of a collection appends to a file of its own, ``ledger.PROCESS.jsonl``; when all shards are there, the
lines are put into one ``ledger.jsonl`` in the order of the shards, the same for any number of processes.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from jaxinterp.activations.store_layout import LEDGER, Layout, file_of
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_bytes, write_text


class Line(NamedTuple):
    """A whole shard.

    Attributes:
      shard: its number.
      used: usable rows in each of its chunks.
      later: those of them that are not the first of their document.
      files: path within the store → (bytes, `store_shard.fingerprint`).
    """

    shard: int
    used: tuple[int, ...]
    later: tuple[int, ...]
    files: dict[str, tuple[int, int]]

    def text(self) -> str:
        """As one line of JSON that carries its own crc32."""
        files = {name: [size, f"{check:08x}"] for name, (size, check) in self.files.items()}
        counts = {"used": list(self.used), "later": list(self.later)}
        content = json.dumps({"shard": self.shard, **counts, "files": files})
        return f'{content[:-1]}, "crc32": "{zlib.crc32(content.encode()):08x}"}}\n'


def append(path: Path, line: Line) -> None:
    """Add a line to a ledger; when this returns it is on disk.

    A line that could not be written whole (a full disk) is taken back. Raises ``OSError``.
    """
    data = line.text().encode()
    new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        before = os.fstat(handle).st_size
        try:
            written = os.write(handle, data)
            if written != len(data):
                raise OSError(28, "no space left for the whole line")
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)
    if new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parts(folder: Path) -> list[Path]:
    """The ledgers of single processes."""
    return sorted(p for p in folder.glob("ledger.*.jsonl") if p.name.split(".")[1].isdigit())


def part(folder: Path, process: int) -> Path:
    """The ledger of one process."""
    return folder / f"ledger.{process:05d}.jsonl"


def read(folder: Path, layout: Layout) -> dict[int, Line]:
    """All whole shards of a store.

    A last line without an end is one whose writing was interrupted: its shard does not count.

    Raises:
      InputError: a damaged line (named), or one that does not fit the layout.
    """
    found: dict[int, Line] = {}
    for path in [folder / LEDGER, *parts(folder)]:
        if not path.exists():
            continue
        *lines, torn = read_bytes(path).split(b"\n")
        if torn and path.name == LEDGER:
            raise InputError(f"{path} is cut off after line {len(lines)}")
        for number, data in enumerate(lines, 1):
            line = _parse(data, layout, f"{path}, line {number}")
            if found.setdefault(line.shard, line) != line:
                raise InputError(
                    f"{path}, line {number}: another line says other things of shard {line.shard}"
                )
    return found


def drop_torn(folder: Path) -> None:
    """Cut interrupted last lines off, so that the next line starts where it should."""
    for path in parts(folder):
        data = read_bytes(path)
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)


def merge(folder: Path, lines: dict[int, Line]) -> None:
    """Put all lines into one ledger and remove those of single processes."""
    write_text(folder / LEDGER, "".join(lines[shard].text() for shard in sorted(lines)))
    sync_folder(folder)
    for path in parts(folder):
        path.unlink()


def _parse(data: bytes, layout: Layout, where: str) -> Line:
    content, mark, tail = data.rpartition(b', "crc32": "')
    if not mark or tail != b'%08x"}' % zlib.crc32(content + b"}"):
        raise InputError(f"{where} is damaged: it does not match its checksum")
    values: Any = json.loads(content + b"}")
    files = {name: (size, int(check, 16)) for name, (size, check) in values["files"].items()}
    line = Line(values["shard"], tuple(values["used"]), tuple(values["later"]), files)
    if not 0 <= line.shard < layout.shards:
        raise InputError(f"{where}: shard {line.shard}, the store has {layout.shards}")
    first, last = layout.span(line.shard)
    chunks = -(-(last - first) // layout.chunk_rows)
    if set(files) != {file_of(a, line.shard) for a in layout.arrays()}:
        raise InputError(f"{where}: the files of shard {line.shard} are not those of this store's arrays")
    if len(line.used) != chunks or len(line.later) != chunks:
        raise InputError(f"{where}: shard {line.shard} counts other chunks than its {chunks}")
    return line
