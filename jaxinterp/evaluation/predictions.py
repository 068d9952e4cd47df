"""One batch through the model, changed in every way that is asked for, and sums over its predictions.

Letters: L layers of the dictionary, B sequences, T positions, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.evaluation.applying import decode, encode
from jaxinterp.evaluation.moments import Moments
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import forward
from jaxinterp.models.model import Model
from jaxinterp.models.sites import Edit
from jaxinterp.replacement.live import forward as replaced_forward

Key = tuple[str, int | None]
SUMS = 4
"""Cross-entropy, divergence, predictions that stay, and confident ones that stay."""


@dataclass
class Sums:
    """Sums over predictions, in float64; see `language.LanguageFigures`."""

    count: int = 0
    confident: int = 0
    clean: float = 0.0
    effects: dict[Key, np.ndarray] = field(default_factory=dict)

    def add(self, other: Sums) -> None:
        """Take in those of another batch."""
        self.count += other.count
        self.confident += other.confident
        self.clean += other.clean
        for key, values in other.effects.items():
            self.effects[key] = self.effects.get(key, np.zeros(SUMS)) + values


def targets(tokens: Array, segments: Array, use: Array) -> tuple[Array, Array]:
    """Next tokens ``[B, T]`` and which of them count: inside the same document, both tokens in use."""
    following = jnp.roll(tokens, -1, axis=1)
    same = (segments == jnp.roll(segments, -1, axis=1)) & use & jnp.roll(use, -1, axis=1)
    return following, same.at[:, -1].set(False)


def measure(
    model: Model, dictionary: Dictionary, layers: tuple[int, ...], batch: Any, constants: dict[str, np.ndarray], *,
    live: bool, each_layer: bool, confidence: float, first_tokens: bool, rare: np.ndarray | None = None,
) -> Sums:  # fmt: skip
    """Sums over the predictions of one batch.

    Args:
      layers: the model's layers that the dictionary's are.
      batch: `jaxinterp.activations.text.Batch`.
      constants: name of an ablation → [L, D'], what stands in the written site.
      live: the dictionary replaces values as they come; else with reconstructions of the unchanged run.
      each_layer, confidence, first_tokens: see `language.LanguageConfig`.
      rare: [V], tokens that count for confident agreement; None means all.
    """
    tokens, segments, positions, use = (jnp.asarray(a) for a in batch)
    keep = None if first_tokens else positions == 0
    use = use if keep is None else use & ~keep
    rare_tokens = jnp.ones(model.config.vocab_size, bool) if rare is None else jnp.asarray(rare)
    needs_sites = each_layer or not live or (bool(constants) and keep is not None)
    sites = (dictionary.config.read_site, dictionary.config.write_site) if needs_sites else ()
    logits, x, y = _clean(model.params, model.config, tokens, segments, positions, sites, layers)
    clean = _judge(logits, tokens, segments, use, rare_tokens, confidence)
    result = Sums(int(clean.counted.sum()), int(clean.confident.sum()), _total(clean.losses))

    def compare(key: Key, changed: Array) -> None:
        result.effects[key] = np.array([_total(v) for v in _compare(changed, logits, clean)])

    run = partial(
        _edited, model.params, model.config, dictionary.config.write_site, tokens, segments, positions
    )
    whole = layers == tuple(range(model.config.n_layers))
    everywhere = jnp.asarray(layers, jnp.int32)

    def change(key: str, values: Array) -> None:
        """All layers at once and, if asked for, each alone."""
        if key != "replaced" or not live:
            compare((key, None), run(values, everywhere, whole))
        if each_layer:
            for own, layer in enumerate(layers):
                compare((key, layer), run(values[own : own + 1], everywhere[own : own + 1], False))

    if live:
        changed = _live(model.params, model.config, dictionary, tokens, segments, positions, keep)
        compare(("replaced", None), changed)
    if needs_sites and (each_layer or not live):
        change("replaced", _kept(_reconstruct(dictionary, x, segments, positions), y, keep))
    for name, constant in constants.items():
        full = jnp.asarray(constant, logits.dtype)[:, None, None, :]
        full = jnp.broadcast_to(full, (len(layers), *tokens.shape, full.shape[-1]))
        change(name, _kept(full, y, keep))
    return result


def site_mean(
    model: Model, dictionary: Dictionary, layers: tuple[int, ...], batches: Iterable[Any], first_tokens: bool
) -> np.ndarray:
    """The mean of the written site over used tokens, [L, D'] float64."""
    moments = Moments()
    sites = (dictionary.config.write_site,) * 2
    for batch in batches:
        arrays = [jnp.asarray(a) for a in (batch.tokens, batch.segments, batch.positions)]
        _, y, _ = _clean(model.params, model.config, *arrays, sites, layers)
        use = np.asarray(batch.use) if first_tokens else np.asarray(batch.use & (batch.positions > 0))
        moments.add(np.asarray(y)[:, use])
    return moments.mean


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["losses", "following", "counted", "confident", "best"],
    meta_fields=[],
)
@dataclass(frozen=True)
class _Clean:
    """Of the unchanged run, [B, T] each: cross-entropies where counted, next tokens, what counts, best tokens."""

    losses: Array
    following: Array
    counted: Array
    confident: Array
    best: Array


@partial(jax.jit, static_argnames=("config", "sites", "layers"))
def _clean(
    params: Tree, config: ModelConfig, tokens: Array, segments: Array, positions: Array, sites: tuple[str, ...],
    layers: tuple[int, ...],
) -> tuple[Array, Any, Any]:  # fmt: skip
    """Logits and, if two sites are asked for, both of them in some layers [L, B, T, D]."""
    logits, found = forward(params, config, tokens, sites=sites, segments=segments, positions=positions)
    if not sites:
        return logits, None, None
    chosen = jnp.asarray(layers, jnp.int32)
    x, y = (jnp.take(getattr(found, site), chosen, axis=0) for site in sites)
    return logits, x, y


@jax.jit
def _judge(
    logits: Array, tokens: Array, segments: Array, use: Array, rare: Array, confidence: float
) -> _Clean:
    following, counted = targets(tokens, segments, use)
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, following[:, :, None], axis=2)[:, :, 0]
    best = jnp.argmax(logits, axis=-1).astype(following.dtype)
    sure = jnp.log(jnp.asarray(confidence, log_p.dtype))
    confident = counted & (best == following) & (picked < sure) & rare[following]
    return _Clean(-jnp.where(counted, picked, jnp.zeros_like(picked)), following, counted, confident, best)


@jax.jit
def _compare(changed: Array, logits: Array, clean: _Clean) -> tuple[Array, Array, Array, Array]:
    """Sums over each sequence [B] of the four figures."""
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(changed)
    picked = jnp.take_along_axis(log_q, clean.following[:, :, None], axis=2)[:, :, 0]
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=2)
    same = jnp.argmax(changed, axis=-1).astype(clean.best.dtype) == clean.best

    def over(values: Array, where: Array) -> Array:
        return jnp.where(where, values, jnp.zeros_like(values)).sum(axis=1)

    return (
        -over(picked, clean.counted),
        over(divergence, clean.counted),
        (same & clean.counted).sum(axis=1),
        (same & clean.confident).sum(axis=1),
    )


@partial(jax.jit, static_argnames=("config", "site", "whole"))
def _edited(
    params: Tree, config: ModelConfig, site: str, tokens: Array, segments: Array, positions: Array, values: Array,
    layers: Array, whole: bool,
) -> Array:  # fmt: skip
    """Logits with ``values [L, B, T, D]`` in a site's ``layers [L]``; ``whole``: these are all layers in order."""
    if whole:
        edits: tuple[Edit, ...] = (Edit(site, "replace", values, per_layer=True),)
    else:
        edits = tuple(Edit(site, "replace", values[i], layer=layers[i]) for i in range(values.shape[0]))
    return forward(params, config, tokens, edits=edits, segments=segments, positions=positions)[0]


@partial(jax.jit, static_argnames="config")
def _live(
    params: Tree, config: ModelConfig, dictionary: Dictionary, tokens: Array, segments: Array, positions: Array,
    keep: Array | None,
) -> Array:  # fmt: skip
    return replaced_forward(
        params, config, dictionary, tokens, segments=segments, positions=positions, keep=keep
    )[0]


@jax.jit
def _reconstruct(dictionary: Dictionary, x: Array, segments: Array, positions: Array) -> Array:
    return decode(dictionary, encode(dictionary, x, positions, segments), x)


def _kept(values: Array, y: Array | None, keep: Array | None) -> Array:
    """``values [L, B, T, D]``, but the model's own where they stay."""
    if keep is None:
        return values
    assert y is not None
    return jnp.where(keep[None, :, :, None], y, values)


def _total(values: Array) -> float:
    return float(np.asarray(values, np.float64).sum())
