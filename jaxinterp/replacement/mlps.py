"""MLPs that no dictionary stands for: their tangent on the prompt, a linear map and a constant.

Letters: B batch, T position, D width, L layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.mlp import mlp
from jaxinterp.models.weights import runs


class MlpLine(NamedTuple):
    """MLPs as straight lines; with a leading L for all layers.

    Attributes:
      at: [B, T, D] what the MLP reads on the prompt, where its Jacobian is taken.
      offset: [B, T, D] its output there less the Jacobian times ``at``.
    """

    at: Array
    offset: Array


def mlp_of_layer(
    params: Tree, config: ModelConfig, weights: Tree, layer: Array, x: Array, precision: Any
) -> Array:
    """The MLP or mixture of experts of one layer: x [B, T, D] → [B, T, D], before a post-norm.

    Args:
      params: of the model, of which mixtures are looked up without a copy.
      weights: of that layer, from ``params["layers"]``.
      layer: its number, an integer array.
    """
    if config.experts is None:
        return mlp(weights, config, x, precision)
    kinds = [run.mlp for run in runs(config) for _ in range(run.start, run.stop)]
    offsets = [run.offset + i for run in runs(config) for i in range(run.stop - run.start)]
    place = jnp.asarray(offsets, jnp.int32)[layer]

    def of(kind: str) -> Any:
        def call(x: Array) -> Array:
            def take(leaf: Array) -> Array:
                return jax.lax.dynamic_index_in_dim(leaf, place, keepdims=False)

            own = jax.tree.map(take, params[kind])
            # Every expert for every token: products that sort tokens by expert have no transpose under vmap.
            return mlp({"experts": own} if kind == "experts" else own, config, x, precision, "dense")

        return call

    present = sorted(set(kinds))
    if len(present) == 1:
        return of(present[0])(x)
    return jax.lax.cond(
        jnp.asarray([kind == present[1] for kind in kinds])[layer], of(present[1]), of(present[0]), x
    )


def mlp_lines(params: Tree, config: ModelConfig, read: Array, written: Array, precision: Any) -> MlpLine:
    """The lines of every layer's MLP, given what it reads and writes on the prompt, [L, B, T, D]."""

    def offset(inputs: Any) -> Array:
        weights, layer, x, y = inputs
        call = lambda x: mlp_of_layer(params, config, weights, layer, x, precision)  # noqa: E731
        return y - jax.jvp(call, (x,), (x,))[1]

    layers = jnp.arange(config.n_layers, dtype=jnp.int32)
    return MlpLine(read, jax.lax.map(offset, (params["layers"], layers, read, written)))
