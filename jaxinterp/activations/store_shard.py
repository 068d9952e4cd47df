"""One shard's file looked at from outside: a fingerprint that pins all of its bytes without reading them all.

A file of zarr's sharding codec is chunks, each followed by its crc32c, and at the end an index of where each chunk is,
with a crc32c of its own. The crc32 over the index and the checksums of all chunks says which chunks belong here; that a
chunk has the bytes of its checksum is seen when it is read.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from jaxinterp.activations.store_layout import ArrayInfo, Layout, file_of
from jaxinterp.activations.store_ledger import Line

_NONE = (1 << 64) - 1


def fingerprint(path: Path, chunks: int) -> int:
    """crc32 over the index of a shard's file and the checksums of its chunks.

    Args:
      path: the file.
      chunks: places in its index.

    Raises:
      OSError: it cannot be read.
      ValueError: its index does not fit its size.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        size, length = os.fstat(handle).st_size, 16 * chunks + 4
        index = os.pread(handle, length, size - length) if size >= length else b""
        if len(index) != length:
            raise ValueError("no index")
        total = zlib.crc32(index)
        for i in range(chunks):
            offset, nbytes = struct.unpack_from("<QQ", index, 16 * i)
            if offset == nbytes == _NONE:
                continue
            if nbytes < 4 or offset + nbytes > size - length:
                raise ValueError("an index that points outside of the file")
            total = zlib.crc32(os.pread(handle, 4, offset + nbytes - 4), total)
        return total
    finally:
        os.close(handle)


def chunks(layout: Layout, info: ArrayInfo) -> int:
    """Places in the index of every shard of an array: chunks of rows, times layers."""
    return layout.shard_rows // info.chunk_rows * math.prod(info.shape[: info.rows_axis])


def look(folder: Path, layout: Layout, line: Line, info: ArrayInfo, *, deep: bool) -> str | None:
    """What is wrong with the file of a shard in one array: missing or of another size; deep: another fingerprint."""
    name = file_of(info, line.shard)
    size, wanted = line.files[name]
    try:
        found = (folder / name).stat().st_size
        if found != size:
            return f"shard {line.shard} is damaged: {name} has {found} bytes, the ledger says {size}"
        if deep and fingerprint(folder / name, chunks(layout, info)) != wanted:
            return f"shard {line.shard} is damaged: {name} is not the file that the ledger knows"
    except OSError:
        return f"shard {line.shard} is damaged: {name} is missing"
    except ValueError as error:
        return f"shard {line.shard} is damaged: {name} has {error}"
    return None


def damage(folder: Path, layout: Layout, line: Line, arrays: dict[str, Any] | None = None) -> str | None:
    """What is wrong with a shard, None if nothing is.

    Args:
      arrays: open arrays, to compare every byte with its checksum; without them only sizes are compared.
    """
    for info in layout.arrays():
        if why := look(folder, layout, line, info, deep=arrays is not None):
            return why
        if arrays is not None:
            here = (slice(None),) * info.rows_axis + (slice(*layout.span(line.shard)),)
            try:
                arrays[info.name][here].read().result()
            except Exception:
                name = file_of(info, line.shard)
                return f"shard {line.shard} is damaged: the bytes of {name} do not match their checksums"
    return None
