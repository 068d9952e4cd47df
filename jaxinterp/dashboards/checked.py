"""Values of other people's JSON, looked at before they are used."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_bytes

MOST = 1 << 28
"""Bytes that a file, or what a compressed one inflates to, may have."""
MOST_LIST = 1 << 20


def text(value: Any) -> str:
    """A string; anything else as JSON would write it, None as ""."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def number(value: Any, default: float | None = None) -> float | None:
    """A finite number, or the default."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    try:
        return float(value) if math.isfinite(value) else default
    except OverflowError:
        return default


def numbers(value: Any, where: str, what: str) -> list[float]:
    """A list of numbers; those that are not finite become 0."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MOST_LIST:
        raise InputError(f"{where}: {what} is no list of numbers")
    found = []
    for one in value:
        if one is not None and (isinstance(one, bool) or not isinstance(one, int | float)):
            raise InputError(f"{where}: {what} holds {type(one).__name__}, expected numbers")
        found.append(number(one, 0.0) or 0.0)
    return found


def texts(value: Any, where: str, what: str) -> list[str]:
    """A list of strings."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MOST_LIST:
        raise InputError(f"{where}: {what} is no list of texts")
    return [text(one) for one in value]


def table(value: Any, where: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def inflate(data: bytes, where: str) -> bytes:
    """What gzip, zlib or raw deflate packed, at most `MOST` bytes.

    Raises:
      InputError: it is none of these, cut off, or larger.
    """
    # 47: zlib finds out by itself whether it is gzip or zlib.
    packed = zlib.decompressobj(47 if data[:2] == b"\x1f\x8b" or data[:1] == b"\x78" else -15)
    try:
        plain = packed.decompress(data, MOST)
    except zlib.error as error:
        raise InputError(f"{where} is damaged: {error}") from error
    if not packed.eof:
        raise InputError(f"{where} is cut off, or larger than {MOST} bytes")
    return plain


def parse(data: bytes, where: str) -> Any:
    """The JSON value in some bytes."""
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON") from error


def load(path: Path) -> Any:
    """The JSON value of a file, gzipped or not."""
    if path.is_file() and path.stat().st_size > MOST:
        raise InputError(f"{path} is larger than {MOST} bytes")
    data = read_bytes(path)
    return parse(inflate(data, str(path)) if data[:2] == b"\x1f\x8b" else data, str(path))


def lines(path: Path) -> list[Any]:
    """The JSON values of a file of lines, gzipped or not."""
    try:
        with path.open("rb") as stream:
            packed: Any = gzip.GzipFile(fileobj=stream) if path.suffix == ".gz" else stream
            data = packed.read(MOST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if len(data) > MOST:
        raise InputError(f"{path} is larger than {MOST} bytes")
    return [parse(line, f"{path}, line {n}") for n, line in enumerate(data.split(b"\n"), 1) if line.strip()]
