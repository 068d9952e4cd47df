"""What a feature's activations say about two numbers: shares of variance, shapes by name, the parallelogram.

*Circuit Tracing* (2025), "Addition case study": over all pairs of operands a feature is drawn as a grid. Diagonals are
features of the sum, horizontal and vertical lines of an operand, isolated or gridded points look sums up, what repeats
is modular, a smear is of low precision.

Letters: A values of the first operand, B of the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError

PERIODS = (*range(2, 13), 20, 25, 50, 100)
EXPLAINED, MARGIN = 0.5, 0.02
ISOLATED, ALONE = 0.02, 0.25
MOSTLY, EVEN = 0.9, 0.5


Numbers = Sequence[int] | np.ndarray


class Shape(NamedTuple):
    """How a grid looks.

    Attributes:
      name: "inactive"; "mostly active"; the grouping of the two numbers that explains it ("first operand", "second
        operand", "sum", "difference", each also "mod m"; "both mod m", a gridded look-up table); "isolated points";
        "range of both" (a product of conditions on the operands); "mixed".
      score: share of variance that this explains, 0 where no number says so.
      active: share of pairs on which the feature is active.
      width: how many values of the grouping carry it, ``(Σ m)² / Σ m²`` of the means m of its groups: the larger, the
        less precise. 0 where there is no grouping.
      shares: the adjusted share of variance of every grouping.
    """

    name: str
    score: float
    active: float
    width: float
    shares: dict[str, float]


class Parallelogram(NamedTuple):
    """How far a grid is from ``f(a) + g(b)``.

    Attributes:
      largest: the largest ``|h(x+y) + h(z+w) - h(x+w) - h(z+y)|`` over all operands x, z and y, w.
      share: share of variance that means of rows and columns do not explain.
    """

    largest: float
    share: float


def groupings(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Ways of putting pairs of numbers into groups, by name: whole numbers [A, B]. Periods come at least twice."""
    a, b = np.broadcast_arrays(first[:, None], second[None, :])
    plain = {"first operand": a, "second operand": b, "sum": a + b, "difference": a - b}
    for period in PERIODS:
        for name, value in plain.items():
            if 2 * period <= np.ptp(value) + 1:
                yield f"{name} mod {period}", value % period
        if 2 * period <= min(np.ptp(a), np.ptp(b)) + 1:
            yield f"both mod {period}", (a % period) * period + b % period
    yield from plain.items()


def share(grid: np.ndarray, groups: np.ndarray) -> float:
    """The adjusted share of variance of ``grid [A, B]`` that the means of groups explain: 1 - (W/(n-k)) / (V/(n-1)).

    W is the sum of squares within k groups, V that of all n values: a grouping at random has share 0 on average.
    Not a number where every value has a group of its own or nothing varies.
    """
    values = grid.reshape(-1).astype(np.float64)
    _, index = np.unique(groups.reshape(-1), return_inverse=True)
    counts = np.bincount(index)
    total = float(((values - values.mean()) ** 2).sum())
    if total <= 0 or len(counts) == len(values):
        return float("nan")
    means = np.bincount(index, weights=values) / counts
    within = float(((values - means[index]) ** 2).sum())
    return 1 - (within / (len(values) - len(counts))) / (total / (len(values) - 1))


def classify(grid: np.ndarray, first: Numbers, second: Numbers) -> Shape:
    """The shape of a grid of activations ``[A, B]``, at least 0.

    Of the groupings that come within 0.02 of the best, the one with the fewest groups gives the name, if it explains at
    least half of the variance. Else: active on at most 2 % of pairs, with at most a quarter of neighbours active,
    is isolated points; on at least 90 %, with a deviation of at most half the mean, is mostly active; at least half of
    the variance explained by one product f(a) g(b) is a range of both.

    Raises:
      InputError: a grid of another shape than the numbers, or with less than two of either.
    """
    a, b = np.asarray(first, np.int64), np.asarray(second, np.int64)
    grid = np.asarray(grid, np.float64)
    if grid.shape != (len(a), len(b)) or min(grid.shape) < 2:
        raise InputError(f"a grid of {grid.shape} for {len(a)} and {len(b)} numbers, at least two of each")
    on = grid > 0
    active = float(on.mean())
    if not on.any():
        return Shape("inactive", 0.0, active, 0.0, {})
    if np.ptp(grid) == 0:
        return Shape("mostly active", 0.0, active, 0.0, {})
    groups = dict(groupings(a, b))
    shares = {name: share(grid, value) for name, value in groups.items()}
    good = {name: value for name, value in shares.items() if not np.isnan(value)}
    best = max(good.values(), default=0.0)
    if best >= EXPLAINED:
        near = [name for name, value in good.items() if value >= best - MARGIN]
        name = min(near, key=lambda n: len(np.unique(groups[n])))
        return Shape(name, good[name], active, _width(grid, groups[name]), shares)
    if active <= ISOLATED and _neighbours(on) <= ALONE:
        return Shape("isolated points", 0.0, active, 0.0, shares)
    if active >= MOSTLY and grid.std() <= EVEN * grid.mean():
        return Shape("mostly active", 0.0, active, 0.0, shares)
    left = float((np.linalg.svd(grid, compute_uv=False)[1:] ** 2).sum())
    if (product := 1 - left / float(((grid - grid.mean()) ** 2).sum())) >= EXPLAINED:
        return Shape("range of both", product, active, 0.0, shares)
    return Shape("mixed", 0.0, active, 0.0, shares)


def parallelogram(grid: np.ndarray) -> Parallelogram:
    """Whether ``h(x+y) + h(z+w) = h(x+w) + h(z+y)`` for all operands: whether a grid [A, B] is ``f(a) + g(b)``.

    Pre-activations of features that read operands through attention with a fixed pattern and no MLP in between are such
    (affine in the operands' vectors). Then no one feature can be active on exactly one sum: of a + b = s the points on
    the diagonal would force those beside it (*Circuit Tracing*, "parallelogram constraint").
    """
    grid = np.asarray(grid, np.float64)
    rest = grid - grid.mean(axis=0, keepdims=True) - grid.mean(axis=1, keepdims=True) + grid.mean()
    total = float(((grid - grid.mean()) ** 2).sum())
    # Of two rows the best columns are those where they differ most and least.
    largest = max(float(np.ptp(grid[i:] - grid[i], axis=1).max()) for i in range(len(grid)))
    return Parallelogram(largest, float((rest**2).sum()) / total if total > 0 else 0.0)


def _width(grid: np.ndarray, groups: np.ndarray) -> float:
    _, index = np.unique(groups.reshape(-1), return_inverse=True)
    means = np.bincount(index, weights=grid.reshape(-1)) / np.bincount(index)
    return float(means.sum() ** 2 / (means**2).sum())


def _neighbours(on: np.ndarray) -> float:
    """The mean share of the four neighbours of active pairs that are active."""
    padded = np.pad(on, 1)
    count = padded[:-2, 1:-1] * 1 + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return float(count[on].mean() / 4)
