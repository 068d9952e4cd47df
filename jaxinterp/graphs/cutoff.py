"""The score at which the strongest items hold a given share of the whole, found without sorting all items."""

from __future__ import annotations

import numpy as np

TIE = 1e-12
_FEW = 4096  # items that are sorted


def cutoff(scores: np.ndarray, share: float) -> float:
    """The score from which on items are kept: that of the item with which the strongest first reach this share.

    Less a relative 1e-12, so that rounding does not part equal scores, such as those of the edges along a chain.
    scores (n,) at least 0. Time grows with n: items are counted by the leading bits of their scores, which stand
    in the order of the scores, and only those in the bucket where the share is reached are looked at further.
    """
    left = np.ascontiguousarray(scores[scores > 0], np.float64)
    total, above = float(left.sum()), 0.0
    if total <= 0:
        return 0.0
    for shift in (48, 32, 16, 0):
        if len(left) <= _FEW:
            break
        keys = ((left.view(np.uint64) >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
        sums = np.bincount(keys, weights=left, minlength=1 << 16)[::-1]
        running = above + np.cumsum(sums)
        filled = np.flatnonzero(sums)
        at = int(np.clip(np.searchsorted(running / total, share), filled[0], filled[-1]))
        above = float(running[at - 1]) if at else above
        left = left[keys == 0xFFFF - at]
    ordered = np.sort(left)[::-1]
    at = int(np.searchsorted((above + np.cumsum(ordered)) / total, share))
    return float(ordered[min(at, len(ordered) - 1)]) * (1 - TIE)
