"""How often and how strongly features are active together: counters over tokens.

A counter holds sums, so that parts of a text can be counted apart and added. They are arrays in float64 where these
fit, else sparse matrices of the pairs of features that met.

Letters: n, m chosen features of a source and a target layer, R rows (tokens).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig

Pair = tuple[int, int]
BUDGET = 2 << 30


@dataclass
class Coactivation:
    """Sums over rows for pairs of features at the same token.

    Attributes:
      sources, targets: layer → numbers of the chosen features, ascending.
      pairs: (source layer, target layer) that are counted.
      dense: whether sums of pairs are arrays [n, m], else sparse matrices of the pairs that met.
      rows, blocks: how many rows and blocks of text were counted.
      made_by: digests of what was counted.
      fired, total: side ("source", "target") and layer → [n], rows on which each is active, sum of its activations.
      gated: pair → Σ_rows 1(a_target > 0) a_source. products: pair → Σ_rows a_source a_target.
    """

    sources: dict[int, np.ndarray]
    targets: dict[int, np.ndarray]
    pairs: tuple[Pair, ...]
    dense: bool
    made_by: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    blocks: int = 0
    fired: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    total: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    gated: dict[Pair, Any] = field(default_factory=dict)
    products: dict[Pair, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for side, chosen in (("source", self.sources), ("target", self.targets)):
            for layer, ids in chosen.items():
                self.fired.setdefault((side, layer), np.zeros(len(ids), np.int64))
                self.total.setdefault((side, layer), np.zeros(len(ids)))
        for pair in self.pairs:
            shape = len(self.sources[pair[0]]), len(self.targets[pair[1]])
            for sums in (self.gated, self.products):
                sums.setdefault(pair, np.zeros(shape) if self.dense else sparse.csr_array(shape))

    def add(
        self, rows: int, sides: Mapping[tuple[str, int], tuple[Any, Any]], pairs: Mapping[Pair, tuple[Any, Any]],
        budget: int = BUDGET,
    ) -> None:  # fmt: skip
        """Take in one block of text, whole or not at all.

        Args:
          rows: how many count.
          sides: side and layer → rows on which each feature is active, and sum of its activations, [n] each.
          pairs: ``gated`` and ``products`` of the block, [n, m] each, arrays or sparse matrices as the counter's.
          budget: bytes that sparse sums may take.

        Raises:
          InputError: sums that are not finite, or that have grown beyond the budget.
        """
        for (side, layer), (_, total) in sides.items():
            if not np.isfinite(total).all():
                raise InputError(f"activations of {side} features of layer {layer} are not finite")
        if self.dense:
            for pair, (gated, products) in pairs.items():
                self.gated[pair] += gated
                self.products[pair] += products
        else:
            self._add_sparse(rows, pairs, budget)
        for key, (fired, total) in sides.items():
            self.fired[key], self.total[key] = self.fired[key] + fired, self.total[key] + total
        self.rows += rows
        self.blocks += 1

    def _add_sparse(self, rows: int, pairs: Mapping[Pair, tuple[Any, Any]], budget: int) -> None:
        gated = {pair: self.gated[pair] + pairs[pair][0] for pair in self.pairs}
        products = {pair: self.products[pair] + pairs[pair][1] for pair in self.pairs}
        if (size := sum(_bytes(m) for one in (gated, products) for m in one.values())) > budget:
            raise InputError(
                f"after {self.rows + rows} rows the pairs that met take {size / 2**30:.2f} GiB, more than the budget "
                f"of {budget / 2**30:.2f} GiB: choose fewer features or pairs of layers"
            )
        self.gated, self.products = gated, products

    def merge(self, other: Coactivation) -> Coactivation:
        """The counter of both texts.

        Raises:
          InputError: other features, pairs, dictionaries or model.
        """
        for name in ("pairs", "dense", "made_by"):
            if getattr(self, name) != getattr(other, name):
                raise InputError(f"counters that differ in {name} cannot be added")
        if not (_same(self.sources, other.sources) and _same(self.targets, other.targets)):
            raise InputError("counters of different features cannot be added")
        both = {
            name: {key: value + getattr(other, name)[key] for key, value in getattr(self, name).items()}
            for name in ("fired", "total", "gated", "products")
        }
        return Coactivation(
            self.sources, self.targets, self.pairs, self.dense, self.made_by, self.rows + other.rows,
            self.blocks + other.blocks, **both,
        )  # fmt: skip


def new_counter(
    source: DictionaryConfig, target: DictionaryConfig | None = None, *, pairs: tuple[Pair, ...] | None = None,
    sources: Mapping[int, Any] | None = None, targets: Mapping[int, Any] | None = None, dense: bool | None = None,
    budget: int = BUDGET, made_by: dict[str, str] | None = None,
) -> Coactivation:  # fmt: skip
    """An empty counter.

    Args:
      source, target: what the dictionaries are; ``target`` None means the source's own features.
      pairs: (source layer, target layer), layers as the dictionaries number them; None means every pair with the
        source's layer below the target's.
      sources, targets: layer → features that count; None means all, and layers that are not named have none.
      dense: None takes arrays where they fit into ``budget`` bytes, else sparse matrices.

    Raises:
      InputError: no such layer or feature, no pair, or dense sums beyond the budget (with their size).
    """
    other = target or source
    chosen = [_choose(config, given) for config, given in ((source, sources), (other, targets))]
    if pairs is None:
        pairs = tuple((s, t) for s in chosen[0] for t in chosen[1] if s < t)
    for s, t in pairs:
        for layer, known, what in ((s, chosen[0], "source"), (t, chosen[1], "target")):
            if layer not in known:
                raise InputError(f"no {what} features in layer {layer}: there are in {sorted(known)}")
    if not pairs:
        raise InputError("no pair of layers to count: targets are above sources")
    size = 16 * sum(len(chosen[0][s]) * len(chosen[1][t]) for s, t in pairs)
    if dense and size > budget:
        raise InputError(
            f"dense sums of {len(pairs)} pairs of layers take {size / 2**30:.2f} GiB, more than the budget of "
            f"{budget / 2**30:.2f} GiB: choose fewer features or pairs, or count sparsely"
        )
    mine, theirs = (
        {n: ids for n, ids in one.items() if any(p[i] == n for p in pairs)} for i, one in enumerate(chosen)
    )
    return Coactivation(
        mine, theirs, tuple(pairs), size <= budget if dense is None else dense, dict(made_by or {})
    )


def _choose(config: DictionaryConfig, given: Mapping[int, Any] | None) -> dict[int, np.ndarray]:
    groups, n = kind_of(config).groups(config), config.n_features
    if given is None:
        return {layer: np.arange(n) for layer in range(groups)}
    found = {}
    for layer, ids in given.items():
        ids = np.unique(np.asarray(ids, np.int64))
        if not 0 <= layer < groups or (ids.size and (ids[0] < 0 or ids[-1] >= n)):
            raise InputError(
                f"no such feature in layer {layer}: layers 0 to {groups - 1}, features 0 to {n - 1}"
            )
        if ids.size:
            found[int(layer)] = ids
    return found


def _same(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def _bytes(m: Any) -> int:
    return int(m.data.nbytes + m.indices.nbytes + m.indptr.nbytes)
