"""A transcoder's toy: the absolute value of sparse inputs, with one data point that is repeated.

*A Toy Model of Mechanistic (Un)Faithfulness* (2025): ``|x_i| = relu(x_i) + relu(-x_i)``, so 2 D features are the truth.
A transcoder may instead spend a feature on the data point, which is right there and says nothing about how.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, kind_of


@dataclass(frozen=True)
class AbsoluteValue:
    """Inputs with few entries that are not zero, uniform in (-1, 1), and the absolute value as what is to be written.

    Attributes:
      width: D.
      density: probability of each entry to be other than zero.
      repeated: share of rows that are the data point ``p``: ones in the first ``together`` entries, else zeros.
      together: see ``repeated``.
      seed: of the rows.
    """

    width: int = 20
    density: float = 0.1
    repeated: float = 0.0
    together: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.together <= self.width or not 0 < self.density <= 1 or not 0 <= self.repeated < 1:
            raise InputError(
                f"absolute value: together {self.together} must be in 1..{self.width}, density {self.density} in "
                f"(0, 1], repeated {self.repeated} in [0, 1)"
            )

    def point(self) -> Array:
        """The data point p, ``[D]``."""
        return (jnp.arange(self.width) < self.together).astype(float)

    def drawn(self) -> Array:
        """All that depends on the seed: a key."""
        return jax.random.key(self.seed)

    def rows(self, drawn: Array, step: int | Array, rows: int) -> Array:
        """The rows of a step, ``[1, rows, D]``, from what was `drawn`."""
        keys = jax.random.split(jax.random.fold_in(drawn, step), 3)
        size = jax.random.uniform(keys[0], (rows, self.width), self.point().dtype, -1, 1)
        on = jax.random.uniform(keys[1], size.shape) < self.density
        again = jax.random.uniform(keys[2], (rows, 1)) < self.repeated
        return jnp.where(again, self.point()[None], jnp.where(on, size, jnp.zeros_like(size)))[None]

    def batch(self, step: int | Array, rows: int) -> Array:
        """``[1, rows, D]``: a function of (seed, step) alone, also inside ``jax.jit``."""
        return self.rows(self.drawn(), step, rows)

    def target(self, x: Array) -> Array:
        """What is to be written."""
        return jnp.abs(x)


@dataclass(frozen=True)
class Faithfulness:
    """What a transcoder of `AbsoluteValue` is made of.

    Attributes:
      clean: how many of the 2 D true features it has: a feature that reads ``x_i`` or ``-x_i`` and writes ``x_i``,
        encoder and decoder each with a cosine above ``least``.
      point: features that stand for the data point: not clean, reading along p (cosine above ``least``), and there
        writing more than half of the output.
      share: of the output on p, along p, which those write.
    """

    clean: int
    point: tuple[int, ...]
    share: float


def faithfulness(dictionary: Dictionary, data: AbsoluteValue, least: float = 0.9) -> Faithfulness:
    """Count the true features and those that stand for the repeated data point."""
    kind, config = kind_of(dictionary.config), dictionary.config
    rows = jnp.arange(config.n_features)
    reads = np.asarray(kind.encoder_rows(dictionary.params, config, 0, rows), np.float64)
    writes = np.asarray(kind.decoder_rows(dictionary.params, config, 0, 0, rows), np.float64)
    p = np.asarray(data.point(), np.float64)
    along = p / np.linalg.norm(p)
    a = np.asarray(dictionary.encode(data.point()[None, None])[0, 0], np.float64)
    reads_unit, writes_unit = _unit(reads), _unit(writes)
    true = {
        (i, sign): (sign * reads_unit[:, i] > least) & (writes_unit[:, i] > least)
        for i in range(data.width)
        for sign in (1, -1)
    }
    clean = np.any(list(true.values()), axis=0)
    written = a * (writes @ along)
    share = written / max(float(written.sum()), 1e-30)
    points = np.flatnonzero(~clean & (reads_unit @ along > least) & (share > 0.5))
    return Faithfulness(
        sum(bool(has.any()) for has in true.values()), tuple(points.tolist()), float(share[points].sum())
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
