"""Rows of the adjacency: walks for targets and features in padded blocks, on one device or many.

Letters: C targets of a block, D width, T position.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution.effects import Block, Effects, final_vectors, walk_blocks
from jaxinterp.attribution.sources import Active, Writes
from jaxinterp.attribution.targets import Targets
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.replacement.operator import ReplacementOperator

BLOCK = 128
"""Targets of one block. Fixed, so that neither the number of devices nor of targets changes a result."""


class Rows:
    """Computes rows over every node of a graph; see `nodes.rows` for what a row holds. ``rows``: `Found.rows`."""

    def __init__(
        self, operator: ReplacementOperator, writes: Writes, embed: Array, layout: table.Layout,
        rows: Dictionary, active: Active, mesh: Mesh,
    ) -> None:  # fmt: skip
        self.operator, self.writes, self.embed, self.layout = operator, writes, embed, layout
        self.small, self.active, self.mesh = rows, active, mesh
        self.together = mesh.shape["data"] * BLOCK

    def of_targets(self, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        """(rows [C, n], effects left out [C]) of a graph's targets."""
        config = self.operator.config
        found, outside = [], []
        for part in self._parts(len(targets.tokens)):
            padded = self._pad(targets.vectors[part]).reshape(-1, BLOCK, config.d_model)
            # Block by block, because another batch shape may round differently.
            pieces = [_final_vectors(self.operator, block) for block in padded]
            vectors, bias = (np.concatenate(column) for column in zip(*pieces, strict=True))
            positions = np.full(part.stop - part.start, self.operator.n_tokens - 1)
            effects = self._walk(config.n_layers, positions, vectors)
            final = bias[: len(positions)] if config.has_norm_biases else None
            rows, left = table.rows(self.layout, effects, final)
            found.append(rows)
            outside.append(left)
        return np.concatenate(found), np.concatenate(outside)

    def of_features(self, features: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(node numbers, rows, effects left out) block by block, in node order."""
        features = np.sort(features)
        params, config = self.small.params, self.small.config
        for layer in range(config.n_layers):
            numbers = features[self.active.layer[features] == layer]
            for part in self._parts(len(numbers)):
                index = self._pad(self.active.place[numbers[part]])
                vectors = _encoder_rows(params, config, np.int32(layer), index)
                effects = self._walk(layer, self.active.position[numbers[part]], vectors)
                rows, left = table.rows(self.layout, effects, None)
                yield numbers[part], rows, left

    def _parts(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.together):
            yield slice(start, min(start + self.together, count))

    def _pad(self, values: np.ndarray) -> np.ndarray:
        """Zeros up to whole blocks, one for every device."""
        return np.pad(values, [(0, self.together - len(values))] + [(0, 0)] * (values.ndim - 1))

    def _walk(self, layer: int, positions: np.ndarray, vectors: Any) -> Effects:
        """Effects on targets of one layer, on the host, without padding. ``vectors`` [together, D]."""
        devices = self.mesh.shape["data"]
        block = Block(
            vectors.reshape(devices, BLOCK, -1),
            self._pad(positions.astype(np.int32)).reshape(devices, BLOCK),
            np.full(devices, layer, np.int32),
        )
        effects = walk_blocks(self.operator, self.writes, self.embed, block, self.mesh)
        return jax.tree.map(partial(_unblock, len(positions)), effects)


def _unblock(count: int, blocks: Any) -> np.ndarray:
    return np.asarray(blocks).reshape(-1, *blocks.shape[2:])[:count]


_final_vectors = jax.jit(final_vectors)


@partial(jax.jit, static_argnums=1)
def _encoder_rows(params: Any, config: DictionaryConfig, layer: Array, features: Array) -> Array:
    return kind_of(config).encoder_rows(params, config, layer, features)
