"""Which targets are computed together: blocks of fixed shapes, cut by layer and last position.

A target at layer l and position p depends on layers below l and positions up to p only. Targets of one layer and
part, in node order and so by position, are cut into blocks; a block's walk runs over the positions up to its last
one, rounded up to a quarter of the prompt's padded length. What is left over of several layers goes together. Shapes
depend on the padded length alone, so a second prompt of similar length compiles nothing, and blocks do not depend on
the number of devices.

Letters: C targets of a block, T position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROWS = 1024
"""Rows C x T of the matrix products of a block: few enough to stay in a core's cache, enough for its full rate."""
ON_ACCELERATOR = 65536
LEAST, MOST = 8, 64
FEW = 16
"""C of a block of targets after the final norm, where there are no more."""


class Block(NamedTuple):
    """Targets that are computed together.

    Attributes:
      part: what all of them read for.
      length: T', positions of the walk.
      width: C, with padding.
      members: [c] numbers of the targets, at most C.
      layers: [c] where they read, descending where they differ.
    """

    part: int
    length: int
    width: int
    members: np.ndarray
    layers: np.ndarray

    @property
    def layer(self) -> int:
        """The last layer in which one of them reads."""
        return int(self.layers.max())


def padded_length(tokens: int, context: int | None = None) -> int:
    """Tokens of the walk's arrays: the next of 16, 32, 48, 64, 96, 128, 192, ... but no more than the context."""
    size = 16
    while size < tokens:
        size = size * 3 // 2 if size >= 32 and size & (size - 1) == 0 else _next_power(size)
    return size if context is None else max(tokens, min(size, context))


def _next_power(size: int) -> int:
    return 1 << size.bit_length()


def block_rows(platform: str) -> int:
    """About how many rows C x T' blocks have on a platform; part of what decides a graph's last digits there."""
    return ROWS if platform == "cpu" else ON_ACCELERATOR


def lengths(padded: int) -> tuple[int, ...]:
    """The lengths T' that blocks may have: quarters of the padded length."""
    return tuple(sorted({-(-padded * quarter // 4) for quarter in range(1, 5)}))


def width(length: int, rows: int = ROWS) -> int:
    """C of blocks of T' = ``length`` positions: a power of two."""
    most = max(MOST, rows // 64)
    return max(LEAST, min(most, 1 << max(rows // length, 1).bit_length() - 1))


def cut(
    layer: np.ndarray, part: np.ndarray, position: np.ndarray, padded: int, rows: int = ROWS
) -> list[Block]:
    """Blocks for targets given by layer, part and position, ``[n]`` each; a part of -1 reads after the final norm.

    Args:
      padded: the padded length of the prompt.
      rows: about how many rows C x T' a block has.
    """
    allowed = lengths(padded)
    found: list[Block] = []

    def block(members: np.ndarray) -> Block:
        length = _length(int(position[members].max()), allowed)
        size = width(length, rows)
        if part[members[0]] < 0 and len(members) <= FEW:
            size = min(size, FEW)
        return Block(int(part[members[0]]), length, size, members, layer[members])

    order = np.lexsort((np.arange(len(layer)), position, layer, part))
    for of_part in _runs(order, part):
        left: list[np.ndarray] = []
        for group in _runs(of_part, layer):
            pieces: list[Block] = []
            # From the last positions on, so that what is left over has the first.
            while len(group):
                size = width(_length(int(position[group[-1]]), allowed), rows)
                if len(group) < size:
                    break
                pieces.append(block(group[-size:]))
                group = group[:-size]
            found += reversed(pieces)
            left.append(group)
        together = np.zeros(0, np.intp)
        for group in reversed(left):  # the highest layer first
            while len(group):
                last = int(position[[*together, *group]].max())
                room = width(_length(last, allowed), rows) - len(together)
                if room <= 0:
                    found.append(block(together))
                    together = together[:0]
                    continue
                together, group = np.concatenate([together, group[-room:]]), group[:-room]
        if len(together):
            found.append(block(together))
    return found


def _length(last: int, allowed: Sequence[int]) -> int:
    return next(size for size in allowed if size > last)


def _runs(order: np.ndarray, key: np.ndarray) -> list[np.ndarray]:
    """``order`` cut where ``key`` of its entries changes; nothing of nothing."""
    return [] if not len(order) else np.split(order, np.flatnonzero(np.diff(key[order])) + 1)


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
