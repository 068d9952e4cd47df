"""A step of training a dictionary, and the start of its state, compiled ahead of time for a slice.

Sizes come from a run's configuration and the shape of its model; no weight is made.

Letters: L layers, R rows (tokens) of a step, D width.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Tree
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.models.config import ModelConfig
from jaxinterp.parallel import aot, weights
from jaxinterp.parallel.mesh import describe, make, parse
from jaxinterp.parallel.placement import resting
from jaxinterp.training.dictionary_specs import DictionaryRun, dictionary_config
from jaxinterp.training.dictionary_step import init, step
from jaxinterp.training.layout import like_params

if TYPE_CHECKING:
    from jax.sharding import Mesh

COPIES = 4
"""What plain Adam holds of every weight: itself, its gradient and two moments."""


class Subject(NamedTuple):
    """What a run needs to know of its model to say which dictionary it trains."""

    config: ModelConfig
    name: str = ""


class Abstract(NamedTuple):
    """A step's arguments as `jax.ShapeDtypeStruct` with shardings, and the shardings of the state after it."""

    config: DictionaryConfig
    state: Tree
    batch: tuple[Any, Any]
    shardings: Tree


def abstract(run: DictionaryRun, shape: ModelConfig, mesh: Mesh) -> Abstract:
    """What a step of ``run`` takes on ``mesh``: features divided over ``model``, rows over all of it.

    Raises:
      InputError: features that the mesh does not divide, or what the kind cannot do.
    """
    subject: Any = Subject(shape, run.name)
    config = dictionary_config(run, subject)
    sites = [
        jax.ShapeDtypeStruct((config.n_layers, 8, width), jnp.float32)
        for width in (config.d_model, config.d_out)
    ]
    state = jax.eval_shape(partial(init, run, config), jax.random.key(0), *sites)
    shardings = like_params(state, weights.shardings(kind_of(config).declare(config), mesh), mesh)
    rows = jax.NamedSharding(mesh, resting(mesh, run.batch // run.accumulate))
    x, y = (
        jax.ShapeDtypeStruct((site.shape[0], run.batch, site.shape[2]), site.dtype, sharding=rows)
        for site in sites
    )
    placed = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, shardings
    )
    return Abstract(config, placed, (x, y), shardings)


def compile_step(run: DictionaryRun, shape: ModelConfig, mesh: Mesh) -> aot.Report:
    """Compile one step of ``run`` on ``mesh``, the state donated, as the training loop does.

    Args:
      shape: of the model.
      mesh: of described chips (`aot.devices`), or of this machine's.
    """
    given = abstract(run, shape, mesh)
    return aot.compile_for(
        partial(step, run, given.config, mesh=mesh), (given.state, given.batch),
        out_shardings=(given.shardings, None), donate=(0,),
    )  # fmt: skip


def compile_init(run: DictionaryRun, shape: ModelConfig, mesh: Mesh) -> aot.Report:
    """Compile the making of the first state from ``run.start.rows`` rows, each chip its own part of it."""
    given = abstract(run, shape, mesh)
    rows = jax.NamedSharding(mesh, resting(mesh, run.start.rows))
    sample = [
        jax.ShapeDtypeStruct((x.shape[0], run.start.rows, x.shape[2]), x.dtype, sharding=rows)
        for x in given.batch
    ]
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=jax.NamedSharding(mesh, jax.P()))
    return aot.compile_for(partial(init, run, given.config), (key, *sample), out_shardings=given.shardings)


def floor(config: DictionaryConfig, mesh: Mesh) -> int:
    """Bytes of a chip, by arithmetic: float32 weights, their gradient and both moments of Adam."""
    return COPIES * weights.bytes_per_device(kind_of(config).declare(config), "float32", mesh)


def study(
    run: DictionaryRun, shape: ModelConfig, topology: str, mesh: str = "", *, start: bool = False
) -> dict[str, Any]:
    """What `compile_step` (or with ``start`` `compile_init`) finds out on a slice, as JSON values in GiB of one device.

    Args:
      topology: as in "v5p:4x4x8".
      mesh: as in "data=1,model=128"; empty: features over all devices.

    Raises:
      InputError: see `abstract`; no libtpu, an unknown slice, or a mesh that does not use all of it.
    """
    devices = aot.devices(topology)
    sizes = parse(mesh) if mesh else {"model": len(devices)}
    if math.prod(sizes.values()) != len(devices):
        raise InputError(
            f"the mesh {mesh!r} has {math.prod(sizes.values())} devices, the slice {topology} has {len(devices)}"
        )
    made = make(sizes.get("data", 1), sizes.get("model", 1), expert=sizes.get("expert", 1), devices=devices)
    began = time.monotonic()
    report = (compile_init if start else compile_step)(run, shape, made)
    subject: Any = Subject(shape, run.name)
    config = dictionary_config(run, subject)
    declared, least = kind_of(config).declare(config), floor(config, made)
    facts: dict[str, Any] = {
        "what": "first state" if start else "step", "kind": config.kind, "activation": config.activation,
        "layers": config.n_layers, "width": config.d_model,
        "features": kind_of(config).groups(config) * config.n_features, "parameters": weights.size(declared),
        "topology": topology, "chips": aot.chips(topology), "devices": len(devices), "mesh": describe(made),
        "batch": run.batch, "accumulate": run.accumulate, "compute": run.compute,
        "compile_s": round(time.monotonic() - began, 1), "floor_gib": least / aot.GIB,
    }  # fmt: skip
    facts |= aot.describe(report)
    if report.memory is not None and not start:
        facts["over_floor"] = report.memory.peak / least - 1
    return facts
