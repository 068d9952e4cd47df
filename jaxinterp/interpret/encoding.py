"""Feature activations of blocks over a mesh: the forward pass and the encoders in one program.

Every way of the mesh (a part over which sequences are divided no further) runs the same program on one block, so the
bytes of a block do not depend on how many there are.

Letters: W ways, b sequences a block, T tokens of each, R = b T, L layers, G groups of features, N features, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.collect_mesh import place, values_of
from jaxinterp.activations.text import Batch
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.evaluation import applying
from jaxinterp.interpret import pairs
from jaxinterp.models.expert_parallel import OnMesh
from jaxinterp.models.model import Model
from jaxinterp.parallel import weights
from jaxinterp.parallel.rules import Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row, feature and value of the active pairs of one block and group, row by row."""


class Encoding:
    """The compiled programs.

    Args:
      model, dictionary: which fit each other.
      groups: the dictionary's groups of features that are wanted.
      layers: the model's layers that the dictionary's are.
      mesh, rules: where.
      block, length: b and T.
      compact: whether pairs are chosen on the device: the largest of each token, as many as the first block shows to
        be enough (a block with a token that has more is fetched whole). None does so but on CPUs, where fetching
        costs nothing.
    """

    def __init__(
        self, model: Model, dictionary: Dictionary, groups: Sequence[int], layers: Sequence[int], mesh: Mesh,
        rules: Rules, *, block: int, length: int, compact: bool | None = None,
    ) -> None:  # fmt: skip
        from jax.sharding import NamedSharding, PartitionSpec

        self.block, self.length, self.groups = block, length, tuple(groups)
        self.size = dictionary.config.n_features
        axes = rules.targets("batch", mesh)
        self.ways = math.prod(mesh.shape[axis] for axis in axes)
        self.rows = NamedSharding(mesh, PartitionSpec(axes or None))
        self._out = NamedSharding(mesh, PartitionSpec(None, axes or None))
        self._params = place(model, mesh, rules)
        declared = kind_of(dictionary.config).declare(dictionary.config)
        fitting = weights.fitting(declared, mesh, rules)
        self._dictionary = jax.device_put(dictionary.params, weights.shardings(declared, mesh, fitting))
        self._run = encoder(model, dictionary, self.groups, tuple(layers), OnMesh(mesh, rules))
        self._dense = jax.jit(self._run, out_shardings=self._out)
        platform = mesh.devices.flat[0].platform
        self.compact = platform != "cpu" if compact is None else compact
        self.most = 0
        self._chosen: Any = None

    def start(self, batches: list[Batch]) -> Callable[[], list[list[Found]]]:
        """Begin with up to W blocks; the returned function waits and gives the pairs of each block, group by group."""
        empty = np.zeros((self.block, self.length), np.int32)
        placed = []
        for field in ("tokens", "segments", "positions"):
            arrays = [np.asarray(getattr(batch, field), np.int32) for batch in batches]
            arrays += [empty] * (self.ways - len(arrays))
            placed.append(jax.device_put(np.concatenate(arrays), self.rows))
        arguments = (self._params, self._dictionary, *placed)
        if not self.compact or not self._chosen:
            found = self._dense(*arguments)
            return lambda: self._whole(found, len(batches))
        parts = self._chosen(*arguments)
        return lambda: self._few(parts, arguments, len(batches))

    def _whole(self, found: jax.Array, blocks: int) -> list[list[Found]]:
        per_way = _by_way(found, self.block * self.length)
        result = [[pairs.from_dense(group) for group in per_way[way]] for way in range(blocks)]
        if self.compact and not self._chosen:
            counts = [np.bincount(row, minlength=1).max() for block in result for row, _, _ in block]
            # Twice of what was seen, and no more than a quarter of all: else fetching everything is as good.
            self.most = min(max(16, 2 ** math.ceil(math.log2(2 * max([1, *counts])))), self.size)
            self._chosen = jax.jit(self._choose, out_shardings=(self._out, self._out, self._out))
        return result

    def _choose(self, *arguments: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The largest of each row, their features, and how many are active: ``[G, W R, k]`` twice, ``[G, W R]``."""
        found = self._run(*arguments)
        values, features = jax.lax.top_k(found, self.most)
        return values, features, jnp.sum(found > 0, axis=-1, dtype=jnp.int32)

    def _few(self, parts: Any, arguments: Any, blocks: int) -> list[list[Found]]:
        size = self.block * self.length
        values, features, counts = (_by_way(part, size) for part in parts)
        if max(counts[way].max() for way in range(blocks)) > self.most:
            return self._whole(self._dense(*arguments), blocks)
        return [
            [pairs.from_chosen(*one) for one in zip(values[way], features[way], strict=True)]
            for way in range(blocks)
        ]


def encoder(
    model: Model, dictionary: Dictionary, groups: tuple[int, ...], layers: tuple[int, ...], dispatch: Any
) -> Callable[..., jax.Array]:
    """``(weights, dictionary's parameters, tokens [B, T], segments, positions)`` → float32 ``[G, B T, N]``."""
    config, kind = dictionary.config, kind_of(dictionary.config)
    forward = values_of(model, [config.read_site], dispatch)
    alone = not kind.sequences and kind.groups(config) == config.n_layers and len(groups) < config.n_layers

    def run(params: Any, own: Any, tokens: jax.Array, segments: jax.Array, positions: jax.Array) -> jax.Array:
        x = forward(params, tokens, segments, positions)[config.read_site]
        if layers != tuple(range(x.shape[0])):
            x = jnp.take(x, np.asarray(layers, np.int32), axis=0)
        if alone:
            flat = x.reshape(x.shape[0], -1, x.shape[-1])
            a = jnp.stack([kind.encode_layer(own, config, group, flat[group]) for group in groups])
        else:
            a = applying.encode(Dictionary(own, config), x, positions, segments)
            if len(groups) < a.shape[0]:
                a = jnp.take(a, np.asarray(groups, np.int32), axis=0)
            a = a.reshape(a.shape[0], -1, a.shape[-1])
        return a.astype(jnp.float32)

    return run


def _by_way(array: jax.Array, size: int) -> list[np.ndarray]:
    """``[G, W size, ...]`` cut into ways; what lies on one device of this machine is looked at, not copied."""
    found: dict[int, np.ndarray] = {}
    for shard in array.addressable_shards:
        begin = shard.index[1].start or 0
        if begin // size not in found:
            found[begin // size] = np.asarray(shard.data)
    return [found[way] for way in sorted(found)]
