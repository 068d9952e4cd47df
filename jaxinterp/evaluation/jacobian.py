"""Jacobian cosine: does a dictionary compute its MLP's output the way the MLP does, or only the same value?

For one token and layer it is ``cos(vec J_dictionary, vec J_MLP)``, J being the derivative of what the layer writes to
what it reads at that token; the figure is its mean over tokens (*Sparse Mixtures of Linear Transforms* and *A Toy Model
of Mechanistic (Un)Faithfulness*, 2025). Of a cross-layer transcoder it is the layer's own block: what its features
write into their own layer.

Inner products of Jacobians come from products with P orthonormal probes, ``⟨J, K⟩ = (D / P) Σ_p ⟨J v_p, K v_p⟩``. With
P = D that is exact. With fewer, drawn at random for every token, it is an estimate: the cosine's bias of order 1/P is
taken off by the jackknife over probes, whose deviation is the stated error; both are smaller by ``1 - P / D``, since
no direction is drawn twice.

Letters: L layers, R tokens (rows), D width read, D' width written, P probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.dictionaries.config import MLP_READS, MLP_WRITES
from jaxinterp.evaluation.applying import check_fit
from jaxinterp.evaluation.reconstruction import Rows, number
from jaxinterp.models import norms
from jaxinterp.models.block import after_mlp
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.decoder import HIGHEST
from jaxinterp.models.mlp import mlp
from jaxinterp.models.model import Model
from jaxinterp.models.weights import of_layer

EXACT = 256
PROBES = 32
SIZE = 1 << 24
"""Numbers of a dictionary's or an MLP's inside that are worked on at a time."""


@dataclass(frozen=True)
class JacobianCosine:
    """Mean cosines, an entry a layer.

    Attributes:
      cosine: mean over tokens.
      error: standard error of that mean from the tokens drawn (what probes add is in it).
      probe_error: the part of it that comes from probes; 0 where they are exact.
      tokens: how many tokens.
      probes: how many probes a token; the width read where exact.
    """

    cosine: tuple[float, ...]
    error: tuple[float, ...]
    probe_error: tuple[float, ...]
    tokens: int
    probes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "jacobian_cosine": [number(v) for v in self.cosine],
            "mean_jacobian_cosine": number(np.mean(self.cosine)),
            "jacobian_cosine_error": [number(v) for v in self.error],
            "jacobian_probe_error": [number(v) for v in self.probe_error],
            "jacobian_tokens": self.tokens,
            "jacobian_probes": self.probes,
        }


def jacobian_cosine(
    model: Model, dictionary: Dictionary, batches: Iterable[Rows], *, tokens: int = 256,
    probes: int | None = None, seed: int = 0,
) -> JacobianCosine:  # fmt: skip
    """Compare a dictionary's Jacobians with those of the MLPs that it stands for.

    Args:
      model: the model.
      dictionary: it reads and writes the two sides of MLPs.
      batches: values at the sites it reads; the first ``tokens`` used rows are taken.
      tokens: how many.
      probes: products a token; None is exact up to a width of `EXACT`, else `PROBES`.
      seed: of the probes.

    Raises:
      InputError: a dictionary that does not stand for MLPs, or no tokens.
    """
    layers = check_fit(dictionary, model.config)
    _check(model.config, dictionary)
    width = dictionary.config.d_model
    count = min(width, probes or (width if width <= EXACT else PROBES))
    if count < 2:
        raise InputError(f"Jacobian cosine: {count} probes, expected at least 2")
    x = _first(batches, tokens)
    key = jax.random.key(seed)
    cosines, errors = np.empty((len(layers), x.shape[1])), np.empty((len(layers), x.shape[1]))
    inside = max(dictionary.config.n_features, model.config.d_mlp, width) * count
    size = max(1, SIZE // inside)
    for own, layer in enumerate(layers):
        weights = of_layer(model.params, model.config, layer)
        for start in range(0, x.shape[1], size):
            part = slice(start, start + size)
            given = x[:, part]
            drawn = _probes(jax.random.fold_in(jax.random.fold_in(key, layer), start), given[own], count)
            sums = _products(dictionary, model.config, own, weights, given, drawn)
            cosines[own, part], errors[own, part] = _jackknife(
                *(np.asarray(v, np.float64) for v in sums), exact=count == width, share=count / width
            )
    n = x.shape[1]
    spread = cosines.std(axis=1, ddof=1) / n**0.5 if n > 1 else np.full(len(layers), np.nan)
    return JacobianCosine(
        tuple(float(v) for v in cosines.mean(axis=1)),
        tuple(float(v) for v in spread),
        tuple(float(v) for v in np.sqrt((errors**2).sum(axis=1)) / n),
        n,
        count,
    )


def _check(config: ModelConfig, dictionary: Dictionary) -> None:
    own, name = dictionary.config, dictionary.name or "the dictionary"
    if own.read_site not in MLP_READS or own.write_site not in MLP_WRITES:
        raise InputError(
            f"Jacobian cosine: {name} reads {own.read_site} and writes {own.write_site}, not the two sides of an MLP"
        )
    if config.parallel and own.read_site == "resid_mid":
        raise InputError(f"Jacobian cosine: {name} reads resid_mid, which this model's MLPs do not read")


def _first(batches: Iterable[Rows], tokens: int) -> Array:
    """The first used rows, [L, R, D]."""
    parts, left = [], tokens
    for batch in batches:
        where = np.flatnonzero(batch.use.reshape(-1))[:left]
        flat = batch.x.reshape(batch.x.shape[0], -1, batch.x.shape[-1])
        parts.append(jnp.take(flat, jnp.asarray(where), axis=1))
        left -= len(where)
        if left <= 0:
            break
    if not parts or not sum(part.shape[1] for part in parts):
        raise InputError("Jacobian cosine: no tokens")
    return jnp.concatenate(parts, axis=1)


def mlp_function(config: ModelConfig, weights: Tree, read: str, write: str) -> Callable[[Array], Array]:
    """What a layer's MLP makes of ``x [R, D]`` at a site it reads: values [R, D] at a site it writes."""

    def function(x: Array) -> Array:
        x = x[None]
        if read == "resid_mid" and config.pre_norms:
            line = norms.Line(norms.scale(x, weights["mlp_norm"], config))
            x = norms.divide(x, line, config)
        if read != "mlp_in" and config.pre_norms:
            x = norms.affine(x, weights["mlp_norm"], config)
        raw = mlp(weights, config, x, HIGHEST)
        return (after_mlp(weights, config, jnp.zeros_like(raw), None, raw) if write == "mlp_out" else raw)[0]

    return function


def own_function(dictionary: Dictionary, own: int, others: Array) -> Callable[[Array], Array]:
    """What a dictionary writes into layer ``own`` as a function of what it reads there, ``x [R, D]``.

    Where features read other layers, too, these stay as in ``others [L, R, D]``. Constants are left out.
    """
    config, kind = dictionary.config, kind_of(dictionary.config)
    params: Any = dictionary.params

    def function(x: Array) -> Array:
        if kind.groups(config) != config.n_layers:
            stack = others.at[own].set(x)
            return kind.decode(params, config, kind.encode(params, config, stack), stack)[own]
        a = kind.encode_layer(params, config, own, x)
        y = kind.decode_into(params, config, own, a, *((x,) if kind.maps else ()))[own]
        if config.skip:
            y = y + jnp.einsum("rd,ed->re", x, params["W_skip"][own], precision=HIGHEST)
        return y

    return function


@partial(jax.jit, static_argnames=("config", "own"))
def _products(
    dictionary: Dictionary, config: ModelConfig, own: int, weights: Tree, x: Array, probes: Array
) -> tuple[Array, Array, Array]:
    """``⟨J v, K v⟩``, ``‖J v‖²`` and ``‖K v‖²`` [P, R] of the dictionary's J and the MLP's K, ``probes [P, R, D]``."""
    sites = (dictionary.config.read_site, dictionary.config.write_site)
    found = []
    for function in (own_function(dictionary, own, x), mlp_function(config, weights, *sites)):
        _, linear = jax.linearize(function, x[own])
        found.append(jax.vmap(linear)(probes))
    j, k = found

    def inner(a: Array, b: Array) -> Array:
        return jnp.einsum("prd,prd->pr", a, b, precision=HIGHEST)

    return inner(j, k), inner(j, j), inner(k, k)


@partial(jax.jit, static_argnames="count")
def _probes(key: Array, x: Array, count: int) -> Array:
    """Orthonormal directions [P, R, D]: all D axes, or as many random ones for each row."""
    rows, width = x.shape
    if count == width:
        eye = jnp.eye(width, dtype=x.dtype)
        return jnp.broadcast_to(eye[:, None], (width, rows, width))
    draw = jax.random.normal(key, (rows, width, count), x.dtype)
    return jnp.moveaxis(jnp.linalg.qr(draw)[0], 2, 0)


def _jackknife(
    inner: np.ndarray, one: np.ndarray, two: np.ndarray, *, exact: bool, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines [R] and their errors from sums over probes [P, R]. A Jacobian of zeros has the cosine 0."""

    def cosine(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        length = np.sqrt(b * c)
        return np.where(length > 0, a / np.where(length > 0, length, 1.0), 0.0)

    sums = [values.sum(axis=0) for values in (inner, one, two)]
    whole = cosine(*sums)
    if exact:
        return whole, np.zeros_like(whole)
    count = len(inner)
    without = cosine(*(s[None] - v for s, v in zip(sums, (inner, one, two), strict=True)))
    centre = without.mean(axis=0)
    best = whole + (1.0 - share) * (count - 1) * (whole - centre)
    variance = (1.0 - share) * (count - 1) / count * ((without - centre) ** 2).sum(axis=0)
    return best, np.sqrt(variance)
