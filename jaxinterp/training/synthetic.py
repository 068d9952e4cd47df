"""Training a dictionary on data whose features are known: the trainer's own step, many steps in one program."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.evaluation.synthetic import SyntheticFeatures
from jaxinterp.training.dictionary_specs import DictionaryRun
from jaxinterp.training.dictionary_step import init, step, to_dictionary
from jaxinterp.training.sparsity.base import make_gate

CHUNK = 500
"""Steps of one compiled program, so that what a step returns does not pile up."""


def synthetic_config(run: DictionaryRun, data: SyntheticFeatures) -> DictionaryConfig:
    """The config of the one-layer dictionary that ``run`` trains on ``data``.

    Raises:
      InputError: a kind that is not of one layer's features.
    """
    config = make_gate(run.sparsity).config(
        DictionaryConfig(
            kind=run.dictionary.kind, n_layers=1, n_features=run.dictionary.n_features, d_model=data.width,
            activation="relu", centre=run.dictionary.centre, skip=run.dictionary.skip, model_name="synthetic",
            read_site=run.dictionary.read_site, write_site=run.dictionary.write_site,
        )
    )  # fmt: skip
    if run.resample.every and kind_of(config).groups(config) != config.n_layers:
        raise InputError(
            f"resample: features of a {config.kind} cannot be restarted, set resample.every to 0"
        )
    return config


def train_synthetic(
    run: DictionaryRun, data: SyntheticFeatures, steps: int | None = None
) -> tuple[Dictionary, dict[str, np.ndarray]]:
    """Train what ``run`` describes to reconstruct the rows of ``data``.

    Batches are those of ``data`` at the run's own step, so the same run gives the same bytes however it is cut. What
    ``run`` says of models, text, stores and evaluation is not used.

    Args:
      run: ``run.seed`` sets the start and the restarts; the data have a seed of their own.
      data: where rows come from.
      steps: stop after so many of ``run.steps``; None means all. 0 gives the dictionary at the start.

    Returns:
      The dictionary and the loss, normalised error, L0 and share of dead features of every step.

    Raises:
      InputError: settings that do not go together.
    """
    config = synthetic_config(run, data)
    steps = run.steps if steps is None else steps

    def one(state: Tree, _: None) -> tuple[Tree, dict[str, Array]]:
        x = data.batch(state["step"], run.batch)
        state, metrics = step(run, config, state, (x, x))
        return state, {name: metrics[name] for name in ("loss", "nmse", "l0", "dead")}

    sample = data.batch(run.steps, run.start.rows)  # which no step sees
    state = jax.jit(partial(init, run, config))(jax.random.key(run.seed), sample, sample)
    several = jax.jit(lambda state, length: jax.lax.scan(one, state, length=length), static_argnums=1)
    history = []
    for first in range(0, steps, CHUNK):
        state, metrics = several(state, min(CHUNK, steps - first))
        history.append({name: np.asarray(values) for name, values in metrics.items()})
    lines = {name: np.concatenate([h[name] for h in history]) for name in history[0]} if history else {}
    return to_dictionary(run, config, state), lines
