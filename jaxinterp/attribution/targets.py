"""What a graph explains: next tokens or directions read at the last position.

Letters: C targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import unembedding

PROBABILITY = 0.95
AT_MOST = 10


@dataclass(frozen=True)
class Direction:
    """A direction [D] in what the unembedding reads, to be explained instead of a token."""

    vector: Any
    label: str


@dataclass(frozen=True)
class Targets:
    """Targets of one graph, in order.

    Attributes:
      tokens: [C] token ids, -1 for a direction.
      labels: text of each.
      probabilities: [C] probability of the token, 1 / C for a direction: the weights of the influence.
      vectors: [C, D] read after the final norm: the unembedding of the token minus its mean over the
        vocabulary (*Circuit Tracing*, "Attribution graphs": the demeaned logit).
    """

    tokens: np.ndarray
    labels: tuple[str, ...]
    probabilities: np.ndarray
    vectors: np.ndarray


def salient(probabilities: np.ndarray, mass: float = PROBABILITY, at_most: int = AT_MOST) -> np.ndarray:
    """Token ids of the smallest set of most probable tokens that reaches ``mass``, at most ``at_most``.

    Args:
      probabilities: [V].
    """
    order = np.argsort(-probabilities, kind="stable")[:at_most]
    reached = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
    return order[: min(reached, at_most)]


def choose(
    wanted: Sequence[Any] | None, logits: np.ndarray, params: Tree, config: ModelConfig, tokenizer: Any
) -> Targets:
    """The targets of a graph.

    Args:
      wanted: None for salient next tokens; else token ids, token texts and `Direction`, mixed freely.
      logits: [V] at the last position, after any softcap.
      params, config: the model.
      tokenizer: for token texts, or None.

    Raises:
      InputError: an empty list, a token outside the vocabulary or given twice, a text that is not one
        token, a direction of another width or of zeros.
    """
    # Softmax in float64 on the host: the choice must not depend on the device.
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    if wanted is None:
        wanted = [int(t) for t in salient(probabilities)]
    if not len(wanted):
        raise InputError("targets is an empty list, give at least one token or direction, or None")
    tokens = np.array([-1 if isinstance(item, Direction) else _token(item, tokenizer) for item in wanted])
    named = tokens[[not isinstance(item, Direction) for item in wanted]]
    for token in named:
        if not 0 <= token < config.vocab_size:
            raise InputError(f"target token {token} is outside the vocabulary of {config.vocab_size}")
    if len(np.unique(named)) < len(named):
        raise InputError("a target token was given twice")
    filled = np.zeros(-(-len(tokens) // _PADDED) * _PADDED, np.int32)
    filled[: len(tokens)] = np.maximum(tokens, 0)
    vectors = np.array(_token_vectors(params, config, filled))[: len(tokens)]
    text = getattr(tokenizer, "text", str)
    labels, weights = [], []
    for i, item in enumerate(wanted):
        if isinstance(item, Direction):
            vectors[i] = _checked(item, config.d_model)
            labels.append(item.label)
            weights.append(1.0 / len(wanted))
        else:
            labels.append(text(int(tokens[i])))
            weights.append(float(probabilities[tokens[i]]))
    return Targets(tokens, tuple(labels), np.asarray(weights), vectors)


_PADDED = 16  # so that another number of targets does not compile again


@partial(jax.jit, static_argnums=1)
def _token_vectors(params: Tree, config: ModelConfig, tokens: Array) -> Array:
    matrix = unembedding(params, config)
    return (matrix[:, tokens] - jnp.mean(matrix, axis=1, keepdims=True)).T


def _checked(direction: Direction, width: int) -> np.ndarray:
    vector = np.asarray(direction.vector)
    if vector.shape != (width,):
        raise InputError(f"the direction {direction.label!r} has shape {vector.shape}, expected ({width},)")
    if not vector.any():
        raise InputError(f"the direction {direction.label!r} is zero everywhere")
    return vector


def values(targets: Targets, final_norm: np.ndarray) -> np.ndarray:
    """The demeaned logits [C] before any softcap: ``vectors · final_norm [D]``, in float64."""
    return np.einsum("cd,d->c", targets.vectors.astype(np.float64), final_norm.astype(np.float64))


def _token(item: Any, tokenizer: Any) -> int:
    if isinstance(item, int | np.integer):
        return int(item)
    if not isinstance(item, str):
        raise InputError(f"a target is a token id, a token's text or a Direction, not {type(item).__name__}")
    if tokenizer is None:
        raise InputError(f"the target {item!r} is text and this model has no tokenizer, give a token id")
    for token in range(tokenizer.vocab_size):
        if tokenizer.text(token) == item:
            return token
    raise InputError(f"the target {item!r} is not one token of this model's vocabulary")
