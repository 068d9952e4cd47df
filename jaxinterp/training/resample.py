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
from jaxinterp.dictionaries import initialise
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of, read_layers

Thresholds = Callable[..., Array]
"""(params, norms [G, N]) → thresholds [G, N]."""


@dataclass(frozen=True)
class ResampleConfig:
    """When a feature counts as dead, and when dead ones are started again.

    Attributes:
      dead_by: "window": not active once in ``dead_after`` steps; "density": the moving average of the share of rows on
        which it is active is below ``dead_below`` (clt-training), ``dead_after`` steps into the run or later.
      dead_after: steps.
      dead_below: a share of rows.
      every: steps between restarts; 0 means never.
      until: share of the run after which there are no more restarts.
      share: of the residual that a restarted feature makes up for on the row it is started from.
      at_most: share of a layer's features that may be restarted at once. Many at once on like rows would add
        up to more than the residual, and the run would blow up.
      decay: of the moving average of activation density, a step.
    """

    dead_by: str = "window"
    dead_after: int = 100
    dead_below: float = 1e-5
    every: int = 50
    until: float = 0.7
    share: float = 0.25
    at_most: float = 0.03
    decay: float = 0.99

    def __post_init__(self) -> None:
        if self.dead_by not in ("window", "density"):
            raise InputError(f"resample: dead_by is {self.dead_by!r}, expected window or density")
        if self.dead_after < 1 or self.every < 0 or not 0 <= self.decay < 1 or not 0 < self.dead_below < 1:
            raise InputError(
                "resample: dead_after must be at least 1, every at least 0, decay in [0, 1), dead_below in (0, 1)"
            )


def init(n_groups: int, n_features: int, dtype: Any) -> dict[str, Array]:
    """Moving average of density and the step of last activity, ``[G, N]``."""
    shape = (n_groups, n_features)
    return {"density": jnp.zeros(shape, dtype), "last": jnp.zeros(shape, jnp.int32)}


def density(a: Array) -> Array:
    """Share of rows on which each feature is active: ``a [G, R, N]`` → ``[G, N]``; over N it adds up to L0."""
    return jnp.mean((a != 0).astype(a.dtype), axis=1)


def update(stats: dict[str, Array], share: Array, step: Array, decay: float = 0.99) -> dict[str, Array]:
    """Count a step in which features were active on these shares ``[G, N]`` of its rows."""
    return {
        "density": decay * stats["density"] + (1 - decay) * share,
        "last": jnp.where(share > 0, step, stats["last"]),
    }


def dead(config: ResampleConfig, stats: dict[str, Array], step: Array) -> Array:
    """Which features count as dead, ``[G, N]``."""
    if config.dead_by == "density":
        return (stats["density"] < _floor(config, stats, step)) & (step >= config.dead_after)
    return step - stats["last"] >= config.dead_after


def _floor(config: ResampleConfig, stats: dict[str, Array], step: Array) -> Array:
    """``dead_below`` for a moving average that began at zero and holds the steps before ``step``."""
    kind = stats["density"].dtype
    return config.dead_below * (1 - jnp.asarray(config.decay, kind) ** step.astype(kind))


def longest_dead(config: ResampleConfig, stats: dict[str, Array], step: Array) -> Array:
    """The dead features of each group, ``[G, N]``, at most ``at_most`` of them: those dead for longest.

    By density, those of the lowest.
    """
    groups, n = stats["last"].shape
    if config.dead_by == "density":
        age = jnp.maximum(_floor(config, stats, step) - stats["density"], 0)
    else:
        age = step - stats["last"]
    age = jnp.where(dead(config, stats, step), age, jnp.zeros_like(age))
    oldest, index = jax.lax.top_k(age, max(1, round(config.at_most * n)))
    rows = jnp.broadcast_to(jnp.arange(groups)[:, None], index.shape)
    return jnp.zeros((groups, n), bool).at[rows, index].set(oldest > 0)


def restart(
    config: ResampleConfig, dictionary: DictionaryConfig, params: Tree, which: Array, *, key: Array, x: Array,
    residual: Array, thresholds: Thresholds,
) -> Tree:  # fmt: skip
    """New encoders, biases and decoders for the features in ``which [G, N]``.

    Each takes a row of the batch; badly reconstructed rows (weighted by their squared residual) are drawn
    first, and no row twice unless there are more features than rows. A feature's decoder points along that
    row's residual, in every layer that it writes, and is as long as the average decoder; its encoder points at the row,
    in every layer that it reads, and fires on it and on its like.

    Args:
      params: as the gate stores them; thresholds are left as they are.
      x, residual: scaled read sites and what is left of the scaled write sites, ``[L, R, D]``.
      thresholds: the gate's, for given params and decoder norms.
    """
    kind, reads = kind_of(dictionary), read_layers(dictionary)
    alive = 1 - which.astype(x.dtype)
    count = jnp.maximum(jnp.sum(alive, axis=1, keepdims=True), 1.0)
    length = _fixed(jnp.sum(kind.decoder_norms(params, dictionary) * alive, axis=1, keepdims=True) / count)
    squares = jnp.sum(residual * residual, axis=-1)
    lengths = jnp.sum(params["W_enc"] * params["W_enc"], axis=-1)
    decoders: dict[tuple[int, int], Array] = {}
    encoders, values, at = [], [], []
    for s, layers in enumerate(reads):
        targets = [t for q, t in kind.writes(dictionary) if q == s]
        weight = jnp.sum(jnp.stack([squares[t] for t in targets]), axis=0)
        rows = _draw(jax.random.fold_in(key, s), weight, which[s])
        decoders |= {(s, t): residual[t, rows] for t in targets}
        own = jnp.sqrt(jnp.sum(jnp.stack([lengths[layer] for layer in layers]), axis=0))
        offset = jnp.stack([x[layer, rows] - jnp.mean(x[layer], axis=0)[None, :] for layer in layers])
        far = jnp.sqrt(jnp.sum(offset * offset, axis=(0, 2))) + 1e-6
        mean = _fixed(jnp.sum(own * alive[s]) / count[s, 0])
        new = _fixed(mean / far)[None, :, None] * offset
        given = jnp.stack([x[layer, rows] for layer in layers])
        if dictionary.centre:
            given = given - jnp.stack([params["b_dec"][layer][None, :] for layer in layers])
        encoders.append(new)
        values.append(jnp.sum(new * given, axis=(0, 2)))
        at.append(x[s, rows])
    here = kind.belongs(dictionary, which)
    # Whole residuals first: how long a decoder becomes that writes one depends on the kind.
    made = kind.with_decoders(params, dictionary, decoders, jnp.stack(at) if kind.maps else None)
    longer = _fixed((kind.decoder_norms(made, dictionary) + 1e-6) / length)
    made = initialise.divide_decoders(made, dictionary, longer)
    made = {name: _where(here[name], made[name], params[name]) for name in params}
    cut = thresholds(made, kind.decoder_norms(made, dictionary))
    reading = jnp.stack(values)
    wanted = jnp.maximum(config.share * longer, 1.2 * cut)
    return {
        **made,
        "W_enc": jnp.where(here["W_enc"], jnp.concatenate(encoders), params["W_enc"]),
        "b_enc": jnp.where(which, wanted - reading, params["b_enc"]),
    }


def _fixed(quotient: Array) -> Array:
    """A quotient that the compiler rounds as it stands.

    Chains of divisions it writes anew, and not in the same way for one device and for several.
    """
    return jax.lax.optimization_barrier(quotient)


def _where(mask: Tree, new: Tree, old: Tree) -> Tree:
    """``new`` where ``mask`` (with axes of size one), else ``old``, leaf by leaf."""
    return jax.tree.map(lambda m, a, b: jnp.where(m, a, b), mask, new, old)


def _draw(key: Array, weight: Array, which: Array) -> Array:
    """A row for every feature ``[N]``; those in ``which`` get different rows, heavy ones with preference."""
    lottery = jnp.log(weight + 1e-12) + jax.random.gumbel(key, weight.shape, weight.dtype)
    order = jnp.argsort(-lottery)
    turn = jnp.cumsum(which.astype(jnp.int32)) - 1
    return order[jnp.maximum(turn, 0) % len(weight)]


def forget(dictionary: DictionaryConfig, moments: Tree, which: Array) -> Tree:
    """The optimiser's state with the moments of the features in ``which [G, N]`` set to zero."""
    here = kind_of(dictionary).belongs(dictionary, which)

    def one(tree: Tree) -> Tree:
        return {
            name: _where(here[name], jax.tree.map(jnp.zeros_like, value), value)
            for name, value in tree.items()
        }

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
        # A restarted feature counts as alive until it has had as long as the others to show itself.
        alive = 1 - which.astype(stats["density"].dtype)
        total = jnp.sum(stats["density"] * alive, axis=1, keepdims=True)
        usual = total / jnp.maximum(jnp.sum(alive, axis=1, keepdims=True), 1)
        fresh = {
            "last": jnp.where(which, step, stats["last"]),
            "density": jnp.where(which, usual, stats["density"]),
        }
        return new, forget(dictionary, moments, which), fresh

    due = (step > 0) & (step % config.every == 0) & (progress < config.until)
    return jax.lax.cond(due, do, lambda: (params, moments, stats))
