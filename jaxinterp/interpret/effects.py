"""What features write: effects on logits, decoder lengths, neighbours.

Letters: G groups, N features, D width, V vocabulary, E widths of all decoders of a feature end to end.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.attribution import residual_paths as paths
from jaxinterp.attribution.weight_sides import logit_target
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.core.precision import einsum, wide
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.models.model import Model

CHUNK = 256
"""Features at a time, so that programs have one shape."""
ACROSS = 20_000
"""Up to so many features neighbours are looked for in all layers, above in the own one."""


class Logits(NamedTuple):
    """[N, 2 k] each: tokens, the k that a feature raises most, then the k that it lowers most; and by how much."""

    tokens: np.ndarray
    values: np.ndarray


def why_not(model: Model, dictionary: Dictionary) -> str | None:
    """Why features have no one direct effect on logits, or None."""
    if kind_of(dictionary.config).maps:
        return f"features of a {dictionary.config.kind} are linear maps and write no one direction"
    try:
        paths.when_written(dictionary.config.write_site, 0)
    except InputError as error:
        return str(error)
    return None


def written(model: Model, dictionary: Dictionary, layers: tuple[int, ...], group: int) -> Array:
    """What a feature of one activation adds to the final residual stream by itself: ``[N, D]``.

    All decoders of a feature added up: of a cross-layer transcoder those into its own and all later layers, since each
    is added to the stream. Where decoders replace the stream (autoencoders of it), the last one. A post-norm counts by
    its gain.
    """
    config, every = dictionary.config, jnp.arange(dictionary.config.n_features)
    kind, total = kind_of(config), None
    into = sorted(target for source, target in kind.writes(config) if source == group)
    for target in into[-1:] if paths.replaces(config.write_site) else into:
        rows = kind.decoder_rows(dictionary.params, config, group, target, every)
        part = paths.written(model, config.write_site, layers[target], rows, paths.Factors())
        total = part if total is None else total + part
    assert total is not None
    return total


def logits(model: Model, vectors: Array, k: int) -> Logits:
    """The largest and smallest direct effects of vectors ``[N, D]`` of the final residual stream.

    Columns of the unembedding less their mean, through the final norm: its gain, and for a layer norm the mean taken
    off; its denominator is of a prompt and counts as one, a softcap does not count (`attribution.weight_sides`).
    """
    reads = logit_target(model).vectors(0, slice(None)).vectors
    k = min(k, reads.shape[0])
    tokens, values = [], []
    for chunk in _chunks(vectors):
        found = _extremes(chunk, reads, k)
        tokens.append(np.asarray(found[0]))
        values.append(np.asarray(found[1]))
    n = vectors.shape[0]
    return Logits(np.concatenate(tokens)[:n], np.concatenate(values)[:n])


@partial(jax.jit, static_argnums=2)
def _extremes(vectors: Array, reads: Array, k: int) -> tuple[Array, Array]:
    effects = einsum("nd,vd->nv", wide(vectors), wide(reads)).astype(jnp.float32)
    high, top = jax.lax.top_k(effects, k)
    low, bottom = jax.lax.top_k(-effects, k)
    return jnp.concatenate([top, bottom], axis=1), jnp.concatenate([high, -low], axis=1)


def _chunks(rows: Array) -> Any:
    for begin in range(0, rows.shape[0], CHUNK):
        part = rows[begin : begin + CHUNK]
        yield jnp.pad(part, ((0, CHUNK - part.shape[0]), (0, 0)))


def decoders(dictionary: Dictionary, group: int) -> Array | None:
    """The decoders of each feature side by side, zeros where it does not write: ``[N, L, D]``; None for maps."""
    config, kind = dictionary.config, kind_of(dictionary.config)
    if kind.maps:
        return None
    every = jnp.arange(config.n_features)
    into = {target for source, target in kind.writes(config) if source == group}
    rows = [
        kind.decoder_rows(dictionary.params, config, group, target, every)
        if target in into
        else jnp.zeros((config.n_features, config.d_out), jnp.float32)
        for target in range(config.n_layers)
    ]
    return jnp.stack([row.astype(jnp.float32) for row in rows], axis=1)


class Neighbours(NamedTuple):
    """[N, k] each: the group and number of features with the most similar decoders, and the cosine."""

    groups: np.ndarray
    features: np.ndarray
    cosines: np.ndarray


def neighbours(own: Array, others: Array, group: int, groups: tuple[int, ...], k: int) -> Neighbours:
    """Features whose decoders, joined end to end, have the largest cosine with each feature's.

    Args:
      own: unit rows ``[N, E]`` of ``group``. others: those of all ``groups`` one after another.
    """
    n = own.shape[0]
    k = min(k, others.shape[0] - 1)
    if k < 1:
        none = np.zeros((n, 0))
        return Neighbours(none.astype(np.int64), none.astype(np.int64), none.astype(np.float32))
    first = groups.index(group) * n
    found, cosines = [], []
    for number, chunk in enumerate(_chunks(own)):
        chosen, values = _closest(chunk, others, jnp.int32(first + number * CHUNK), k)
        found.append(np.asarray(chosen))
        cosines.append(np.asarray(values))
    place = np.concatenate(found)[:n].astype(np.int64)
    return Neighbours(np.asarray(groups)[place // n], place % n, np.concatenate(cosines)[:n])


@partial(jax.jit, static_argnums=3)
def _closest(own: Array, others: Array, first: Array, k: int) -> tuple[Array, Array]:
    cosines = einsum("ne,me->nm", own, others)
    itself = (first + jnp.arange(own.shape[0]))[:, None] == jnp.arange(others.shape[0])[None, :]
    values, found = jax.lax.top_k(jnp.where(itself, -2.0, cosines), k)
    return found, values


@jax.jit
def lengths_and_units(rows: Array) -> tuple[Array, Array]:
    """Lengths ``[N, L]`` of decoders ``[N, L, D]``, and rows of length one ``[N, L D]`` (zeros stay zeros)."""
    squares = jnp.sum(rows * rows, axis=-1)
    whole = jnp.sqrt(jnp.sum(squares, axis=-1))
    scale = jnp.where(whole > 0, 1 / jnp.where(whole > 0, whole, 1.0), 0.0)
    return jnp.sqrt(squares), (rows * scale[:, None, None]).reshape(rows.shape[0], -1)
