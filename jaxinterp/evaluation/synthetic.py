"""Data whose features are known, and how many of them a dictionary found.

Rows are sums of more sparse features than they are wide (*Toy Models of Superposition*, 2022), so that a dictionary can
be judged against the truth instead of against its own reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.base import Dictionary, kind_of

VALUES: dict[str, Callable[[Array], Array]] = {
    "uniform": lambda u: u,
    "exponential": lambda u: -jnp.log1p(-u),
    "constant": jnp.ones_like,
}
"""Name → value of an active feature from a number uniform in [0, 1)."""


@dataclass(frozen=True)
class SyntheticFeatures:
    """Sparse features with random directions in too few dimensions.

    A row is ``Σ_i f_i w_i``: each of the ``n`` features is active by itself with probability ``density``, then with a
    positive value; the ``w_i`` are independent and uniform on the unit sphere of ``width`` dimensions.

    Attributes:
      n: features.
      width: D.
      density: probability of each feature, in (0, 1].
      values: "uniform" in (0, 1), "exponential" with mean 1, or "constant" 1.
      seed: of directions and rows; rows differ from step to step, directions do not.

    Raises:
      InputError: numbers out of range, or unknown values.
    """

    n: int = 100
    width: int = 30
    density: float = 0.02
    values: str = "uniform"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.width < 1 or not 0 < self.density <= 1:
            raise InputError(
                f"synthetic features: n {self.n} and width {self.width} must be at least 1, density {self.density} "
                "in (0, 1]"
            )
        if self.values not in VALUES:
            raise InputError(
                f"synthetic features: values is {self.values!r}, expected one of {', '.join(VALUES)}"
                f"{near(self.values, VALUES)}"
            )

    def directions(self) -> Array:
        """The true features, rows of length one, ``[n, D]``."""
        drawn = np.random.default_rng(self.seed).normal(size=(self.n, self.width))
        return jnp.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))

    def drawn(self) -> tuple[Array, Array]:
        """All that depends on the seed: the directions and a key."""
        return self.directions(), jax.random.fold_in(jax.random.key(self.seed), 1)

    def features(self, drawn: tuple[Array, Array], step: int | Array, rows: int) -> Array:
        """Values of the true features on the rows of a step, ``[rows, n]``, from what was `drawn`."""
        directions, key = drawn
        # Given that a uniform number is below the density, their quotient is uniform: one draw decides both.
        share = (
            jax.random.uniform(jax.random.fold_in(key, step), (rows, self.n), directions.dtype) / self.density
        )
        value = VALUES[self.values](jnp.minimum(share, 1 - 2.0**-20))
        return jnp.where(share < 1, value, jnp.zeros_like(share))

    def rows(self, drawn: tuple[Array, Array], step: int | Array, rows: int) -> Array:
        """The rows of a step as a site of one layer, ``[1, rows, D]``, from what was `drawn`."""
        return einsum("rn,nd->rd", self.features(drawn, step, rows), drawn[0])[None]

    def target(self, x: Array) -> Array:
        """What is to be written: the same."""
        return x

    def batch(self, step: int | Array, rows: int) -> Array:
        """``[1, rows, D]``: a function of (seed, step) alone, also inside ``jax.jit``."""
        return self.rows(self.drawn(), step, rows)


@dataclass(frozen=True)
class Recovery:
    """Which true features a dictionary found.

    Attributes:
      best: ``[n]``, the largest |cosine| of each true feature with any decoder.
      found: share of true features whose best is above ``least``; a decoder may serve several.
      matched: the same where a decoder serves one true feature only (the largest matching of pairs above ``least``).
      least: what |cosine| has to exceed.
    """

    best: np.ndarray
    found: float
    matched: float
    least: float


def recovery(truth: Array, found: Array, least: float = 0.95) -> Recovery:
    """Compare true directions ``[n, D]`` with those of a dictionary, ``[N, D]``; rows of zero match nothing."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    cosine = np.abs(_unit(truth) @ _unit(found).T)
    above = cosine > least
    pairs = maximum_bipartite_matching(csr_array(above.astype(np.int8)), perm_type="column")
    best = cosine.max(axis=1)
    return Recovery(best, float(np.mean(best > least)), float(np.mean(pairs >= 0)), least)


def decoders(dictionary: Dictionary, source: int = 0, target: int | None = None) -> Array:
    """Decoder vectors of all features of one layer, ``[N, D]``, into that layer where ``target`` is None."""
    config = dictionary.config
    rows = jnp.arange(config.n_features)
    into = source if target is None else target
    return kind_of(config).decoder_rows(dictionary.params, config, source, into, rows)


def _unit(rows: Array) -> np.ndarray:
    wide = np.asarray(rows, np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30)
