"""What a graph will take, before it is made."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from jaxinterp.attribution.nodes import Layout
from jaxinterp.core.errors import InputError

EDGE_BYTES = 24  # of a finished edge and of putting it in order


def default_budget() -> int:
    """Half of the machine's memory, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def graph_bytes(layout: Layout, features: int, targets: int, itemsize: int, chosen: bool) -> int:
    """Bytes of the edges of a graph of so many features, and of the rows that they are taken from.

    Args:
      chosen: features are chosen by influence, for which rows over every node are kept until all are ranked.
    """
    rows = features + targets
    fixed = layout.size - layout.features
    # Features are about evenly spread over layers, so about half of all pairs are edges.
    edges = rows * (features / 2 + fixed) * EDGE_BYTES
    return int(edges + (rows * (layout.features / 2 + fixed) * itemsize if chosen else 0))


def check_memory(
    layout: Layout, limit: int, targets: int, dtype: Any, budget: int | None, timed: bool = False
) -> None:
    """Refuse a graph that would take more than ``budget`` bytes (None: half of the machine's memory).

    Raises:
      InputError: saying how much it would take, and the largest number of features that fits.
    """
    budget = default_budget() if budget is None else budget
    itemsize = np.dtype(dtype).itemsize

    def needed(features: int) -> int:
        return graph_bytes(layout, features, targets, itemsize, timed or features < layout.features)

    if needed(limit) <= budget:
        return
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle - 1)
    fit = f"max_feature_nodes={low} fits" if low else "no cap fits, use a shorter prompt"
    raise InputError(
        f"the graph of {limit} features needs about {needed(limit) / 2**30:.1f} GiB, more than the budget of "
        f"{budget / 2**30:.1f} GiB: {fit}"
    )
