"""The collection of activations compiled ahead of time for a slice: what each chip holds while a block is computed.

Letters: b sequences a block, T tokens of each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxinterp.activations.collect_mesh import Forward
from jaxinterp.activations.store_layout import Site
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.model import Model
from jaxinterp.models.sites import END_SITES, check_sites
from jaxinterp.models.weights import declare
from jaxinterp.parallel import aot, weights
from jaxinterp.parallel.mesh import describe
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh


def compile_collection(
    config: ModelConfig, mesh: Mesh, *, block: int, length: int, sites: Sequence[str] = ("mlp_in", "mlp_out"),
    dtype: str = "bfloat16", stored: str = "bfloat16", rules: Rules = DEFAULT_RULES,
) -> aot.Report:  # fmt: skip
    """Compile what `jaxinterp collect` runs on ``mesh``, no weight made.

    Args:
      config: the model.
      mesh: of described chips (`aot.devices`), or of this machine's.
      block: sequences that each part of the batch computes at once.
      length: tokens of each.
      sites: what is collected of every layer.
      dtype: of the weights. stored: as what activations leave, "float32", "bfloat16" or "int8".
      rules: logical axes to mesh axes.

    Raises:
      InputError: a size that the mesh does not divide, sequences longer than the model's context, or an unknown site.
    """
    if length > config.context:
        raise InputError(
            f"sequences of {length} tokens are longer than the model's context of {config.context}"
        )
    made = tuple(
        Site(name, (0,) if name in END_SITES else tuple(range(config.n_layers)), _width(config, name))
        for name in sorted(check_sites(sites))
    )
    model = Model(weights.abstract(declare(config), jnp.dtype(dtype)), config)
    forward = Forward(model, made, stored, mesh, rules, block=block, length=length)
    row = jax.ShapeDtypeStruct((forward.ways * block, length), jnp.int32, sharding=forward.rows)
    return aot.compile_jitted(forward.run, (forward.params, row, row, row))


def _width(config: ModelConfig, site: str) -> int:
    return config.n_heads * config.d_value if site == "attn_z" else config.d_model


def study(config: ModelConfig, topology: str, mesh: str, **settings: Any) -> dict[str, Any]:
    """What `compile_collection` finds out on a slice, as JSON values in GiB of one device.

    Args:
      topology: as in "v5e:4x4".
      mesh: as in "data=2,model=8"; it must use every device.
      settings: of `compile_collection`.

    Raises:
      InputError: see `compile_collection`; no libtpu, an unknown slice, or a mesh that does not use all of it.
    """
    made = aot.mesh_on(topology, mesh)
    began = time.monotonic()
    report = compile_collection(config, made, **settings)
    facts = {
        "what": "collection", "parameters": config.n_params(), "topology": topology,
        "chips": aot.chips(topology), "devices": made.size, "mesh": describe(made),
        **{name: value for name, value in settings.items() if name != "rules"},
        "compile_s": round(time.monotonic() - began, 1),
        "floor_gib": weights.bytes_per_device(declare(config), settings.get("dtype", "bfloat16"), made) / aot.GIB,
    }  # fmt: skip
    return {**facts, **aot.describe(report)}
