"""One tensor layout turned into another, both ways, from a line of text.

A pattern such as ``"(h e) d -> d h e"`` says how a stored matrix is to be read: axes in brackets are
merged in storage. The same line gives the stored shape, our array, and the way back.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
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


def without(text: str, letter: str) -> str:
    """The pattern of one entry of axis ``letter``, which must be the first stored one and stand alone."""
    pattern = parse(text)
    assert pattern.stored[0] == (letter,), text
    stored = (f"({' '.join(group)})" if len(group) > 1 else group[0] for group in pattern.stored[1:])
    return f"{' '.join(stored)} -> {' '.join(axis for axis in pattern.ours if axis != letter)}"
