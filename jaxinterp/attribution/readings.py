"""What targets read, and targets as linear combinations of it.

A reading is a vector that meets the residual stream at one place: after the final norm, or where a part of the
replacement model reads. A target is a weighted sum of readings, so the rows of the adjacency are computed per
reading and combined on the host.

Letters: C targets, C' readings, D width, L layers, T position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxinterp.graphs.kinds import PART_NAMES

PARTS = PART_NAMES
"""Junctions of a layer, in the order in which the residual stream meets them; a part is known by its place here."""
FINAL = -1
"""The part of a reading after the final norm."""


class Junction(NamedTuple):
    """What a part of the replacement model offers to be read.

    Attributes:
      part: place in `PARTS`.
      read_site: the site of `models.sites` that its encoders read.
      layers: the layers that it covers.
      n_features: features of each of them.
    """

    part: int
    read_site: str
    layers: Sequence[int]
    n_features: int


class Readings(NamedTuple):
    """C' vectors at places of the model; host arrays.

    Attributes:
      layer: [C'] the layer, L for what the unembedding reads after the final norm.
      part: [C'] number of the junction in `PARTS`, `FINAL` for the final norm.
      position: [C'] not negative.
      feature: [C'] feature of that layer and part, whose encoder row and bias the tracer looks up; -1 where
        ``vectors`` says what is read.
      head: [C'] -1.
      vectors: [C', D] in the coordinates of the read site; zero where ``feature`` is not negative. D is the width of
        the widest site that is read (heads side by side, ``attn_z``, may be wider than the residual stream), with
        zeros behind what is narrower.
    """

    layer: np.ndarray
    part: np.ndarray
    position: np.ndarray
    feature: np.ndarray
    head: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Targets:
    """The targets of one graph, in order.

    Attributes:
      readings: what they read.
      combine: [C, C'] float64; target = combine @ readings, and so are its row of the adjacency, its value and
        its constant.
      labels: text of each.
      weights: [C] float64 of each in the influence (the ``probability`` column of its node).
      layer, part, position, index: [C] columns of the target nodes. ``index`` is the token, the feature, or -1;
        ``layer`` is L, except for features, directions and supernodes read inside the model.
    """

    readings: Readings
    combine: np.ndarray
    labels: tuple[str, ...]
    weights: np.ndarray
    layer: np.ndarray
    part: np.ndarray
    position: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def of_readings(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers of readings [C', ...] combined into those of targets [C, ...], of the same dtype.

        For rows, values, constants and what a graph leaves out alike. Sums are taken in float64; a target that is one
        reading with factor 1 has exactly the reading's numbers.
        """
        numbers = np.asarray(numbers)
        alone = np.count_nonzero(self.combine) == len(self) == len(numbers)
        if alone and (np.diagonal(self.combine) == 1).all():
            return numbers
        out = np.zeros((len(self), *numbers.shape[1:]), numbers.dtype)
        for target, factors in enumerate(self.combine):
            parts = np.flatnonzero(factors)
            out[target] = sum(factors[i] * numbers[i].astype(np.float64) for i in parts)
        return out


def values(
    readings: Readings,
    final_norm: np.ndarray,
    read: Mapping[int, np.ndarray],
    constants: np.ndarray | None = None,
) -> np.ndarray:
    """What each reading reads [C'], in float64.

    Args:
      readings: with the encoder rows of features filled in.
      final_norm: [T, D] what the unembedding reads.
      read: part → [L, T, D] what it reads at each layer.
      constants: [C'] encoder biases of features, 0 elsewhere; None for none.

    Returns:
      demeaned logits before any softcap, products with directions, and pre-activations of features.
    """
    found = np.zeros(len(readings.layer)) if constants is None else np.asarray(constants, np.float64).copy()
    for i, (layer, part, position) in enumerate(
        zip(readings.layer.tolist(), readings.part.tolist(), readings.position.tolist(), strict=True)
    ):
        place = np.asarray(final_norm[position] if part == FINAL else read[part][layer, position], np.float64)
        found[i] += readings.vectors[i, : len(place)].astype(np.float64) @ place
    return found
