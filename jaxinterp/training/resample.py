"""Dead features: what is counted, and giving them a new start where the reconstruction is worst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of

Thresholds = Callable[..., Array]
"""(params, norms [L, N]) → thresholds [L, N]."""


@dataclass(frozen=True)
class ResampleConfig:
    """When a feature counts as dead, and when dead ones are started again.

    Attributes:
      dead_after: steps without being active once.
      every: steps between restarts; 0 means never.
      until: share of the run after which there are no more restarts.
      share: of the residual that a restarted feature makes up for on the row it is started from.
      at_most: share of a layer's features that may be restarted at once. Many at once on like rows would add
        up to more than the residual, and the run would blow up.
      decay: of the moving average of activation density.
    """

    dead_after: int = 100
    every: int = 50
    until: float = 0.7
    share: float = 0.25
    at_most: float = 0.03
    decay: float = 0.99

    def __post_init__(self) -> None:
        if self.dead_after < 1 or self.every < 0 or not 0 <= self.decay < 1:
            raise InputError("resample: dead_after must be at least 1, every at least 0, decay in [0, 1)")


def init(n_layers: int, n_features: int, dtype: Any) -> dict[str, Array]:
    """Moving average of density and the step of last activity, ``[L, N]``."""
    shape = (n_layers, n_features)
    return {"density": jnp.zeros(shape, dtype), "last": jnp.zeros(shape, jnp.int32)}


def density(a: Array) -> Array:
    """Share of rows on which each feature is active: ``a [L, R, N]`` → ``[L, N]``; over N it adds up to L0."""
    return jnp.mean((a != 0).astype(a.dtype), axis=1)


def update(stats: dict[str, Array], share: Array, step: Array, decay: float = 0.99) -> dict[str, Array]:
    """Count a step in which features were active on these shares ``[L, N]`` of its rows."""
    return {
        "density": decay * stats["density"] + (1 - decay) * share,
        "last": jnp.where(share > 0, step, stats["last"]),
    }


def dead(config: ResampleConfig, stats: dict[str, Array], step: Array) -> Array:
    """Which features were not active in the last ``dead_after`` steps, ``[L, N]``."""
    return step - stats["last"] >= config.dead_after


def longest_dead(config: ResampleConfig, stats: dict[str, Array], step: Array) -> Array:
    """The dead features of each layer, ``[L, N]``, at most ``at_most`` of them: those dead for longest."""
    layers, n = stats["last"].shape
    age = jnp.where(dead(config, stats, step), step - stats["last"], 0)
    oldest, index = jax.lax.top_k(age, max(1, round(config.at_most * n)))
    rows = jnp.broadcast_to(jnp.arange(layers)[:, None], index.shape)
    return jnp.zeros((layers, n), bool).at[rows, index].set(oldest > 0)


def restart(
    config: ResampleConfig, dictionary: DictionaryConfig, params: Tree, which: Array, *, key: Array, x: Array,
    residual: Array, thresholds: Thresholds,
) -> Tree:  # fmt: skip
    """New encoders, biases and decoders for the features in ``which [L, N]``.

    Each takes a row of the batch; badly reconstructed rows (weighted by their squared residual) are drawn
    first, and no row twice unless there are more features than rows. A feature's decoder points along that
    row's residual and is as long as the average decoder; its encoder points at the row and fires on it and
    on its like.

    Args:
      params: as the gate stores them; thresholds are left as they are.
      x, residual: scaled read sites and what is left of the scaled write sites, ``[L, R, D]``.
      thresholds: the gate's, for given params and decoder norms.
    """
    kind = kind_of(dictionary)
    layers, n = which.shape
    alive = 1 - which.astype(x.dtype)
    count = jnp.maximum(jnp.sum(alive, axis=1), 1.0)
    norms = kind.decoder_norms(params, dictionary)
    length = jnp.sum(norms * alive, axis=1) / count
    encoder_length = jnp.sum(jnp.linalg.norm(params["W_enc"], axis=-1) * alive, axis=1) / count
    squares = jnp.sum(residual * residual, axis=-1)
    targets = {s: [t for q, t in kind.writes(dictionary) if q == s] for s in range(layers)}
    decoders, encoders, values = {}, [], []
    for s in range(layers):
        weight = jnp.sum(jnp.stack([squares[t] for t in targets[s]]), axis=0)
        rows = _draw(jax.random.fold_in(key, s), weight, which[s])
        size = jnp.sqrt(weight[rows]) + 1e-6
        keep = which[s][:, None]
        for t in targets[s]:
            old = kind.decoder_rows(params, dictionary, s, t, jnp.arange(n))
            decoders[s, t] = jnp.where(keep, residual[t, rows] * (length[s] / size)[:, None], old)
        offset = x[s, rows] - jnp.mean(x[s], axis=0)[None, :]
        offset = offset / (jnp.linalg.norm(offset, axis=-1, keepdims=True) + 1e-6)
        encoders.append(encoder_length[s] * offset)
        values.append((jnp.sum(encoders[s] * x[s, rows], axis=-1), config.share * size / length[s]))
    params = kind.with_decoders(params, dictionary, decoders)
    cut = thresholds(params, kind.decoder_norms(params, dictionary))
    wanted = jnp.maximum(jnp.stack([v for _, v in values]), 1.2 * cut)
    bias = wanted - jnp.stack([v for v, _ in values])
    return {
        **params,
        "W_enc": jnp.where(which[:, :, None], jnp.stack(encoders), params["W_enc"]),
        "b_enc": jnp.where(which, bias, params["b_enc"]),
    }


def _draw(key: Array, weight: Array, which: Array) -> Array:
    """A row for every feature ``[N]``; those in ``which`` get different rows, heavy ones with preference."""
    lottery = jnp.log(weight + 1e-12) + jax.random.gumbel(key, weight.shape, weight.dtype)
    order = jnp.argsort(-lottery)
    turn = jnp.cumsum(which.astype(jnp.int32)) - 1
    return order[jnp.maximum(turn, 0) % len(weight)]


def forget(dictionary: DictionaryConfig, moments: Tree, which: Array) -> Tree:
    """The optimiser's state with the moments of the features in ``which`` set to zero."""
    kind = kind_of(dictionary)

    def one(tree: Tree) -> Tree:
        kept = 1 - which.astype(tree["b_enc"].dtype)
        cleared = {
            (s, t): kind.decoder_rows(tree, dictionary, s, t, jnp.arange(which.shape[1])) * kept[s][:, None]
            for s, t in kind.writes(dictionary)
        }
        tree = kind.with_decoders(tree, dictionary, cleared)
        return {**tree, "W_enc": tree["W_enc"] * kept[:, :, None], "b_enc": tree["b_enc"] * kept}

    def is_adam(node: Any) -> bool:
        return isinstance(node, optax.ScaleByAdamState)

    return jax.tree.map(
        lambda node: node._replace(mu=one(node.mu), nu=one(node.nu)) if is_adam(node) else node,
        moments,
        is_leaf=is_adam,
    )


def resample(
    config: ResampleConfig, dictionary: DictionaryConfig, params: Tree, moments: Tree, stats: Tree, *, key: Array,
    step: Array, progress: Array, x: Array, residual: Array, thresholds: Thresholds,
) -> tuple[Tree, Tree, Tree]:  # fmt: skip
    """Restart dead features where it is time to: params, optimiser state and statistics after it."""

    def do() -> tuple[Tree, Tree, Tree]:
        which = longest_dead(config, stats, step)
        new = restart(
            config, dictionary, params, which, key=key, x=x, residual=residual, thresholds=thresholds
        )
        last = jnp.where(which, step, stats["last"])
        return new, forget(dictionary, moments, which), {**stats, "last": last}

    due = (step > 0) & (step % config.every == 0) & (progress < config.until)
    return jax.lax.cond(due, do, lambda: (params, moments, stats))
