"""How much single virtual weights, or features, matter: Fisher effectiveness, helpfulness, pruning curves.

For small models, following Anthropic's circuits update of August 2026 on a virtual-weight model. Over the predictions
of a text (tokens whose next token counts), with p the replacement model's next-token probabilities and p_ε those with
the share ε of one weight taken out (`removals`):

- *effectiveness* = mean of ``½ Var_{v ~ p}(g_v)``, ``g = d logits / dε`` at ε = 0: the second order of
  ``KL(p ‖ p_ε)`` at ε = 1. It is ½ of the diagonal of the Fisher information in the coordinates ε. Thresholds that a
  removal crosses do not count: the derivative is that of what is active.
- *divergence* = mean of ``KL(p ‖ p_ε)`` itself.
- *helpfulness* = mean of ``loss_ε - loss``, cross-entropies of the next tokens in nats: positive if the weight helps.

Letters: E weights, C of them at a time, B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.activations.text import Batch
from jaxinterp.attribution.removals import Weights, check, logits_without
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.models.model import Model


@dataclass(frozen=True)
class Effects:
    """Figures of E weights, host arrays in float64; see the module. What was not asked for is empty.

    Attributes:
      predictions: how many predictions they are means over.
      loss: cross-entropy of the whole replacement model.
      share: the ε of ``divergence`` and ``helpfulness``.
      effectiveness, divergence, helpfulness: [E] or [0].
    """

    predictions: int
    loss: float
    share: float
    effectiveness: np.ndarray
    divergence: np.ndarray
    helpfulness: np.ndarray


def effects(
    model: Model, dictionary: Dictionary, weights: Weights, batches: Iterable[Batch], *, share: float = 1.0,
    exact: bool = True, fisher: bool = True, chunk: int = 16,
) -> Effects:  # fmt: skip
    """Effectiveness of each weight by forward derivatives, and divergence and helpfulness by taking each out.

    Costs one pass (derivative) a weight, ``chunk`` at a time; ``C B T V`` numbers are in memory.

    Args:
      weights: of `removals.weights_of` or `removals.whole_features`.
      share: ε of what is taken out.
      exact, fisher: whether weights are taken out, and whether effectiveness is computed.

    Raises:
      InputError: see `removals.check`; no weights, or no prediction.
    """
    check(model, dictionary)
    model = _bare(model)
    if not weights.number:
        raise InputError("no weights to measure")
    names = [*(["effectiveness"] if fisher else []), *(["divergence", "helpfulness"] if exact else [])]
    sums = {name: np.zeros(weights.number) for name in names}
    predictions, loss = 0, 0.0
    for batch in batches:
        arrays = _arrays(batch)
        count, clean = _clean(model, dictionary, _padded(weights, 0, 1), arrays)
        predictions, loss = predictions + int(count), loss + float(clean)
        for start in range(0, weights.number, chunk):
            part, size = _padded(weights, start, chunk), min(chunk, weights.number - start)
            found: dict[str, Array] = {}
            if fisher:
                found["effectiveness"] = _fisher(model, dictionary, part, arrays)
            if exact:
                both = _without(model, dictionary, part, arrays, jnp.asarray(share, _dtype(model)))
                found["divergence"], found["helpfulness"] = both
            for name, values in found.items():
                sums[name][start : start + size] += np.asarray(values, np.float64)[:size]
    if not predictions:
        raise InputError("the text has no token whose next token counts")
    mean = [
        sums.get(name, np.zeros(0)) / predictions for name in ("effectiveness", "divergence", "helpfulness")
    ]
    return Effects(predictions, loss / predictions, share, *mean)


def sampled_effectiveness(
    model: Model, dictionary: Dictionary, weights: Weights, batches: Iterable[Batch], *, draws: int = 8, seed: int = 0
) -> np.ndarray:  # fmt: skip
    """An unbiased estimate [E] of the effectiveness of many weights at once: one backward pass a draw.

    With next tokens y drawn from the model itself, ``E_y (d/dε Σ log p(y))² = Σ Var(g)``, sums over the predictions of
    a sequence: scores of different predictions do not correlate. Its deviation falls with ``draws ** -½``.

    Args:
      draws: of every sequence. seed: of the draws.
    """
    check(model, dictionary)
    model = _bare(model)
    total, predictions = np.zeros(weights.number), 0
    for index, batch in enumerate(batches):
        arrays = _arrays(batch)
        predictions += int(_counted(arrays).sum())
        for draw in range(draws):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), index), draw)
            total += np.asarray(_squared_scores(model, dictionary, weights, arrays, key), np.float64)
    if not predictions:
        raise InputError("the text has no token whose next token counts")
    return 0.5 * total / draws / predictions


@dataclass(frozen=True)
class Curve:
    """The loss of the model as its weights of least score are taken out, together.

    Attributes:
      removed: how many weights. loss: cross-entropies of what is left, in nats.
    """

    removed: tuple[int, ...]
    loss: tuple[float, ...]


def pruning_curve(
    model: Model, dictionary: Dictionary, weights: Weights, scores: np.ndarray, batches: Iterable[Batch],
    shares: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
) -> Curve:  # fmt: skip
    """Take out the given shares of the weights, those of least score first; equal scores in their order.

    Args:
      scores: [E], of which `Effects.effectiveness` or any other.
      shares: of the number of weights, from 0 to 1.

    Raises:
      InputError: another number of scores, scores that are not finite, or a share outside 0 to 1.
    """
    check(model, dictionary)
    model = _bare(model)
    scores = np.asarray(scores)
    if scores.shape != (weights.number,) or not np.isfinite(scores).all():
        raise InputError(
            f"pruning {weights.number} weights needs a finite score of each, found {scores.shape}"
        )
    if any(not 0 <= share <= 1 for share in shares):
        raise InputError(f"shares to prune are {tuple(shares)}, expected numbers from 0 to 1")
    order = np.argsort(scores, kind="stable")
    removed = [round(share * weights.number) for share in shares]
    loss, predictions = np.zeros(len(removed)), 0
    for batch in batches:
        arrays = _arrays(batch)
        for i, count in enumerate(removed):
            out = np.zeros(weights.number)
            out[order[:count]] = 1
            counted, value = _clean(model, dictionary, weights, arrays, jnp.asarray(out, _dtype(model)))
            loss[i] += float(value)
        predictions += int(counted)
    if not predictions:
        raise InputError("the text has no token whose next token counts")
    return Curve(tuple(removed), tuple((loss / predictions).tolist()))


def _bare(model: Model) -> Model:
    """Without what programs would be told apart by and do not need."""
    return dataclasses.replace(model, tokenizer=None, name="")


def _dtype(model: Model) -> Any:
    return model.params["embed"]["tokens"].dtype


def _arrays(batch: Batch) -> dict[str, Array]:
    return {name: jnp.asarray(getattr(batch, name)) for name in ("tokens", "segments", "positions", "use")}


def _padded(weights: Weights, start: int, size: int) -> Weights:
    """``size`` weights from one on; where there are too few, some that do nothing: of tokens that never come."""
    part = weights.take(slice(start, start + size))
    missing = size - part.number
    nothing = (0, -1, 0, 0, 0.0)
    return Weights(
        *(np.concatenate([a, np.full(missing, x, a.dtype)]) for a, x in zip(part, nothing, strict=True))
    )


def _counted(arrays: dict[str, Array]) -> Array:
    """[B, T], where the next token is of the same document and both are used."""
    segments, use = arrays["segments"], arrays["use"]
    good = (segments == jnp.roll(segments, -1, axis=1)) & use & jnp.roll(use, -1, axis=1)
    return good.at[:, -1].set(False)


def _logits(
    model: Model, dictionary: Dictionary, out: Weights, arrays: dict[str, Array], share: Array
) -> Array:
    return logits_without(
        model, dictionary, out, share, arrays["tokens"], positions=arrays["positions"], segments=arrays["segments"]
    )  # fmt: skip


def _losses(log_p: Array, arrays: dict[str, Array]) -> Array:
    """The sum of cross-entropies of the next tokens that count; log_p [..., B, T, V]."""
    following = jnp.roll(arrays["tokens"], -1, axis=1)[..., None]
    picked = jnp.take_along_axis(log_p, following, axis=-1)[..., 0]
    return -jnp.where(_counted(arrays), picked, jnp.zeros_like(picked)).sum()


@jax.jit
def _clean(
    model: Model, dictionary: Dictionary, out: Weights, arrays: dict[str, Array], share: Array | None = None
) -> tuple[Array, Array]:
    """How many predictions, and the sum of their losses; with no share, of the whole model."""
    share = jnp.zeros(out.number, _dtype(model)) if share is None else share
    log_p = jax.nn.log_softmax(_logits(model, dictionary, out, arrays, share))
    return _counted(arrays).sum(), _losses(log_p, arrays)


@jax.jit
def _fisher(model: Model, dictionary: Dictionary, out: Weights, arrays: dict[str, Array]) -> Array:
    """[C] sums over predictions of half the variance of the derivative."""
    zeros, every = jnp.zeros(out.number, _dtype(model)), jnp.eye(out.number, dtype=_dtype(model))
    run = partial(_logits, model, dictionary, out, arrays)
    logits, along = jax.linearize(run, zeros)
    p, good = jax.nn.softmax(logits), _counted(arrays)

    def one(direction: Array) -> Array:
        g = along(direction)
        g = g - jnp.sum(p * g, axis=-1, keepdims=True)
        variance = jnp.sum(p * g * g, axis=-1)
        return 0.5 * jnp.where(good, variance, jnp.zeros_like(variance)).sum()

    return jax.vmap(one)(every)


@jax.jit
def _without(
    model: Model, dictionary: Dictionary, out: Weights, arrays: dict[str, Array], share: Array
) -> tuple[Array, Array]:
    """[C] sums over predictions of the divergence, and of the loss's change, with each weight taken out."""
    run = partial(_logits, model, dictionary, out, arrays)
    log_p = jax.nn.log_softmax(run(jnp.zeros(out.number, _dtype(model))))
    clean, good = _losses(log_p, arrays), _counted(arrays)

    def one(out: Array) -> tuple[Array, Array]:
        log_q = jax.nn.log_softmax(run(out))
        divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
        return jnp.where(good, divergence, jnp.zeros_like(divergence)).sum(), _losses(log_q, arrays) - clean

    return jax.vmap(one)(share * jnp.eye(out.number, dtype=_dtype(model)))


@jax.jit
def _squared_scores(
    model: Model, dictionary: Dictionary, out: Weights, arrays: dict[str, Array], key: Array
) -> Array:
    """[E] sums over sequences of the squared derivative of ``Σ log p(y)`` for one draw y."""
    zeros = jnp.zeros(out.number, _dtype(model))

    def one(sequence: dict[str, Array], key: Array) -> Array:
        alone = {name: value[None] for name, value in sequence.items()}

        def score(share: Array) -> Array:
            log_p = jax.nn.log_softmax(_logits(model, dictionary, out, alone, share))
            drawn = jax.random.categorical(key, jax.lax.stop_gradient(log_p))
            picked = jnp.take_along_axis(log_p, drawn[..., None], axis=-1)[..., 0]
            return jnp.where(_counted(alone), picked, jnp.zeros_like(picked)).sum()

        return jax.grad(score)(zeros) ** 2

    keys = jax.random.split(key, len(arrays["tokens"]))
    return jax.vmap(one)(arrays, keys).sum(axis=0)
