"""What a run keeps of every feature of a layer while blocks go by.

Letters: N features, R tokens of a block, W tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxinterp.dashboards import histogram
from jaxinterp.interpret import pairs as active
from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.keeping import Best, Candidates
from jaxinterp.interpret.texts import mix


class BlockTexts(NamedTuple):
    """What counting needs to know of a block's tokens: [R] each.

    Attributes:
      first: the number of the first token among those of the run.
      document: which document of the block, ascending.
      text: the number of the text around each.
      use: which count.
      sampled: of which it is noted which features are active together.
    """

    first: int
    document: np.ndarray
    text: np.ndarray
    use: np.ndarray
    sampled: np.ndarray


class Tally:
    """Of one layer.

    Attributes:
      counts: the histogram of each feature, uint32 [N, 512].
      top, sample: the texts that are kept.
      seen: tokens that count.
      together: tokens and features of the sample's active pairs, int64 [2, P] each.
    """

    def __init__(self, number: int, features: int, config: DashboardConfig) -> None:
        self.number, self.features, self.config = number, features, config
        self.counts = np.zeros((features, histogram.BINS), np.uint32)
        self.top = Best(features, config.top, config.window, np.float32)
        self.sample = Best(features, config.quantiles * config.in_quantile, config.window, np.uint64)
        # Numbers that make the sample of each feature another one.
        own = np.uint64(number) * np.uint64(1 << 32) + np.arange(features, dtype=np.uint64)
        self._own = mix(own + np.uint64(1))
        self.together: list[np.ndarray] = []
        self.seen = 0

    def take(self, row: np.ndarray, feature: np.ndarray, value: np.ndarray, texts: BlockTexts) -> None:
        """Count the active pairs of a block, which come row by row."""
        self.seen += int(texts.use.sum())
        if not texts.use.all():
            good = texts.use[row]
            row, feature, value = row[good], feature[good], value[good]
        if texts.sampled.any():
            seen = np.flatnonzero(texts.sampled[row])
            noted = np.stack([texts.first + row[seen].astype(np.int64), feature[seen].astype(np.int64)])
            self.together.append(noted)
        pairs = active.by_feature(row, feature, value, texts.document, self.features)
        where = pairs.feature.astype(np.int64) * histogram.BINS + histogram.bins(pairs.value)
        np.add.at(self.counts.reshape(-1), where, np.uint32(1))
        peaks = active.peaks(pairs)
        text = texts.text[peaks.row]
        place = texts.first + peaks.row.astype(np.int64)
        config = self.config

        def windows(chosen: np.ndarray) -> np.ndarray:
            return active.windows(pairs, chosen, config.before, config.after)

        self.top.offer(Candidates(peaks.feature, text, -peaks.value, peaks.value, place, peaks.pair), windows)
        if config.quantiles:
            rank = mix(text ^ self._own[peaks.feature])
            self.sample.offer(Candidates(peaks.feature, text, rank, peaks.value, place, peaks.pair), windows)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Everything, by name."""
        yield "counts", self.counts
        yield "seen", np.array(self.seen)
        for name, best in (("top", self.top), ("sample", self.sample)):
            yield from ((f"{name}.{key}", array) for key, array in best.arrays().items())
        yield "together", self.noted()

    def noted(self) -> np.ndarray:
        """`together` as one array."""
        return np.concatenate([np.zeros((2, 0), np.int64), *self.together], axis=1)

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `arrays` gave."""
        self.counts[...], self.seen = arrays["counts"], int(arrays["seen"])
        self.together = [arrays["together"]]
        for name, best in (("top", self.top), ("sample", self.sample)):
            best.restore({key: arrays[f"{name}.{key}"] for key in best.arrays()})


def bytes_of(features: int, config: DashboardConfig) -> int:
    """What a `Tally` takes in memory, without what is noted of features active together."""
    slots = config.top + config.quantiles * config.in_quantile
    return features * (4 * histogram.BINS + slots * (8 + 8 + 4 + 8 + 4 + 4 * config.window) + 32)
