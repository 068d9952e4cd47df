"""The tokenizer of llama2.c: pieces with scores, merged greedily, with a fallback to raw bytes."""

from __future__ import annotations

import functools
import hashlib
import heapq
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from jaxinterp.checkpoints.tokenizer_base import BaseTokenizer, Encoded, Span, visible
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_bytes, write_bytes

_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")
_BOS, _EOS, _SPECIAL = 1, 2, 3


class Llama2cTokenizer(BaseTokenizer):
    """Ids 0, 1, 2 are unknown, BOS and EOS; ``<0xHH>`` pieces are raw bytes; the rest are text.

    Encoding follows llama2.c: BOS, a dummy space, the characters (or their bytes where a character has no
    piece of its own), then the neighbouring pair whose joined piece has the highest score is merged, the
    leftmost first among equals, until none is left. Special and byte pieces never result from a merge,
    so no text can spell a control token.

    Args:
      pieces: the bytes of each token.
      scores: the score of each token.
      longest: the file's field for the longest piece; kept so that writing gives the same file.
    """

    def __init__(self, pieces: list[bytes], scores: list[float], longest: int | None = None) -> None:
        self.pieces, self.scores = list(pieces), list(scores)
        self.longest = max(map(len, pieces), default=0) if longest is None else longest
        self.vocab_size = len(pieces)
        self.bos: int | None = _BOS
        self.eos: int | None = _EOS
        self.stops = (_EOS,)
        shown = [piece.decode("utf-8", "replace").strip() for piece in self.pieces[:_SPECIAL]]
        self.specials = {name: token for token, name in enumerate(shown)}
        self.names = dict(zip(("unk_token", "bos_token", "eos_token"), shown, strict=False))
        self._bytes: dict[int, int] = {}
        self._ids: dict[bytes, int] = {}
        for token, piece in enumerate(pieces):
            match = _BYTE.fullmatch(piece)
            if match:
                self._bytes.setdefault(int(match[1], 16), token)
            elif token >= _SPECIAL:
                self._ids.setdefault(piece, token)
        self._byte_of = {token: value for value, token in self._bytes.items()}

    def _first(self, bos: bool | None) -> list[int]:
        return [] if bos is False else [_BOS]

    def _encode(self, text: str, special: str) -> Encoded:
        # Whatever ``special`` says: no text spells a special token here.
        if not text:
            return Encoded([], [])
        ids: list[int] = []
        for position, character in enumerate(" " + text):
            raw = character.encode("utf-8", "surrogatepass")
            if raw in self._ids:
                ids.append(self._ids[raw])
            elif all(b in self._bytes for b in raw):
                ids.extend(self._bytes[b] for b in raw)
            else:
                raise InputError(
                    f"the character {character!r} at place {max(position - 1, 0)} of the text is outside the "
                    f"vocabulary of {self.vocab_size} tokens"
                )
        ids = self._merge(ids)
        return Encoded(ids, self._spans(ids, text))

    def _spans(self, ids: list[int], text: str) -> list[Span]:
        """The pieces are the bytes of the dummy space and the text, one after another."""
        owner = [-1]  # of each byte, the character that it is part of
        for place, character in enumerate(text):
            owner += [place] * len(character.encode("utf-8", "surrogatepass"))
        spans, at = [], 0
        for token in ids:
            size = len(self._raw(token))
            start, stop = owner[at], owner[at + size - 1] + 1
            spans.append((max(start, 0), stop))
            at += size
        return spans

    def _merge(self, ids: list[int]) -> list[int]:
        """Merge pairs best first: a heap of candidates over a doubly linked list of tokens."""
        tokens: list[int | None] = list(ids)
        after = [*range(1, len(ids)), -1]
        before = list(range(-1, len(ids) - 1))
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(left: int) -> None:
            right = after[left]
            if right < 0:
                return
            a, b = tokens[left], tokens[right]
            assert a is not None and b is not None
            merged = self._ids.get(self.pieces[a] + self.pieces[b])
            if merged is not None:
                heapq.heappush(heap, (-self.scores[merged], left, a, b, merged))

        for left in range(len(ids)):
            offer(left)
        while heap:
            _, left, a, b, merged = heapq.heappop(heap)
            right = after[left]
            if tokens[left] != a or right < 0 or tokens[right] != b:
                continue
            tokens[left], tokens[right] = merged, None
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            if before[left] >= 0:
                offer(before[left])
            offer(left)
        return [token for token in tokens if token is not None]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``. BOS and EOS give nothing; the dummy space right after BOS is dropped."""
        out, previous = bytearray(), -1
        for token in map(int, ids):
            piece = b"" if token in (_BOS, _EOS) else self._raw(token)
            out += piece[1:] if previous == _BOS and piece[:1] == b" " else piece
            previous = token
        return out.decode("utf-8", "replace")

    def _raw(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise InputError(f"token {token} is outside the vocabulary of {self.vocab_size} tokens")
        return bytes([self._byte_of[token]]) if token in self._byte_of else self.pieces[token]

    def text(self, token: int) -> str:
        """One token as a person reads it: " her", "⏎" for a line break, "<0xC3>" for part of a character."""
        token = int(token)
        if not 0 <= token < self.vocab_size:
            return f"<{token}>"
        if token < _SPECIAL:
            return self.pieces[token].decode("utf-8", "replace").strip()
        return visible(self._raw(token))

    def digest(self) -> str:
        """sha256 of the tokenizer's own file."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The tokenizer as llama2.c stores it."""
        parts = [struct.pack("<i", self.longest)]
        for piece, score in zip(self.pieces, self.scores, strict=True):
            parts.append(struct.pack("<fi", score, len(piece)) + piece)
        return b"".join(parts)


def read_tokenizer(path: str | os.PathLike[str], vocab_size: int | None = None) -> Llama2cTokenizer:
    """Read a llama2.c tokenizer: int32 longest piece, then per token float32 score, int32 length, bytes.

    Args:
      path: the file.
      vocab_size: how many tokens it must hold; None takes what is there.

    Raises:
      InputError: unreadable, truncated, sizes that make no sense, or another number of tokens.
    """
    data = read_bytes(path)
    if len(data) < 4:
        raise InputError(f"{path} is not a llama2.c tokenizer: {len(data)} bytes, expected at least 4")
    (longest,) = struct.unpack_from("<i", data)
    pieces: list[bytes] = []
    scores: list[float] = []
    at = 4
    while at < len(data):
        if at + 8 > len(data):
            raise InputError(
                f"{path} is truncated at token {len(pieces)}: {len(data)} bytes, expected {at + 8}"
            )
        score, length = struct.unpack_from("<fi", data, at)
        if score != score or not 0 <= length <= max(longest, 0) + 16:
            raise InputError(
                f"{path} is not a llama2.c tokenizer: token {len(pieces)} has score {score} and {length} "
                f"bytes, the longest is said to have {longest}"
            )
        if at + 8 + length > len(data):
            raise InputError(
                f"{path} is truncated at token {len(pieces)}: {len(data)} bytes, expected {at + 8 + length}"
            )
        pieces.append(data[at + 8 : at + 8 + length])
        scores.append(score)
        at += 8 + length
    if vocab_size is not None and len(pieces) != vocab_size:
        raise InputError(f"{path} holds {len(pieces)} tokens, the model's vocabulary {vocab_size}")
    if len(pieces) <= _SPECIAL:
        raise InputError(f"{path} is not a llama2.c tokenizer: it holds {len(pieces)} tokens")
    return Llama2cTokenizer(pieces, scores, longest)


def write_tokenizer(path: str | os.PathLike[str], tokenizer: Llama2cTokenizer) -> None:
    """Write ``tokenizer`` in llama2.c's format."""
    write_bytes(Path(path), tokenizer.to_bytes())
