"""A block of rows as one program on a mesh, for dictionaries that only many chips together can hold.

`effects.Walker` gives each device blocks of its own and streams decoder rows to it. Here one block lies on the whole
mesh: targets over "data", width over "model", and decoders over both, features over "data". The way down the layers is
one loop, whose body transposes a layer and then goes through the pairs of layers that write there: each chip takes from
its part of the dictionary the rows of active features that it has, and contracts its part of the width.

A dictionary that stands for every MLP, and nothing else, is what this does.

Letters: L layers, T position (padded), C targets, D width, K slots, N features, P pairs of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxinterp.attribution import nodes as table
from jaxinterp.attribution.steps import at_positions, light, stacked_slices
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.graphs.kinds import BIAS_NAMES
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules
from jaxinterp.replacement.layer import LayerSlice, layer_transpose
from jaxinterp.replacement.operator import ReplacementOperator

GRADIENT = P(None, "data", "model")
"""Of gradients [T, C, D], of decoders [P, N, D] and of effects [L, C, T, K]."""


class Given(NamedTuple):
    """What blocks of one prompt are computed from: arrays, or in their place shapes or shardings.

    Attributes:
      operator: without weights of layers (`steps.light`). layers: they, every field with a leading L.
      decoders: [P, N, D], see `Pairs`.
      feature: [L, T, K] numbers of active features, any where a slot is empty. activation: [L, T, K], zero there.
      error: [L, T, D] error vectors. embed: [T, D]. learned: [T, D] learned positions, or None.
    """

    operator: ReplacementOperator
    layers: LayerSlice
    decoders: Any
    feature: Any
    activation: Any
    error: Any
    embed: Any
    learned: Any


class BlockEffects(NamedTuple):
    """Direct effects on the targets of a block.

    Attributes:
      feature: [L, C, T, K]. error, decoder: [L, T, C] error nodes, decoder biases.
      attention, norm: [L, T, C] biases of layers; None where the model has none. final: [T, C] the final norm's.
      embed, position: [T, C] token embeddings, and learned positions or None.
    """

    feature: Array
    error: Array
    decoder: Array
    attention: Array | None
    norm: Array | None
    final: Array | None
    embed: Array
    position: Array | None


class Pairs(NamedTuple):
    """The pairs of layers between which a dictionary writes, ascending by the layer that is written.

    Attributes:
      first: [L + 1], pairs ``first[t]`` to ``first[t + 1]`` write layer t.
      source: [P] the layer of each pair's features. row: [P] where its decoders stand.
    """

    first: np.ndarray
    source: np.ndarray
    row: np.ndarray


def pairs_of(config: DictionaryConfig) -> Pairs:
    """The pairs of a dictionary. Decoders that are the same into every layer stand once."""
    pairs = sorted((target, source) for source, target in kind_of(config).writes(config))
    target, source = (np.array([pair[i] for pair in pairs], np.int32) for i in (0, 1))
    first = np.searchsorted(target, np.arange(config.n_layers + 1)).astype(np.int32)
    return Pairs(first, source, source if config.tied else np.arange(len(pairs), dtype=np.int32))


def decoders_of(params: Tree, config: DictionaryConfig) -> Array:
    """[P, N, D] in the order of `pairs_of`."""
    found = params["W_dec"]
    return jnp.concatenate(found) if isinstance(found, tuple | list) else found


def given(found: Any, slots: int | None = None) -> Given:
    """What blocks are computed from, of a prompt's `setup.Setup` whose dictionary is in memory.

    Args:
      slots: K; None takes as many as the fullest position needs.

    Raises:
      InputError: another replacement model than one dictionary for every MLP, one that is opened lazily, or more
        active features than slots.
    """
    check_places(found.parts.places, found.operator.config.n_layers)
    if len(found.walkers) > 1 or found.operator.live:
        raise InputError("a block is divided over a mesh where norms and patterns are frozen, not live")
    dictionary = found.parts.dictionaries[0]
    if not isinstance(dictionary, Dictionary):
        raise InputError(
            "a block is divided over a mesh for a dictionary in memory, this one is opened lazily"
        )
    feature, activation = _in_slots(found.groups, found.writes.padded, slots)
    error = np.stack([found.writes.errors[0, layer] for layer in range(len(found.groups))])
    return Given(
        light(found.operator), stacked_slices(found.operator), decoders_of(dictionary.params, dictionary.config),
        feature, activation, error, found.walker.embed, found.operator.positions,
    )  # fmt: skip


def check_places(places: Sequence[Any], n_layers: int) -> None:
    """Refuse replacement models that are more than one dictionary for every MLP."""
    one = places[0]
    if len(places) != 1 or one.junction != "mlp" or len(one.layers) != n_layers or one.reads_itself:
        raise InputError(
            "a block is divided over a mesh for one dictionary of transcoders in every layer, and nothing else"
        )


def _in_slots(groups: Sequence[Any], padded: int, slots: int | None) -> tuple[np.ndarray, np.ndarray]:
    counts = np.stack([np.diff(group.start) for group in groups])
    most = int(counts.max(initial=1))
    slots = most if slots is None else slots
    if most > slots:
        raise InputError(f"{most} features are active at one position, there are {slots} slots")
    shape = (len(groups), padded, slots)
    feature, activation = np.zeros(shape, np.int32), np.zeros(shape, groups[0].activation.dtype)
    for layer, group in enumerate(groups):
        at = group.position, np.arange(len(group.position)) - group.start[group.position]
        feature[layer][at], activation[layer][at] = group.feature, group.activation
    return feature, activation


def shardings(like: Given, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Given:
    """Where each array of ``like`` (arrays or their shapes) lies: weights and patterns of heads by ``rules``.

    Raises:
      InputError: sizes that the mesh does not divide (`weights.fitting` makes rules for weights).
    """
    config = like.operator.config
    where = partial(NamedSharding, mesh)
    declared = {name: declare(config)["layers"][name] for name in like.layers.weights}
    layers = jax.tree.map(lambda _: where(P()), like.layers)
    heads = rules.spec(("heads",), (config.n_heads,), mesh, "patterns")[0]
    layers = layers._replace(
        weights=weights.shardings(declared, mesh, rules),
        frozen=layers.frozen._replace(pattern=where(P(None, None, heads))),
        parts=jax.tree.map(lambda x: where(P(*[None] * (x.ndim - 1), "model")), like.layers.parts),
    )
    for name, axis, size in (
        ("decoders", "data", like.decoders.shape[1]), ("decoders", "model", like.decoders.shape[2]),
        ("positions", "model", like.feature.shape[1]),
    ):  # fmt: skip
        if size % mesh.shape[axis]:
            raise InputError(
                f"{name}: size {size} is not divisible by the mesh axis {axis!r} of size {mesh.shape[axis]}"
            )
    wide = where(P(None, "model"))
    return Given(
        jax.tree.map(lambda _: where(P()), like.operator), layers, where(GRADIENT), where(P()), where(P()),
        where(P(None, None, "model")), wide, None if like.learned is None else wide,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("dictionary", "mesh"))
def block_effects(
    given: Given, vectors: Array, positions: Array, layer: Array, *, dictionary: DictionaryConfig, mesh: Mesh
) -> BlockEffects:
    """Effects of every source on C targets that read in one layer.

    Args:
      given: placed by `shardings`.
      vectors: [C, D] what they read with. positions: [C] where.
      layer: [] in which layer; L for targets read after the final norm. Layers above cost nothing.
      dictionary: its config.
      mesh: of "data" and "model".
    """
    operator, config = given.operator, given.operator.config
    length, n_layers, dtype = operator.n_tokens, config.n_layers, operator.dtype
    lie = partial(jax.lax.with_sharding_constraint, shardings=NamedSharding(mesh, GRADIENT))
    count = vectors.shape[0]

    def entering(here: Array) -> Array:
        """[T, C, D] what targets read with at their positions, or zeros."""
        found = at_positions(vectors, positions, length)
        return lie(jnp.where(here, found, jnp.zeros_like(found)))

    x = jax.ShapeDtypeStruct((length, config.d_model), dtype)
    back = jax.linear_transpose(operator.end, x, jax.ShapeDtypeStruct((length,), dtype))
    x_bar, final = jax.vmap(back, in_axes=1, out_axes=1)(entering(layer == n_layers))

    def step(i: Array, carry: Any) -> Any:
        x_bar, found = carry
        at = jnp.minimum(layer, n_layers - 1) - i
        one = jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, at, 0, keepdims=False), given.layers
        )
        run = jax.vmap(
            lambda x_bar, read: layer_transpose(operator, one, x_bar, (read,)), in_axes=1, out_axes=1
        )
        x_bar, sources = run(x_bar, entering(layer == at))
        write = lie(sources.write[0])
        error = jax.lax.dynamic_index_in_dim(given.error, at, 0, keepdims=False)
        own = {
            "error": einsum("tcd,td->tc", write, error), "decoder": sources.decoder[0],
            "attention": sources.attention, "norm": sources.norm,
        }  # fmt: skip
        totals = _contract(write, given.decoders, given.feature, found["feature"], at, dictionary, mesh)
        kept = {name: found[name].at[at].set(own[name]) for name in found if name != "feature"}
        return lie(x_bar), {**kept, "feature": totals}

    names = ["error", "decoder"]
    names += ["attention"] if config.has_attention_biases else []
    names += ["norm"] if config.has_norm_biases else []
    nothing = {name: jnp.zeros((n_layers, length, count), dtype) for name in names}
    nothing["feature"] = lie(jnp.zeros((n_layers, count, *given.feature.shape[1:]), dtype))
    steps = jnp.minimum(layer, n_layers - 1) + 1
    x_bar, found = jax.lax.fori_loop(0, steps, step, (lie(x_bar), nothing))
    return BlockEffects(
        lie(found["feature"] * given.activation[:, None]), found["error"], found["decoder"],
        found.get("attention"), found.get("norm"), final if config.has_norm_biases else None,
        einsum("tcd,td->tc", x_bar, given.embed),
        None if given.learned is None else einsum("tcd,td->tc", x_bar, given.learned),
    )  # fmt: skip


def _contract(
    gradient: Array, decoders: Array, feature: Array, totals: Array, at: Array, config: DictionaryConfig, mesh: Mesh
) -> Array:  # fmt: skip
    """``totals`` [L, C, T, K] with what the gradient [T, C, D] of what is written in layer ``at`` gives for features.

    Totals are divided by positions over "model": partial sums over the width are added up and scattered at once.
    """
    pairs = pairs_of(config)

    def local(gradient: Array, decoders: Array, feature: Array, totals: Array, at: Array) -> Array:
        first, source, row = (jnp.asarray(numbers) for numbers in pairs)
        own = decoders.shape[1]
        start = jax.lax.axis_index("data").astype(jnp.int32) * own

        def pair(number: Array, totals: Array) -> Array:
            numbers = feature[source[number]] - start
            here = (numbers >= 0) & (numbers < own)
            one = jax.lax.dynamic_index_in_dim(decoders, row[number], 0, keepdims=False)
            rows = jnp.take(one, jnp.where(here, numbers, 0), axis=0)
            rows = jax.lax.psum(jnp.where(here[..., None], rows, jnp.zeros((), rows.dtype)), "data")
            part = einsum("tcd,tkd->ctk", gradient, rows)
            part = jax.lax.psum_scatter(part, "model", scatter_dimension=1, tiled=True)
            return totals.at[source[number]].add(part)

        return jax.lax.fori_loop(first[at], first[at + 1], pair, totals)

    specs = GRADIENT, GRADIENT, P(), GRADIENT, P()
    run = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=GRADIENT, check_vma=False)
    return run(gradient, decoders, feature, totals, at)


def node_rows(effects: BlockEffects, layout: table.Layout) -> np.ndarray:
    """[C, n] rows in node order, from effects on the host; without bias nodes where the graph has none."""
    t, out = layout.n_tokens, np.zeros((effects.feature.shape[1], layout.size), effects.feature.dtype)

    def put(start: int, value: Any) -> None:
        out[:, start : start + t] = value[:t].T

    for group in layout.groups:
        slot = np.arange(len(group.position)) - group.start[group.position]
        columns = slice(group.first, group.first + len(slot))
        out[:, columns] = effects.feature[group.layer][:, group.position, slot]
        put(layout.errors[group.place, group.layer], effects.error[group.layer])
    for (layer, kind, _), start in layout.biases.items():
        found: Any = getattr(effects, BIAS_NAMES[kind])
        if layer == layout.n_layers:
            found = effects.final
        elif layer >= 0:
            found = found[layer]
        put(start, found)
    put(layout.embeddings, effects.embed)
    return out
