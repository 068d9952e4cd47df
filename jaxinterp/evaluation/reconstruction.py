"""How well a dictionary reconstructs: normalised error, sparsity, dead features.

Definitions, over all held-out rows at once and accumulated in float64: for layer l,
``NMSE_l = Σ‖y - ŷ‖² / Σ‖y - ȳ‖²`` with ȳ the layer's mean over those rows; *mean* NMSE is the mean over
layers, *pooled* NMSE divides the sums over all layers. ``L0_l`` is the mean number of active features of a
row. A feature is dead if it is active on none of the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, kind_of


@dataclass(frozen=True)
class Reconstruction:
    """Figures of one dictionary on one set of rows.

    Attributes:
      rows: how many rows.
      nmse: normalised squared error of each layer.
      pooled_nmse: that of all layers together.
      l0: mean active features a row, of each layer.
      density: share of rows on which each feature is active, [L, N].
    """

    rows: int
    nmse: tuple[float, ...]
    pooled_nmse: float
    l0: tuple[float, ...]
    density: np.ndarray

    @property
    def mean_nmse(self) -> float:
        """NMSE, mean over layers."""
        return float(np.mean(self.nmse))

    @property
    def mean_l0(self) -> float:
        """L0, mean over layers."""
        return float(np.mean(self.l0))

    @property
    def dead(self) -> float:
        """Share of features that are active on no row."""
        return float(np.mean(self.density == 0))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready figures, without the densities."""
        return {
            "rows": self.rows,
            "mean_nmse": self.mean_nmse,
            "pooled_nmse": self.pooled_nmse,
            "nmse": list(self.nmse),
            "mean_l0": self.mean_l0,
            "l0": list(self.l0),
            "dead": self.dead,
        }


@jax.jit
def _sums(dictionary: Dictionary, x: Array, y: Array) -> tuple[Array, Array]:
    a = kind_of(dictionary.config).encode(dictionary.params, dictionary.config, x)
    predicted = kind_of(dictionary.config).decode(dictionary.params, dictionary.config, a, x)
    return y - predicted, (a != 0).sum(axis=1)


def reconstruction(dictionary: Dictionary, batches: Iterable[tuple[Array, Array]]) -> Reconstruction:
    """Measure a dictionary.

    Args:
      dictionary: what is measured.
      batches: pairs of read-site and write-site values, ``[L, R, D]`` each.

    Raises:
      ValueError: no rows.
    """
    config = dictionary.config
    rows = 0
    error = np.zeros(config.n_layers)
    total = np.zeros((config.n_layers, config.d_model))
    squares = np.zeros(config.n_layers)
    active = np.zeros((config.n_layers, config.n_features), np.int64)
    for x, y in batches:
        residual, fired = _sums(dictionary, x, y)
        residual64, y64 = np.asarray(residual, np.float64), np.asarray(y, np.float64)
        error += np.einsum("lrd,lrd->l", residual64, residual64)
        squares += np.einsum("lrd,lrd->l", y64, y64)
        total += y64.sum(axis=1)
        active += np.asarray(fired, np.int64)
        rows += y64.shape[1]
    if not rows:
        raise ValueError("no rows to measure a dictionary on")
    variance = squares - np.einsum("ld,ld->l", total, total) / rows
    return Reconstruction(
        rows,
        tuple(float(v) for v in error / variance),
        float(error.sum() / variance.sum()),
        tuple(float(v) for v in active.sum(axis=1) / rows),
        active / rows,
    )
