"""One tensor layout turned into another, both ways, from a line of text.

A pattern such as ``"(h e) d -> d h e"`` says how a stored matrix is to be read: axes in brackets are
merged in storage. The same line gives the stored shape, our array, and the way back.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Pattern(NamedTuple):
    """A parsed pattern: stored axes, each a tuple of letters, and the order of letters in our array."""

    stored: tuple[tuple[str, ...], ...]
    ours: tuple[str, ...]


@functools.cache
def parse(text: str) -> Pattern:
    """Parse ``"(h e) d -> d h e"``."""
    left, right = text.split("->")
    groups = re.findall(r"\(([a-z ]+)\)|([a-z])", left)
    stored = tuple(tuple(group.split()) if group else (single,) for group, single in groups)
    ours = tuple(right.split())
    assert sorted(letter for group in stored for letter in group) == sorted(ours), text
    return Pattern(stored, ours)


def stored_shape(text: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of the stored tensor, ``sizes`` giving each letter's."""
    return tuple(math.prod(sizes[letter] for letter in group) for group in parse(text).stored)


def to_ours(array: np.ndarray, text: str, sizes: Mapping[str, int]) -> np.ndarray:
    """The stored tensor in our layout."""
    pattern = parse(text)
    letters = [letter for group in pattern.stored for letter in group]
    split = array.reshape([sizes[letter] for letter in letters])
    return split.transpose([letters.index(letter) for letter in pattern.ours])


def to_stored(array: np.ndarray, text: str, sizes: Mapping[str, int]) -> np.ndarray:
    """Our array in the stored layout: the inverse of `to_ours`."""
    pattern = parse(text)
    letters = [letter for group in pattern.stored for letter in group]
    return array.transpose([pattern.ours.index(letter) for letter in letters]).reshape(
        stored_shape(text, sizes)
    )


class Box(NamedTuple):
    """What to read for a part of our array.

    Attributes:
      stored: a slice of each axis of the stored tensor.
      sizes: each letter's size in what those hold.
      ours: the part of that, in our layout, that was asked for.
    """

    stored: tuple[slice, ...]
    sizes: dict[str, int]
    ours: tuple[slice, ...]


def box(text: str, spans: Sequence[tuple[int, int]], sizes: Mapping[str, int]) -> Box:
    """What to read for the entries from start to stop along each of our axes.

    Axes that are merged in storage are read whole but for the first, along which they are cut in one piece.
    """
    pattern = parse(text)
    asked, held = dict(zip(pattern.ours, spans, strict=True)), dict(sizes)
    stored = []
    for first, *rest in pattern.stored:
        start, stop = asked[first]
        each = math.prod(sizes[letter] for letter in rest)
        stored.append(slice(start * each, stop * each))
        asked[first], held[first] = (0, stop - start), stop - start
    return Box(tuple(stored), held, tuple(slice(*asked[letter]) for letter in pattern.ours))


def without(text: str, letter: str) -> str:
    """The pattern of one entry of axis ``letter``, which must be the first stored one and stand alone."""
    pattern = parse(text)
    assert pattern.stored[0] == (letter,), text
    stored = (f"({' '.join(group)})" if len(group) > 1 else group[0] for group in pattern.stored[1:])
    return f"{' '.join(stored)} -> {' '.join(axis for axis in pattern.ours if axis != letter)}"
