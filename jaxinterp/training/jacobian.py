"""Jacobian matching: a transcoder should answer small changes of its input as what it stands for does.

The term is ``E_x ‖J_T(x) - J(x)‖²_F`` (*A Toy Model of Mechanistic (Un)Faithfulness*, 2025), estimated with random
directions: ``E_v ‖(J_T - J) v‖²`` is the squared Frobenius norm where ``E v vᵀ`` is the identity. Without it a
transcoder may keep one feature for a data point that is often repeated, which gives the right output there for a wrong
reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinterp.core import precision
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses
from jaxinterp.dictionaries.activations import rectangle
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import CHOOSING, MLP_READS, MLP_WRITES, DictionaryConfig
from jaxinterp.models import norms
from jaxinterp.models.mlp import mlp
from jaxinterp.models.model import Model
from jaxinterp.models.weights import of_run, runs

Target = Callable[[Array], Array]
"""What a dictionary stands for: the read site ``x [L, R, D]`` → the write site ``[L, R, D]``, row by row."""


@dataclasses.dataclass(frozen=True)
class Change:
    """Small changes of the input of one batch and what they do to the target.

    Attributes:
      directions: ``[P, L, R, D]``, P of every row. effect: ``[P, L, R, D]``, ``J v``.
    """

    directions: Array
    effect: Array


jax.tree_util.register_dataclass(Change, data_fields=["directions", "effect"], meta_fields=[])


def check(config: DictionaryConfig, bandwidth: float = 0.0) -> None:
    """Whether the term can be computed for this dictionary.

    Raises:
      InputError: it writes into other layers than it reads, or its features have no threshold to blur.
    """
    if bandwidth and config.activation in CHOOSING:
        raise InputError(
            f"objective: jacobian_bandwidth is for features with a threshold, not {config.activation}; set it to 0"
        )
    if config.kind != "plt":
        raise InputError(
            f"objective: jacobian compares each layer's output with its own input, which is for the kind plt, not "
            f"{config.kind}"
        )


def probe(target: Target, key: Array, x: Array, probes: int = 1) -> Change:
    """Independent normal directions at every row of ``x [L, R, D]`` and ``J v`` of the target there."""
    directions = jax.random.normal(key, (probes, *x.shape), x.dtype)
    with precision.products(None):  # its own, with no rule for derivatives this way
        effect = jax.vmap(lambda v: jax.jvp(target, (x,), (v,))[1])(directions)
    return Change(directions, jax.lax.stop_gradient(effect))


def response(params: Tree, config: DictionaryConfig, a: Array, v: Array, blur: Array | None = None) -> Array:
    """``J_T v`` of a dictionary whose activations are ``a [L, R, N]``, for changes ``v [L, R, D]``: ``[L, R, D]``.

    Features that are active stay so: a threshold or a competition has this derivative wherever it has one.

    Args:
      blur: ``[L, R, N]``, added to the ones and zeros that say which features are active; see `blurred`.
    """
    kind = kind_of(config)
    bare: dict[str, Any] = {**params, **{b: jnp.zeros_like(params[b]) for b in ("b_enc", "b_dec")}}
    slope = (a != 0).astype(a.dtype)
    if blur is not None:
        slope = slope + blur
    if config.activation == "gated":
        slope = slope * jnp.exp(params["r_mag"])[:, None, :]
    return kind.decode(bare, config, slope * kind.pre_activations(bare, config, v), v)


def blurred(margin: Array, bandwidth: float) -> Array:
    """Zeros with the derivative ``K / ε`` to ``margin``, pre-activation less threshold.

    Which features are active is a step, whose derivative is lost to automatic differentiation; but the mean of the term
    over rows has one. This is the straight-through estimate of it (Rajamanoharan et al. 2024, arXiv 2407.14435, section
    3), which lets a bias or a threshold move out of the way of inputs at which the feature should not answer.
    """
    kernel = rectangle(margin, jnp.zeros_like(margin), bandwidth) / bandwidth
    return kernel * (margin - jax.lax.stop_gradient(margin))


def mismatch(
    params: Tree, config: DictionaryConfig, a: Array, change: Change, blur: Array | None = None
) -> Array:
    """``‖(J_T - J) v‖²``, mean over rows and directions, ``[L]``; ``a`` and ``blur`` as in `response`."""
    each = jax.vmap(lambda v, want: losses.reconstruction(want, response(params, config, a, v, blur)))
    return jnp.mean(each(change.directions, change.effect), axis=0)


def scaled(target: Target, read: Array, write: Array) -> Target:
    """The target between sites that were multiplied by ``read, write [L]``."""

    def between(x: Array) -> Array:
        return target(x / read[:, None, None]) * write[:, None, None]

    return between


def mlps(model: Model, read_site: str, write_site: str, layers: tuple[int, ...] = ()) -> Target:
    """Every MLP of a model as a function from what is read to what is written.

    Args:
      model: weights and config.
      read_site, write_site: of `dictionaries.config.MLP_READS` and `MLP_WRITES`.
      layers: those that the L are; empty means all.

    Raises:
      InputError: other sites, or a stream that the MLP does not read.
    """
    config, params = model.config, model.params
    reads = MLP_READS[1:] if config.parallel else MLP_READS
    if read_site not in reads or write_site not in MLP_WRITES:
        raise InputError(
            f"objective: jacobian needs what an MLP makes of its input, not {write_site} of {read_site}; expected "
            f"{' or '.join(MLP_WRITES)} of {' or '.join(reads)}"
        )

    def one(w: Tree, x: Array) -> Array:
        x = x[None]  # a batch of one sequence
        if config.pre_norms and read_site == "resid_mid":
            x = norms.divide(x, norms.Line(norms.scale(x, w["mlp_norm"], config)), config)
        if config.pre_norms and read_site != "mlp_in":
            x = norms.affine(x, w["mlp_norm"], config)
        out = mlp(w, config, x, jax.lax.Precision.HIGHEST)
        if config.post_norms and write_site == "mlp_out":
            line = norms.Line(norms.scale(out, w["mlp_post_norm"], config))
            out = norms.affine(norms.divide(out, line, config), w["mlp_post_norm"], config)
        return out[0]

    def target(x: Array) -> Array:
        wanted = layers or tuple(range(config.n_layers))
        done: list[int] = []
        parts = []
        for run in runs(config):
            here = [place for place, layer in enumerate(wanted) if run.start <= layer < run.stop]
            rows = np.asarray([wanted[place] - run.start for place in here], np.int32)
            if here:
                w = jax.tree.map(lambda leaf, rows=rows: leaf[rows], of_run(params, run))
                parts.append(jax.vmap(one)(w, x[np.asarray(here)]))
                done += here
        return jnp.concatenate(parts)[np.argsort(done)].astype(x.dtype)

    return target


def wanted(weight: float, bandwidth: float, config: DictionaryConfig, model: Any) -> dict[str, Target]:
    """What the trainer's step is to be told: the target where Jacobian matching has a weight, else nothing.

    Raises:
      InputError: a dictionary or a model for which there is none.
    """
    if not weight:
        return {}
    check(config, bandwidth)
    if not isinstance(model, Model):
        raise InputError(
            "objective: jacobian needs a model of this library, whose MLPs are known as functions"
        )
    return {"target": mlps(model, config.read_site, config.write_site, config.layers)}


def make_probe(
    target: Target | None, scales: dict[str, Array], seed: int, step: Array, probes: int
) -> Callable[[Array], Change] | None:
    """The function that probes scaled rows of this step; None where there is no target (between raw sites)."""
    if target is None:
        return None
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 1)
    return partial(probe, scaled(target, scales["read"], scales["write"]), key, probes=probes)
