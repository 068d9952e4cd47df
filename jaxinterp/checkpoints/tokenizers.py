"""Text to token ids and back: one protocol, and Hugging Face's ``tokenizer.json`` behind it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_bytes, read_json, write_json, write_text

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
_NEAR_LIMIT = 20_000
# What BOS and EOS are called where the settings do not say; only special tokens are taken for them.
_USUAL = {
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos_token": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
}
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of the library asks of a tokenizer."""

    vocab_size: int
    bos: int | None
    eos: int | None

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        """The ids of ``text``, BOS first if ``bos`` is true, or is None and the tokenizer says so."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, without special tokens."""

    def text(self, token: int) -> str:
        """One token as a person reads it."""

    def digest(self) -> str:
        """A hexadecimal digest of everything that decides how this tokenizer encodes."""


def visible(raw: bytes | str) -> str:
    """A token's text for a person: blanks alone are made visible, bytes that are no text shown as <0xHH>."""
    if isinstance(raw, bytes):
        try:
            raw = raw.decode()
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in raw)
    return raw.translate(_VISIBLE) if raw and not raw.strip() else raw


def check_size(tokenizer: Tokenizer | None, vocab_size: int, where: object) -> None:
    """A tokenizer may know fewer tokens than the model (padding), never more.

    Raises:
      InputError: naming both numbers.
    """
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        raise InputError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} tokens, more than the model's vocabulary "
            f"of {vocab_size}"
        )


class JsonTokenizer:
    """A ``tokenizer.json`` of Hugging Face, run by the ``tokenizers`` library.

    BOS: ``settings["add_bos_token"]`` when it is there; otherwise what the file's own post-processor puts
    first. What a post-processor puts after the text (an EOS) is left out: a prompt is to be continued.

    Args:
      text: the JSON text.
      settings: the content of ``tokenizer_config.json``; ``bos_token``, ``eos_token`` and
        ``add_bos_token`` are used.
      where: what to call the file in messages.

    Raises:
      InputError: not a tokenizer, or a named BOS or EOS that the vocabulary does not have.
    """

    def __init__(
        self, text: str, settings: dict[str, Any] | None = None, where: object = "tokenizer.json"
    ) -> None:
        import tokenizers

        self.json, self.settings, self.where = text, dict(settings or {}), str(where)
        try:
            description = json.loads(text)
            self._inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{where} is not a tokenizer: {' '.join(str(error).split())[:200]}") from error
        # Padding and truncation are for batches; a prompt keeps its own length.
        self._inner.no_padding()
        self._inner.no_truncation()
        vocabulary = self._inner.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self._vocabulary = vocabulary
        model = description.get("model") or {}
        unknown = model.get("unk_token")
        if unknown is None and isinstance(model.get("unk_id"), int):
            unknown = self._inner.id_to_token(model["unk_id"])
        self._unknown = vocabulary.get(unknown) if isinstance(unknown, str) else None
        steps = _steps(description.get("decoder"))
        pre_steps = _steps(description.get("pre_tokenizer"))
        self._byte_level = "ByteLevel" in steps or "ByteLevel" in pre_steps
        self._falls_back = self._byte_level or bool(model.get("byte_fallback"))
        self._metaspace = "▁" in json.dumps(description.get("decoder"), ensure_ascii=False)
        self._special = {t["id"] for t in description.get("added_tokens") or [] if t.get("special")}
        self._prefix = self._leading_specials()
        self.bos = self._named("bos_token")
        self.eos = self._named("eos_token")
        if "bos_token" not in self.settings and len(self._prefix) == 1:
            self.bos = self._prefix[0]
        if isinstance(self.settings.get("add_bos_token"), bool):
            if self.settings["add_bos_token"] and self.bos is None:
                raise InputError(f"{where}: add_bos_token is set but no bos_token is named")
            self._prefix = [self.bos] if self.settings["add_bos_token"] and self.bos is not None else []

    def _leading_specials(self) -> list[int]:
        nothing = list(self._inner.encode("", add_special_tokens=True).ids)
        try:
            bare = self._inner.encode("a", add_special_tokens=True)
        except Exception:  # the library raises bare Exception for a word it does not know
            return nothing
        first: list[int] = []
        for token, special in zip(bare.ids, bare.special_tokens_mask, strict=True):
            if not special:
                return first
            first.append(token)
        # "a" is no token of this vocabulary: what the post-processor adds to nothing is all there is to see.
        return nothing

    def _named(self, field: str) -> int | None:
        token = self.settings.get(field)
        token = token.get("content") if isinstance(token, dict) else token
        if token is None and field in self.settings:
            return None
        if token is None:
            usual = (self._vocabulary.get(name) for name in _USUAL[field])
            return next((found for found in usual if found in self._special), None)
        if token not in self._vocabulary:
            raise InputError(
                f"{self.where}: the {field} {token!r} is not in the vocabulary{near(token, self._vocabulary)}"
            )
        return self._vocabulary[token]

    def encode(self, text: str, bos: bool | None = None) -> list[int]:
        """The ids of ``text``.

        Args:
          text: anything.
          bos: None follows the tokenizer's own rule; True puts BOS first; False puts nothing first.

        Raises:
          InputError: a word outside the vocabulary, named with near matches; or ``bos=True`` where there
            is no BOS token.
        """
        if bos and self.bos is None:
            raise InputError(f"{self.where} names no BOS token, so none can be put first")
        try:
            encoding = self._inner.encode(text, add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception
            raise self._outside(self._first_unknown(text), text) from error
        ids = list(encoding.ids)
        if self._unknown is not None and self._unknown in ids:
            token = self._inner.id_to_token(self._unknown)
            for found, (start, stop) in zip(ids, encoding.offsets, strict=True):
                if found == self._unknown and text[start:stop] != token:
                    raise self._outside(text[start:stop], text)
        if self._unknown is None and not self._falls_back:
            covered = bytearray(len(text))
            for start, stop in encoding.offsets:
                covered[start:stop] = b"\1" * (stop - start)
            for place, character in enumerate(text):
                if not covered[place] and not character.isspace():
                    raise self._outside(character, text)
        prefix = self._prefix if bos is None else [self.bos] if bos else []
        return [*(p for p in prefix if p is not None), *ids]

    def _first_unknown(self, text: str) -> str:
        normaliser, splitter = self._inner.normalizer, self._inner.pre_tokenizer
        text = normaliser.normalize_str(text) if normaliser is not None else text
        words = [w for w, _ in splitter.pre_tokenize_str(text)] if splitter is not None else text.split()
        return next((word for word in words if word not in self._vocabulary), text)

    def _outside(self, word: str, text: str) -> InputError:
        known = self._vocabulary if self.vocab_size <= _NEAR_LIMIT else ()
        shown = text if len(text) <= 60 else text[:57] + "..."
        return InputError(
            f"the word {word!r} in {shown!r} is outside the vocabulary of {self.vocab_size} tokens"
            f"{near(word, known)}"
        )

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; special tokens give nothing."""
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=True)

    def text(self, token: int) -> str:
        """One token as a person reads it: markers of blanks and bytes resolved, blanks alone made visible."""
        piece = self._inner.id_to_token(int(token))
        if piece is None:
            return f"<{int(token)}>"
        if token in self._special:
            return piece
        if self._byte_level and all(c in _FROM_BYTE_LEVEL for c in piece):
            return visible(bytes(_FROM_BYTE_LEVEL[c] for c in piece))
        if self._falls_back and (match := _BYTE.fullmatch(piece)):
            return visible(bytes([int(match[1], 16)]))
        return visible(piece.replace("▁", " ") if self._metaspace else piece)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JsonTokenizer) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def digest(self) -> str:
        """sha256 of the file's content (not its spacing) and of the settings that matter."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        used = {key: self.settings.get(key) for key in ("bos_token", "eos_token", "add_bos_token")}
        text = json.dumps([json.loads(self.json), used], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _steps(node: Any) -> set[str]:
    """The ``type`` of a component of a tokenizer and of every component inside it."""
    if isinstance(node, dict):
        return {str(node.get("type"))}.union(*map(_steps, node.values()))
    return set().union(*map(_steps, node)) if isinstance(node, list) else set()


def _byte_level_alphabet() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable character: its own where that is printable
    Latin-1, otherwise the next free one from U+0100 on."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in own]
    return {chr(b): b for b in own} | {chr(0x100 + i): b for i, b in enumerate(others)}


_FROM_BYTE_LEVEL = _byte_level_alphabet()


def read_tokenizer_json(path: str | os.PathLike[str]) -> JsonTokenizer:
    """Read a ``tokenizer.json`` and, when it is beside it, ``tokenizer_config.json``.

    Raises:
      InputError: unreadable or not a tokenizer.
    """
    path = Path(path)
    settings_file = path.with_name("tokenizer_config.json")
    settings = read_json(settings_file) if settings_file.is_file() else {}
    if not isinstance(settings, dict):
        raise InputError(f"{settings_file} is not a tokenizer's settings: not a JSON object")
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a tokenizer: not UTF-8 text at byte {error.start}") from error
    return JsonTokenizer(text, settings, path)


def write_tokenizer_json(tokenizer: JsonTokenizer, folder: str | os.PathLike[str]) -> None:
    """Write ``tokenizer.json``, and ``tokenizer_config.json`` when there are settings, into ``folder``."""
    write_text(Path(folder) / "tokenizer.json", tokenizer.json)
    if tokenizer.settings:
        write_json(Path(folder) / "tokenizer_config.json", tokenizer.settings)
