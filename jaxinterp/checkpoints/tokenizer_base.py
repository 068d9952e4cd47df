"""What all tokenizers have in common: the protocol, spans of characters, special tokens by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxinterp.core.errors import InputError, near

SPECIAL = ("allow", "text", "refuse")
SPACE = "▁"
_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
SURROGATE = re.compile("[\ud800-\udfff]")
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Span = tuple[int, int]


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


class Encoded(NamedTuple):
    """Token ids of a text, and the characters that each stands for.

    ``spans[i]`` is the (start, end) of token i in the text. It is empty for a token that stands for no character (BOS,
    the blank that some tokenizers put before a text). Tokens that share a character, as its bytes do, all have it in
    their spans. Starts never decrease, and neither do ends among spans that are not empty. Characters in no span are
    those that the tokenizer's normalisation drops.
    """

    ids: list[int]
    spans: list[Span]


class BaseTokenizer:
    """What the tokenizers of this room share. A kind gives ``_encode``, ``decode``, ``text`` and ``digest``.

    Attributes:
      vocab_size: highest id plus one.
      bos, eos: ids of the tokens that begin and end a text, None where there is none.
      stops: ids at which generation ends: ``eos`` and those that ``generation_config.json`` names.
      specials: name → id of the special tokens.
      names: what templates call special tokens, as ``bos_token``: the token's text.
      templates: name → chat template.
    """

    vocab_size: int
    bos: int | None
    eos: int | None
    stops: tuple[int, ...] = ()
    specials: Mapping[str, int] = {}
    names: Mapping[str, Any] = {}
    templates: Mapping[str, str] = {}

    def encode(self, text: str, bos: bool | None = None, special: str = "allow") -> list[int]:
        """The ids of ``text``.

        Args:
          text: anything.
          bos: None follows the tokenizer's own rule; True puts BOS first; False puts nothing first.
          special: what becomes of the names of special tokens in the text: "allow" makes them those tokens, as
            transformers does; "text" takes them for ordinary text; "refuse" raises.

        Raises:
          InputError: something outside the vocabulary, named with near matches; ``bos=True`` where there is no BOS
            token; with "refuse" a special token in the text.
        """
        return self.encode_with_offsets(text, bos, special).ids

    def encode_with_offsets(self, text: str, bos: bool | None = None, special: str = "allow") -> Encoded:
        """`encode`, with the span of characters that each token stands for.

        Raises:
          InputError: see `encode`.
        """
        if special not in SPECIAL:
            raise InputError(
                f"special is {special!r}{near(special, SPECIAL)}: give one of {', '.join(SPECIAL)}"
            )
        first = self._first(bos)
        found = self._encode(text, special)
        return Encoded([*first, *found.ids], [*[(0, 0)] * len(first), *found.spans])

    def offsets(self, text: str, bos: bool | None = None, special: str = "allow") -> list[Span]:
        """The span (start, end) of characters of each token of ``encode(text, bos, special)``."""
        return self.encode_with_offsets(text, bos, special).spans

    def id_of(self, name: str) -> int:
        """The id of a special token by its name.

        Raises:
          InputError: no special token is called so; near matches are named.
        """
        if name not in self.specials:
            few = f"; there are {', '.join(self.specials)}" if 0 < len(self.specials) <= 12 else ""
            raise InputError(f"no special token is called {name!r}{near(name, self.specials)}{few}")
        return self.specials[name]

    def _first(self, bos: bool | None) -> list[int]:
        """What stands before a text."""
        raise NotImplementedError

    def _encode(self, text: str, special: str) -> Encoded:
        """A text without what stands before it."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, without special tokens."""
        raise NotImplementedError

    def text(self, token: int) -> str:
        """One token as a person reads it."""
        raise NotImplementedError

    def digest(self) -> str:
        """A hexadecimal digest of everything that decides how this tokenizer encodes."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.digest() == other.digest()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self.digest())


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


def outside(word: str, text: str, vocab_size: int, known: Iterable[str] = ()) -> InputError:
    """What to raise for a word that the vocabulary has not."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InputError(
        f"the word {word!r} in {shown!r} is outside the vocabulary of {vocab_size} tokens{near(word, known)}"
    )


def refused(name: str, place: int) -> InputError:
    """What to raise for a special token in a text that may hold none."""
    return InputError(
        f"the text spells the special token {name!r} at place {place}: give special='allow' or special='text'"
    )
