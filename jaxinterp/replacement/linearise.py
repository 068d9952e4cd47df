"""Other linear maps in place of the frozen one: what direct effects are when norms and patterns are not held fixed.

The frozen replacement model is exact because it holds attention patterns and denominators at their values on the
prompt. Its layers can be linearised otherwise: by their Jacobian on the prompt, with norms live, or norms and patterns;
or by the average of their Jacobians along a straight path of sources from a baseline to the prompt (integrated
gradients; Sundararajan et al. 2017, arXiv 1703.01365), whose effects add up to the difference that the path makes.

All are `ReplacementOperator`s with the same sources and reads. What is written at a junction stays a source in all of
them: activations of features are given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array
from jaxinterp.replacement.layer import Point, live_layer
from jaxinterp.replacement.operator import Reads, ReplacementOperator, Sources, layer_slices

LINEARISATIONS = {
    "frozen": "", "live-norms": "norms", "live": "all", "integrated-norms": "norms", "integrated": "all",
}  # fmt: skip
"""Names, and what is live in each; those that begin with "integrated" are averages along a path."""


@dataclass(frozen=True)
class Linearisation:
    """Linear operators whose weighted mean is the map from sources to reads.

    Iterating gives pairs (weight, operator), made one by one: a graph's rows are the weighted sum of the rows under
    each operator.

    Attributes:
      operator: the frozen one.
      change: what sources are multiplied with: those of the prompt less those of the baseline.
      baseline: sources where the path begins.
      live: what is live: "", "norms" or "all".
      shares, weights: how far along the path each operator is taken (1: the prompt), and what it weighs.
    """

    operator: ReplacementOperator
    change: Sources
    baseline: Sources
    live: str
    shares: tuple[float, ...]
    weights: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[tuple[float, ReplacementOperator]]:
        for share, weight in zip(self.shares, self.weights, strict=True):
            yield weight, self.operator_at(share)

    def operator_at(self, share: float) -> ReplacementOperator:
        """The operator at one place of the path."""
        if not self.live:
            return self.operator
        found = _pass(self.operator, self.change, self.baseline, np.float64(share), self.live)
        return dataclasses.replace(self.operator, points=found[0], last=found[1], live=self.live)

    def transpose(self, reads: Reads) -> Sources:
        """The weighted mean of the transposed operators at cotangents of `Reads`.

        Its product with ``change``, entry by entry, is the direct effect of every source.
        """
        total: Any = None
        for weight, operator in self:
            one = jax.tree.map(lambda x, w=weight: x * jnp.asarray(w, x.dtype), _transpose(operator, reads))
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        return total

    def effects(self, reads: Reads) -> Sources:
        """The direct effect of each source on the product of all reads with ``reads``: a number for each vector.

        Everything that one part writes at a layer and position counts as one source. The effects on a quantity that is
        linear along the path add up to the difference that the path makes; those of an integrated linearisation do so
        for any quantity, up to the error of the mean.
        """

        change, bars = self.change, self.transpose(reads)
        vectors = partial(jnp.sum, axis=-1)
        write = tuple(vectors(a * b) for a, b in zip(change.layers.write, bars.layers.write, strict=True))
        found = jax.tree.map(jnp.multiply, change, bars)
        return found._replace(embed=vectors(found.embed), layers=found.layers._replace(write=write))

    def reads_at(self, share: float) -> Reads:
        """What is read at one place of the path, nothing linearised but what is frozen."""
        if not self.live:
            return _apply(self.operator, _between(self.change, self.baseline, np.float64(share)))
        return _pass(self.operator, self.change, self.baseline, np.float64(share), self.live)[2]


def linearise(
    operator: ReplacementOperator, sources: Sources, how: str = "frozen", *, steps: int = 16, power: int = 4,
    baseline: Sources | None = None,
) -> Linearisation:  # fmt: skip
    """A linearisation by name.

    Args:
      operator: the frozen replacement model of a prompt.
      sources: of that prompt, from `model_sources`.
      how: one of `LINEARISATIONS`.
      steps: operators along the path of an integrated one.
      power: places on the path are ``u ** power`` for Gauss-Legendre places u, so that they stand close together where
        the path begins: with every source at zero, norms turn from their eps to the scale of what they read within a
        small part of it.
      baseline: where the path of an integrated one begins; None means that every source is zero. A Jacobian has none.

    Raises:
      InputError: another name, steps or a power below 1, a baseline for something that is not integrated.
    """
    if how not in LINEARISATIONS:
        raise InputError(
            f"linearisation is {how!r}{near(how, LINEARISATIONS)}, expected one of {', '.join(LINEARISATIONS)}"
        )
    integrated = how.startswith("integrated")
    if integrated and (steps < 1 or power < 1):
        raise InputError(f"linearisation {how}: steps is {steps} and power is {power}, expected at least 1")
    if baseline is not None and not integrated:
        raise InputError(f"linearisation {how}: only integrated ones have a baseline")
    start = jax.tree.map(jnp.zeros_like, sources) if baseline is None else baseline
    change = sources if baseline is None else jax.tree.map(jnp.subtract, sources, baseline)
    shares, weights = path(steps, power) if integrated else ((1.0,), (1.0,))
    return Linearisation(operator, change, start, LINEARISATIONS[how], shares, weights)


def path(steps: int, power: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Places in (0, 1) and their weights: Gauss-Legendre in u, where the place is ``u ** power``.

    The weights sum to one where ``2 steps`` is at least ``power``, and are made to below that.
    """
    u, w = np.polynomial.legendre.leggauss(steps)
    u, w = (u + 1) / 2, w / 2
    weights = w * power * u ** (power - 1)
    return tuple(float(x) for x in u**power), tuple(float(x) for x in weights / weights.sum())


def _between(change: Sources, baseline: Sources, share: Any) -> Sources:
    return jax.tree.map(lambda c, b: b + jnp.asarray(share, c.dtype) * c, change, baseline)


@partial(jax.jit, static_argnames=("live",))
def _pass(
    operator: ReplacementOperator, change: Sources, baseline: Sources, share: Any, live: str
) -> tuple[Point, tuple[Array, Array], Reads]:
    """The live replacement model at one place of the path: where its layers and its final norm are, and its reads."""
    sources = _between(change, baseline, share)
    operator = dataclasses.replace(operator, live=live)

    def step(x: Array, inputs: Any) -> Any:
        layer, one = inputs
        after, reads = live_layer(operator, layer, x, one)
        return after, (x, reads)

    start = operator.start(sources.embed, sources.position)
    x, (before, reads) = jax.lax.scan(step, start, (layer_slices(operator), sources.layers))
    return (
        Point(before, sources.layers),
        (x, sources.final),
        Reads(reads, operator.live_end(x, sources.final)),
    )


@jax.jit
def _transpose(operator: ReplacementOperator, reads: Reads) -> Sources:
    return operator.transpose(reads)


@jax.jit
def _apply(operator: ReplacementOperator, sources: Sources) -> Reads:
    return operator.apply(sources)
