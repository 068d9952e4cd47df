"""Training a dictionary on data whose features are known: the trainer's own step, many steps in one program."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig
from jaxinterp.evaluation.absolute_value import AbsoluteValue
from jaxinterp.evaluation.synthetic import SyntheticFeatures
from jaxinterp.training.dictionary_specs import DictionaryRun
from jaxinterp.training.dictionary_step import init, step, to_dictionary
from jaxinterp.training.sparsity.base import make_gate

Data = SyntheticFeatures | AbsoluteValue

CHUNK = 500
"""Steps of one compiled program, so that what a step returns does not pile up."""


def synthetic_config(run: DictionaryRun, data: Data) -> DictionaryConfig:
    """The config of the one-layer dictionary that ``run`` trains on ``data``.

    Raises:
      InputError: what does not go together.
    """
    return make_gate(run.sparsity).config(
        DictionaryConfig(
            kind=run.dictionary.kind, n_layers=1, n_features=run.dictionary.n_features, d_model=data.width,
            activation="relu", centre=run.dictionary.centre, skip=run.dictionary.skip, model_name="synthetic",
            read_site=run.dictionary.read_site, write_site=run.dictionary.write_site,
        )
    )  # fmt: skip


def train_synthetic(
    run: DictionaryRun, data: Data, steps: int | None = None
) -> tuple[Dictionary, dict[str, np.ndarray]]:
    """Train what ``run`` describes to write ``data.target(x)`` of the rows x of ``data``.

    Batches are those of ``data`` at the run's own step, so the same run gives the same bytes however it is cut. What
    ``run`` says of models, text, stores and evaluation is not used.

    Args:
      run: ``run.seed`` is that of restarts.
      data: where rows come from; ``data.seed`` is also that of the start. Another one compiles nothing anew.
      steps: stop after so many of ``run.steps``; None means all. 0 gives the dictionary at the start.

    Returns:
      The dictionary and the loss, normalised error, L0 and share of dead features of every step.

    Raises:
      InputError: settings that do not go together.
    """
    start, several, config = _programs(_Setting(run, dataclasses.replace(data, seed=0)))
    steps = run.steps if steps is None else steps
    drawn = data.drawn()
    state = start(jax.random.key(data.seed), drawn)
    history = []
    for first in range(0, steps, CHUNK):
        state, metrics = several(state, drawn, min(CHUNK, steps - first))
        history.append({name: np.asarray(values) for name, values in metrics.items()})
    lines = {name: np.concatenate([h[name] for h in history]) for name in history[0]} if history else {}
    return to_dictionary(run, config, state), lines


@dataclass(frozen=True)
class _Setting:
    """What programs are made for."""

    run: DictionaryRun
    data: Data

    def __hash__(self) -> int:
        return hash(repr(self))  # a run holds a dict, which has no hash


@lru_cache(maxsize=8)
def _programs(setting: _Setting) -> tuple[Any, Any, DictionaryConfig]:
    """The start, several steps, and the config: programs for any seed of the data."""
    run, data = setting.run, setting.data
    config = synthetic_config(run, data)
    target = data.target if run.objective.jacobian else None

    def start(key: Array, drawn: Tree) -> Tree:
        x = data.rows(drawn, run.steps, run.start.rows)  # which no step sees
        return init(run, config, key, x, data.target(x))

    def several(state: Tree, drawn: Tree, length: int) -> tuple[Tree, dict[str, Array]]:
        def one(state: Tree, _: None) -> tuple[Tree, dict[str, Array]]:
            x = data.rows(drawn, state["step"], run.batch)
            state, metrics = step(run, config, state, (x, data.target(x)), target=target)
            return state, {name: metrics[name] for name in ("loss", "nmse", "l0", "dead")}

        return jax.lax.scan(one, state, length=length)

    return jax.jit(start), jax.jit(several, static_argnums=2), config
