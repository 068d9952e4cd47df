"""How often features are active: dead and dense ones, and the histogram of densities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

BINS_A_DECADE = 4


@dataclass(frozen=True)
class Histogram:
    """How many features have which density, group by group.

    Attributes:
      edges: log10 of the densities between which bins lie, one more than bins; the last is 0.
      counts: [G, bins]; a density on an edge counts to the bin above it, a density of one to the last bin.
      dead: [G], features that are active on no row, which have no logarithm.
    """

    edges: tuple[float, ...]
    counts: np.ndarray
    dead: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "log10_edges": list(self.edges),
            "counts": self.counts.tolist(),
            "dead": self.dead.tolist(),
        }


def histogram(fired: np.ndarray, rows: int, bins_a_decade: int = BINS_A_DECADE) -> Histogram:
    """The histogram of log10 densities.

    Args:
      fired: [G, N] whole numbers, rows on which each feature is active.
      rows: of how many.
      bins_a_decade: bins have the width ``1 / bins_a_decade`` and begin at the whole decade below ``1 / rows``.
    """
    decades = max(1, len(str(rows - 1))) if rows > 1 else 1
    bins = decades * bins_a_decade
    edges = np.arange(-bins, 1) / bins_a_decade
    counts = np.zeros((len(fired), bins), np.int64)
    for group, own in enumerate(fired):
        logs = np.log10(own[own > 0] / rows)
        # Densities that are whole powers of ten lie on an edge, and the logarithm may be off by a rounding.
        places = np.floor((logs - edges[0]) * bins_a_decade + 1e-9).astype(np.int64)
        np.add.at(counts[group], np.clip(places, 0, bins - 1), 1)
    return Histogram(tuple(float(e) for e in edges), counts, (np.asarray(fired) == 0).sum(axis=1))
