"""Permutations that need no memory: where index i of an epoch goes is a pure function of (seed, epoch, i).

A number below n is written as two digits in the mixed radix (a, b) with a·b ≥ n, and each of several rounds adds to
one digit a pseudo-random function of the other: a Feistel network over Z_a × Z_b, a bijection whatever the function
is. Results of n or more are sent through again ("cycle walking"), which keeps it a bijection of [0, n); as
a·b - n < a, hardly any are. Luby and Rackoff (1988); Black and Rogaway (2002) for the walk.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from jaxinterp.core.errors import InputError

ROUNDS = 8


class Permutation:
    """A bijection of [0, n), evaluated where it is asked for.

    Args:
      n: how many numbers, at most 2**62.
      key: whole numbers, such as a seed and an epoch; another key gives another permutation.

    >>> sorted(Permutation(5, 0, 1)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, *key: int) -> None:
        if not 1 <= n <= 1 << 62:
            raise InputError(f"a permutation of {n} numbers: expected 1 to 2**62")
        self.n = n
        self.a = math.isqrt(n - 1) + 1
        self.b = -(-n // self.a)
        text = ",".join(map(str, key)).encode()
        self.keys = [
            np.uint64(int.from_bytes(hashlib.sha256(text + b"/%d" % i).digest()[:8], "little"))
            for i in range(ROUNDS)
        ]

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Where ``numbers`` (whole, in [0, n), any shape) go: int64 of the same shape."""
        numbers = np.asarray(numbers, np.int64)
        if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= self.n):
            raise InputError(f"a permutation of {self.n} numbers was asked for one outside of them")
        out = self._rounds(numbers.reshape(-1).astype(np.uint64))
        while (outside := np.flatnonzero(out >= np.uint64(self.n))).size:
            out[outside] = self._rounds(out[outside])
        return out.astype(np.int64).reshape(numbers.shape)

    def _rounds(self, numbers: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self.a), np.uint64(self.b)
        high: np.ndarray = numbers // b
        low: np.ndarray = numbers % b
        for i, key in enumerate(self.keys):
            if i % 2:
                low = (low + mix(high ^ key) % b) % b
            else:
                high = (high + mix(low ^ key) % a) % a
        return high * b + low


def mix(x: np.ndarray) -> np.ndarray:
    """A pseudo-random function of 64-bit numbers: the output function of SplitMix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
