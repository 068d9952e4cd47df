"""A tiny model's text and dictionaries for it, in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.text import Batch, plain
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.initialise import random
from jaxinterp.models.model import Model

LENGTH = 8


def text(model: Model, count: int = 3, seed: int = 0) -> Batch:
    tokens = np.random.default_rng(seed).integers(0, model.config.vocab_size, (count, LENGTH))
    return plain(tokens)


def dictionary(model: Model, kind: str = "plt", seed: int = 1, **changes: Any) -> Dictionary:
    settings = {"read_site": "mlp_in", "write_site": "mlp_out", "activation": "relu", **changes}
    layers = len(settings.get("layers", ())) or model.config.n_layers
    config = DictionaryConfig(kind, layers, 10, model.config.d_model, **settings)
    params = random(config, jax.random.key(seed), jnp.float64)
    noise = jax.random.normal(jax.random.key(seed + 1), params["b_dec"].shape, jnp.float64)
    return Dictionary({**params, "b_dec": params["b_dec"] + 0.1 * noise}, config, "it")
