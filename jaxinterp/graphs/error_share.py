"""Where a graph's errors are: the share of influence that ends in error nodes, by dictionary and by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.graphs.kinds import ERROR, PART_NAMES

_MOST = 100_000  # layers


@dataclass(frozen=True, eq=False)
class ErrorShare:
    """Shares of the weight of all targets (their probabilities) that end in error nodes.

    total: sum of all; where nothing else takes influence away, 1 - total is what ends in tokens and biases.
    by_layer (layers, 3): by layer and part (attention, mlp, residual), where the error has a layer.
    by_position (positions,).
    """

    total: float
    by_layer: np.ndarray
    by_position: np.ndarray

    def worst(self, k: int = 3) -> list[tuple[int, str, float]]:
        """The k dictionaries whose errors take most: (layer, part, share), largest first."""
        order = np.argsort(-self.by_layer.ravel(), kind="stable")[:k]
        found = [(int(i) // 3, PART_NAMES[int(i) % 3], float(self.by_layer.ravel()[i])) for i in order]
        return [entry for entry in found if entry[2] > 0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "total": self.total,
            "by_layer": self.by_layer.tolist(),
            "by_position": self.by_position.tolist(),
        }


def error_share(nodes: np.ndarray, weights: np.ndarray, n_layers: int, n_positions: int) -> ErrorShare:
    """The shares from a node table (influence filled in) and the weights of its targets (n,)."""
    errors = nodes[nodes["kind"] == ERROR]
    whole = float(weights.sum())
    share = np.nan_to_num(errors["influence"]) / whole if whole > 0 else np.zeros(len(errors))
    layers = max(n_layers, int(errors["layer"].max(initial=-1)) + 1)
    if layers > _MOST:
        raise InputError(f"the graph has a node at layer {layers - 1}, which is beyond any model")
    placed = errors["layer"] >= 0  # files by others may have errors without a layer
    place = errors["layer"][placed].astype(np.int64) * 3 + errors["part"][placed]
    by_layer = np.bincount(place, weights=share[placed], minlength=3 * layers).reshape(layers, 3)
    by_position = np.bincount(errors["position"], weights=share, minlength=n_positions)
    return ErrorShare(float(share.sum()), by_layer, by_position)
