"""SentencePiece models (``tokenizer.model``), run by the ``sentencepiece`` library.

What is around the library follows the tokenizers of transformers that run it ("slow" ones): tokens added by
the settings are cut out of the text first, and what is between them is encoded piece by piece.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxinterp.checkpoints import tokenizer_files as files
from jaxinterp.checkpoints.tokenizer_base import (
    BYTE,
    SPACE,
    SURROGATE,
    BaseTokenizer,
    Encoded,
    Span,
    outside,
    refused,
    visible,
)
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_bytes, write_bytes

FILE = "tokenizer.model"
# Classes of transformers that use the pieces' own ids; with what the file says alone, None.
_CLASSES = (None, "LlamaTokenizer", "GemmaTokenizer", "T5Tokenizer")
_LARGEST = 1 << 26
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} 0\r?\n")
# ModelProto.normalizer_spec (field 3) with add_dummy_prefix (field 3) false. Put after a serialized model it is
# merged into the model's own, which is how protocol buffers read a field that comes twice.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class _Chunk(NamedTuple):
    """Part of a text: its characters, where they start, and the token it is if it is an added one."""

    text: str
    start: int
    token: int | None = None


class SentencePieceTokenizer(BaseTokenizer):
    """A SentencePiece model, of the Unigram or the BPE kind.

    BOS: put first unless ``settings["add_bos_token"]`` is false or there is none; the class ``T5Tokenizer`` has none.
    An EOS is never put last. With ``legacy`` false (of the Llama and T5 classes) blanks after an added token stay as
    they are and no blank is put before the text that follows one.

    Args:
      model: the content of the file.
      settings: the content of ``tokenizer_config.json``; ``tokenizer_class``, ``legacy``, ``add_prefix_space``,
        ``add_bos_token``, the names of special tokens, ``added_tokens_decoder`` and ``chat_template`` are used.
      where: what to call the file in messages.
      templates: chat templates from files of their own.
      stops: token ids at which generation ends, besides the EOS.

    Raises:
      InputError: the library is not installed, not a SentencePiece model, a tokenizer class whose rules are not these,
        or a named BOS or EOS that the vocabulary does not have.
    """

    def __init__(
        self,
        model: bytes,
        settings: dict[str, Any] | None = None,
        where: object = FILE,
        *,
        templates: Mapping[str, str] | None = None,
        stops: tuple[int, ...] = (),
    ) -> None:
        self.model, self.settings, self.where = bytes(model), dict(settings or {}), str(where)
        files.check_names(self.settings, self.where)
        kind = self.settings.get("tokenizer_class")
        kind = kind.removesuffix("Fast") if isinstance(kind, str) else None
        if kind not in _CLASSES:
            known = ", ".join(str(name) for name in _CLASSES[1:])
            raise InputError(
                f"{where}: the tokenizer_class {kind!r} is not supported with a {FILE}{near(kind, _CLASSES[1:])}; "
                f"{known} are, or give a tokenizer.json"
            )
        self._legacy = kind == "GemmaTokenizer" or self.settings.get("legacy") is not False
        self._prefix_space = self.settings.get("add_prefix_space") is not False
        self._pieces = _load(self.model, self.where)
        self._cut = self._pieces if self._legacy else _load(self.model + _NO_DUMMY_PREFIX, self.where)
        self._names = _names(self._pieces, self.where)
        self._n_pieces = len(self._names)
        self._unknown = int(self._pieces.unk_id())
        own = {
            "bos_token": self._pieces.bos_id(),
            "eos_token": self._pieces.eos_id(),
            "unk_token": self._unknown,
        }
        defaults = {key: self._names[token] for key, token in own.items() if token >= 0}
        if kind == "T5Tokenizer":
            defaults.pop("bos_token", None)
        self.names = files.template_names(self.settings, defaults)
        self._added = self._added_tokens()
        self._name_of = {token: each.name for token, each in self._added.items()}
        self._id_of = {each.name: token for token, each in self._added.items()}
        named = {self._lookup(name) for key in files.NAMED if (name := self.names.get(key))}
        named |= {token for token, each in self._added.items() if each.special}
        named |= {t for t in range(self._n_pieces) if self._pieces.is_control(t)} - set(self._added)
        self._special = {token for token in named if token is not None}
        self.specials = {self._piece(token): token for token in sorted(self._special)}
        self.vocab_size = max(self._n_pieces, *(token + 1 for token in self._added), 0)
        self.bos, self.eos = self._named("bos_token"), self._named("eos_token")
        self._prefix = [] if self.bos is None or self.settings.get("add_bos_token") is False else [self.bos]
        if self.settings.get("add_bos_token") is True and self.bos is None:
            raise InputError(f"{where}: add_bos_token is set but no bos_token is named")
        self.stops = files.all_stops(self.eos, tuple(stops))
        self.template_files = dict(templates or {})
        self.templates = files.chat_templates(self.settings, self.template_files, self.where)

    def _added_tokens(self) -> dict[int, files.Added]:
        """Tokens that are found in a text first: those that the settings list and those that they name."""
        added = files.added_tokens(self.settings, self.where)
        names = {each.name for each in added.values()}
        more = [name for key in files.NAMED if (name := self.names.get(key))]
        for name in [*more, *self.names.get(files.FURTHER, [])]:
            token = self._own(name)
            if name not in names and token is not None:
                added.setdefault(token, files.Added(name))
        return dict(sorted(added.items()))

    def _own(self, name: str) -> int | None:
        """The id of a piece, None where the model has none of that name."""
        token = int(self._pieces.piece_to_id(name))
        return token if 0 <= token < self._n_pieces and self._names[token] == name else None

    def _lookup(self, name: str) -> int | None:
        return self._id_of[name] if name in self._id_of else self._own(name)

    def _named(self, key: str) -> int | None:
        name = self.names.get(key)
        if name is None:
            return None
        token = self._lookup(name)
        if token is None:
            raise InputError(
                f"{self.where}: the {key} {name!r} is not in the vocabulary{near(name, self.specials)}"
            )
        return token

    def _first(self, bos: bool | None) -> list[int]:
        if bos and self.bos is None:
            raise InputError(f"{self.where} names no BOS token, so none can be put first")
        return list(self._prefix) if bos is None else [self.bos] if bos and self.bos is not None else []

    def _encode(self, text: str, special: str) -> Encoded:
        if not text:
            return Encoded([], [])
        if (broken := SURROGATE.search(text)) is not None:
            raise InputError(
                f"the text is not Unicode: half a character, {broken[0]!r}, at place {broken.start()}"
            )
        whole, shift = text, 0
        if not self._legacy:
            whole = text.replace(SPACE, " ")
            if self._prefix_space:
                whole, shift = SPACE + whole, 1
        ids: list[int] = []
        spans: list[Span] = []
        for chunk in self._chunks(whole, special):
            if chunk.token is None:
                found = self._encode_chunk(chunk.text)
            else:
                if special == "refuse" and chunk.token in self._special:
                    raise refused(self._name_of[chunk.token], chunk.start - shift)
                found = Encoded([chunk.token], [(0, len(chunk.text))])
            ids += found.ids
            spans += [(chunk.start + start, chunk.start + stop) for start, stop in found.spans]
        if not self._legacy and len(ids) > 1 and ids[0] == self._own(SPACE) and ids[1] in self._special:
            ids, spans = ids[1:], spans[1:]
        spans = [(max(start - shift, 0), max(stop - shift, 0)) for start, stop in spans]
        for token, (start, stop) in zip(ids, spans, strict=True):
            if token == self._unknown and (special == "text" or text[start:stop] != self._name_of.get(token)):
                raise outside(text[start:stop].strip(), text, self.vocab_size)
        return Encoded(ids, spans)

    def _chunks(self, text: str, special: str) -> list[_Chunk]:
        """``text`` cut at added tokens; blanks that these take with them belong to them."""
        pattern = self._pattern if special != "text" else self._pattern_without_specials
        chunks, end = [], 0
        for match in pattern.finditer(text) if pattern else ():
            token = self._id_of[match[0]]
            each = self._added[token]
            start, stop = match.span()
            if each.word and (
                text[end:start][-1:] not in ("", " ") or text[stop : stop + 1] not in ("", " ")
            ):
                continue
            if each.left:
                start = end + len(text[end:start].rstrip())
            if each.right:
                stop += len(text[stop:]) - len(text[stop:].lstrip())
            if start > end:
                chunks.append(_Chunk(text[end:start], end))
            # A token within the blanks that the one before it took has lost them.
            chunks.append(_Chunk(text[max(start, end) : stop], max(start, end), token))
            end = stop
        return [*chunks, _Chunk(text[end:], end)] if end < len(text) else chunks

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return _any_of(self._id_of)

    @functools.cached_property
    def _pattern_without_specials(self) -> re.Pattern[str] | None:
        return _any_of(name for name, token in self._id_of.items() if token not in self._special)

    def _encode_chunk(self, text: str) -> Encoded:
        # Without its dummy prefix the library still strips leading blanks. Something unknown before them keeps them.
        guard = ""
        if not self._legacy and text.startswith((SPACE, " ")):
            guard = str(self.names.get("unk_token", "<unk>"))
        found = self._cut.encode(guard + text, return_type="offset_mapping")
        ids, spans = list(found["ids"]), [tuple(span) for span in found["offsets"]]
        if guard:
            skip = len(self._cut.encode(guard))
            ids = ids[skip:] if len(ids) >= skip else ids
            spans = [(max(a - len(guard), 0), max(b - len(guard), 0)) for a, b in spans[-len(ids) :] if ids]
        # The library gives the whole character to its last byte.
        for i in range(len(ids) - 2, -1, -1):
            if (
                spans[i][0] == spans[i][1]
                and self._pieces.is_byte(ids[i])
                and self._pieces.is_byte(ids[i + 1])
            ):
                spans[i] = spans[i + 1]
        return Encoded([int(i) for i in ids], spans)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``; special tokens give nothing.

        Raises:
          InputError: an id that is no token.
        """
        parts: list[str] = []
        run: list[int] = []
        for token in (int(i) for i in ids):
            if not 0 <= token < self.vocab_size:
                raise InputError(f"token {token} is outside the vocabulary of {self.vocab_size} tokens")
            if token in self._special:
                continue
            if token in self._added:
                parts += [self._decode_run(run, not parts), self._name_of[token]]
                run = []
            elif token < self._n_pieces:
                run.append(token)
        return "".join([*parts, self._decode_run(run, not parts)])

    def _decode_run(self, run: list[int], first: bool) -> str:
        text = self._cut.decode(run) if run else ""
        # The blank that encoding put before the text.
        return text[1:] if first and not self._legacy and self._prefix_space and text[:1] == " " else text

    def text(self, token: int) -> str:
        """One token as a person reads it: markers of blanks and bytes resolved, blanks alone made visible."""
        token = int(token)
        if not 0 <= token < self.vocab_size or (token >= self._n_pieces and token not in self._added):
            return f"<{token}>"
        piece = self._piece(token)
        if token in self._added or token in self._special:
            return piece
        if self._pieces.is_byte(token) and (match := BYTE.fullmatch(piece)):
            return visible(bytes([int(match[1], 16)]))
        return visible(piece.replace(SPACE, " "))

    def _piece(self, token: int) -> str:
        return self._name_of.get(token) or self._names[token]

    def digest(self) -> str:
        """sha256 of the file and of the settings that matter."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        used = {
            "names": self.names, "legacy": self._legacy, "prefix_space": self._prefix_space, "first": self._prefix,
            "added": {str(token): list(each) for token, each in self._added.items()},
            "templates": self.templates, "stops": sorted(self.stops),
        }  # fmt: skip
        text = json.dumps(used, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(self.model + b"\0" + text.encode()).hexdigest()


def _any_of(names: Iterable[str]) -> re.Pattern[str] | None:
    """Finds the leftmost of ``names``, the longest where several start at one place."""
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _load(model: bytes, where: str) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise InputError(
            f"{where} is read by the library sentencepiece, which is not installed: pip install "
            "'jaxinterp[sentencepiece]', or give a tokenizer.json"
        ) from error
    if len(model) > _LARGEST:
        raise InputError(f"{where} has {len(model)} bytes, a SentencePiece model at most {_LARGEST}")
    problem = "it has no pieces"
    try:
        pieces = sentencepiece.SentencePieceProcessor()
        if model and pieces.LoadFromSerializedProto(model) and pieces.get_piece_size() > 0:
            return pieces
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        problem = " ".join(str(error).split())[:200]
    if _TIKTOKEN.match(model):
        problem = "it looks like one of tiktoken, which is not supported; give the tokenizer.json"
    raise InputError(f"{where} is not a SentencePiece model: {problem}")


def _names(pieces: Any, where: str) -> list[str]:
    """The text of every piece."""
    names: list[str] = []
    try:
        for token in range(pieces.get_piece_size()):
            names.append(pieces.id_to_piece(token))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where} is not a SentencePiece model: its piece {len(names)} is not UTF-8 text"
        ) from error
    return names


def read_sentencepiece(path: str | os.PathLike[str]) -> SentencePieceTokenizer:
    """Read a ``tokenizer.model`` and what is beside it: settings, chat templates, where generation stops.

    Raises:
      InputError: unreadable, not a SentencePiece model, or settings that do not go with it.
    """
    path = Path(path)
    beside = files.read_beside(path.parent)
    return SentencePieceTokenizer(
        read_bytes(path), beside.settings, path, templates=beside.templates, stops=beside.stops
    )


def write_sentencepiece(tokenizer: SentencePieceTokenizer, folder: str | os.PathLike[str]) -> None:
    """Write ``tokenizer.model`` as it was read, and what was beside it, into ``folder``."""
    write_bytes(Path(folder) / FILE, tokenizer.model)
    files.write_beside(folder, tokenizer.settings, tokenizer.template_files, tokenizer.stops, tokenizer.eos)
