"""A file as an answer, whole or in part (Range)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from jaxinterp.viewer.messages import Answer, FileSlice, Refused, Request

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def file_answer(path: Path, request: Request, headers: Mapping[str, str]) -> Answer:
    """200 with the whole file, 206 with the part that Range asks for, 416 where it is outside, 304 where it has not
    changed. A Range of another form, or of several parts, is answered with the whole."""
    try:
        found = path.stat()
    except OSError as error:
        raise Refused(404, f"{path.name} is not there any more") from error
    size = found.st_size
    tag = f'"{found.st_mtime_ns:x}-{size:x}"'
    shared = {
        "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": tag, "Cache-Control": "no-cache",
        **headers,
    }  # fmt: skip
    if request.headers.get("if-none-match") == tag:
        return Answer(304, b"", shared)
    wanted = _RANGE.fullmatch(request.headers.get("range", ""))
    if wanted is None or wanted[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return Answer(200, FileSlice(path, 0, size), shared)
    first, last = wanted[1], wanted[2]
    if not first:  # the last so many bytes
        start, end = max(size - int(last), 0), size - 1
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
        if last and int(last) < start:
            return Answer(200, FileSlice(path, 0, size), shared)
    if start >= size or start > end:
        raise Refused(416, "the range is outside the file", {"Content-Range": f"bytes */{size}"})
    part = {**shared, "Content-Range": f"bytes {start}-{end}/{size}"}
    return Answer(206, FileSlice(path, start, end - start + 1), part)
