"""Which targets are computed together: blocks of fixed shapes, cut by layer and last position.

A target at layer l and position p depends on layers below l and positions up to p only. Targets of one layer and
part, in node order and so by position, are cut into blocks; a block's walk runs over the positions up to its last
one, rounded up to a quarter of the prompt's padded length. Shapes depend on the padded length alone, so a second
prompt of similar length compiles nothing, and blocks depend neither on the number of devices nor on each other.

Letters: C targets of a block, T position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROWS = 2048
"""Rows C x T of the matrix products of a block: few enough to stay in a core's cache, enough for its full rate."""
LEAST, MOST = 8, 128


class Block(NamedTuple):
    """Targets that are computed together.

    Attributes:
      layer, part: where all of them read.
      length: T', positions of the walk.
      width: C, with padding.
      members: numbers of the targets, at most C, ascending.
    """

    layer: int
    part: int
    length: int
    width: int
    members: np.ndarray


def padded_length(tokens: int, context: int | None = None) -> int:
    """Tokens of the walk's arrays: the next of 16, 32, 48, 64, 96, 128, 192, ... but no more than the context."""
    size = 16
    while size < tokens:
        size = size * 3 // 2 if size >= 32 and size & (size - 1) == 0 else _next_power(size)
    return size if context is None else max(tokens, min(size, context))


def _next_power(size: int) -> int:
    return 1 << size.bit_length()


def lengths(padded: int) -> tuple[int, ...]:
    """The lengths T' that blocks may have: quarters of the padded length, or halves where it is short."""
    cuts = 4 if padded >= 32 else 2
    return tuple(sorted({-(-padded * cut // cuts) for cut in range(1, cuts + 1)}))


def width(length: int, rows: int = ROWS) -> int:
    """C of blocks of T' = ``length`` positions: a power of two."""
    return max(LEAST, min(MOST, 1 << max(rows // length, 1).bit_length() - 1))


def cut(
    layer: np.ndarray, part: np.ndarray, position: np.ndarray, padded: int, rows: int = ROWS
) -> list[Block]:
    """Blocks for targets given by layer, part and position, ``[n]`` each; by layer, part, then position.

    Args:
      padded: the padded length of the prompt.
      rows: about how many rows C x T' a block has.
    """
    allowed = lengths(padded)
    found: list[Block] = []
    order = np.lexsort((np.arange(len(layer)), position, part, layer))
    for group in np.split(order, np.flatnonzero(np.diff(layer[order]) | np.diff(part[order])) + 1):
        pieces: list[Block] = []
        while len(group):
            last = int(position[group[-1]])
            length = next(size for size in allowed if size > last)
            size = width(length, rows)
            where = int(layer[group[0]]), int(part[group[0]])
            pieces.append(Block(*where, length, size, group[-size:]))
            group = group[:-size]
        found += reversed(pieces)
    return found


def waves(blocks: Sequence[Block], devices: int) -> list[list[Block]]:
    """Blocks of one part and shape, as many as there are devices at a time; the last of a shape may be fewer."""
    found: list[list[Block]] = []
    open_: dict[tuple[int, int, int], list[Block]] = {}
    for block in blocks:
        wave = open_.setdefault((block.part, block.length, block.width), [])
        if not wave:
            found.append(wave)
        wave.append(block)
        if len(wave) == devices:
            del open_[block.part, block.length, block.width]
    return found
