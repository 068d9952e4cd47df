"""The strongest global weights of some features, block by block.

Letters: n features at this end, m at the other, k strongest, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.attribution.global_weights import CHUNK, GlobalWeights
from jaxinterp.attribution.weight_sides import EVERY, Ids, check_ids, check_layer
from jaxinterp.core.errors import InputError
from jaxinterp.core.precision import einsum


class Strongest(NamedTuple):
    """The strongest weights of some features, host arrays ``[n, k]``, strongest first; layer -1 where no more are
    of the sign that was asked for.

    Attributes:
      layer, feature: the feature (token, logit) at the other end.
      weight: the weight.
    """

    layer: np.ndarray
    feature: np.ndarray
    weight: np.ndarray


Scale = Callable[[int, int, Ids, Ids], Any]
"""(source layer, target layer, sources, targets) → factors [s, t] on weights: of `coactivation`."""

SIGNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "absolute": np.abs,
    "positive": lambda w: w,
    "negative": lambda w: -w,
}


def strongest(
    weights: GlobalWeights, side: str, layer: int, ids: Ids = EVERY, *, k: int = 10, sign: str = "absolute",
    scale: Scale | None = None, chunk: int = CHUNK,
) -> Strongest:  # fmt: skip
    """The k strongest weights of each of some features, over all layers of the other side.

    Args:
      side: "source": the features write, and targets are looked for; "target": the other way round.
      layer, ids: the features; all of the layer where ``ids`` is not given.
      sign: which are looked for: "absolute" (both), "positive" or "negative".
      scale: factors on the weights, as for expected weights (`coactivation.Coactivation.scale`).
      chunk: features of either side that are in memory at a time.

    Raises:
      InputError: another side or sign.
    """
    if side not in ("source", "target") or sign not in SIGNS:
        raise InputError(
            f"side {side!r} and sign {sign!r}: expected source or target, and {', '.join(SIGNS)}"
        )
    own = weights.source if side == "source" else weights.target
    check_layer(own, layer)
    numbers = np.arange(own.size)[ids] if isinstance(ids, slice) else check_ids(own, ids)
    parts = []
    for start in range(0, max(len(numbers), 1), chunk):
        mine = numbers[start : start + chunk]
        best = _Best(len(mine), k, SIGNS[sign])
        found_of = _from if side == "source" else _into
        for far, theirs, found in found_of(weights, layer, mine, chunk):
            if scale is not None:
                ends = (layer, far, mine, theirs) if side == "source" else (far, layer, theirs, mine)
                factors = np.asarray(scale(*ends))
                found = found * (factors if side == "source" else factors.T)
            best.add(found, far, theirs)
        parts.append(best.found)
    return Strongest(*(np.concatenate(column) for column in zip(*parts, strict=True)))


Found = Iterator[tuple[int, np.ndarray, np.ndarray]]
"""The layer at the other end, the features there [m], and weights [n, m] between them and one's own."""


def _from(weights: GlobalWeights, layer: int, mine: np.ndarray, chunk: int) -> Found:
    """What features of one layer write to every target."""
    for far in range(weights.target.layers):
        order = weights.read(far, np.zeros(1, np.int64)).order
        written = weights.source.vectors(layer, mine, order)
        if written is None:
            continue
        for theirs in _pieces(weights.target.size, chunk):
            read = weights.read(far, theirs)
            yield far, theirs, np.asarray(einsum("sd,td->st", written, read.vectors))


def _into(weights: GlobalWeights, layer: int, mine: np.ndarray, chunk: int) -> Found:
    """What features of one layer read from every source."""
    read = weights.read(layer, mine)
    for far in range(weights.source.layers):
        for theirs in _pieces(weights.source.size, chunk):
            written = weights.source.vectors(far, theirs, read.order)
            if written is None:
                break
            yield far, theirs, np.asarray(einsum("td,sd->ts", read.vectors, written))


def _pieces(size: int, chunk: int) -> Iterator[np.ndarray]:
    return (np.arange(begin, min(begin + chunk, size)) for begin in range(0, size, chunk))


class _Best:
    """The k best so far; among equals the first, by layer and number."""

    def __init__(self, n: int, k: int, rank: Callable[[np.ndarray], np.ndarray]) -> None:
        self.k, self.rank = k, rank
        self.found = Strongest(np.full((n, k), -1), np.full((n, k), -1), np.zeros((n, k)))

    def add(self, weights: np.ndarray, layer: int, index: np.ndarray) -> None:
        rank = self.rank(weights)
        good = rank > 0
        if rank.shape[1] > self.k:
            good &= rank >= np.partition(rank, -self.k, axis=1)[:, -self.k :][:, :1]
        # The good ones of each row, few as they are, moved to its beginning.
        row, column = np.nonzero(good)
        counts = good.sum(axis=1)
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = [np.full((len(rank), int(counts.max(initial=0))), empty) for empty in (-1, -1, 0.0)]
        for array, values in zip(new, (layer, index[column], weights[row, column]), strict=True):
            array[row, place] = values
        both = [np.concatenate(pair, axis=1) for pair in zip(self.found, new, strict=True)]
        order = np.argsort(-self.rank(both[2]), axis=1, kind="stable")[:, : self.k]
        self.found = Strongest(*(np.take_along_axis(a, order, 1) for a in both))
