"""One prompt through its replacement model, for questions about places inside a layer: queries, keys, values of heads.

Letters: C cotangents, D width, T position, n sources.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution import steps
from jaxinterp.attribution.blocks import Block, lengths
from jaxinterp.attribution.effects import Effects
from jaxinterp.attribution.nodes import Layout
from jaxinterp.attribution.readings import FINAL, Readings, Targets
from jaxinterp.attribution.rows import Rows
from jaxinterp.attribution.setup import Setup, fit, set_up
from jaxinterp.core.letters import Array
from jaxinterp.models.generation import check_tokens, prompt_ids
from jaxinterp.models.model import Model, require_ours
from jaxinterp.parallel.mesh import make
from jaxinterp.replacement.layer import LayerSlice
from jaxinterp.replacement.operator import ReplacementOperator, layer_slices

_KEY = ("kind", "part", "layer", "position", "index")


class Replaced(NamedTuple):
    """A prompt, the replacement model that is frozen on it, and its sources.

    Attributes:
      setup: see `setup.Setup`.
      layout: of the sources, which are numbered as the nodes of the whole graph are.
      sources: [n] of dtype `graphs.kinds.NODE`.
    """

    setup: Setup
    layout: Layout
    sources: np.ndarray

    @property
    def tokens(self) -> np.ndarray:
        """[1, T] padded."""
        ids = self.setup.ids
        return np.pad(ids, (0, self.setup.writes.padded - len(ids)))[None]

    @property
    def operator(self) -> ReplacementOperator:
        """Of the padded prompt."""
        return self.setup.operator


def replace(
    model: Model, dictionary: Any, prompt: Any, *, dynamic_tanh: str = "secant", mlp: str = "constant"
) -> Replaced:
    """Make a prompt ready, every source kept apart. Arguments are those of `tracing.trace`.

    Raises:
      InputError: as `tracing.trace` does.
    """
    require_ours(model)
    parts = fit(model, dictionary, mlp)
    ids = check_tokens(model.config, prompt_ids(model, prompt))
    device = min(model.params["embed"]["tokens"].devices(), key=lambda one: one.id)
    setup = set_up(model, parts, ids, mesh=make(devices=[device]), dynamic_tanh=dynamic_tanh)
    biases = table.bias_places(model.config, parts.places, setup.groups, setup.mlp_layers())
    layout = table.lay_out_nodes(setup.groups, len(setup.active), biases, 0, model.config.n_layers, len(ids))
    none, nothing, whole = np.zeros(0), np.zeros((0, 0)), np.zeros(0, np.int32)
    readings = Readings(whole, whole, whole, whole, whole, nothing)
    targets = Targets(readings, nothing, (), none, whole, whole, whole, whole)
    sources = table.table(layout, setup.active, parts.places, ids, targets, none, none)
    return Replaced(setup, layout, sources)


def contributions(at: Replaced, layer: int, position: int, vectors: Array) -> np.ndarray:
    """What every source adds to vectors read in the residual stream before a layer, at one position.

    Args:
      layer: 0 to L - 1.
      vectors: [C, D].

    Returns:
      [n, C].
    """
    walker, count = at.setup.walker, len(vectors)
    length = next(size for size in lengths(at.setup.writes.padded) if size > position)
    found = Effects({}, {}, {}, {}, vectors, None)
    x: Any = jnp.zeros((1, length, count, vectors.shape[1]), vectors.dtype).at[0, position].set(vectors)
    for below in reversed(range(layer)):
        step = steps.advance(walker.operator, walker.layers[below], x, walker.mesh)
        x = step.x
        walker.collect(found, below, step, None)
    embed, learned = steps.finish(x, walker.embed, walker.learned, walker.mesh)
    found = jax.tree.map(lambda leaf: np.asarray(leaf)[0], found._replace(embed=embed, position=learned))
    rows = Rows(at.setup.walkers, at.layout, at.setup.readers, at.setup.active)
    part = rows.assemble(Block(FINAL, length, count, np.arange(count), np.full(count, layer)), found)
    out = np.zeros((len(at.sources), count), part.rows.dtype)
    out[: part.features], out[at.layout.features :] = (
        part.rows[:, : part.features].T,
        part.rows[:, part.features :].T,
    )
    return out


def keys_of(nodes: np.ndarray) -> list[tuple[int, ...]]:
    """(kind, part, layer, position, index) of nodes: by these they are the same in two tables."""
    return list(zip(*(nodes[name].tolist() for name in _KEY), strict=True))


def layer_of(operator: ReplacementOperator, layer: Any) -> LayerSlice:
    """The frozen layer with this number."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, layer, 0, keepdims=False), layer_slices(operator)
    )


def no_reads(operator: ReplacementOperator) -> tuple[Any, ...]:
    """Cotangents of zero of what the places read in one layer."""
    like = operator.out_structure.read
    return tuple(None if one is None else jnp.zeros(one.shape[1:], one.dtype) for one in like)
