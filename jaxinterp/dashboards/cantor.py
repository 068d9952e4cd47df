"""The one number that circuit-tracer's viewers give a feature: the Cantor pairing of its layer and index."""

from __future__ import annotations

import math

MOST_LAYERS = 256


def pair(layer: int, index: int) -> int:
    """The number of a feature."""
    total = layer + index
    return total * (total + 1) // 2 + index


def unpair(number: int) -> tuple[int, int]:
    """The layer and index of a number, exactly."""
    total = (math.isqrt(8 * number + 1) - 1) // 2
    index = number - total * (total + 1) // 2
    return total - index, index
