"""Token sources with documents: JSON lines, parquet and token ids with the places where documents begin.

Documents stand one after another and are cut into sequences, so that no token is lost and none is padding. Attention
stays within a document (``segments`` are the numbers of documents), and positions count from the document's own
beginning, or from the sequence's where a document goes on from the one before. Every batch is a pure function of
(seed, index); the order of the sequences is a stateless permutation that is another one every pass.

Letters: B sequences a batch, T tokens of each.
"""

from __future__ import annotations

import array
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxinterp.activations.store_shuffle import Permutation
from jaxinterp.activations.text import Batch, Source, TextConfig, beginning
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import atomic_folder, digest_file

if TYPE_CHECKING:
    from jaxinterp.activations.flax_source import FlaxSource
    from jaxinterp.models.model import Model

ENDINGS = (".jsonl", ".parquet")
TOKENS, STARTS = "tokens.npy", "starts.npy"


class Corpus(NamedTuple):
    """Documents one after another: token ids [N], and where each document begins, ascending from 0."""

    tokens: np.ndarray
    starts: np.ndarray


def document_source(config: TextConfig, model: Model | FlaxSource, seed: int) -> Source:
    """Batches of documents; `make_source` calls it where ``config.source`` is

    * a ``.jsonl`` file, with the text of a document in the field "text" of each line, or another: ``file.jsonl#story``;
    * a ``.parquet`` file, with a document a row in the column "text", or another: ``file.parquet#story``;
    * a folder with ``tokens.npy`` (ids in one axis) and ``starts.npy`` (where documents begin), see `save_corpus`.

    A column or field may also hold lists of token ids. Every document begins with ``config.start``, where there is one;
    in a folder of ids documents are as they are.

    Raises:
      InputError: a file that is missing or not understood (the line or row is named), ids outside the vocabulary, or
        fewer tokens than one sequence.
    """
    return packed(read_corpus(config, model), config, seed)


def read_corpus(config: TextConfig, model: Model | FlaxSource) -> Corpus:
    """The documents of ``config.source`` as token ids."""
    name, _, field = config.source.partition("#")
    if not name.endswith(ENDINGS):
        corpus = _load(Path(config.source))
    else:
        texts = _json_lines if name.endswith(".jsonl") else _parquet
        corpus = _encode(texts(Path(name), field or "text"), name, model, beginning(config, model))
    vocab = model.config.vocab_size
    if int(corpus.tokens.min(initial=0)) < 0 or int(corpus.tokens.max(initial=0)) >= vocab:
        raise InputError(f"text: {config.source} holds token ids outside the vocabulary of {vocab}")
    return corpus


def packed(corpus: Corpus, config: TextConfig, seed: int) -> Source:
    """Sequences cut from documents that stand one after another.

    Raises:
      InputError: fewer tokens than one sequence.
    """
    length, count = config.length, len(corpus.tokens) // config.length
    if not count:
        raise InputError(
            f"text: {config.source} has {len(corpus.tokens)} tokens, too few for one sequence of {length}"
        )

    def batch(index: int) -> Batch:
        if config.limit:
            index %= config.limit
        numbers = np.arange(index * config.batch, (index + 1) * config.batch)
        order = np.empty_like(numbers)
        for epoch in np.unique(numbers // count):
            here = numbers // count == epoch
            order[here] = Permutation(count, seed, int(epoch))(numbers[here] % count)
        return cut(corpus, order, length)

    sequences = min(count, config.limit * config.batch or count)
    return Source(batch, config.batch * length, config.limit, sequences, True)


def cut(corpus: Corpus, sequences: np.ndarray, length: int) -> Batch:
    """Sequences [B] of ``length`` tokens by number: tokens, documents, positions and use, [B, T] each."""
    where = sequences.astype(np.int64)[:, None] * length + np.arange(length)[None, :]
    document = np.searchsorted(corpus.starts, where, side="right") - 1
    position = where - np.maximum(corpus.starts[document], where[:, :1])
    tokens = np.stack([corpus.tokens[row[0] : row[0] + length] for row in where])
    return Batch(
        tokens.astype(np.int32),
        document.astype(np.int32),
        position.astype(np.int32),
        np.ones(where.shape, bool),
    )


def save_corpus(corpus: Corpus, folder: str | Path) -> None:
    """Write token ids and the beginnings of documents, to be read without tokenizing again."""
    with atomic_folder(folder) as place:
        np.save(place / TOKENS, corpus.tokens)
        np.save(place / STARTS, corpus.starts)


def origin(config: TextConfig) -> str:
    """What a source is, without where it is: a digest of its file, or its own name."""
    name, hash_, field = config.source.partition("#")
    path = Path(name)
    if (path / TOKENS).is_file():
        return f"ids {digest_file(path / TOKENS)} {digest_file(path / STARTS)}"
    if name.endswith((*ENDINGS, ".txt", ".npy")) and path.is_file():
        return f"{path.suffix[1:]} {digest_file(path)}{hash_}{field}"
    return config.source


def _load(folder: Path) -> Corpus:
    found = []
    for name in (TOKENS, STARTS):
        try:
            values = np.load(folder / name, allow_pickle=False, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"text: {folder / name} is no readable .npy array: {error}") from error
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise InputError(
                f"text: {folder / name} holds {values.dtype} {values.shape}, expected whole numbers in one axis"
            )
        found.append(values)
    tokens, starts = found[0], found[1].astype(np.int64)
    if not len(starts) or starts[0] != 0 or (np.diff(starts) <= 0).any() or starts[-1] >= max(len(tokens), 1):
        raise InputError(
            f"text: {folder / STARTS}: beginnings of documents must ascend from 0 and stay below {len(tokens)}"
        )
    return Corpus(tokens, starts)


def _encode(
    texts: Iterator[tuple[str, Any]], name: str, model: Model | FlaxSource, first: int | None
) -> Corpus:
    tokenizer = model.tokenizer
    tokens, starts = array.array("i"), array.array("q")
    for where, value in texts:
        if isinstance(value, str):
            if tokenizer is None:
                raise InputError(f"text: {name} needs a tokenizer, and the model has none")
            ids = tokenizer.encode(value, False)
        elif isinstance(value, list) and all(type(i) is int and -(1 << 31) <= i < 1 << 31 for i in value):
            ids = value
        else:
            raise InputError(f"text: {where} is no text and no list of token ids, but {type(value).__name__}")
        if first is not None and list(ids[:1]) != [first]:
            ids = [first, *ids]
        if len(ids):
            starts.append(len(tokens))
            tokens.extend(ids)
    if not tokens:
        raise InputError(f"text: {name} holds no documents")
    return Corpus(np.frombuffer(tokens, np.int32), np.frombuffer(starts, np.int64))


def _json_lines(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                where = f"{path}, line {number}"
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"text: {where} is not JSON") from error
                if not isinstance(value, dict) or field not in value:
                    hint = near(field, value) if isinstance(value, dict) else ""
                    raise InputError(f"text: {where} has no field {field!r}{hint}")
                yield f"{where}: {field}", value[field]
    except OSError as error:
        raise InputError(f"text: cannot read {path}: {error.strerror or error}") from error


def _parquet(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise InputError(f"text: cannot read {path}: no such file")
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(f"text: {path} needs pyarrow: install jaxinterp[parquet]") from error
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise InputError(
                    f"text: {path} has no column {column!r}{near(column, names)}: {', '.join(names)}"
                )
            number = 0
            for batch in file.iter_batches(columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield f"{path}, row {number}: {column}", value
                    number += 1
    except (ArrowException, OSError) as error:
        raise InputError(f"text: {path} cannot be read as parquet: {str(error).splitlines()[0]}") from error
