"""Where tokens come from: batches of sequences that are pure functions of (seed, index)."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_bytes
from jaxinterp.models.model import Model

if TYPE_CHECKING:
    from jaxinterp.activations.flax_source import FlaxSource

SAMPLED = "sampled"
Batches = Callable[[int], "Batch"]


@dataclass(frozen=True)
class TextConfig:
    """Which tokens a run reads.

    Attributes:
      source: "sampled" (the model's own text at ``temperature``, from its beginning token on), a text file
        (``.txt``, through the model's tokenizer), token ids (``.npy``, whole numbers), documents (``.jsonl`` or
        ``.parquet``, or a folder of token ids; see `activations.documents`), or
        "module:function", called as function(seed, index, batch, length) and returning a dict of arrays
        ``[batch, length]``: ``tokens`` and optionally ``segments``, ``positions`` and ``weights``
        (tokens of weight 0 are not used).
      length: tokens a sequence.
      batch: sequences made at a time.
      limit: how many different batches there are, after which they come again; 0 means no limit.
      temperature: of "sampled".
      start: the first token of every sequence, of "sampled", ``.txt`` and ``.npy``; None takes the
        tokenizer's beginning token, -1 means none (not for "sampled").
    """

    source: str = SAMPLED
    length: int = 256
    batch: int = 64
    limit: int = 0
    temperature: float = 1.0
    start: int | None = None

    def __post_init__(self) -> None:
        if self.length < 2 or self.batch < 1 or self.limit < 0 or not self.temperature > 0:
            raise InputError(
                f"text: length {self.length}, batch {self.batch}, limit {self.limit} and temperature "
                f"{self.temperature} must be at least 2, 1, 0 and above 0"
            )


class Batch(NamedTuple):
    """Sequences ``[B, T]``: tokens, the document and the place in it of each, and which rows to use."""

    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    use: np.ndarray


class Source(NamedTuple):
    """Text: ``batch(index)`` is a pure function; every batch has ``tokens`` tokens.

    ``limit`` is how many different batches there are, 0 for no limit: ``batch(i) == batch(i + limit)``.
    ``sequences`` is how many different sequences come before they come again, 0 where there is no end. With
    ``documents`` segments are the numbers of documents in a file.
    """

    batch: Callable[[int], Batch]
    tokens: int
    limit: int = 0
    sequences: int = 0
    documents: bool = False


def plain(tokens: np.ndarray, use: np.ndarray | None = None) -> Batch:
    """One document a row, every token used unless said otherwise."""
    tokens = np.asarray(tokens, np.int32)
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    return Batch(
        tokens, np.zeros_like(tokens), positions, np.ones(tokens.shape, bool) if use is None else use
    )


def make_source(config: TextConfig, model: Model | FlaxSource, seed: int) -> Source:
    """The batches that ``config`` describes.

    Args:
      config: which tokens.
      model: gives the tokenizer, the context length and, for "sampled", the text (a model of ours only).
      seed: another seed gives other batches; held-out text is the same source with another seed.

    Raises:
      InputError: no such file or function, ids outside the vocabulary, sequences longer than the context.
    """
    if config.length > model.config.context:
        raise InputError(
            f"text: sequences of {config.length} tokens are longer than the model's context of "
            f"{model.config.context}"
        )
    sequences = 0
    if config.source == SAMPLED:
        if not isinstance(model, Model):
            raise InputError(
                "text: only models of ours can sample text: give text.source, a .txt or .npy file or module:function"
            )
        from jaxinterp.activations.sampling import sampled

        batch = sampled(model, config, seed, beginning(config, model))
    elif _has_documents(config.source):
        from jaxinterp.activations.documents import document_source

        return document_source(config, model, seed)
    elif config.source.endswith((".txt", ".npy")):
        batch, sequences = _from_ids(config, model, seed, _read_ids(config, model))
    else:
        batch = _from_function(config, model, seed)
    size = config.batch * config.length
    if config.limit:
        sequences = min(sequences or config.limit * config.batch, config.limit * config.batch)
    return Source(_limited(batch, config.limit) if config.limit else batch, size, config.limit, sequences)


def _has_documents(source: str) -> bool:
    return (
        source.partition("#")[0].endswith((".jsonl", ".parquet")) or (Path(source) / "tokens.npy").is_file()
    )


def with_batch(config: TextConfig, batch: int) -> TextConfig:
    """The same text in batches of another size, without a limit."""
    return dataclasses.replace(config, batch=batch, limit=0)


def beginning(config: TextConfig, model: Model | FlaxSource) -> int | None:
    """The token that sequences start with."""
    if config.start is not None:
        return None if config.start < 0 else config.start
    return getattr(model.tokenizer, "bos", None)


def _limited(source: Batches, limit: int) -> Batches:
    """``limit`` different batches, kept in memory once made."""
    made: dict[int, Batch] = {}

    def batch(index: int) -> Batch:
        index %= limit
        if index not in made:
            made[index] = source(index)
        return made[index]

    return batch


def _read_ids(config: TextConfig, model: Model | FlaxSource) -> np.ndarray:
    path = Path(config.source)
    if path.suffix == ".txt":
        if model.tokenizer is None:
            raise InputError(f"text: {path} needs a tokenizer, and the model has none")
        text = read_bytes(path).decode("utf-8", errors="replace")
        ids = np.asarray(model.tokenizer.encode(text, False), np.int64)
    else:
        try:
            ids = np.load(path, allow_pickle=False, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"text: {path} is no readable .npy array: {error}") from error
        if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2):
            raise InputError(
                f"text: {path} holds {ids.dtype} {ids.shape}, expected whole numbers in one or two axes"
            )
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= model.config.vocab_size):
        raise InputError(f"text: {path} holds token ids outside the vocabulary of {model.config.vocab_size}")
    return ids


def _from_ids(
    config: TextConfig, model: Model | FlaxSource, seed: int, ids: np.ndarray
) -> tuple[Batches, int]:
    """Rows cut from a stream of ids (or given rows), in an order that is reshuffled every pass; and how many."""
    first = beginning(config, model)
    body = config.length - (first is not None)
    if ids.ndim == 1:
        rows = ids[: len(ids) // body * body].reshape(-1, body)
    else:
        rows = ids[:, :body]
    if not len(rows) or rows.shape[1] < body:
        raise InputError(f"text: {config.source} is too short for one sequence of {config.length} tokens")

    def batch(index: int) -> Batch:
        numbers = np.arange(index * config.batch, (index + 1) * config.batch)
        order: dict[int, np.ndarray] = {}
        for epoch in np.unique(numbers // len(rows)):
            order[int(epoch)] = np.random.default_rng([seed, int(epoch)]).permutation(len(rows))
        chosen = [order[int(n) // len(rows)][int(n) % len(rows)] for n in numbers]
        tokens = np.asarray(rows[chosen], np.int32)
        if first is not None:
            tokens = np.concatenate([np.full((len(tokens), 1), first, np.int32), tokens], axis=1)
        return plain(tokens)

    return batch, len(rows)


def look_up(
    reference: str, what: str = "text", expected: str = "sampled, a .txt or .npy file, or module:function"
) -> Callable[..., Any]:
    """The function named as "module:function"; ``what`` it is for and what was ``expected`` is for messages.

    Raises:
      InputError: not of this form, or no such module or function.
    """
    module, colon, name = reference.partition(":")
    try:
        if not colon:
            raise ValueError("no colon in it")
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{what}: {reference!r} is no {what} source ({error}); expected {expected}"
        ) from error
    if not callable(found):
        raise InputError(f"{what}: {reference!r} is not a function")
    return found


def _from_function(config: TextConfig, model: Model | FlaxSource, seed: int) -> Batches:
    function = look_up(config.source)

    def batch(index: int) -> Batch:
        made = function(seed, index, config.batch, config.length)
        tokens = np.asarray(made["tokens"], np.int32)
        if tokens.shape != (config.batch, config.length):
            raise InputError(
                f"text: {config.source} gave tokens of shape {tokens.shape}, expected "
                f"{(config.batch, config.length)}"
            )
        if tokens.min() < 0 or tokens.max() >= model.config.vocab_size:
            raise InputError(
                f"text: {config.source} gave ids outside the vocabulary of {model.config.vocab_size}"
            )
        base = plain(tokens)
        return Batch(
            tokens,
            np.asarray(made.get("segments", base.segments), np.int32),
            np.asarray(made.get("positions", base.positions), np.int32),
            np.asarray(made["weights"]) > 0 if "weights" in made else base.use,
        )

    return batch
