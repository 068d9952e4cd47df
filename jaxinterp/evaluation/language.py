"""What replacing every MLP by a dictionary does to the model's predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model
from jaxinterp.replacement.live import forward as replaced_forward


@dataclass(frozen=True)
class LanguageFigures:
    """Cross-entropies in nats a predicted token.

    Attributes:
      tokens: how many predictions.
      clean: the model's own.
      replaced: with every MLP's output replaced by the dictionary's, without error terms.
      agreement: share of predictions whose most probable token stays the same.
    """

    tokens: int
    clean: float
    replaced: float
    agreement: float

    @property
    def gap(self) -> float:
        """``replaced - clean``."""
        return self.replaced - self.clean

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready figures."""
        return {
            "predictions": self.tokens,
            "ce_clean": self.clean,
            "ce_replaced": self.replaced,
            "ce_gap": self.gap,
            "top1_agreement": self.agreement,
        }


def targets(tokens: Array, segments: Array, use: Array) -> tuple[Array, Array]:
    """Next tokens ``[B, T]`` and which of them count: inside the same document, both tokens in use."""
    following = jnp.roll(tokens, -1, axis=1)
    same = (segments == jnp.roll(segments, -1, axis=1)) & use & jnp.roll(use, -1, axis=1)
    return following, same.at[:, -1].set(False)


@partial(jax.jit, static_argnames="config")
def _sums(
    params: Any,
    config: Any,
    dictionary: Dictionary,
    tokens: Array,
    segments: Array,
    positions: Array,
    use: Array,
) -> tuple[Array, Array, Array, Array]:
    following, counted = targets(tokens, segments, use)
    clean, _ = forward(params, config, tokens, segments=segments, positions=positions)
    replaced, _ = replaced_forward(params, config, dictionary, tokens, segments=segments, positions=positions)

    def losses(logits: Array) -> Array:
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), following[:, :, None], axis=2)[:, :, 0]
        return -jnp.where(counted, picked, jnp.zeros_like(picked)).sum(axis=1)

    same = (jnp.argmax(clean, axis=-1) == jnp.argmax(replaced, axis=-1)) & counted
    return losses(clean), losses(replaced), same.sum(), counted.sum()


def language(model: Model, dictionary: Dictionary, batches: Iterable[Any]) -> LanguageFigures:
    """Measure clean and replaced cross-entropy over text.

    Args:
      model: the model.
      dictionary: it must fit the model.
      batches: `jaxinterp.activations.text.Batch`, all of one shape.

    Raises:
      ValueError: nothing to predict.
    """
    import numpy as np

    clean = replaced = 0.0
    same = count = 0
    for batch in batches:
        arrays = [jnp.asarray(a) for a in (batch.tokens, batch.segments, batch.positions, batch.use)]
        one, two, three, four = _sums(model.params, model.config, dictionary, *arrays)
        clean += float(np.asarray(one, np.float64).sum())
        replaced += float(np.asarray(two, np.float64).sum())
        same += int(three)
        count += int(four)
    if not count:
        raise ValueError("no next token to predict in this text")
    return LanguageFigures(count, clean / count, replaced / count, same / count)
