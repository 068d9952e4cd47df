"""A block of attribution rows compiled ahead of time for a slice: what each chip holds while it is computed.

What is compiled is `divided_block.block_effects`; no weight is made.

Letters: C targets, T tokens (of a block), K slots of a position.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxinterp.attribution.divided_block import (
    Given,
    block_effects,
    check_places,
    decoders_of,
    pairs_of,
    shardings,
)
from jaxinterp.attribution.steps import light, stacked_slices
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.weights import declare
from jaxinterp.parallel import aot, weights
from jaxinterp.parallel.mesh import describe
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules
from jaxinterp.replacement import freeze, make_operator, part_arrays, places

if TYPE_CHECKING:
    from jax.sharding import Mesh

SLOTS = 128
"""Features of a position for which there is room by default; a TPU's arrays end in multiples of 128."""


def abstract(
    config: ModelConfig, dictionary: DictionaryConfig, mesh: Mesh, *, length: int, slots: int = SLOTS,
    dtype: str = "float32", rules: Rules = DEFAULT_RULES,
) -> Given:  # fmt: skip
    """What a block is computed from, as `jax.ShapeDtypeStruct` with shardings.

    Raises:
      InputError: see `divided_block.shardings` and `replacement.places`; a prompt longer than the model's context.
    """
    if length > config.context:
        raise InputError(
            f"a prompt of {length} tokens is longer than the model's context of {config.context}"
        )
    kind = jnp.dtype(dtype)
    params = weights.abstract(declare(config), kind)
    own = weights.abstract(kind_of(dictionary).declare(dictionary), kind)
    where = places([Dictionary(own, dictionary, dictionary.kind)], config)
    check_places(where, config.n_layers)

    def whole(params: Any, own: Any, tokens: Any) -> Given:
        run = freeze(params, config, tokens, places=where)
        operator = make_operator(params, config, run, where, part_arrays(where, [own], config))
        shape = (config.n_layers, length, slots)
        return Given(
            light(operator), stacked_slices(operator), decoders_of(own, dictionary), jnp.zeros(shape, jnp.int32),
            jnp.zeros(shape, kind), run.write[0][:, 0], run.embed[0], operator.positions,
        )  # fmt: skip

    found = jax.eval_shape(whole, params, own, jax.ShapeDtypeStruct((1, length), jnp.int32))
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        found,
        shardings(found, mesh, rules),
    )


def compile_block(
    config: ModelConfig, dictionary: DictionaryConfig, mesh: Mesh, *, targets: int, length: int, slots: int = SLOTS,
    dtype: str = "float32", rules: Rules = DEFAULT_RULES,
) -> aot.Report:  # fmt: skip
    """Compile a block of ``targets`` rows over a prompt of ``length`` tokens for the devices of ``mesh``.

    Args:
      config: the model. dictionary: the config of its transcoders.
      mesh: of described chips (`aot.devices`), or of this machine's; targets over "data", width over "model".
      slots: the most active features of a layer and position.
      dtype: of weights, decoders and gradients. Products are computed at the highest precision.
      rules: logical axes of the model's weights to mesh axes.

    Raises:
      InputError: see `abstract`; targets that the mesh does not divide.
    """
    for name, size in (("targets", targets), ("length", length), ("slots", slots)):
        if size < 1:
            raise InputError(f"{name} is {size}, at least 1 is needed")
    given = abstract(config, dictionary, mesh, length=length, slots=slots, dtype=dtype, rules=rules)
    if targets % mesh.shape["data"]:
        raise InputError(
            f"targets: size {targets} is not divisible by the mesh axis 'data' of size {mesh.shape['data']}"
        )

    def like(spec: Any, shape: tuple[int, ...], kind: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, kind, sharding=jax.NamedSharding(mesh, spec))

    vectors = like(jax.P("data", "model"), (targets, config.d_model), jnp.dtype(dtype))
    positions, layer = like(jax.P("data"), (targets,), jnp.int32), like(jax.P(), (), jnp.int32)

    def run(given: Given, vectors: Any, positions: Any, layer: Any) -> Any:
        return block_effects(given, vectors, positions, layer, dictionary=dictionary, mesh=mesh)

    return aot.compile_for(run, (given, vectors, positions, layer))


def floor(given: Given, targets: int, mesh: Mesh) -> int:
    """Bytes of a chip, by arithmetic: what is given, the effects of features, and one gradient [T, C, D]."""
    held = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(given)
    )
    n_layers, length, slots = given.feature.shape
    numbers = targets * length * (n_layers * slots + given.embed.shape[1])
    return held + numbers * given.embed.dtype.itemsize // mesh.size


def study(
    config: ModelConfig, kind: str, features: int, topology: str, mesh: str, *, targets: int = 512, length: int = 1024,
    slots: int = SLOTS, dtype: str = "float32", rules: Rules = DEFAULT_RULES,
) -> dict[str, Any]:  # fmt: skip
    """What `compile_block` finds out on a slice, as JSON values in GiB of one device.

    Args:
      kind: of the dictionary, "plt" or "clt". features: of each of its layers.
      topology: as in "v5e:4x4". mesh: as in "data=4,model=4"; it must use every device.
      rules: of the model's weights; axes that the mesh does not divide stay whole.

    Raises:
      InputError: see `compile_block`; no libtpu, an unknown slice, or a mesh that does not use all of it.
    """
    made = aot.mesh_on(topology, mesh)
    if "expert" in made.shape:
        raise InputError(f"the mesh {mesh!r} has experts, a block is divided over data and model")
    dictionary = DictionaryConfig(kind, config.n_layers, features, config.d_model)
    fitting = weights.fitting(declare(config), made, rules)
    given = abstract(config, dictionary, made, length=length, slots=slots, dtype=dtype, rules=fitting)
    began = time.monotonic()
    report = compile_block(
        config, dictionary, made, targets=targets, length=length, slots=slots, dtype=dtype, rules=fitting
    )
    least, first = floor(given, targets, made), pairs_of(dictionary).first
    facts: dict[str, Any] = {
        "what": "attribution block", "kind": kind, "layers": config.n_layers, "width": config.d_model,
        "features": features * config.n_layers, "decoder_parameters": math.prod(given.decoders.shape),
        "pairs": int(first[-1]), "topology": topology, "chips": aot.chips(topology), "devices": made.size,
        "mesh": describe(made), "targets": targets, "length": length, "slots": slots, "dtype": dtype,
        "compile_s": round(time.monotonic() - began, 1), "floor_gib": least / aot.GIB,
    }  # fmt: skip
    facts |= aot.describe(report)
    if report.memory is not None:
        facts["over_floor"] = report.memory.peak / least - 1
    return facts
