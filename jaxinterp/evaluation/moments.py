"""Sums of a pass over rows, in float64, merged so that a large mean costs no digits.

The squares about the mean are taken about each batch's own mean and merged by the formula of Chan, Golub and LeVeque
(1983): ``M2 = M2_a + M2_b + δ² n_a n_b / (n_a + n_b)``. The textbook ``Σy² - (Σy)²/n`` loses all digits where the mean
is much larger than the spread, as in the residual stream of large models.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Moments:
    """Count, mean and squares about the mean of rows, each layer by itself.

    Attributes:
      rows: how many.
      mean: [L, D] float64.
      spread: [L] float64, ``Σ_rows ‖y - ȳ‖²``.
    """

    rows: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    spread: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, y: np.ndarray) -> None:
        """Take in rows ``y [L, R, D]``."""
        n = y.shape[1]
        if not n:
            return
        y = np.asarray(y, np.float64)
        mean = y.mean(axis=1)
        centred = y - mean[:, None]
        spread = np.einsum("lrd,lrd->l", centred, centred)
        if not self.rows:
            self.rows, self.mean, self.spread = n, mean, spread
            return
        total = self.rows + n
        step = mean - self.mean
        self.spread = self.spread + spread + np.einsum("ld,ld->l", step, step) * (self.rows * n / total)
        self.mean = self.mean + step * (n / total)
        self.rows = total


@dataclass
class Fit:
    """What a reconstruction is compared by, summed over rows, [L] float64 each.

    Attributes:
      error: ``Σ‖y - ŷ‖²``.
      cosine: ``Σ cos(y, ŷ)``, 0 where either has length zero.
      relative: ``Σ ‖y - ŷ‖ / ‖y‖``; ``ratio``: ``Σ ‖ŷ‖ / ‖y‖``; rows of length zero do not count.
      lengths: how many rows count for them.
      norm, norm_out: ``Σ‖y‖`` and ``Σ‖ŷ‖``.
      squares_out, product: ``Σ‖ŷ‖²`` and ``Σ y·ŷ``.
    """

    error: np.ndarray
    cosine: np.ndarray
    relative: np.ndarray
    ratio: np.ndarray
    lengths: np.ndarray
    norm: np.ndarray
    norm_out: np.ndarray
    squares_out: np.ndarray
    product: np.ndarray

    @classmethod
    def zeros(cls, layers: int) -> Fit:
        """Nothing summed yet."""
        return cls(*(np.zeros(layers) for _ in range(9)))

    def add(self, y: np.ndarray, predicted: np.ndarray) -> None:
        """Take in rows and their reconstructions, ``[L, R, D]`` each."""
        y, predicted = np.asarray(y, np.float64), np.asarray(predicted, np.float64)
        residual = y - predicted
        squared = np.einsum("lrd,lrd->lr", residual, residual)
        norm, out = np.linalg.norm(y, axis=2), np.linalg.norm(predicted, axis=2)
        product = np.einsum("lrd,lrd->lr", y, predicted)
        both, some = (norm > 0) & (out > 0), norm > 0
        one = np.where(some, norm, 1.0)
        self.error += squared.sum(axis=1)
        self.cosine += np.where(both, product / np.where(both, norm * out, 1.0), 0.0).sum(axis=1)
        self.relative += np.where(some, np.sqrt(squared) / one, 0.0).sum(axis=1)
        self.ratio += np.where(some, out / one, 0.0).sum(axis=1)
        self.lengths += some.sum(axis=1)
        self.norm += norm.sum(axis=1)
        self.norm_out += out.sum(axis=1)
        self.squares_out += (out * out).sum(axis=1)
        self.product += product.sum(axis=1)
