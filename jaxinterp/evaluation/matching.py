"""Which features of two dictionaries are the same: best match, one to one, and what chance would give.

A match is judged against a null (see `similarity`): the share of null draws in which the same feature's best match is
at least as good is its p-value, ``(1 + count) / (1 + draws)``, uniform where the null holds; the quantile of all
features' null matches is a threshold that does not depend on the draws of one feature.

Letters: N, N' features of the two dictionaries, B features of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.evaluation.similarity import Similarity

BLOCK = 1024
HUNGARIAN = 4096
DRAWS = 10
THRESHOLDS = (0.5, 0.7, 0.9)


class Best(NamedTuple):
    """The best match of every feature in both directions; the first one where several are equal.

    Attributes:
      partner, score: [N], of the first dictionary's features.
      back, back_score: [N'], of the second's.
    """

    partner: np.ndarray
    score: np.ndarray
    back: np.ndarray
    back_score: np.ndarray


class Pairs(NamedTuple):
    """Features matched one to one, in the order of the first dictionary: ``first``, ``second`` and ``score``."""

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Matching:
    """Best matches beside chance.

    Attributes:
      best: of the features as they are.
      null: [draws, N], scores of the best matches in every draw of the null.
      p: [N], the p-value of each feature's best match.
    """

    best: Best
    null: np.ndarray
    p: np.ndarray

    def quantile(self, share: float = 0.99) -> float:
        """The score that a share of the null's matches stay below."""
        return float(np.quantile(self.null, share))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready summary: means, shares above thresholds (and those of the null), both directions."""
        scores, back = self.best.score, self.best.back_score
        limit = self.quantile()
        return {
            "features": len(scores),
            "others": len(back),
            "mean_best": float(scores.mean()),
            "median_best": float(np.median(scores)),
            "mean_best_back": float(back.mean()),
            "null_draws": len(self.null),
            "null_mean_best": float(self.null.mean()),
            "null_quantile_99": limit,
            "above_null_99": float((scores > limit).mean()),
            "share_p_below_5_percent": float((self.p <= 0.05).mean()) if len(self.null) >= 19 else None,
            "above": {
                str(t): {
                    "share": float((scores > t).mean()),
                    "back": float((back > t).mean()),
                    "null": float((self.null > t).mean()),
                }
                for t in THRESHOLDS
            },
        }


def best(similarity: Similarity, block: int = BLOCK) -> Best:
    """Every feature's best match, in both directions, in one pass over blocks."""
    n, others = similarity.shape
    index, score = np.zeros(n, np.int64), np.full(n, -np.inf)
    back_index, back_score = np.zeros(others, np.int64), np.full(others, -np.inf)
    for start, values in _blocks(similarity, block):
        part = slice(start, start + len(values))
        index[part] = values.argmax(axis=1)
        score[part] = values.max(axis=1)
        top = values.argmax(axis=0)
        found = values[top, np.arange(others)]
        better = found > back_score
        back_index[better], back_score[better] = start + top[better], found[better]
    return Best(index, score, back_index, back_score)


def matching(similarity: Similarity, *, draws: int = DRAWS, seed: int = 0, block: int = BLOCK) -> Matching:
    """Best matches, and those of ``draws`` nulls.

    Raises:
      InputError: fewer than one draw.
    """
    if draws < 1:
        raise InputError(f"matching: {draws} draws of the null, expected at least 1")
    found = best(similarity, block)
    key = jax.random.key(seed)
    null = np.stack(
        [best(similarity.null(jax.random.fold_in(key, draw)), block).score for draw in range(draws)]
    )
    return Matching(found, null, (1 + (null >= found.score[None]).sum(axis=0)) / (1 + draws))


def one_to_one(similarity: Similarity, *, limit: int = HUNGARIAN, block: int = BLOCK) -> Pairs:
    """The matching of every feature of the smaller dictionary whose scores have the largest sum (Hungarian).

    Raises:
      InputError: more than ``limit`` features on a side, for which it would take hours; `greedy` does not.
    """
    from scipy.optimize import linear_sum_assignment

    n, others = similarity.shape
    if max(n, others) > limit:
        raise InputError(
            f"matching: an exact one-to-one matching of {n} with {others} features needs the whole matrix and time "
            f"that grows with its cube; the limit is {limit}, the greedy matching has none"
        )
    whole = np.concatenate([values for _, values in _blocks(similarity, block)])
    first, second = linear_sum_assignment(whole, maximize=True)
    return Pairs(first, second, whole[first, second])


def greedy(similarity: Similarity, *, least: float = 0.0, block: int = BLOCK) -> Pairs:
    """One to one, the best pair first, then the best pair of the rest, while scores are above ``least``.

    In every round all pairs are taken that are each other's best: exactly those that would be taken one by one.
    """
    n, others = similarity.shape
    left, free = np.arange(n), np.ones(others, bool)
    firsts, seconds, scores = [], [], []
    while len(left) and free.any():
        index, score = np.zeros(len(left), np.int64), np.full(len(left), -np.inf)
        back, back_score = np.full(others, -1), np.full(others, -np.inf)
        for start in range(0, len(left), block):
            own = left[start : start + block]
            values = np.where(free[None], _rows(similarity, own, block), -np.inf)
            index[start : start + block], score[start : start + block] = values.argmax(1), values.max(1)
            top = values.argmax(axis=0)
            found = values[top, np.arange(others)]
            better = found > back_score
            back[better], back_score[better] = start + top[better], found[better]
        chosen = (back[index] == np.arange(len(left))) & (score > least)
        if not chosen.any():
            break
        firsts.append(left[chosen])
        seconds.append(index[chosen])
        scores.append(score[chosen])
        free[index[chosen]] = False
        left = left[~chosen & (score > least)]
    if not firsts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    order = np.argsort(np.concatenate(firsts))
    return Pairs(*(np.concatenate(parts)[order] for parts in (firsts, seconds, scores)))


def _rows(similarity: Similarity, own: np.ndarray, block: int) -> np.ndarray:
    """Rows of any ascending numbers, by way of the blocks that they are in."""
    parts = []
    for start in np.unique(own // block) * block:
        here = own[(own >= start) & (own < start + block)]
        stop = min(int(start) + block, similarity.shape[0])
        parts.append(similarity.block(int(start), stop)[here - start])
    return np.concatenate(parts)


def _blocks(similarity: Similarity, block: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, similarity.shape[0], block):
        yield start, similarity.block(start, min(start + block, similarity.shape[0]))
