"""The parameters that training starts from, as a run's ``start`` says."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxinterp.activations import FlaxSource
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import from_model, initialise
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.dictionaries.normalise import Scales
from jaxinterp.models.model import Model
from jaxinterp.training.dictionary_specs import StartConfig

MODEL_METHODS = ("neurons", "attention")
"""Those that need the model's weights, in `from_weights`."""


def method(start: StartConfig, config: DictionaryConfig) -> str:
    """The method of ``start``; where none is named, heads start from the model's attention, all else from data points.

    Raises:
      InputError: one that the kind cannot start from.
    """
    sequences = kind_of(config).sequences
    chosen = start.method or ("attention" if sequences else "data-points")
    good = (
        ("attention", "random")
        if sequences
        else ("data-points", "random", "transpose", "anthropic", "neurons")
    )
    if chosen not in good:
        raise InputError(f"start: method is {chosen!r}, a {config.kind} starts from one of {', '.join(good)}")
    return chosen


def from_weights(
    start: StartConfig, config: DictionaryConfig, model: Model | FlaxSource, key: Array, x: Array
) -> Tree | None:
    """Parameters for raw sites from the weights of a model, or None where ``start`` wants others.

    Args:
      x: read-site values ``[L, R, D]``.

    Raises:
      InputError: a model that is not ours, sites that do not go together with its weights; see `method`.
    """
    chosen = method(start, config)
    if chosen not in MODEL_METHODS:
        return None
    if not isinstance(model, Model):
        raise InputError(f"start: the method {chosen} needs the weights of a model of ours")
    if chosen == "attention":
        return from_model.from_attention(config, model, key)
    return from_model.from_neurons(config, model, key, x)


def parameters(
    start: StartConfig,
    config: DictionaryConfig,
    key: Array,
    x: Array,
    y: Array,
    given: Tree | None,
    scales: Scales,
) -> dict[str, Any]:
    """Parameters for scaled sites ``x, y [L, R, D]``; encoder biases are still to be set to a firing rate.

    Args:
      given: of `from_weights`, for raw sites.
      scales: those that x and y were multiplied by.
    """
    chosen = method(start, config)
    if chosen == "data-points":
        return dict(initialise.from_data(config, key, x, y, noise=start.noise, decoder=start.decoder))
    if chosen in MODEL_METHODS:
        if given is None:  # only shapes are asked for
            given = initialise.random(config, key, x.dtype)
        made = kind_of(config).scale_sites(given, config, 1 / scales.read, scales.write)
        if chosen == "attention":
            made = {**initialise.with_lengths(made, config, start.decoder), "b_dec": jnp.mean(y, axis=1)}
        return {name: _like(value, x) for name, value in made.items()}
    if chosen == "transpose":
        made = initialise.transposed(config, key, x.dtype, decoder=start.decoder)
    elif chosen == "anthropic":
        made = initialise.anthropic(config, key, x.dtype)
    else:
        made = initialise.random(config, key, x.dtype)
    return {**made, "b_dec": jnp.mean(y, axis=1)}


def _like(value: Any, x: Array) -> Any:
    return tuple(_like(v, x) for v in value) if isinstance(value, tuple) else value.astype(x.dtype)
