"""What a run that trains a dictionary is told: the fields of its configuration file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinterp.activations import FlaxSource, StoredConfig, StreamConfig, TextConfig
from jaxinterp.activations.collect_mesh import place
from jaxinterp.activations.text import look_up
from jaxinterp.checkpoints.load import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.dictionaries.from_model import attention_like
from jaxinterp.dictionaries.sites import preset
from jaxinterp.models.model import Model
from jaxinterp.models.weights import declare
from jaxinterp.parallel import DEFAULT_RULES, weights
from jaxinterp.training.gradient import SHARDS
from jaxinterp.training.objective import ObjectiveConfig
from jaxinterp.training.optimiser import OptimiserConfig
from jaxinterp.training.resample import ResampleConfig
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate

if TYPE_CHECKING:
    from jax.sharding import Mesh


@dataclass(frozen=True)
class DictionarySpec:
    """The dictionary to train; sizes of the model come from the model. See `DictionaryConfig`.

    Attributes:
      sites: the name of a convention (`dictionaries.sites.PRESETS`) that both sites are then taken from.
      layers: the model's layers that it is of; empty means all.
      ranks: of a "molt": pairs (rank, features of it), which add up to ``n_features``.
      qk_heads: of a "lorsa": query-key heads, a multiple of the model's; 0 means as many as the model has.
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
    layers: tuple[int, ...] = ()
    ranks: tuple[tuple[int, ...], ...] = ()
    qk_heads: int = 0

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
      method: "data-points" (encoders and decoders at noisy data points), "random" (as the kind declares), "transpose"
        (random decoders, encoders their transpose), "anthropic" (*Circuits Updates, January 2025*), "neurons" (of the
        model's MLPs) or "attention" (the model's heads, for a lorsa); empty means attention for a lorsa and data points
        for all else.
      noise: share of a random direction in data points.
      decoder: length of a feature's joined decoder at the start (not of random, anthropic and neurons).
      rows: how many rows the start is made from.
      rate: share of rows on which a feature fires at the start; None leaves encoder biases at zero.
    """

    method: str = ""
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
      compute: "float32", or "bfloat16" for the factors of matrix products; their sums, what is between them, weights
        and the optimiser stay as they are.
      accumulate: parts of a batch whose gradients are computed one after another and added; what a loss takes over a
        whole batch (batch top-k, a variance, a mean L0) is then taken over a part.
      reduce: how gradients of several devices are added: "psum", as is fastest, or "exact", in an order of its own:
        the same bytes for 1, 2, 4 or 8 devices along data, each batch in 8 parts (see ``accumulate``).
      name: the model's name in the saved files; the loaded model's own when empty.
      store: a folder that `jaxinterp collect` made with this model, whose rows are trained on in the order of
        ``stored``; empty: rows are streamed from the model. ``text`` stays that of the evaluation.
      dictionaries: name → changes, for several dictionaries in one run; see `jaxinterp.training.several`.
    """

    model: str
    steps: int
    batch: int = 1024
    seed: int = 0
    normalise: bool = True
    dtype: str = "float32"
    compute: str = "float32"
    accumulate: int = 1
    reduce: str = "psum"
    name: str = ""
    store: str = ""
    stored: StoredConfig = field(default_factory=StoredConfig)
    dictionaries: dict[str, Any] = field(default_factory=dict)
    dictionary: DictionarySpec = field(default_factory=DictionarySpec)
    text: TextConfig = field(default_factory=TextConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    start: StartConfig = field(default_factory=StartConfig)
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    resample: ResampleConfig = field(default_factory=ResampleConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise InputError(f"steps is {self.steps} and batch {self.batch}, both must be at least 1")
        for name, allowed in (("compute", ("float32", "bfloat16")), ("reduce", ("psum", "exact"))):
            if (value := getattr(self, name)) not in allowed:
                raise InputError(f"{name} is {value!r}, expected {' or '.join(allowed)}")
        shards = SHARDS if self.reduce == "exact" else 1
        if self.accumulate < 1 or self.batch % (self.accumulate * shards):
            exact = f" and the {shards} parts of reduce: exact" if shards > 1 else ""
            raise InputError(
                f"accumulate is {self.accumulate}, which{exact} must divide the batch of {self.batch} rows"
            )


def load_subject(reference: str, mesh: Mesh | None = None) -> Model | FlaxSource:
    """The model that a run names, divided over ``mesh`` where there is one.

    Raises:
      InputError: nothing there, or a function that returns something else.
    """
    if ":" not in reference or Path(reference).exists():
        try:
            return load_model(reference, mesh=mesh)
        except InputError:
            if mesh is None:
                raise
        # Sizes that the mesh does not divide stay whole; whatever else was wrong is said again.
        model = load_model(reference)
        rules = weights.fitting(declare(model.config), mesh)
        return dataclasses.replace(model, params=place(model, mesh, rules))
    made = look_up(reference, "model", "a folder, a file, pocket, or module:function")()
    if not isinstance(made, Model | FlaxSource):
        raise InputError(f"model: {reference} gave a {type(made).__name__}, expected a Model or a FlaxSource")
    if mesh is None:
        return made
    if isinstance(made, Model):
        rules = weights.fitting(declare(made.config), mesh)
        return dataclasses.replace(made, params=place(made, mesh, rules))
    return dataclasses.replace(made, variables=place(made, mesh, DEFAULT_RULES))


def dictionary_config(run: DictionaryRun, model: Model | FlaxSource) -> DictionaryConfig:
    """The config of the dictionary that ``run`` trains.

    Raises:
      InputError: what the kind cannot do.
    """
    spec, own = run.dictionary, model.config
    if any(not 0 <= layer < own.n_layers for layer in spec.layers):
        raise InputError(
            f"dictionary: layers are {spec.layers}, the model has layers 0 to {own.n_layers - 1}"
        )
    read, write = (site_width(own, site) for site in (spec.read_site, spec.write_site))
    attention = None
    if spec.kind == "lorsa":
        if not isinstance(model, Model):
            raise InputError("dictionary: a lorsa looks where a model of ours does, which this one is not")
        attention = attention_like(model.config, spec.qk_heads, spec.layers)
    config = DictionaryConfig(
        n_layers=len(spec.layers) or own.n_layers,
        d_model=read,
        d_write=None if write == read else write,
        model_name=run.name or model.name,
        activation="relu",
        attention=attention,
        **{
            name: value
            for name, value in dataclasses.asdict(spec).items()
            if name not in ("sites", "qk_heads")
        },
    )
    config = make_gate(run.sparsity).config(config)
    if run.resample.every and kind_of(config).sequences:
        raise InputError(
            f"resample: features of a {config.kind} cannot be restarted, set resample.every to 0"
        )
    return config


def site_width(config: Any, site: str) -> int:
    """Entries of a site of a model, by its config."""
    if site == "attn_z" and hasattr(config, "n_heads"):
        return int(config.n_heads * config.d_value)
    return int(config.d_model)
