"""Flax models into our decoder and back: ``load_flax``, ``to_flax`` and what a tree says of its sizes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.checkpoints import flax_presets, placing
from jaxinterp.checkpoints.flax_gemma import Gemma
from jaxinterp.checkpoints.flax_layout import Leaf, assemble, disassemble, match
from jaxinterp.checkpoints.flax_maxtext import MaxText
from jaxinterp.checkpoints.flax_tree import Stored, Tree, open_tree
from jaxinterp.checkpoints.huggingface import axis_sizes
from jaxinterp.checkpoints.load import given_tokenizer
from jaxinterp.checkpoints.native import host_arrays
from jaxinterp.checkpoints.tokenizers import Tokenizer, check_size
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.trees import unflatten
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights

if TYPE_CHECKING:
    from jax.sharding import Mesh, NamedSharding

    from jaxinterp.models.model import Model
    from jaxinterp.parallel.rules import Rules

LAYOUTS: dict[str, Gemma | MaxText] = {"gemma": Gemma(), "maxtext": MaxText()}
_SIZES = ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_mlp")


def load_flax(
    source: Any, layout: str | Gemma | MaxText, config: ModelConfig | str | None = None, *,
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None, dtype: Any = "float32", mesh: Mesh | None = None,
    rules: Rules | None = None, name: str = "",
) -> Model:  # fmt: skip
    """The parameters of a Flax model (linen or nnx) as a model of ours.

    Args:
      source: a nested dict, a ``FrozenDict``, linen variables, an nnx module or ``State``, or the folder of an Orbax
        checkpoint that another program wrote (read a few leaves at a time, each host its own shards on a mesh).
      layout: "gemma" or "maxtext", or `Gemma` or `MaxText` with settings that the tree does not show.
      config: what the tree does not say: the name of a published size, such as "gemma2_2b" or "llama3.1-8b", or a
        whole `ModelConfig` (`flax_fields` gives the part that the tree knows). None is refused, naming the presets
        that have the tree's sizes.
      tokenizer, dtype, mesh, rules: as of `load_model`; no tokenizer is looked for.
      name: shown to people and written into graphs; the folder's name when empty.

    Raises:
      InputError: a leaf that is missing, unknown or of another shape, a config that the layout cannot have, or a
        setting that only the user knows; one line.
    """
    from jaxinterp.models.model import Model

    tree, found, names, layout = _open(source, layout)
    known = layout.fields(found)
    config, layout = _config(config, layout, known, tree.where)
    _same_sizes(config, known, tree.where)
    resolved = layout.seen(found, config)
    resolved.check(config)
    table = resolved.table(config)
    match(tree.where, resolved, table, found, axis_sizes(config))
    if tokenizer is not None:
        tokenizer = given_tokenizer(tokenizer)
        check_size(tokenizer, config.vocab_size, tree.where)
    params = _read(
        tree, table, names, config, placing.as_dtype(dtype), placing.shardings(config, mesh, rules)
    )
    name = name or (Path(source).resolve().name if isinstance(source, str | os.PathLike) else "")
    return Model(unflatten(params), config, tokenizer=tokenizer, name=name)


def flax_fields(source: Any, layout: str | Gemma | MaxText) -> dict[str, Any]:
    """The `ModelConfig` fields that a tree and its layout decide, sizes first.

    ``ModelConfig(**flax_fields(tree, "gemma"), context=8192)`` is a first Gemma; for the later ones rotary bases,
    windows, caps and the factor on scores have to be added.

    Raises:
      InputError: a tree of another layout.
    """
    _, found, _, layout = _open(source, layout)
    return layout.fields(found)


def to_flax(model: Model, layout: str | Gemma | MaxText, dtype: str | None = None) -> dict[str, Any]:
    """The parameters of a model of ours as a tree of another program's, in host arrays: the inverse of `load_flax`.

    ``{"params": tree}`` are the variables of its linen module.

    Args:
      model: one that a model of the layout can be.
      layout: as of `load_flax`.
      dtype: storage dtype; None keeps each parameter's own.

    Raises:
      InputError: a config that the layout cannot have, a setting that has to be said, or a number too large for
        ``dtype``.
    """
    layout = _layout(layout)
    layout.check(model.config)
    arrays = host_arrays(model, None)
    groups: dict[str, list[Leaf]] = {}
    for leaf in layout.table(model.config):
        groups.setdefault(leaf.stored, []).append(leaf)
    stored = {}
    for name, leaves in groups.items():
        array = disassemble(leaves, arrays)
        target = placing.as_dtype(array.dtype if dtype is None else dtype, on_device=False)
        stored[name] = placing.cast(array, target, f"the leaf {name!r}")
    return layout.nested(stored)


def _layout(layout: str | Gemma | MaxText) -> Gemma | MaxText:
    if isinstance(layout, str):
        if layout not in LAYOUTS:
            raise InputError(f"no layout {layout!r}{near(layout, LAYOUTS)}: give one of {', '.join(LAYOUTS)}")
        return LAYOUTS[layout]
    return layout


def _open(
    source: Any, layout: str | Gemma | MaxText
) -> tuple[Tree, dict[str, Stored], dict[str, str], Gemma | MaxText]:
    """The tree, its leaves by the layout's paths, and the tree's own path of each."""
    layout, tree = _layout(layout), open_tree(source)
    names: dict[str, str] = {}
    for whole in tree.leaves:
        bare = layout.bare(whole)
        if bare is None:
            continue
        if bare in names:
            raise InputError(f"{tree.where}: {names[bare]!r} and {whole!r} are the same leaf")
        names[bare] = whole
    return tree, {bare: tree.leaves[whole] for bare, whole in names.items()}, names, layout


def _config(
    config: ModelConfig | str | None, layout: Gemma | MaxText, known: dict[str, Any], where: str
) -> tuple[ModelConfig, Gemma | MaxText]:
    if isinstance(config, ModelConfig):
        return config, layout
    if isinstance(config, str):
        chosen, layout = flax_presets.preset(config, layout)
        # Rows that pad the embedding differ from copy to copy.
        return chosen.replace(vocab_size=known["vocab_size"]), layout
    fitting = []
    for name in flax_presets.names(layout.name):
        chosen = flax_presets.preset(name, type(layout)())[0]
        if all(getattr(chosen, field) == known[field] for field in _SIZES[1:]):
            fitting.append(name)
    which = f"presets of these sizes are {', '.join(fitting)}" if fitting else "no preset has these sizes"
    sizes = ", ".join(f"{field} {known[field]}" for field in _SIZES)
    raise InputError(
        f"{where} has {sizes}, but no tree says its context, rotary bases, windows or caps: give config=, a preset "
        f"or a ModelConfig ({which})"
    )


def _same_sizes(config: ModelConfig, known: dict[str, Any], where: str) -> None:
    for field in (*_SIZES, "tied", "post_norms", "qk_norm"):
        if field in known and getattr(config, field) != known[field]:
            raise InputError(
                f"{where}: {field} is {known[field]!r} in the tree and {getattr(config, field)!r} in the config"
            )


def _read(
    tree: Tree, table: list[Leaf], names: dict[str, str], config: ModelConfig, dtype: np.dtype,
    placements: dict[str, NamedSharding | None],
) -> dict[str, Any]:  # fmt: skip
    """Every weight; those that share stored leaves together, so that each leaf is read once."""
    by_weight: dict[str, list[Leaf]] = {}
    for leaf in table:
        by_weight.setdefault(leaf.ours, []).append(leaf)
    declared = weights.leaves(declare(config))
    assert sorted(by_weight) == sorted(declared), "the layout's table and the decoder differ"
    groups: dict[tuple[str, ...], list[str]] = {}
    for ours, leaves in by_weight.items():
        groups.setdefault(tuple(leaf.stored for leaf in leaves), []).append(ours)
    found = {}
    for stored, members in groups.items():
        first = by_weight[members[0]]
        placement = placements[members[0]]
        spread = None if placement is None else [_stored_sharding(leaf, placement) for leaf in first]
        arrays = tree.read([names[name] for name in stored], spread, dtype)
        for ours in members:
            found[ours] = _weight(by_weight[ours], arrays, dtype, placements[ours], tree.where)
            assert found[ours].shape == declared[ours].shape, ours
    return found


def _weight(
    leaves: list[Leaf], arrays: list[Any], dtype: np.dtype, placement: NamedSharding | None, where: str
) -> Any:
    import jax
    import jax.numpy as jnp

    message = f"{where}: the weight {leaves[0].ours!r}"
    if placement is None:
        with np.errstate(over="ignore"):
            whole = assemble(np, leaves, arrays, dtype)
        if not np.isfinite(whole).all():
            raise InputError(f"{message} holds numbers that are not finite in {dtype.name}")
        return jnp.asarray(whole)
    made = jax.jit(partial(assemble, jnp, leaves, dtype=dtype), out_shardings=placement)(arrays)
    if not bool(jnp.isfinite(made).all()):
        raise InputError(f"{message} holds numbers that are not finite in {dtype.name}")
    return made


def _stored_sharding(leaf: Leaf, placement: NamedSharding) -> NamedSharding:
    """The division of our weight carried over to the axes of a stored leaf."""
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxinterp.checkpoints import rearrange

    pattern = rearrange.parse(leaf.pattern)
    letters = [letter for letter in pattern.ours if letter not in "lpw"]
    spec = list(placement.spec) + [None] * (len(letters) + 1 - len(placement.spec))
    own = dict(zip(letters, spec[leaf.layers is not None :], strict=False))
    if leaf.pairs is not None:
        own["e"] = None
    parts = [own.get(letter) for group in pattern.stored for letter in group]
    return NamedSharding(placement.mesh, PartitionSpec(*parts))
