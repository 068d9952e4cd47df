"""The quick way through a large JSON graph: its links go into arrays, piece by piece, and never are objects.

Only files of the plainest form take it: every link has exactly a source, a target and a weight of the right types.
Whatever else there is raises `Unusual`, and the file is read again by the tolerant way (json_read), which keeps what
it does not know and says what is wrong. What both ways can read they read as the same graph.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

PIECE = 1 << 20  # bytes of links decoded together: small enough that their memory is used again
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")


class Unusual(Exception):
    """The file is not of the plainest form; it may be a graph all the same."""


class _Link(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    source: str
    target: str
    weight: float


_decode_links = msgspec.json.Decoder(list[_Link]).decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_top = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_source, _target, _weight = attrgetter("source"), attrgetter("target"), attrgetter("weight")


class PlainLinks:
    """The text of a list of links, not looked at yet."""

    def __init__(self, text: memoryview) -> None:
        self.text = text

    def arrays(self, at: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[Any]]]:
        """(targets, sources, weights, [place, link] of every link to an unknown id), in the order of the file.

        at: the number of every node id. Raises Unusual.
        """
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        loose: list[list[Any]] = []
        begin = 0
        try:
            for piece in self._pieces():
                links = _decode_links(piece)
                weights = np.fromiter(map(_weight, links), np.float64, len(links))
                if not np.isfinite(weights).all():
                    raise Unusual
                try:
                    sources = np.fromiter(map(at.__getitem__, map(_source, links)), np.int64, len(links))
                    targets = np.fromiter(map(at.__getitem__, map(_target, links)), np.int64, len(links))
                except KeyError:
                    sources = np.array([at.get(link.source, -1) for link in links], np.int64)
                    targets = np.array([at.get(link.target, -1) for link in links], np.int64)
                    nowhere = (sources < 0) | (targets < 0)
                    raws = _decode_raw(piece)
                    loose += [[begin + i, _value(raws[i])] for i in np.flatnonzero(nowhere).tolist()]
                    sources, targets, weights = sources[~nowhere], targets[~nowhere], weights[~nowhere]
                parts.append((targets, sources, weights))
                begin += len(links)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            raise Unusual from error
        if not parts:
            parts.append((np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)))
        found = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        return found[0], found[1], found[2], loose

    def _pieces(self) -> Iterator[bytes]:
        """Lists of some links each. A cut inside a text leaves it without its end, which the decoder refuses."""
        start, end = 0, len(self.text)
        while end - start > PIECE:
            cut = _BETWEEN.search(self.text, start + PIECE)
            if cut is None:
                break
            yield b"".join((b"[" if start else b"", self.text[start : cut.start() + 1], b"]"))
            start = cut.end() - 1
        yield b"".join((b"[" if start else b"", self.text[start:]))


def document(data: bytes) -> tuple[dict[str, Any], PlainLinks]:
    """The JSON object in ``data`` with an empty list for its "links", and these. Raises Unusual."""
    try:
        if not data.isascii():  # what a repeated key hides would not be looked at otherwise
            check = codecs.getincrementaldecoder("utf-8")()
            for start in range(0, len(data), PIECE):
                check.decode(data[start : start + PIECE])
            check.decode(b"", True)
        raws = _decode_top(data)
        found = {key: [] if key == "links" else _value(raw) for key, raw in raws.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Unusual from error
    text = memoryview(raws.get("links", b""))
    if bytes(text[:1]) != b"[":
        raise Unusual
    return found, PlainLinks(text)


def _value(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw).decode())
