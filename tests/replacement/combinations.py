"""Replacement models of several parts, by name: dictionaries, what stands for MLPs, a family to try them on."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.dictionaries import Dictionary
from jaxinterp.dictionaries.attention import Attention
from jaxinterp.dictionaries.base import DictionaryConfig
from jaxinterp.models import Model
from jaxinterp.replacement import (
    Place,
    ReplacementOperator,
    Run,
    freeze,
    make_operator,
    part_arrays,
    places,
)
from tests.attribution.cases import TOKENS, of_config
from tests.support import tiny_model

LORSA = {"kind": "lorsa", "activation": "relu", "read_site": "attn_in", "write_site": "attn_out"}
SPREAD = {**LORSA, "read_site": "resid_pre", "write_site": "attn_out_raw"}
PLT = {"kind": "plt", "read_site": "mlp_normalized"}
SKIP = {"kind": "plt", "activation": "relu", "skip": True, "read_site": "mlp_in", "write_site": "mlp_out_raw"}
CLT = {"kind": "clt", "read_site": "resid_mid"}


def sae(site: str, **more: Any) -> dict[str, Any]:
    """Reads and writes one site."""
    return {"kind": "plt", "read_site": site, "write_site": site, "centre": True, **more}


# What each consists of: dictionaries, `mlp`, and a model family with something in it that matters there.
COMBINATIONS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "nothing": ([], "constant", "llama"),
    "lines": ([], "tangent", "experts"),
    "complete": ([PLT, LORSA], "constant", "gpt2"),
    "complete-clt": ([SPREAD, CLT], "constant", "gemma2"),
    "complete-some": ([{**LORSA, "layers": (0, 2)}, {**SKIP, "layers": (1,)}], "tangent", "sinks"),
    "attention-sae": ([sae("attn_out"), SKIP], "constant", "gemma3"),
    "heads-sae": ([sae("attn_z"), CLT], "constant", "latent"),
    "residual-constant": ([sae("resid_post")], "constant", "olmo2"),
    "residual-tangent": ([sae("resid_post")], "tangent", "experts"),
    "residual-some": ([sae("resid_post", layers=(1,))], "tangent", "gpt2"),
    "residual-mid": ([sae("resid_mid"), PLT], "constant", "gpt_neox"),
    "residual-pre": ([sae("resid_pre", layers=(1, 2)), PLT], "constant", "llama"),
    "crosscoder": ([{**sae("resid_post"), "kind": "clt", "centre": False}], "tangent", "llama"),
    "mlp-sae": ([sae("mlp_out")], "tangent", "dyt"),
    "mlp-sae-some": ([sae("mlp_out_raw", layers=(0, 2))], "tangent", "gemma2"),
    "mlp-some": ([{**PLT, "layers": (0, 2)}], "constant", "gemma2"),
    "clt-some": ([{**CLT, "layers": (0, 2)}], "tangent", "experts"),
    "three": ([sae("resid_post"), SKIP, {**LORSA, "layers": (0, 2)}], "constant", "gpt2"),
}  # fmt: skip


class Made(NamedTuple):
    """A replacement model of a prompt."""

    model: Model
    dictionaries: list[Dictionary]
    places: tuple[Place, ...]
    run: Run
    operator: ReplacementOperator

    def at(self, place: Place) -> Dictionary | None:
        """The dictionary at a place."""
        return None if place.dictionary is None else self.dictionaries[place.dictionary]


def dictionary(model: Model, spec: dict[str, Any], number: int = 0, **more: Any) -> Dictionary:
    """A random dictionary of 8 features a layer."""
    spec = {**spec, **more}
    width = (
        model.config.n_heads * model.config.d_value if spec["read_site"] == "attn_z" else model.config.d_model
    )
    if spec["kind"] == "lorsa":
        spec["attention"] = Attention(heads=2, width=4)
    n = len(spec.get("layers", ())) or model.config.n_layers
    return of_config(
        DictionaryConfig(n_layers=n, n_features=8, d_model=width, **spec), f"part-{number}", seed=number
    )


@functools.cache
def make(name: str, family: str | None = None, **changes: Any) -> Made:
    """The replacement model of that name in float64, on its family or another; ``changes`` of the model's config."""
    specs, mlp, its_own = COMBINATIONS[name]
    model = tiny_model(family or its_own, dtype="float64", **changes)
    found = [dictionary(model, spec, i) for i, spec in enumerate(specs)]
    where = places(found, model.config, mlp)
    tokens = jnp.asarray(TOKENS)[None]

    @jax.jit
    def run_of(params: Any, found: list[Dictionary]) -> Run:
        return freeze(params, model.config, tokens, places=where, dictionaries=found)

    run = run_of(model.params, found)
    own_params = [None if p.dictionary is None else found[p.dictionary].params for p in where]
    parts = part_arrays(where, own_params, model.config)
    return Made(model, found, where, run, make_operator(model.params, model.config, run, where, parts))


def in_float32(made: Made) -> tuple[Model, list[Dictionary]]:
    """Its model and dictionaries with the same numbers, rounded."""

    def rounded(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype("float32") if leaf.dtype == "float64" else leaf, tree)

    return (
        dataclasses.replace(made.model, params=rounded(made.model.params)),
        [dataclasses.replace(one, params=rounded(one.params)) for one in made.dictionaries],
    )
