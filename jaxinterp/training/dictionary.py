"""Training dictionaries on activations streamed from a model or read from a store."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations import FlaxSource, StoredStream, Stream, make_source, open_store, stored_stream
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from jaxinterp.models.model import Model
from jaxinterp.parallel import hosts
from jaxinterp.parallel.placement import resting
from jaxinterp.training import jacobian
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
from jaxinterp.training.gradient import check_exact
from jaxinterp.training.loop import Task
from jaxinterp.training.sparsity.base import make_gate
from jaxinterp.training.start import from_weights

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


class Sites(NamedTuple):
    """The read and the write site among those of a stream that may have more: the same may be both.

    Where ``layers`` are named, of these layers only.
    """

    stream: Stream | StoredStream
    read: int
    write: int
    layers: tuple[int, ...] = ()

    def batch(self, step: int) -> tuple[Array, Array]:
        """The two of a training batch, ``[L, rows, D]`` each."""
        return self.pick(self.stream.batch(step))

    def pool(self, index: int) -> tuple[tuple[Array, Array], np.ndarray]:
        """The two of a pool, and its usable rows."""
        values, usable = self.stream.pool(index)
        return self.pick(values), usable

    def pick(self, values: tuple[Array, ...]) -> tuple[Array, Array]:
        """The two of all, in these layers."""
        x, y = values[self.read], values[self.write]
        return _of_layers((x, y), self.layers) if self.layers else (x, y)


def make_stream(
    run: DictionaryRun, model: Model | FlaxSource, sites: tuple[str, ...] = (), mesh: Mesh | None = None
) -> Stream | StoredStream:
    """The activations that ``run`` trains on.

    Args:
      sites: what to give; the read and the write site of ``run`` where none are named.
      mesh: what the forward pass is spread over.
    """
    sites = sites or (run.dictionary.read_site, run.dictionary.write_site)
    if run.store:
        store = open_store(run.store, model, run.stored, sites)
        return stored_stream(
            store, sites, rows=run.batch, seed=run.seed, config=run.stored, stream=run.stream
        )
    speaker = alone(run, model, mesh) if run.text.source == "sampled" else model
    source = make_source(run.text, speaker, run.seed)
    return Stream(model, sites, source, rows=run.batch, seed=run.seed, config=run.stream, mesh=mesh)


def task(
    run: DictionaryRun, model: Model | FlaxSource | None = None,
    stream: Stream | StoredStream | Sites | None = None, mesh: Mesh | None = None,
) -> Task:  # fmt: skip
    """The `Task` that trains what ``run`` describes.

    Args:
      run: the whole configuration.
      model: its model, where it is loaded already.
      stream: its activations, where several runs share them (`make_stream`).
      mesh: what the model and its forward pass are spread over.

    Raises:
      InputError: a model or text that cannot be used.
    """
    if run.dictionaries:
        from jaxinterp.training.several import several

        return several(run, model, mesh)
    make_gate(run.sparsity)  # refuses wrong settings before anything is made
    spread = spreading(run, mesh)
    model = model or load_subject(run.model, spread)
    config = dictionary_config(run, model)
    if mesh is not None:
        check_mesh(run, config, mesh)  # before anything is computed
    matched: dict[str, Any] = jacobian.wanted(
        run.objective.jacobian, run.objective.jacobian_bandwidth, config, model
    )
    if stream is None:
        sites = tuple(dict.fromkeys((run.dictionary.read_site, run.dictionary.write_site)))
        stream = Sites(make_stream(run, model, sites, spread), 0, len(sites) - 1, config.layers)

    def held_out(dictionary: Dictionary, tokens: int, seed: int) -> dict[str, Any]:
        from jaxinterp.evaluation import evaluate

        text, here = dataclasses.replace(run.text, limit=0), alone(run, model, spread)
        return evaluate(here, dictionary, make_source(text, here, seed), tokens=tokens)

    def sample() -> tuple[Array, Array]:
        (x, y), usable = stream.pool(0)
        rows = np.random.default_rng(run.seed).permutation(usable)[: run.start.rows]
        return _take((x, y), rows)

    def start(key: Array) -> dict[str, Any]:
        x, y = hosts.on_host(sample())
        return jax.jit(partial(init, run, config))(key, x, y, from_weights(run.start, config, model, key, x))

    def start_on(key: Array, shardings: Tree) -> dict[str, Any]:
        x, y = sample()
        given = from_weights(run.start, config, model, key, x)
        return jax.jit(partial(init, run, config), out_shardings=shardings)(key, x, y, given)

    def abstract() -> Tree:
        x, y = (
            jax.ShapeDtypeStruct((config.n_layers, 8, d), jnp.float32) for d in (config.d_model, config.d_out)
        )
        return jax.eval_shape(partial(init, run, config), jax.random.key(0), x, y)

    def now(state: Tree) -> Dictionary:
        return to_dictionary(run, config, hosts.on_host(state))

    def evaluation(state: Tree) -> dict[str, Any]:
        return held_out(now(state), run.held_out.validation_tokens, run.held_out.validation_seed)

    def finish(state: Tree, out: Path) -> dict[str, Any]:
        folder, made = out / "dictionary", now(state)
        if hosts.lead():
            save_dictionary(made, folder, run.dtype)
        hosts.wait("dictionary saved")
        # What is measured is what was written.
        written = load_dictionary(folder)
        figures = held_out(written, run.held_out.tokens, run.held_out.seed)
        described = card(run, alone(run, model, spread), written, figures)
        if hosts.lead():
            write_json(folder / "card.json", described)
        return figures

    made = Task(
        init=start,
        batch=stream.batch,
        step=partial(step, run, config, **matched),
        evaluate=evaluation,
        finish=finish,
        abstract=abstract,
        shardings=partial(_fitting, run, config),
        # Where features are divided no device has to hold them all; elsewhere one device's bytes are kept.
        init_on=start_on if spread is not None and spread.shape.get("model", 1) > 1 else None,
        on_mesh=True,
        tokens=run.batch,
    )
    if kind_of(config).sequences:
        from jaxinterp.training.sequences import on_sequences

        return on_sequences(made, run, config, model)
    return made


def spreading(run: DictionaryRun, mesh: Mesh | None) -> Mesh | None:
    """What the model is spread over: nothing where every process makes or reads all rows by itself."""
    by_itself = run.reduce == "exact" or (run.store and jax.process_count() > 1)
    return None if by_itself else mesh


def alone(run: DictionaryRun, model: Model | FlaxSource, mesh: Mesh | None) -> Model | FlaxSource:
    """A model that this process can run without the others: a copy of its own where ``model`` lies in several."""
    return model if mesh is None or jax.process_count() == 1 else load_subject(run.model)


@partial(jax.jit, static_argnums=1)
def _of_layers(values: tuple[Array, Array], layers: tuple[int, ...]) -> tuple[Array, Array]:
    x, y = (jnp.stack([each[layer] for layer in layers]) for each in values)
    return x, y


@jax.jit
def _take(values: tuple[Array, Array], rows: Array) -> tuple[Array, Array]:
    x, y = (jnp.take(each, rows, axis=1) for each in values)
    return x, y


def check_mesh(run: DictionaryRun, config: DictionaryConfig, mesh: Mesh) -> None:
    """Whether the run can be spread over a mesh.

    Raises:
      InputError: no axis for the batch, or sizes that the mesh does not divide.
    """
    from jaxinterp.parallel.weights import shardings

    if "data" not in mesh.shape:
        raise InputError(f"a mesh for training needs the axis data, it has {', '.join(mesh.axis_names)}")
    if run.reduce == "exact":
        check_exact(mesh, run.batch, run.accumulate)
    elif (run.batch // run.accumulate) % mesh.shape["data"]:
        part = f" of {run.accumulate} parts" if run.accumulate > 1 else ""
        raise InputError(
            f"a batch of {run.batch} rows{part} is not divisible by the mesh axis data of size {mesh.shape['data']}"
        )
    shardings(kind_of(config).declare(config), mesh)


def _fitting(run: DictionaryRun, config: DictionaryConfig, mesh: Mesh, abstract: Tree) -> tuple[Tree, Tree]:
    """`_shardings`, after comparing the sizes of a batch with those of the mesh."""
    check_mesh(run, config, mesh)
    states, rows = _shardings(config, mesh, abstract)
    if run.reduce == "psum" and mesh.shape.get("model", 1) > 1:  # rows wait spread over features' devices too
        rows = rows.update(spec=resting(mesh, run.batch // run.accumulate))
    return states, rows


def _shardings(config: DictionaryConfig, mesh: Mesh, abstract: Tree) -> tuple[Tree, Tree]:
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxinterp.parallel.weights import shardings
    from jaxinterp.training.layout import like_params

    declared = shardings(kind_of(config).declare(config), mesh)
    return like_params(abstract, declared, mesh), NamedSharding(mesh, PartitionSpec(None, "data"))
