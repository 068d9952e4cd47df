"""Texts around tokens as numbers: the same text around the same place has the same one.

Letters: B sequences, T tokens of each, W tokens of a window.
"""

from __future__ import annotations

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """A bijection of uint64 under which neighbours have nothing in common (Steele et al. 2014, SplitMix)."""
    x = x + _ODD
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def runs(segments: np.ndarray) -> np.ndarray:
    """Documents of each sequence ``[B, T]`` numbered from 0 as they come; one that comes back is another."""
    change = segments[:, 1:] != segments[:, :-1]
    return np.concatenate(
        [np.zeros((len(segments), 1), np.int32), np.cumsum(change, axis=1, dtype=np.int32)], axis=1
    )


def hashes(tokens: np.ndarray, documents: np.ndarray, before: int, after: int) -> np.ndarray:
    """uint64 ``[B, T]``: of the tokens around each token, as far as its window and its document go."""
    length = tokens.shape[1]
    mixed = mix(tokens.astype(np.uint64))
    total = np.zeros_like(mixed)
    for step in range(-min(before, length - 1), min(after, length - 1) + 1):
        here = slice(max(0, -step), length - max(0, step))
        there = slice(max(0, step), length + min(0, step))
        factor = mix(np.array([before + step], np.uint64))[0] | np.uint64(1)
        same = documents[:, here] == documents[:, there]
        total[:, here] += np.where(same, mixed[:, there] * factor, np.uint64(0))
    return mix(total)
