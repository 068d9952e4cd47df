"""Training per-layer and cross-layer transcoders on activations streamed from a model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations import (
    FlaxSource,
    Store,
    StoredConfig,
    StoredStream,
    Stream,
    StreamConfig,
    TextConfig,
    make_source,
    open_store,
    stored_stream,
)
from jaxinterp.activations.text import look_up
from jaxinterp.checkpoints.load import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import initialise, normalise
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from jaxinterp.dictionaries.sites import preset
from jaxinterp.models.model import Model
from jaxinterp.training import resample
from jaxinterp.training.loop import Task
from jaxinterp.training.objective import ObjectiveConfig, objective
from jaxinterp.training.optimiser import OptimiserConfig, make_optimiser
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True)
class DictionarySpec:
    """The dictionary to train; sizes of the model come from the model. See `DictionaryConfig`.

    Attributes:
      sites: the name of a convention (`dictionaries.sites.PRESETS`) that both sites are then taken from.
    """

    kind: str = "clt"
    n_features: int = 1024
    skip: bool = False
    centre: bool = False
    tied: bool = False
    shared: int = 0
    read_site: str = "mlp_normalized"
    write_site: str = "mlp_out"
    sites: str = ""

    def __post_init__(self) -> None:
        if not self.sites:
            return
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        for name, value in preset(self.sites)._asdict().items():
            given = getattr(self, name)
            if given not in (value, usual[name]):
                raise InputError(
                    f"{name} is {given!r}, but {value!r} in the sites {self.sites!r}: give one of them"
                )
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class StartConfig:
    """Where training starts.

    Attributes:
      data_points: start encoders and decoders at noisy data points; else at random.
      noise: share of a random direction in them.
      decoder: length of a feature's joined decoder at the start.
      rows: how many rows the start is made from.
      rate: share of rows on which a feature fires at the start; None leaves encoder biases at zero.
    """

    data_points: bool = True
    noise: float = 0.1
    decoder: float = 1.0
    rows: int = 8192
    rate: float | None = 0.02


@dataclass(frozen=True)
class HeldOutConfig:
    """Text for figures, sampled or read with seeds of its own.

    Attributes:
      tokens, seed: of the figures in the card.
      validation_tokens, validation_seed: of the figures during training.
    """

    tokens: int = 51_200
    seed: int = 1_000_003
    validation_tokens: int = 16_384
    validation_seed: int = 1_000_033


@dataclass(frozen=True)
class DictionaryRun:
    """Everything about one training run of a dictionary.

    Attributes:
      model: what `jaxinterp.load_model` takes, or "module:function", called without arguments and returning a `Model`
        or, for an architecture that is not ours, a `FlaxSource`.
      steps, batch: optimiser steps and rows (tokens) a step.
      seed: of weights, text, shuffles and resampling.
      normalise: train on scaled sites, and fold the scales into the saved weights.
      dtype: of the saved weights.
      name: the model's name in the saved files; the loaded model's own when empty.
      store: a folder that `jaxinterp collect` made with this model, whose rows are trained on in the order of
        ``stored``; empty: rows are streamed from the model. ``text`` stays that of the evaluation.
    """

    model: str
    steps: int
    batch: int = 1024
    seed: int = 0
    normalise: bool = True
    dtype: str = "float32"
    name: str = ""
    store: str = ""
    stored: StoredConfig = field(default_factory=StoredConfig)
    dictionary: DictionarySpec = field(default_factory=DictionarySpec)
    text: TextConfig = field(default_factory=TextConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    start: StartConfig = field(default_factory=StartConfig)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    resample: resample.ResampleConfig = field(default_factory=resample.ResampleConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise InputError(f"steps is {self.steps} and batch {self.batch}, both must be at least 1")


CONFIG = DictionaryRun


def load_subject(reference: str) -> Model | FlaxSource:
    """The model that a run names.

    Raises:
      InputError: nothing there, or a function that returns something else.
    """
    if ":" not in reference or Path(reference).exists():
        return load_model(reference)
    made = look_up(reference, "model", "a folder, a file, pocket, or module:function")()
    if not isinstance(made, Model | FlaxSource):
        raise InputError(f"model: {reference} gave a {type(made).__name__}, expected a Model or a FlaxSource")
    return made


def dictionary_config(run: DictionaryRun, model: Model | FlaxSource) -> DictionaryConfig:
    """The config of the dictionary that ``run`` trains.

    Raises:
      InputError: what the kind cannot do.
    """
    config = DictionaryConfig(
        n_layers=model.config.n_layers,
        d_model=model.config.d_model,
        model_name=run.name or model.name,
        activation="relu",
        **{name: value for name, value in dataclasses.asdict(run.dictionary).items() if name != "sites"},
    )
    config = make_gate(run.sparsity).config(config)
    if run.resample.every and kind_of(config).groups(config) != config.n_layers:
        raise InputError(
            f"resample: features of a {config.kind} cannot be restarted, set resample.every to 0"
        )
    return config


def init(run: DictionaryRun, config: DictionaryConfig, key: Array, x: Array, y: Array) -> dict[str, Any]:
    """The state before step 0 from a sample of sites ``x, y [L, R, D]``."""
    scales = _scales(run, config, x, y)
    x, y = x * scales.read[:, None, None], y * scales.write[:, None, None]
    if run.start.data_points:
        params = initialise.from_data(config, key, x, y, noise=run.start.noise, decoder=run.start.decoder)
    else:
        params = {**initialise.random(config, key, x.dtype), "b_dec": jnp.mean(y, axis=1)}
    if "threshold" in params:
        params = {**params, "threshold": jnp.full_like(params["threshold"], run.sparsity.threshold)}
    if run.start.rate is not None:
        params = initialise.set_firing_rate(params, config, x, run.start.rate)
    params, control = make_gate(run.sparsity).init(params, kind_of(config).decoder_norms(params, config))
    return {
        "params": params,
        "control": control,
        "optimiser": make_optimiser(run.optimiser, run.steps).init(params),
        "scales": scales._asdict(),
        "stats": resample.init(kind_of(config).groups(config), config.n_features, x.dtype),
        "step": jnp.zeros((), jnp.int32),
    }


def _scales(run: DictionaryRun, config: DictionaryConfig, x: Array, y: Array) -> normalise.Scales:
    """The scales of sites, one factor where what is read and written, or all layers, must have the same."""
    if not run.normalise:
        return normalise.unit(config.n_layers, x.dtype)
    scales = normalise.measure(x, y)
    if config.centre:
        return scales._replace(read=scales.write)
    if config.shared:
        return scales._replace(write=jnp.full_like(scales.write, jnp.exp(jnp.mean(jnp.log(scales.write)))))
    return scales


def step(
    run: DictionaryRun, config: DictionaryConfig, state: Tree, batch: tuple[Array, Array]
) -> tuple[Tree, dict[str, Any]]:
    """One optimiser step on raw sites ``(x, y)``, ``[L, R, D]`` each."""
    gate = make_gate(run.sparsity)
    progress = state["step"].astype(batch[0].dtype) / run.steps
    x = batch[0] * state["scales"]["read"][:, None, None]
    y = batch[1] * state["scales"]["write"][:, None, None]
    dead = resample.dead(run.resample, state["stats"], state["step"])
    value = partial(
        objective,
        run.objective,
        gate,
        config,
        control=state["control"],
        x=x,
        y=y,
        dead=dead,
        progress=progress,
    )
    (total, found), gradient = jax.value_and_grad(value, has_aux=True)(state["params"])
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer step
        updates, moments = make_optimiser(run.optimiser, run.steps).update(
            gradient, state["optimiser"], state["params"]
        )
    params = jax.tree.map(lambda p, u: p + u, state["params"], updates)
    share = resample.density(found.a)
    l0 = jnp.sum(share, axis=1)
    stats = resample.update(state["stats"], share, state["step"], run.resample.decay)
    control = gate.update(state["control"], l0, found.seen, progress)
    if run.resample.every:
        key = jax.random.fold_in(jax.random.key(run.seed), state["step"])
        params, moments, stats = resample.resample(
            run.resample, config, params, moments, stats, key=key, step=state["step"], progress=progress, x=x,
            residual=found.residual,
            thresholds=lambda p, norms: gate.thresholds(p, norms, control),
        )  # fmt: skip
    metrics = {
        "loss": total,
        "nmse": jnp.mean(found.error),
        "l0": jnp.mean(l0),
        "nmse_layers": found.error,
        "l0_layers": l0,
        "dead": jnp.mean(resample.dead(run.resample, stats, state["step"]).astype(x.dtype)),
        "gradient_norm": _norm(gradient),
        **{name: jnp.mean(term) for name, term in found.terms.items() if name != "error"},
        **{f"{name}_layers": value for name, value in control.items()},
    }
    return {
        "params": params,
        "control": control,
        "optimiser": moments,
        "scales": state["scales"],
        "stats": stats,
        "step": state["step"] + 1,
    }, metrics


def _norm(tree: Tree) -> Array:
    return jnp.sqrt(sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(tree)))


def to_dictionary(run: DictionaryRun, config: DictionaryConfig, state: Tree, name: str = "") -> Dictionary:
    """The dictionary of a state, for raw sites: thresholds in place, scales folded in, decoders of length one."""
    norms = kind_of(config).decoder_norms(state["params"], config)
    params = make_gate(run.sparsity).plain(state["params"], norms, state["control"])
    trained, scales = Dictionary(params, config, name), normalise.Scales(**state["scales"])
    if config.ranked:  # by decoder length, which folding changes
        return normalise.fold(normalise.unit_decoders(trained), scales)
    return normalise.unit_decoders(normalise.fold(trained, scales))


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


def card(
    run: DictionaryRun, model: Model | FlaxSource, dictionary: Dictionary, figures: dict[str, Any]
) -> dict[str, Any]:
    """What a person should know about a trained dictionary."""
    from jaxinterp.core.provenance import versions
    from jaxinterp.training.configs import to_dict

    recipe = to_dict(run)
    recipe.pop("model")
    if path := recipe.pop("store"):
        recipe["store"] = Store(path).digest()
    return {
        "what": f"{dictionary.config.kind} of {dictionary.config.n_features} features a layer",
        "model": {"name": run.name or model.name, "digest": model.digest()},
        "dictionary": {**dictionary.config.to_dict(), "digest": dictionary.digest()},
        "held_out": figures,
        "training_tokens": run.steps * run.batch,
        "recipe": recipe,
        "versions": versions(),
    }


def _shardings(config: DictionaryConfig, mesh: Mesh, abstract: Tree) -> tuple[Tree, Tree]:
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxinterp.parallel.weights import shardings
    from jaxinterp.training.layout import like_params

    declared = shardings(kind_of(config).declare(config), mesh)
    return like_params(abstract, declared, mesh), NamedSharding(mesh, PartitionSpec(None, "data"))
