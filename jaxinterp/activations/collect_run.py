"""A whole collection described by plain values, as a config file has them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jaxinterp.activations.collect import CollectConfig, collect, sites_of
from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.text import TextConfig, look_up
from jaxinterp.checkpoints.load import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import fits
from jaxinterp.dictionaries.load import load_dictionary
from jaxinterp.models.model import Model

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True)
class CollectRun:
    """What `jaxinterp collect` does.

    Attributes:
      model: what `jaxinterp.load_model` takes, or "module:function", called without arguments and returning a
        `Model` or a `FlaxSource`.
      sites: see `CollectConfig`; with neither sites nor dictionaries, "mlp_in" and "mlp_out".
      dictionaries: folders or names of dictionaries whose sites are collected too.
      weights: dtype of the model's weights, in which it is run.
      batches, text, seed, dtype, microbatch, shard_batches: see `CollectConfig`.
    """

    model: str
    batches: int
    sites: tuple[str, ...] = ()
    dictionaries: tuple[str, ...] = ()
    weights: str = "float32"
    text: TextConfig = field(default_factory=TextConfig)
    seed: int = 0
    dtype: str = "float32"
    microbatch: int = 16
    shard_batches: int = 0


def collect_from(
    run: CollectRun, out: str | os.PathLike[str], *, mesh: Mesh | None = None, repair: bool = False,
    quiet: bool = True,
) -> Store:  # fmt: skip
    """Load what a run names and collect; see `collect`.

    Raises:
      InputError: see `collect`; a model or dictionary that cannot be loaded, or one that does not fit the other.
    """
    if ":" in run.model and not Path(run.model).exists():
        model = look_up(run.model, "model", "a folder, a file, pocket, or module:function")()
        if not isinstance(model, Model | FlaxSource):
            raise InputError(
                f"model: {run.model} gave a {type(model).__name__}, expected a Model or a FlaxSource"
            )
    else:
        model = load_model(run.model, dtype=run.weights, mesh=mesh)
    configs = []
    for name in run.dictionaries:
        dictionary = load_dictionary(name)
        fits(dictionary, model.config)
        configs.append(dictionary.config)
    named = {site.partition("@")[0] for site in run.sites}
    sites = (*run.sites, *(site for site in sites_of(configs) if site not in named))
    config = CollectConfig(
        run.batches,
        sites or ("mlp_in", "mlp_out"),
        run.text,
        run.seed,
        run.dtype,
        run.microbatch,
        run.shard_batches,
    )
    return collect(model, config, out, mesh=mesh, repair=repair, quiet=quiet)
