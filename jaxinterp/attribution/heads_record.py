"""Edges of a graph opened into the attention heads that carry them.

Letters: H heads, L layers, m edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json

SIDES = ("last", "first")


@dataclass(frozen=True, eq=False)
class HeadLoadings:
    """Edges as sums over heads: ``direct + heads.sum() == weights``, to rounding.

    Attributes:
      by: "last": a path counts for the last head that it passes before the target; "first": for the first after the
        source. For edges through one layer they are the same, the head loadings of Kamath et al. 2025.
      source, target: [m] nodes of the graph.
      weights: [m] the sums.
      direct: [m] paths that pass no head.
      heads: [m, L, H] paths through each.
      off: the largest difference between a sum and the graph's edge, relative to the sum of the absolute values of all
        edges of its target in the graph.
      graph: digest of the record of the graph whose nodes are meant ("" if it has none).
    """

    by: str
    source: np.ndarray
    target: np.ndarray
    direct: np.ndarray
    heads: np.ndarray
    off: float
    graph: str = ""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def weights(self) -> np.ndarray:
        """[m] float64."""
        return self.direct.astype(np.float64) + self.heads.sum(axis=(1, 2), dtype=np.float64)

    def edge(self, source: int, target: int) -> int:
        """The number of an edge. Raises InputError where it was not opened."""
        found = np.flatnonzero((self.source == source) & (self.target == target))
        if not len(found):
            raise InputError(f"the edge from node {source} to node {target} was not opened")
        return int(found[0])

    def strongest(self, edge: int, top: int = 10) -> tuple[list[tuple[int, int, float]], float]:
        """The ``top`` heads of an edge by absolute loading, (layer, head, loading), and the sum of all others."""
        loadings = self.heads[edge]
        order = np.argsort(-np.abs(loadings), axis=None, kind="stable")[:top]
        found = [
            (int(layer), int(head), float(loadings[layer, head]))
            for layer, head in zip(*np.unravel_index(order, loadings.shape), strict=True)
            if loadings[layer, head]
        ]
        return found, float(loadings.sum(dtype=np.float64) - sum(value for _, _, value in found))

    def of_heads(self) -> np.ndarray:
        """[L, H] the sum of absolute loadings over all edges: which heads the graph runs through."""
        return np.abs(self.heads).sum(axis=0, dtype=np.float64)

    def to_dict(self, top: int = 8) -> dict[str, Any]:
        """JSON values: of every edge what passes no head, its ``top`` heads, and the sum of the others."""
        edges = []
        for edge in range(len(self)):
            found, rest = self.strongest(edge, top)
            edges.append(
                {
                    "source": int(self.source[edge]),
                    "target": int(self.target[edge]),
                    "direct": float(self.direct[edge]),
                    "heads": [list(one) for one in found],
                    "rest": rest,
                }
            )
        shape = list(self.heads.shape[1:])
        return {"by": self.by, "graph": self.graph, "shape": shape, "off": self.off, "edges": edges}

    def save(self, path: str | PathLike[str], top: int = 8) -> None:
        """Write `to_dict` as JSON, to lie beside the graph's file."""
        write_json(path, self.to_dict(top), indent=None)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> HeadLoadings:
        """What `save` wrote. Raises InputError where it is something else."""
        return cls.from_dict(read_json(path))

    @classmethod
    def from_dict(cls, values: Any) -> HeadLoadings:
        """What `to_dict` keeps: heads that it left out are zero, and their sum is in ``direct``.

        Raises:
          InputError: other keys or types, a layer or head outside the shape.
        """
        try:
            layers, heads = (int(one) for one in values["shape"])
            edges = list(values["edges"])
            if (
                values["by"] not in SIDES
                or not 0 < layers * heads < 1 << 24
                or layers * heads * len(edges) > 1 << 27
            ):
                raise ValueError(f"by {values['by']!r}, {layers} layers, {heads} heads, {len(edges)} edges")
            table = np.zeros((len(edges), layers, heads))
            for row, edge in zip(table, edges, strict=True):
                for layer, head, value in edge["heads"]:
                    if not (0 <= layer < layers and 0 <= head < heads):
                        raise ValueError(f"head {layer}.{head}")
                    row[layer, head] = float(value)
            source, target = (
                np.asarray([int(e[name]) for e in edges], np.int64) for name in ("source", "target")
            )
            direct = np.asarray([float(e["direct"]) + float(e["rest"]) for e in edges])
            return cls(
                values["by"], source, target, direct, table, float(values["off"]), str(values["graph"])
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(f"these are no head loadings of ours: {error}") from error
