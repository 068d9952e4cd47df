"""Feature splitting: what becomes of the features of a small dictionary in a larger one (the resolution knob).

A feature of the larger dictionary belongs to its best match in the smaller one, if that is above a threshold (*Towards
Monosemanticity*, "feature splitting", where links are cosines above 0.4). A feature of the smaller one has split if two
or more belong to it, is covered if one or more do; a feature of the larger one is new if it belongs to none.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.evaluation.matching import best
from jaxinterp.evaluation.similarity import Cosine, Similarity, decoders

LINK = 0.4


@dataclass(frozen=True)
class Splitting:
    """What became of the features of a smaller dictionary.

    Attributes:
      parent: [N'], the feature that each of the larger dictionary belongs to, -1 for none.
      children: [N], how many belong to each of the smaller dictionary.
      threshold: above which a match is a link.
      null_linked: share of the larger dictionary's features that would have a link by chance.
    """

    parent: np.ndarray
    children: np.ndarray
    threshold: float
    null_linked: float

    def of(self, feature: int) -> np.ndarray:
        """The features of the larger dictionary that a feature of the smaller one became."""
        return np.flatnonzero(self.parent == feature)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        covered = self.children > 0
        return {
            "coarse_features": len(self.children),
            "fine_features": len(self.parent),
            "threshold": self.threshold,
            "covered": float(covered.mean()),
            "split": float((self.children > 1).mean()),
            "children_of_covered": float(self.children[covered].mean()) if covered.any() else None,
            "new": float((self.parent < 0).mean()),
            "linked_by_chance": self.null_linked,
        }


def splitting(similarity: Similarity, *, threshold: float = LINK, seed: int = 0) -> Splitting:
    """Which features of a larger dictionary belong to which of a smaller one.

    Args:
      similarity: of the smaller dictionary's features with the larger one's.
      threshold: the least score of a link.
      seed: of the null, one draw of which says how many links chance makes.
    """
    found = best(similarity)
    parent = np.where(found.back_score > threshold, found.back, -1)
    children = np.bincount(parent[parent >= 0], minlength=similarity.shape[0])
    null = best(similarity.null(jax.random.key(seed)))
    return Splitting(parent, children, threshold, float((null.back_score > threshold).mean()))


def resolution(
    dictionaries: Sequence[Dictionary], group: int = 0, *, threshold: float = LINK, seed: int = 0
) -> list[dict[str, Any]]:
    """Splitting from each size to the next: what turning the knob does.

    Args:
      dictionaries: of one model and the same sites and layers, in any order.
      group: the layer (of the dictionaries) whose features are followed.
      threshold, seed: see `splitting`.

    Returns:
      For every two neighbours in size what `Splitting.to_dict` says, and the names of both.

    Raises:
      InputError: fewer than two dictionaries, two of one size, or different sites or layers.
    """
    ordered = sorted(dictionaries, key=lambda d: d.config.n_features)
    if len(ordered) < 2:
        raise InputError(f"splitting: {len(ordered)} dictionaries, expected at least two sizes")
    for small, large in itertools.pairwise(ordered):
        if small.config.n_features == large.config.n_features:
            raise InputError(
                f"splitting: {small.name or 'one'} and {large.name or 'another'} both have "
                f"{small.config.n_features} features"
            )
        for field in ("kind", "read_site", "write_site", "n_layers", "layers"):
            one, two = getattr(small.config, field), getattr(large.config, field)
            if one != two:
                raise InputError(f"splitting: {field} is {one!r} in one dictionary and {two!r} in another")
    vectors = [decoders(d, group) for d in ordered]
    return [
        {
            "from": ordered[i].name,
            "to": ordered[i + 1].name,
            **splitting(Cosine(vectors[i], vectors[i + 1]), threshold=threshold, seed=seed).to_dict(),
        }
        for i in range(len(ordered) - 1)
    ]
