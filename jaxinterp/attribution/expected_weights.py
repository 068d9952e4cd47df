"""Virtual weights times how often their ends are active together.

*Circuit Tracing* (2025), "Global weights": of source i and target j, over tokens,
``ERA_ij = E[1(a_j > 0) a_i] V_ij`` (expected residual attribution) and ``TWERA_ij = E[a_j a_i] / E[a_j] V_ij``
(target-weighted). Many of the largest virtual weights lie between features that are never active together; expected
weights leave them out. They cannot show a target that is kept from being active.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from jaxinterp.attribution.coactivation import Coactivation, Pair
from jaxinterp.attribution.global_weights import GlobalWeights
from jaxinterp.attribution.strongest import Scale
from jaxinterp.attribution.weight_sides import Ids
from jaxinterp.core.errors import InputError

KINDS = ("era", "twera")


def factors(counter: Coactivation, kind: str, pair: Pair) -> Any:
    """``E[1(a_j > 0) a_i]`` ("era") or ``E[a_j a_i] / E[a_j]`` ("twera"; 0 where j is never active): [n, m]."""
    if kind not in KINDS:
        raise InputError(f"kind of expected weight is {kind!r}, expected one of {', '.join(KINDS)}")
    if not counter.rows:
        raise InputError("the counter has counted no row")
    if kind == "era":
        return counter.gated[pair] / counter.rows
    total = counter.total["target", pair[1]]
    over = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    products = counter.products[pair]
    return products * over[None, :] if counter.dense else products @ sparse.diags_array(over)


def scale(counter: Coactivation, kind: str) -> Scale:
    """`factors` as a scale for `strongest`; pairs that were not counted get 0."""
    kept: dict[Pair, Any] = {}

    def of(source: int, target: int, sources: Ids, targets: Ids) -> np.ndarray:
        pair = source, target
        if pair not in counter.pairs:
            return np.zeros((1, 1))
        if pair not in kept:
            kept[pair] = factors(counter, kind, pair)
        (i, mine), (j, theirs) = (
            _find(counter.sources[source], sources),
            _find(counter.targets[target], targets),
        )
        found = kept[pair][i][:, j]
        found = found if counter.dense else found.toarray()
        return np.where(mine[:, None] & theirs[None, :], found, 0.0)

    return of


class Expected(NamedTuple):
    """Pairs of features of two layers that were active together, host arrays ``[n]``.

    Attributes:
      source, target: their numbers.
      virtual: V. weight: ERA or TWERA.
    """

    source: np.ndarray
    target: np.ndarray
    virtual: np.ndarray
    weight: np.ndarray


def expected(
    weights: GlobalWeights, counter: Coactivation, kind: str = "twera"
) -> Iterator[tuple[Pair, Expected]]:
    """Expected weights of all pairs that met, a pair of layers at a time; V is computed for these alone."""
    for pair in counter.pairs:
        found = sparse.coo_array(factors(counter, kind, pair))
        met = found.data != 0
        i, j = (counter.sources[pair[0]][found.row[met]], counter.targets[pair[1]][found.col[met]])
        virtual = weights.pairs(*pair, i, j)
        yield pair, Expected(i, j, virtual, found.data[met] * virtual)


def _find(chosen: np.ndarray, ids: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Where each of ``ids`` stands among the chosen, and whether it does."""
    wanted = chosen if isinstance(ids, slice) else np.asarray(ids)
    place = np.minimum(np.searchsorted(chosen, wanted), len(chosen) - 1)
    return place, chosen[place] == wanted
