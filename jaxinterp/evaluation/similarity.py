"""How alike the features of two dictionaries are, a block of features at a time, and the same of a null.

Two measures: the cosine of decoder vectors, for dictionaries of one model, and the Pearson correlation of activations
over the same tokens, which needs no common space (*Towards Monosemanticity*, "universality"). Whole matrices [N, N']
are never held: a block of rows [B, N'] is made when it is asked for.

Letters: N, N' features of the two dictionaries, B features of a block, D entries of a decoder vector, R tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.evaluation.applying import encode
from jaxinterp.evaluation.reconstruction import Rows

ROTATION = 1024
"""Entries that one random rotation turns; longer vectors are turned in pieces of shuffled entries."""
CODES = 1 << 31
"""Bytes of active features that are held for a correlation."""


class Similarity(Protocol):
    """Similarities of N features with N' others."""

    shape: tuple[int, int]

    def block(self, start: int, stop: int) -> np.ndarray:
        """Those of features [start, stop) with all others: [B, N']."""

    def null(self, key: Array) -> Similarity:
        """The same where nothing of the second dictionary has anything to do with the first."""


class Cosine:
    """Cosines of vectors ``a [N, D]`` and ``b [N', D]``; 0 with a vector of length zero.

    The null rotates ``b`` at random, which keeps all that its own features have to do with each other. Vectors of more
    than `ROTATION` entries are shuffled and rotated in pieces.
    """

    def __init__(self, a: Array, b: Array) -> None:
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise InputError(
                f"matching: decoder vectors of shapes {a.shape} and {b.shape} are not of one space: dictionaries of "
                "different models, or of different layers, are matched by their activations"
            )
        self.a, self.b = _unit(jnp.asarray(a)), _unit(jnp.asarray(b))
        self.shape = (len(a), len(b))

    def block(self, start: int, stop: int) -> np.ndarray:
        """See `Similarity.block`."""
        return np.asarray(_products(self.a[start:stop], self.b))

    def null(self, key: Array) -> Cosine:
        """See `Similarity.null`."""
        return Cosine(self.a, _rotated(self.b, key))


class Correlation:
    """Pearson correlations of activations ``a [R, N]`` and ``b [R, N']`` over the same tokens; 0 with a constant.

    The null shuffles the tokens of ``b``: every feature keeps how often and how strongly it is active, and which others
    are active with it.

    Args:
      a, b: scipy sparse matrices, of any format.
    """

    def __init__(self, a: Any, b: Any) -> None:
        if a.shape[0] != b.shape[0]:
            raise InputError(f"matching: activations on {a.shape[0]} and {b.shape[0]} tokens")
        if a.shape[0] < 2:
            raise InputError(f"matching: {a.shape[0]} tokens are too few for a correlation")
        self.a, self.b = a.tocsc(), b.tocsr()
        self.shape = (a.shape[1], b.shape[1])
        self._a, self._b = _moments(self.a), _moments(self.b)

    def block(self, start: int, stop: int) -> np.ndarray:
        """See `Similarity.block`."""
        rows = self.a.shape[0]
        (mean_a, root_a), (mean_b, root_b) = self._a, self._b
        product = (self.a[:, start:stop].T @ self.b).toarray() / rows
        product -= mean_a[start:stop, None] * mean_b[None]
        size = root_a[start:stop, None] * root_b[None]
        return np.divide(product, size, out=np.zeros_like(product), where=size > 0)

    def null(self, key: Array) -> Correlation:
        """See `Similarity.null`."""
        order = np.asarray(jax.random.permutation(key, self.b.shape[0]))
        return Correlation(self.a, self.b[order])


def decoders(dictionary: Dictionary, group: int) -> Array:
    """What the features of a group write, joined over the layers that they write: [N, D].

    Raises:
      InputError: features that are maps, or read and write other positions, have no vector of this kind.
    """
    config, kind = dictionary.config, kind_of(dictionary.config)
    if kind.maps:
        raise InputError(
            f"matching: a feature of {dictionary.name or 'the dictionary'} ({config.kind}) writes no one direction; "
            "match by activations"
        )
    features = jnp.arange(config.n_features)
    parts = [
        kind.decoder_rows(dictionary.params, config, source, target, features)
        for source, target in kind.writes(config)
        if source == group
    ]
    return jnp.concatenate(parts, axis=1)


def codes(dictionary: Dictionary, batches: Iterable[Rows], groups: Iterable[int] | None = None) -> list[Any]:
    """Activations of every group over all used tokens: scipy sparse matrices [R, N], float64.

    Args:
      dictionary: whose features.
      batches: what it reads.
      groups: which; None takes all.

    Raises:
      InputError: more active features than fit into `CODES` bytes.
    """
    from scipy import sparse

    chosen = list(range(kind_of(dictionary.config).groups(dictionary.config)) if groups is None else groups)
    parts: list[list[Any]] = [[] for _ in chosen]
    size = 0
    for rows in batches:
        where = (jnp.asarray(a) for a in (rows.positions, rows.segments))
        a = np.asarray(_encode(dictionary, rows.x, *where))
        for own, group in zip(parts, chosen, strict=True):
            found = sparse.csr_matrix(a[group][rows.use])
            size += found.nnz * 16
            own.append(found)
        if size > CODES:
            raise InputError(
                f"matching: active features of the text take more than {CODES >> 30} GiB; take fewer tokens"
            )
    if not parts or not parts[0]:
        raise InputError("matching: no tokens")
    return [sparse.vstack(own, format="csr").astype(np.float64) for own in parts]


@jax.jit
def _encode(dictionary: Dictionary, x: Array, positions: Array, segments: Array) -> Array:
    return encode(dictionary, x, positions, segments)


def _moments(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column."""
    mean = np.asarray(matrix.mean(axis=0)).reshape(-1)
    square = np.asarray(matrix.multiply(matrix).mean(axis=0)).reshape(-1)
    variance = square - mean * mean
    # What is left of a column of equal numbers is rounding.
    return mean, np.sqrt(np.where(variance > 1e-12 * square, variance, 0.0))


@jax.jit
def _unit(rows: Array) -> Array:
    length = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(length > 0, length, jnp.ones_like(length))


@jax.jit
def _products(a: Array, b: Array) -> Array:
    return einsum("id,jd->ij", a, b)


@partial(jax.jit, static_argnames="size")
def _turned(rows: Array, key: Array, size: int) -> Array:
    """``rows [N, D]`` times a random rotation, a matrix for every ``size`` entries."""
    pieces = rows.reshape(len(rows), -1, size)
    turns = jax.random.orthogonal(key, size, (pieces.shape[1],), rows.dtype)
    return einsum("npd,pde->npe", pieces, turns).reshape(rows.shape)


def _rotated(rows: Array, key: Array) -> Array:
    width = rows.shape[1]
    if width <= ROTATION:
        return _turned(rows, key, width)
    # Two rounds, with a shuffle between them, mix every entry with many of the others.
    padded = jnp.pad(rows, ((0, 0), (0, -width % ROTATION)))
    for number in range(2):
        order = jax.random.permutation(jax.random.fold_in(key, 2 * number), padded.shape[1])
        padded = _turned(padded[:, order], jax.random.fold_in(key, 2 * number + 1), ROTATION)
    return padded
