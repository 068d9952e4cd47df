"""All figures of a dictionary on held-out text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.flax_source import FlaxSource
from jaxinterp.activations.stream import StreamConfig, activations
from jaxinterp.activations.text import Batch, Source
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, fits
from jaxinterp.evaluation.language import language
from jaxinterp.evaluation.reconstruction import reconstruction
from jaxinterp.models.model import Model


def evaluate(
    model: Model | FlaxSource, dictionary: Dictionary, source: Source, *, tokens: int, microbatch: int = 16
) -> dict[str, Any]:
    """Reconstruction, sparsity, dead features and cross-entropies on ``tokens`` tokens of held-out text.

    The tokens are the first usable ones of the source's batches; first tokens of documents count.

    Args:
      model: the model that the dictionary was made for. With a `FlaxSource`, whose MLPs cannot be replaced, there are
        no cross-entropies.
      dictionary: what is measured.
      source: text; `jaxinterp.activations.text.make_source` with a seed of its own.
      tokens: how many.
      microbatch: sequences that go through the model at a time.

    Raises:
      InputError: the dictionary does not fit the model.
    """
    fits(dictionary, model.config)
    sites = (dictionary.config.read_site, dictionary.config.write_site)
    batches = list(_take(source, tokens))
    rows = reconstruction(dictionary, _rows(model, batches, sites, microbatch))
    if isinstance(model, FlaxSource):
        return rows.to_dict()
    figures = language(model, dictionary, _split(batches, microbatch))
    return {**rows.to_dict(), **figures.to_dict()}


def _take(source: Source, tokens: int) -> Iterator[Batch]:
    """Batches whose usable tokens add up to ``tokens``; later ones are marked as not used."""
    index = 0
    while tokens > 0:
        batch = source.batch(index)
        flat = batch.use.reshape(-1)
        kept = flat & (np.cumsum(flat) <= tokens)
        tokens -= int(kept.sum())
        index += 1
        yield batch._replace(use=kept.reshape(batch.use.shape))


def _split(batches: list[Batch], size: int) -> Iterator[Batch]:
    """Batches of at most ``size`` sequences; those with nothing to use are left out."""
    for batch in batches:
        for start in range(0, len(batch.tokens), size):
            piece = Batch(*(array[start : start + size] for array in batch))
            if piece.use.any():
                yield piece


def _rows(
    model: Model | FlaxSource, batches: list[Batch], sites: tuple[str, str], microbatch: int
) -> Iterator[tuple[Array, Array]]:
    for batch in _split(batches, microbatch):
        x, y = activations(model, batch, sites, StreamConfig(microbatch=microbatch))
        used = jnp.asarray(np.flatnonzero(batch.use.reshape(-1)))
        yield x[:, used], y[:, used]
