"""The forward pass compiled ahead of time for a slice, and where on a mesh what it returns should be.

Letters: L layers, B batch, T position, D width, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.expert_parallel import OnMesh
from jaxinterp.models.sites import END_SITES, check_sites
from jaxinterp.models.weights import declare
from jaxinterp.parallel import aot, weights
from jaxinterp.parallel.mesh import describe, make, parse
from jaxinterp.parallel.rules import DEFAULT_RULES, Rules

if TYPE_CHECKING:
    from jax.sharding import Mesh, NamedSharding


def site_axes(site: str) -> tuple[str, ...]:
    """Logical axes of what a forward pass returns for a site.

    Sites as wide as the model are divided by the rule of "record": what is recorded of all layers is large, and no
    device needs all of it.
    """
    layers = () if site in END_SITES else ("layers",)
    if site == "pattern":
        return (*layers, "batch", "heads", "position", "position")
    return (*layers, "batch", "position", "replicated" if site.endswith("scale") else "record")


def site_sharding(
    site: str, config: ModelConfig, batch: int, length: int, mesh: Mesh, rules: Rules = DEFAULT_RULES
) -> NamedSharding:
    """The sharding of what a forward pass over [batch, length] tokens returns for a site.

    Raises:
      InputError: a size that the mesh does not divide.
    """
    sizes = {
        "layers": config.n_layers, "batch": batch, "position": length, "heads": config.n_heads,
        "record": config.n_heads * config.d_value if site == "attn_z" else config.d_model, "replicated": 1,
    }  # fmt: skip
    axes = site_axes(site)
    return jax.NamedSharding(mesh, rules.spec(axes, tuple(sizes[axis] for axis in axes), mesh, site))


def compile_forward(
    config: ModelConfig, mesh: Mesh, *, batch: int, length: int, sites: Sequence[str] = ("mlp_in", "mlp_out"),
    logits: bool = True, dtype: Any = "bfloat16", rules: Rules = DEFAULT_RULES, dispatch: Any = None,
) -> aot.Report:  # fmt: skip
    """Compile the forward pass for the chips of a mesh (`jaxinterp.parallel.aot.devices`). No weight is made.

    Args:
      config: the model.
      mesh: of described chips.
      batch, length: sequences, and tokens of each.
      sites: what it returns of each layer.
      logits: whether it returns the logits [B, T, V] too.
      dtype: of weights and activations.
      rules: logical axes to mesh axes.
      dispatch: of experts, as in `decoder.forward`; None has each chip compute its own.

    Raises:
      InputError: a size that the mesh does not divide, sequences longer than the model's context, or a site that the
        model has not.
    """
    if length > config.context:
        raise InputError(
            f"sequences of {length} tokens are longer than the model's context of {config.context}"
        )
    asked = tuple(sorted(check_sites(sites)))
    spec = rules.spec(("batch", "position"), (batch, length), mesh, "tokens")
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=jax.NamedSharding(mesh, spec))
    params = weights.abstract(declare(config), jnp.dtype(dtype), mesh, rules)
    if dispatch is None:
        dispatch = OnMesh(mesh, rules)
    _, there = jax.eval_shape(lambda p, t: forward(p, config, t, sites=asked), params, tokens)
    for site in asked:
        if getattr(there, site) is None:
            raise InputError(f"this model has no site {site!r}")
    out: dict[str, Any] = {
        site: site_sharding(site, config, batch, length, mesh, rules) for site in asked
    }  # fmt: skip
    if logits:
        shape = (batch, length, config.vocab_size)
        spec = rules.spec(("batch", "position", "vocab"), shape, mesh, "logits")
        out["logits"] = jax.NamedSharding(mesh, spec)

    def run(params: Any, tokens: Any) -> dict[str, Any]:
        scores, found = forward(params, config, tokens, sites=asked, dispatch=dispatch)
        values = {site: getattr(found, site) for site in asked}
        return {**values, "logits": scores.astype(dtype)} if logits else values

    return aot.compile_for(run, (params, tokens), out_shardings=out)


def study(config: ModelConfig, topology: str, mesh: str, **settings: Any) -> dict[str, Any]:
    """What `compile_forward` finds out on a slice, as JSON values in GiB of one chip.

    Args:
      config: the model.
      topology: as in "v5e:4x4".
      mesh: as in "data=2,model=8"; it must use every chip.
      settings: of `compile_forward`.

    Raises:
      InputError: see `compile_forward`; no libtpu, an unknown slice, or a mesh that does not use all of its chips.
    """
    sizes = parse(mesh)
    chips = aot.devices(topology)
    if math.prod(sizes.values()) != len(chips):
        raise InputError(
            f"the mesh {mesh!r} has {math.prod(sizes.values())} chips, the slice {topology} has {len(chips)}"
        )
    made = make(sizes.get("data", 1), sizes.get("model", 1), expert=sizes.get("expert", 1), devices=chips)
    started = time.monotonic()
    report = compile_forward(config, made, **settings)
    batch, length = settings["batch"], settings["length"]
    facts: dict[str, Any] = {
        "parameters": config.n_params(), "topology": topology, "chips": len(chips), "mesh": describe(made),
        "batch": batch, "length": length, "dtype": str(jnp.dtype(settings.get("dtype", "bfloat16"))),
        "compile_s": round(time.monotonic() - started, 1), "fits": report.too_large is None,
    }  # fmt: skip
    if report.memory is not None:
        facts |= {f"{name}_gib": size / aot.GIB for name, size in report.memory._asdict().items()}
        facts["collectives"] = report.collectives
    if report.too_large is not None:
        facts |= {
            "needed_gib": report.too_large.needed / aot.GIB, "available_gib": report.too_large.available / aot.GIB,
            "reason": report.too_large.reason,
        }  # fmt: skip
    return facts
