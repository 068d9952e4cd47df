"""How well a dictionary reconstructs: explained variance, normalised error, cosine, lengths, sparsity, densities.

Definitions, over all rows of the evaluation at once and accumulated in float64: for layer l,
``FVE_l = 1 - Σ‖y - ŷ‖² / Σ‖y - ȳ‖²`` with ȳ the layer's mean over those rows, and ``NMSE_l = 1 - FVE_l``; *mean* is the
mean over layers, *pooled* divides the sums over all layers. Cosine, ``‖y - ŷ‖ / ‖y‖`` and ``‖ŷ‖ / ‖y‖`` are means over
rows. ``L0_l`` is the mean number of active features of a row, ``L1_l`` the mean of their sum of sizes. A feature is
dead if it is active on none of the rows, dense if it is active on more than a tenth of them.

Letters: L layers, G groups of features, N features, B sequences, T positions, R rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.evaluation.applying import decode, encode
from jaxinterp.evaluation.density import Histogram, histogram
from jaxinterp.evaluation.moments import Fit, Moments

DENSE = 0.1
BLOCK = 1 << 26
"""Activations, of all groups, that are computed at a time."""


class Rows(NamedTuple):
    """Sites of whole sequences: x [L, B, T, D], y [L, B, T, D'], and which rows count [B, T]."""

    x: Array
    y: Array
    use: np.ndarray
    positions: np.ndarray
    segments: np.ndarray


@dataclass(frozen=True)
class Reconstruction:
    """Figures of one dictionary on one set of rows; tuples have an entry a layer.

    Attributes:
      rows: how many rows.
      moments: mean [L, D'] and spread of what is reconstructed.
      fit: sums over rows, see `Fit`.
      fired: rows on which each feature is active, [G, N].
      sizes: sum of each feature's activations, [G, N].
      sequences: sequences on which each feature is active at all, [G, N].
    """

    rows: int
    moments: Moments
    fit: Fit
    fired: np.ndarray
    sizes: np.ndarray
    sequences: np.ndarray

    @property
    def nmse(self) -> tuple[float, ...]:
        """Normalised squared error of each layer; not a number where nothing varies."""
        return _each(self.fit.error, self.moments.spread)

    @property
    def fve(self) -> tuple[float, ...]:
        """Fraction of variance explained of each layer."""
        return tuple(1.0 - v for v in self.nmse)

    @property
    def pooled_nmse(self) -> float:
        """Normalised squared error of all layers together."""
        return _each(self.fit.error.sum(), self.moments.spread.sum())[0]

    @property
    def mean_nmse(self) -> float:
        """NMSE, mean over layers."""
        return float(np.mean(self.nmse))

    @property
    def density(self) -> np.ndarray:
        """Share of rows on which each feature is active, [G, N]."""
        return self.fired / self.rows

    @property
    def l0(self) -> tuple[float, ...]:
        """Mean active features a row, of each group."""
        return tuple(float(v) for v in self.fired.sum(axis=1) / self.rows)

    @property
    def l1(self) -> tuple[float, ...]:
        """Mean sum of activations a row, of each group."""
        return tuple(float(v) for v in self.sizes.sum(axis=1) / self.rows)

    @property
    def mean_l0(self) -> float:
        """L0, mean over groups."""
        return float(np.mean(self.l0))

    @property
    def cosine(self) -> tuple[float, ...]:
        """Mean cosine of y and ŷ, of each layer."""
        return _each(self.fit.cosine, self.rows)

    @property
    def relative_error(self) -> tuple[float, ...]:
        """Mean of ``‖y - ŷ‖ / ‖y‖``, of each layer."""
        return _each(self.fit.relative, self.fit.lengths)

    @property
    def norm_ratio(self) -> tuple[float, ...]:
        """Mean of ``‖ŷ‖ / ‖y‖``, of each layer."""
        return _each(self.fit.ratio, self.fit.lengths)

    @property
    def bias(self) -> tuple[float, ...]:
        """``Σ‖ŷ‖² / Σ y·ŷ``: below one where reconstructions are too short (arXiv 2404.16014, eq. 10)."""
        return _each(self.fit.squares_out, self.fit.product)

    @property
    def mean(self) -> np.ndarray:
        """The mean of what is reconstructed, [L, D'] float64."""
        return self.moments.mean

    @property
    def dead(self) -> float:
        """Share of features that are active on no row."""
        return float(np.mean(self.fired == 0))

    def dense(self, above: float = DENSE) -> float:
        """Share of features that are active on more than ``above`` of the rows."""
        return float(np.mean(self.density > above))

    def histogram(self) -> Histogram:
        """How many features have which density."""
        return histogram(self.fired, self.rows)

    def to_dict(self, dense_above: float = DENSE) -> dict[str, Any]:
        """JSON-ready figures without those of single features; None where a figure is not a number."""
        return {
            "rows": self.rows,
            **_both("nmse", self.nmse, self.pooled_nmse),
            **_both("fve", self.fve, 1.0 - self.pooled_nmse),
            **_both("l0", self.l0),
            **_both("l1", self.l1),
            **_both("cosine", self.cosine),
            **_both("relative_error", self.relative_error),
            **_both("norm_ratio", self.norm_ratio),
            "dead": self.dead,
            "dense": self.dense(dense_above),
        }


def number(value: Any) -> float | None:
    """A float for JSON: None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _both(name: str, values: tuple[float, ...], pooled: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {f"mean_{name}": number(np.mean(values))}
    if pooled is not None:
        found[f"pooled_{name}"] = number(pooled)
    return {**found, name: [number(v) for v in values]}


def _each(sums: Any, by: Any) -> tuple[float, ...]:
    sums, by = np.broadcast_arrays(np.atleast_1d(np.asarray(sums, np.float64)), np.asarray(by, np.float64))
    return tuple(float(s / b) if b else float("nan") for s, b in zip(sums, by, strict=True))


@jax.jit
def _apply(
    dictionary: Dictionary, x: Array, use: Array, positions: Array, segments: Array
) -> tuple[Array, Array, Array, Array]:
    """Reconstructions [L, B, T, D'], and for each feature [G, N] used rows, sum of sizes, sequences where active."""
    a = encode(dictionary, x, positions, segments)
    predicted = decode(dictionary, a, x)
    a = jnp.where(use[None, :, :, None], a, jnp.zeros_like(a))
    active = a != 0
    return predicted, active.sum(axis=(1, 2)), jnp.abs(a).sum(axis=(1, 2)), active.any(axis=2).sum(axis=1)


def reconstruction(dictionary: Dictionary, batches: Iterable[Rows | tuple[Array, Array]]) -> Reconstruction:
    """Measure a dictionary.

    Args:
      dictionary: what is measured.
      batches: `Rows`, or pairs of read-site and write-site values, ``[L, R, D]`` each, of which every row counts.

    Raises:
      ValueError: no rows.
      InputError: values or reconstructions that are not finite.
    """
    config = dictionary.config
    moments, fit = Moments(), Fit.zeros(config.n_layers)
    shape = (kind_of(config).groups(config), config.n_features)
    fired, sequences = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    sizes = np.zeros(shape)
    for batch in batches:
        rows = batch if isinstance(batch, Rows) else _as_rows(*batch)
        for piece in _pieces(rows, shape[0] * shape[1]):
            predicted, active, size, found = _apply(
                dictionary, piece.x, *(jnp.asarray(a) for a in (piece.use, piece.positions, piece.segments))
            )
            y, guess = (np.asarray(v, np.float64)[:, piece.use] for v in (piece.y, predicted))
            _finite(config.layers or range(config.n_layers), y, guess)
            moments.add(y)
            fit.add(y, guess)
            fired += np.asarray(active, np.int64)
            sizes += np.asarray(size, np.float64)
            sequences += np.asarray(found, np.int64)
    if not moments.rows:
        raise ValueError("no rows to measure a dictionary on")
    return Reconstruction(moments.rows, moments, fit, fired, sizes, sequences)


def _as_rows(x: Array, y: Array) -> Rows:
    """Rows that belong to no sequence: each is one."""
    count = x.shape[1]
    zeros = np.zeros((count, 1), np.int32)
    return Rows(x[:, :, None], y[:, :, None], np.ones((count, 1), bool), zeros, zeros)


def _pieces(rows: Rows, features: int) -> Iterator[Rows]:
    """Some sequences at a time, so that their activations fit; those with nothing to use are left out."""
    count, length = rows.use.shape
    size = max(1, BLOCK // (features * length))
    for start in range(0, count, size):
        part = slice(start, start + size)
        if rows.use[part].any():
            whole = size >= count
            x, y = (rows.x, rows.y) if whole else (rows.x[:, part], rows.y[:, part])
            yield Rows(x, y, rows.use[part], rows.positions[part], rows.segments[part])


def _finite(layers: Iterable[int], y: np.ndarray, predicted: np.ndarray) -> None:
    for what, values in (("the values to reconstruct", y), ("the reconstructions", predicted)):
        good = np.isfinite(values).all(axis=(1, 2))
        if not good.all():
            layer = list(layers)[int(np.flatnonzero(~good)[0])]
            raise InputError(f"{what} of layer {layer} are not all finite")
