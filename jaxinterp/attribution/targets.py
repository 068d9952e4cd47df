"""What a graph explains: next tokens or directions read at the last position.

Letters: C targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.precision import einsum

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
    vectors: Any


def salient(probabilities: np.ndarray, mass: float = PROBABILITY, at_most: int = AT_MOST) -> np.ndarray:
    """Token ids of the smallest set of most probable tokens that reaches ``mass``, at most ``at_most``.

    Args:
      probabilities: [V].
    """
    order = np.argsort(-probabilities, kind="stable")[:at_most]
    reached = int(np.searchsorted(np.cumsum(probabilities[order]), mass)) + 1
    return order[: min(reached, at_most)]


def choose(wanted: Sequence[Any] | None, logits: Any, unembedding: Any, tokenizer: Any, text: Any) -> Targets:
    """The targets of a graph.

    Args:
      wanted: None for salient next tokens; else token ids, token texts and `Direction`, mixed freely.
      logits: [V] at the last position, after any softcap.
      unembedding: [D, V].
      tokenizer: for token texts.
      text: token id → text.

    Raises:
      InputError: an empty list, a token outside the vocabulary, a text that is not one token, a direction
        of another width or of zeros.
    """
    import jax.numpy as jnp

    # Softmax in float64 on the host: the choice must not depend on the device.
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(np.asarray(logits, np.float64)))
    probabilities = shifted / shifted.sum()
    width, vocabulary = unembedding.shape
    if wanted is None:
        wanted = [int(t) for t in salient(probabilities)]
    if not len(wanted):
        raise InputError("targets is an empty list, give at least one token or direction, or None")
    mean = jnp.mean(unembedding, axis=1)
    tokens, labels, weights, vectors = [], [], [], []
    for item in wanted:
        if isinstance(item, Direction):
            vector = jnp.asarray(item.vector, unembedding.dtype)
            if vector.shape != (width,):
                raise InputError(
                    f"the direction {item.label!r} has shape {vector.shape}, expected ({width},)"
                )
            if not bool(jnp.any(vector != 0)):
                raise InputError(f"the direction {item.label!r} is zero everywhere")
            tokens.append(-1)
            labels.append(item.label)
            weights.append(1.0 / len(wanted))
            vectors.append(vector)
            continue
        token = _token(item, tokenizer)
        if not 0 <= token < vocabulary:
            raise InputError(f"target token {token} is outside the vocabulary of {vocabulary}")
        tokens.append(token)
        labels.append(text(token))
        weights.append(float(probabilities[token]))
        vectors.append(unembedding[:, token] - mean)
    if len({t for t in tokens if t >= 0}) < sum(t >= 0 for t in tokens):
        raise InputError("a target token was given twice")
    return Targets(np.asarray(tokens), tuple(labels), np.asarray(weights), jnp.stack(vectors))


def values(targets: Targets, final_norm: Any) -> np.ndarray:
    """The demeaned logits [C] before any softcap: ``vectors · final_norm [D]``."""
    return np.asarray(einsum("cd,d->c", targets.vectors, final_norm), np.float64)


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
