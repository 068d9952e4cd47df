"""Text to token ids and back: Hugging Face's ``tokenizer.json``."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxinterp.checkpoints import tokenizer_files as files
from jaxinterp.checkpoints.tokenizer_base import (
    BYTE,
    SPACE,
    BaseTokenizer,
    Encoded,
    Tokenizer,
    check_size,
    outside,
    refused,
    visible,
)
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_bytes, write_text

__all__ = [
    "JsonTokenizer",
    "Tokenizer",
    "check_size",
    "read_tokenizer_json",
    "visible",
    "write_tokenizer_json",
]

_NEAR_LIMIT = 20_000
# What BOS and EOS are called where the settings do not say; only special tokens are taken for them.
_USUAL = {
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"),
    "eos_token": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
}


class JsonTokenizer(BaseTokenizer):
    """A ``tokenizer.json`` of Hugging Face, run by the ``tokenizers`` library.

    BOS: ``settings["add_bos_token"]`` when it is there; otherwise what the file's own post-processor puts
    first. What a post-processor puts after the text (an EOS) is left out: a prompt is to be continued.
    Tokens that only the settings call special or added are found in texts too, as transformers finds them.

    Args:
      text: the JSON text.
      settings: the content of ``tokenizer_config.json``; the names of special tokens, ``add_bos_token``,
        ``added_tokens_decoder`` and ``chat_template`` are used.
      where: what to call the file in messages.
      templates: chat templates from files of their own.
      stops: token ids at which generation ends, besides the EOS.

    Raises:
      InputError: not a tokenizer, a named BOS or EOS that the vocabulary does not have, or settings that give a
        token another id.
    """

    def __init__(
        self,
        text: str,
        settings: dict[str, Any] | None = None,
        where: object = "tokenizer.json",
        *,
        templates: Mapping[str, str] | None = None,
        stops: tuple[int, ...] = (),
    ) -> None:
        import tokenizers

        self.json, self.settings, self.where = text, dict(settings or {}), str(where)
        files.check_names(self.settings, self.where)
        try:
            description = json.loads(text)
            self._inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{where} is not a tokenizer: {' '.join(str(error).split())[:200]}") from error
        # Padding and truncation are for batches; a prompt keeps its own length.
        self._inner.no_padding()
        self._inner.no_truncation()
        self._added = self._add_from_settings()
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
        self._metaspace = SPACE in json.dumps(description.get("decoder"), ensure_ascii=False)
        added = self._inner.get_added_tokens_decoder().items()
        self.specials = {token.content: i for i, token in sorted(added) if token.special}
        self._special = set(self.specials.values())
        self._prefix = self._leading_specials()
        # It has told what stands first. Besides that it trims blanks off spans, which are part of their tokens.
        self._inner.post_processor = None
        self.bos = self._named("bos_token")
        self.eos = self._named("eos_token")
        if "bos_token" not in self.settings and len(self._prefix) == 1:
            self.bos = self._prefix[0]
        if isinstance(self.settings.get("add_bos_token"), bool):
            if self.settings["add_bos_token"] and self.bos is None:
                raise InputError(f"{where}: add_bos_token is set but no bos_token is named")
            self._prefix = [self.bos] if self.settings["add_bos_token"] and self.bos is not None else []
        self.stops = files.all_stops(self.eos, tuple(stops))
        self.template_files = dict(templates or {})
        self.templates = files.chat_templates(self.settings, self.template_files, self.where)
        defaults = {"bos_token": self.bos, "eos_token": self.eos}
        found = {key: self._name(token) for key, token in defaults.items() if token is not None}
        self.names = files.template_names(self.settings, found)

    def _name(self, token: int) -> str:
        return str(self._inner.id_to_token(token))

    def _add_from_settings(self) -> list[str]:
        """Make tokens of the settings known to the tokenizer; what was added, for the digest."""
        from tokenizers import AddedToken

        known = self._inner.get_added_tokens_decoder().values()
        same = {repr(token) for token in known}
        named = [*files.flatten(self.settings).values(), *files.further(self.settings)]
        declared = files.added_tokens(self.settings, self.where)
        tokens = [
            AddedToken(
                each.name, single_word=each.word, lstrip=each.left, rstrip=each.right,
                normalized=each.normalized, special=each.special or each.name in named,
            )
            for each in declared.values()
        ]  # fmt: skip
        tokens = [token for token in tokens if repr(token) not in same]
        there = {token.content for token in known} | {each.name for each in declared.values()}
        for name in dict.fromkeys(named):
            if name not in there and self._inner.token_to_id(name) is not None:
                tokens.append(AddedToken(name, special=True))
        if tokens:
            self._inner.add_tokens(tokens)
        for token, each in declared.items():
            if self._inner.token_to_id(each.name) != token:
                raise InputError(
                    f"{self.where}: added_tokens_decoder gives {each.name!r} the id {token}, the tokenizer "
                    f"{self._inner.token_to_id(each.name)}"
                )
        return [repr(token) for token in tokens]

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
        token = files.content(self.settings.get(field)) or None
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

    def encode(self, text: str, bos: bool | None = None, special: str = "allow") -> list[int]:
        """See `BaseTokenizer.encode`."""
        # Without spans, which cost more than the ids of a long text.
        if special == "allow":
            return [*self._first(bos), *self._run(text, special).ids]
        return super().encode(text, bos, special)

    def _first(self, bos: bool | None) -> list[int]:
        if bos and self.bos is None:
            raise InputError(f"{self.where} names no BOS token, so none can be put first")
        prefix = self._prefix if bos is None else [self.bos] if bos else []
        return [p for p in prefix if p is not None]

    def _encode(self, text: str, special: str) -> Encoded:
        encoding = self._run(text, special)
        ids, spans = list(encoding.ids), list(encoding.offsets)
        if special == "refuse":
            for token, (start, stop) in zip(ids, spans, strict=True):
                if token in self._special and start < stop:
                    raise refused(self._name(token), start)
        if self._metaspace:
            # The blank put before a text is said to stand for the text's first character, as the next token does.
            blank = self._vocabulary.get(SPACE)
            for i, token in enumerate(ids[:-1]):
                if token == blank and spans[i][0] == spans[i + 1][0]:
                    spans[i] = (spans[i][0], spans[i][0])
        return Encoded(ids, spans)

    def _run(self, text: str, special: str) -> Any:
        """The library's encoding of ``text``, after a look for what is outside the vocabulary."""
        inner = self._without_specials if special == "text" else self._inner
        try:
            encoding = inner.encode(text, add_special_tokens=False)
        except Exception as error:  # the library raises bare Exception
            raise self._outside(self._first_unknown(text), text) from error
        if self._unknown is not None and self._unknown in encoding.ids:
            token = self._inner.id_to_token(self._unknown)
            for found, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
                if found == self._unknown and (text[start:stop] != token or special == "text"):
                    raise self._outside(text[start:stop], text)
        if self._unknown is None and not self._falls_back:
            covered = bytearray(len(text))
            for start, stop in encoding.offsets:
                covered[start:stop] = b"\1" * (stop - start)
            for place, character in enumerate(text):
                if not covered[place] and not character.isspace():
                    raise self._outside(character, text)
        return encoding

    @functools.cached_property
    def _without_specials(self) -> Any:
        """The tokenizer for texts in which special tokens are ordinary text."""
        import tokenizers

        inner = tokenizers.Tokenizer.from_str(self._inner.to_str())
        inner.encode_special_tokens = True
        return inner

    def _first_unknown(self, text: str) -> str:
        normaliser, splitter = self._inner.normalizer, self._inner.pre_tokenizer
        text = normaliser.normalize_str(text) if normaliser is not None else text
        words = [w for w, _ in splitter.pre_tokenize_str(text)] if splitter is not None else text.split()
        return next((word for word in words if word not in self._vocabulary), text)

    def _outside(self, word: str, text: str) -> InputError:
        known = self._vocabulary if self.vocab_size <= _NEAR_LIMIT else ()
        return outside(word, text, self.vocab_size, known)

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
        if self._falls_back and (match := BYTE.fullmatch(piece)):
            return visible(bytes([int(match[1], 16)]))
        return visible(piece.replace(SPACE, " ") if self._metaspace else piece)

    def digest(self) -> str:
        """sha256 of the file's content (not its spacing) and of the settings that matter."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        used = {key: self.settings.get(key) for key in ("bos_token", "eos_token", "add_bos_token")}
        # What came later is counted only where it is there, so that older digests stay as they are.
        further: list[Any] = [self._added] if self._added else []
        further += [self.templates] if self.templates else []
        further += [sorted(self.stops)] if files.extra_stops(self.stops, self.eos) else []
        text = json.dumps([json.loads(self.json), used, *further], sort_keys=True, ensure_ascii=False)
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
    """Read a ``tokenizer.json`` and what is beside it: settings, chat templates, where generation stops.

    Raises:
      InputError: unreadable or not a tokenizer.
    """
    path = Path(path)
    beside = files.read_beside(path.parent)
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a tokenizer: not UTF-8 text at byte {error.start}") from error
    return JsonTokenizer(text, beside.settings, path, templates=beside.templates, stops=beside.stops)


def write_tokenizer_json(tokenizer: JsonTokenizer, folder: str | os.PathLike[str]) -> None:
    """Write ``tokenizer.json`` and what was beside it into ``folder``."""
    write_text(Path(folder) / "tokenizer.json", tokenizer.json)
    files.write_beside(folder, tokenizer.settings, tokenizer.template_files, tokenizer.stops, tokenizer.eos)
