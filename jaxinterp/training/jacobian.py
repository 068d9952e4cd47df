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

from jaxinterp.core import precision
from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
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


def check(config: DictionaryConfig) -> None:
    """Whether the term can be computed for this dictionary.

    Raises:
      InputError: it writes into other layers than it reads.
    """
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


def response(params: Tree, config: DictionaryConfig, a: Array, v: Array) -> Array:
    """``J_T v`` of a dictionary whose activations are ``a [L, R, N]``, for changes ``v [L, R, D]``: ``[L, R, D]``.

    Features that are active stay so: a threshold or a competition has this derivative wherever it has one.
    """
    kind = kind_of(config)
    bare: dict[str, Any] = {**params, **{b: jnp.zeros_like(params[b]) for b in ("b_enc", "b_dec")}}
    slope = jnp.exp(params["r_mag"])[:, None, :] if config.activation == "gated" else jnp.ones_like(a)
    change = kind.pre_activations(bare, config, v)
    return kind.decode(bare, config, jnp.where(a != 0, slope * change, jnp.zeros_like(a)), v)


def mismatch(params: Tree, config: DictionaryConfig, a: Array, change: Change) -> Array:
    """``‖(J_T - J) v‖²``, mean over rows and directions, ``[L]``; ``a`` as in `response`."""
    each = jax.vmap(lambda v, want: losses.reconstruction(want, response(params, config, a, v)))
    return jnp.mean(each(change.directions, change.effect), axis=0)


def scaled(target: Target, read: Array, write: Array) -> Target:
    """The target between sites that were multiplied by ``read, write [L]``."""

    def between(x: Array) -> Array:
        return target(x / read[:, None, None]) * write[:, None, None]

    return between


def mlps(model: Model, read_site: str, write_site: str) -> Target:
    """Every MLP of a model as a function from what is read to what is written.

    Args:
      model: weights and config.
      read_site, write_site: of `dictionaries.config.MLP_READS` and `MLP_WRITES`.

    Raises:
      InputError: other sites, or a stream that the MLP does not read.
    """
    config, params = model.config, model.params
    reads, writes = ("resid_mid", "mlp_normalized", "mlp_in"), ("mlp_out", "mlp_out_raw")
    if read_site not in reads or write_site not in writes or (config.parallel and read_site == "resid_mid"):
        raise InputError(
            f"objective: jacobian needs what an MLP makes of its input, not {write_site} of {read_site}; expected "
            f"{' or '.join(writes)} of {' or '.join(reads[config.parallel :])}"
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
        parts = [jax.vmap(one)(of_run(params, run), x[run.start : run.stop]) for run in runs(config)]
        return jnp.concatenate(parts).astype(x.dtype)

    return target


def make_probe(
    target: Target | None, seed: int, step: Array, probes: int
) -> Callable[[Array], Change] | None:
    """The function that probes a batch of this step; None where there is no target."""
    if target is None:
        return None
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 1)
    return partial(probe, target, key, probes=probes)
