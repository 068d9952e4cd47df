"""Text sampled from the model itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.text import Batch, Batches, TextConfig, plain
from jaxinterp.core.errors import InputError
from jaxinterp.models.generation import generate_tokens
from jaxinterp.models.model import Model


def sampled(model: Model, config: TextConfig, seed: int, first: int | None) -> Batches:
    """Batches of the model's own text: every sequence starts with ``first`` and goes on at a temperature.

    Batch ``index`` is drawn with the key ``fold_in(key(seed), index)``. Where the tokenizer has an end
    token, tokens after its first occurrence are not used.
    """
    if first is None:
        raise InputError(
            "text: sampling needs a first token, and the model's tokenizer has none (set text.start)"
        )
    end = getattr(model.tokenizer, "eos", None)
    prompt = jnp.full((config.batch, 1), first, jnp.int32)

    def batch(index: int) -> Batch:
        key = jax.random.fold_in(jax.random.key(seed), index)
        tokens = generate_tokens(
            model.params, model.config, prompt, new=config.length - 1, key=key, temperature=config.temperature
        )
        tokens = np.asarray(tokens)
        use = None
        if end is not None:
            ended = np.cumsum(tokens == end, axis=1)
            use = (ended - (tokens == end)) == 0
        return plain(tokens, use)

    return batch
