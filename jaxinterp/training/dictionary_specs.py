"""What a run that trains a dictionary is told: the fields of its configuration file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from jaxinterp.activations import FlaxSource, StoredConfig, StreamConfig, TextConfig
from jaxinterp.activations.text import look_up
from jaxinterp.checkpoints.load import load_model
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.dictionaries.sites import preset
from jaxinterp.models.model import Model
from jaxinterp.training.objective import ObjectiveConfig
from jaxinterp.training.optimiser import OptimiserConfig
from jaxinterp.training.resample import ResampleConfig
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate


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
    resample: ResampleConfig = field(default_factory=ResampleConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise InputError(f"steps is {self.steps} and batch {self.batch}, both must be at least 1")


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
