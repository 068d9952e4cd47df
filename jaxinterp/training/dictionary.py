"""Training dictionaries on activations streamed from a model or read from a store."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations import FlaxSource, StoredStream, Stream, make_source, open_store, stored_stream
from jaxinterp.core.files import write_json
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from jaxinterp.models.model import Model
from jaxinterp.training.dictionary_card import card
from jaxinterp.training.dictionary_specs import (
    DictionaryRun,
    DictionarySpec,
    HeldOutConfig,
    StartConfig,
    dictionary_config,
    load_subject,
)
from jaxinterp.training.dictionary_step import init, step, to_dictionary
from jaxinterp.training.loop import Task
from jaxinterp.training.sparsity.base import make_gate

if TYPE_CHECKING:
    from jax.sharding import Mesh

__all__ = [
    "CONFIG",
    "DictionaryRun",
    "DictionarySpec",
    "HeldOutConfig",
    "StartConfig",
    "card",
    "dictionary_config",
    "init",
    "load_subject",
    "make_stream",
    "step",
    "task",
    "to_dictionary",
]

CONFIG = DictionaryRun


def make_stream(run: DictionaryRun, model: Model | FlaxSource) -> Stream | StoredStream:
    """The activations that ``run`` trains on."""
    sites = (run.dictionary.read_site, run.dictionary.write_site)
    if run.store:
        store = open_store(run.store, model, run.stored, sites)
        return stored_stream(
            store, sites, rows=run.batch, seed=run.seed, config=run.stored, stream=run.stream
        )
    source = make_source(run.text, model, run.seed)
    return Stream(model, sites, source, rows=run.batch, seed=run.seed, config=run.stream)


def task(
    run: DictionaryRun, model: Model | FlaxSource | None = None, stream: Stream | StoredStream | None = None
) -> Task:
    """The `Task` that trains what ``run`` describes.

    Args:
      run: the whole configuration.
      model: its model, where it is loaded already.
      stream: its activations, where several runs share them (`make_stream`).

    Raises:
      InputError: a model or text that cannot be used.
    """
    make_gate(run.sparsity)  # refuses wrong settings before anything is made
    model = model or load_subject(run.model)
    config = dictionary_config(run, model)
    stream = stream or make_stream(run, model)

    def held_out(dictionary: Dictionary, tokens: int, seed: int) -> dict[str, Any]:
        from jaxinterp.evaluation import evaluate

        text = dataclasses.replace(run.text, limit=0)
        return evaluate(model, dictionary, make_source(text, model, seed), tokens=tokens)

    def start(key: Array) -> dict[str, Any]:
        (x, y), usable = stream.pool(0)
        rows = jnp.asarray(np.random.default_rng(run.seed).permutation(usable)[: run.start.rows])
        return jax.jit(partial(init, run, config))(key, x[:, rows], y[:, rows])

    def abstract() -> Tree:
        rows = jax.ShapeDtypeStruct((config.n_layers, 8, config.d_model), jnp.float32)
        return jax.eval_shape(partial(init, run, config), jax.random.key(0), rows, rows)

    def evaluation(state: Tree) -> dict[str, Any]:
        figures = held_out(
            to_dictionary(run, config, state), run.held_out.validation_tokens, run.held_out.validation_seed
        )
        return figures

    def finish(state: Tree, out: Path) -> dict[str, Any]:
        folder = out / "dictionary"
        save_dictionary(to_dictionary(run, config, state), folder, run.dtype)
        # What is measured is what was written.
        written = load_dictionary(folder)
        figures = held_out(written, run.held_out.tokens, run.held_out.seed)
        write_json(folder / "card.json", card(run, model, written, figures))
        return figures

    return Task(
        init=start,
        batch=stream.batch,
        step=partial(step, run, config),
        evaluate=evaluation,
        finish=finish,
        abstract=abstract,
        shardings=partial(_shardings, config),
    )


def _shardings(config: DictionaryConfig, mesh: Mesh, abstract: Tree) -> tuple[Tree, Tree]:
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxinterp.parallel.weights import shardings
    from jaxinterp.training.layout import like_params

    declared = shardings(kind_of(config).declare(config), mesh)
    return like_params(abstract, declared, mesh), NamedSharding(mesh, PartitionSpec(None, "data"))
