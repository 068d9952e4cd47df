"""The tokens of a run: blocks of sequences from a source, kept on disk so that examples can be written at the end.

Letters: S sequences of the run, T tokens of each, b sequences a block, R = b T.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.errors import InputError
from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.tally import BlockTexts
from jaxinterp.interpret.texts import hashes, mix, runs

NEXT = 1
"""Two examples are of the same text if they agree from the window's beginning to the token after the peak: in what the
feature saw, and in what came of it."""
COLUMNS = 4
"""Of a token on disk: its id, which run of a document in its sequence, the document's number, its place in it."""


class Block(NamedTuple):
    """Sequences of the run, as many as a block has."""

    number: int
    batch: Batch


class Reader:
    """Blocks of a run, in order.

    Args:
      source: text.
      config: how many tokens, windows.
      sequences: how many the run has; those after them in the last block are not used.
      vocabulary: of the model.
    """

    def __init__(self, source: Source, config: DashboardConfig, sequences: int, vocabulary: int) -> None:
        self.source, self.config, self.sequences, self.vocabulary = source, config, sequences, vocabulary
        self.blocks = -(-sequences // config.block)
        self._batches: dict[int, Batch] = {}

    def block(self, number: int) -> Block:
        """Block ``number``."""
        size, length = self.config.block, self.config.text.length
        wanted = np.arange(number * size, (number + 1) * size)
        per_batch = self.source.tokens // length
        parts = []
        for index in range(wanted[0] // per_batch, wanted[-1] // per_batch + 1):
            here = wanted[wanted // per_batch == index] % per_batch
            parts.append([np.asarray(array)[here] for array in self._batch(index, (per_batch, length))])
        tokens, segments, positions, use = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        use = use.astype(bool) & (wanted < self.sequences)[:, None]
        if not self.config.first_tokens:
            use &= positions > 0
        tokens, segments, positions = (array.astype(np.int32) for array in (tokens, segments, positions))
        return Block(number, Batch(tokens, segments, positions, use))

    def _batch(self, index: int, shape: tuple[int, int]) -> Batch:
        if index not in self._batches:
            while len(self._batches) > 1:
                del self._batches[next(iter(self._batches))]
            made = self.source.batch(index)
            if made.tokens.shape != shape:
                raise InputError(
                    f"dashboards: text batch {index} has tokens {made.tokens.shape}, expected {shape}"
                )
            if made.tokens.min() < 0 or made.tokens.max() >= self.vocabulary:
                raise InputError(
                    f"dashboards: text batch {index} has ids outside the vocabulary of {self.vocabulary}"
                )
            self._batches[index] = made
        return self._batches[index]

    def texts(self, block: Block) -> BlockTexts:
        """What counting needs to know of a block."""
        tokens, segments, _, use = block.batch
        documents = runs(segments)
        first = block.number * tokens.size
        each = documents + np.arange(len(tokens), dtype=np.int32)[:, None] * np.int32(tokens.shape[1])
        text = hashes(tokens, documents, self.config.before, NEXT)
        return BlockTexts(
            first, each.reshape(-1), text.reshape(-1), use.reshape(-1), self._sampled(first, tokens.size)
        )

    def _sampled(self, first: int, count: int) -> np.ndarray:
        """Which tokens it is noted of which features are active together: a fixed share of all, told by their place."""
        wanted = self.config.coactive_tokens if self.config.coactive else 0
        share = wanted / (self.sequences * self.config.text.length)
        if share >= 1:
            return np.ones(count, bool)
        draw = mix(np.arange(first, first + count, dtype=np.uint64)) >> np.uint64(11)
        return draw < np.uint64(share * 2**53)


class Scratch:
    """The tokens of the blocks that are done, in a file: int32 [blocks R, 4]."""

    def __init__(self, path: Path, blocks: int, rows: int) -> None:
        self.path, self.rows, self.size = path, rows, blocks * rows
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            os.ftruncate(self._file, self.size * 4 * COLUMNS)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error

    def put(self, block: Block) -> None:
        """Write the tokens of a block where they belong."""
        tokens, segments, positions, _ = block.batch
        columns = np.stack([tokens, runs(segments), segments, positions], axis=-1).astype("<i4")
        try:
            os.pwrite(self._file, columns.tobytes(), block.number * self.rows * 4 * COLUMNS)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror or error}") from error

    def sync(self) -> None:
        """Make sure that it is on the disk."""
        os.fsync(self._file)

    def all(self) -> np.ndarray:
        """[tokens of the run, 4], memory-mapped."""
        return np.memmap(self.path, "<i4", "r", shape=(self.size, COLUMNS))

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
