"""The loss of a dictionary: reconstruction, also of nested prefixes, what the gate asks for, and aux-k.

One number is a sum of named terms, each the mean of its layers or groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import losses, sparse
from jaxinterp.dictionaries.base import Kind, kind_of
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.training import few
from jaxinterp.training.jacobian import Change, blurred, mismatch
from jaxinterp.training.resample import density
from jaxinterp.training.sparsity.base import Gate, Gated, Pass

Decode = Callable[[Tree, DictionaryConfig, Any, Array], Array]
"""`Kind.decode`, or that of a `sparse.Code`."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised besides what the gate asks for.

    Attributes:
      reconstruction: squared error summed over D and divided by D ("width": on scaled sites the normalised error), not
        divided ("sum"), or divided by the batch's variance ("variance").
      nesting: Matryoshka (Bussmann et al. 2025, arXiv 2503.17547): the first so many features must reconstruct by
        themselves too, for each number here and for all; the error is the mean of these. Empty means all only.
      auxiliary: weight of aux-k: dead features predict what is left of the error (Gao et al. 2024, appendix A.2).
      auxiliary_k: how many of them in a row; 0 means D / 2.
      auxiliary_ranked: they compete by pre-activation times decoder length.
      auxiliary_unit: its squared error is divided as the reconstruction's ("same") or by the residual's variance
        ("residual").
      jacobian: weight of Jacobian matching (`training.jacobian`), divided as the reconstruction.
      jacobian_probes: random directions for it in a row.
      jacobian_bandwidth: ε of the straight-through estimator by which it also reaches biases and thresholds, in units
        of pre-activations; 0: which features are active is held fixed.
      sparse: whether only the active features are computed with, where the method of sparsity says which these are
        without a look at all others ("top-k", "group-max", with ``pre_activation`` 0): true, false, or "auto", where
        it is faster (`training.few`). Values and gradients are the same up to rounding.
    """

    reconstruction: str = "width"
    nesting: tuple[int, ...] = ()
    auxiliary: float = 0.0
    auxiliary_k: int = 0
    auxiliary_ranked: bool = True
    auxiliary_unit: str = "same"
    jacobian: float = 0.0
    jacobian_probes: int = 1
    jacobian_bandwidth: float = 0.0
    sparse: bool | str = "auto"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("reconstruction", ("width", "sum", "variance")), ("auxiliary_unit", ("same", "residual")),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"objective: {name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}"
                )
        if list(self.nesting) != sorted(set(self.nesting)) or any(size < 1 for size in self.nesting):
            raise InputError(f"objective: nesting is {self.nesting}, expected rising numbers of features")
        if self.auxiliary < 0 or self.auxiliary_k < 0:
            raise InputError("objective: auxiliary and auxiliary_k are at least 0")
        if min(self.jacobian, self.jacobian_bandwidth) < 0 or self.jacobian_probes < 1:
            raise InputError(
                "objective: jacobian and its bandwidth are at least 0, jacobian_probes at least 1"
            )
        if self.sparse not in (True, False, "auto"):
            raise InputError(f"objective: sparse is {self.sparse!r}, expected true, false or auto")


class Found(NamedTuple):
    """What a step needs of the loss besides its value.

    Attributes:
      a: ``[G, R, N]`` activations, or their code. share: ``[G, N]``, of rows on which a feature is active.
      residual: ``[L, R, D]``. error: ``[L]``, of all features together.
      terms: name → ``[L]`` or ``[G]``, weighted; they add up to the loss, each by its mean.
      seen: what the gate is to know.
    """

    a: Array | sparse.Code
    share: Array
    residual: Array
    error: Array
    terms: dict[str, Array]
    seen: dict[str, Array]


def objective(
    objective: ObjectiveConfig, gate: Gate, config: DictionaryConfig, params: Tree, control: Tree, x: Array, y: Array,
    *, dead: Array, progress: Array, probe: Callable[[Array], Change] | None = None, kind: Kind | None = None,
) -> tuple[Array, Found]:  # fmt: skip
    """The loss on scaled sites ``x, y [L, R, D]``.

    Args:
      params, control: as the gate keeps them.
      dead: ``[G, N]``, the features that count as dead.
      progress: 0 to 1 over training.
      probe: for Jacobian matching, of x.
      kind: the functions of the dictionary's kind, where they know more than x; None means its own.
    """
    kind = kind or kind_of(config)
    unit = float(config.d_out) if objective.reconstruction == "width" else 1.0
    norms = kind.decoder_norms(params, config)
    given = Pass(params, config, norms, control, jnp.zeros(()), x, y, dead, progress, unit)
    k = min(objective.auxiliary_k or max(config.d_out // 2, 1), config.n_features)
    decode: Decode
    candidates: Any = None
    needs = "Jacobian matching needs all pre-activations" if objective.jacobian else ""
    if kind == kind_of(config) and few.wins(objective.sparse, gate.few, config, x, needs):
        assert gate.few is not None
        lengths = norms if objective.auxiliary_ranked else None
        also = few.Candidates(k, lengths) if objective.auxiliary else None
        code, candidates = few.apply(gate.few, given, also)
        gated, decode, share = Gated(code, {}, {}), sparse.decode, sparse.density(code, config.n_features)
    else:
        h = kind.pre_activations(params, config, x)
        gated = gate.apply(given._replace(h=h))
        if objective.auxiliary:
            candidates = losses.dead_candidates(h, dead, k, norms if objective.auxiliary_ranked else None)
        assert not isinstance(gated.a, sparse.Code)
        decode, share = kind.decode, density(gated.a)
    a: Any = gated.a
    predicted = decode(params, config, a, x)
    error = _error(objective, y, predicted, unit)
    terms = {
        "error": _nested(objective, decode, params, config, a, x, y, error, unit),
        **gated.penalties,
    }
    residual = y - predicted
    if objective.auxiliary:
        written = contributions(decode, params, config, candidates, x)
        terms["auxiliary"] = _auxiliary(objective, written, k, dead, residual, unit)
    if objective.jacobian and probe is not None:
        blur = None
        if objective.jacobian_bandwidth:
            blur = blurred(
                h - gate.thresholds(params, norms, control)[:, None, :], objective.jacobian_bandwidth
            )
        terms["jacobian"] = objective.jacobian * mismatch(params, config, a, probe(x), blur) / unit
    total = sum((jnp.mean(term) for term in terms.values()), jnp.zeros((), error.dtype))
    return total, Found(a, share, residual, error, terms, gated.seen)


def _error(objective: ObjectiveConfig, y: Array, predicted: Array, unit: float) -> Array:
    if objective.reconstruction == "variance":
        return losses.unexplained(y, predicted)
    return losses.reconstruction(y, predicted) / unit


def _nested(
    objective: ObjectiveConfig, decode: Decode, params: Tree, config: DictionaryConfig, a: Any, x: Array, y: Array,
    whole: Array, unit: float,
) -> Array:  # fmt: skip
    """The error ``[L]``, with prefixes their mean."""
    errors = [whole]
    for size in objective.nesting:
        if size < config.n_features:
            if isinstance(a, sparse.Code):
                first: Any = sparse.within(a, size)
            else:
                inside = (jnp.arange(config.n_features) < size)[None, None, :]
                first = jnp.where(inside, a, jnp.zeros_like(a))
            errors.append(_error(objective, y, decode(params, config, first, x), unit))
    return jnp.mean(jnp.stack(errors), axis=0)


def _auxiliary(
    objective: ObjectiveConfig, written: Array, k: int, dead: Array, residual: Array, unit: float
) -> Array:
    """Aux-k ``[L]`` where the ``k`` candidates of each row write ``written [L, R, D]``."""
    residual = jax.lax.stop_gradient(residual)
    error = losses.reconstruction(residual, written) / unit
    if objective.auxiliary_unit == "residual":
        error = losses.unexplained(residual, written)
    weight = losses.auxiliary_weight(dead, k)
    return objective.auxiliary * (jnp.mean(weight) if weight.shape != error.shape else weight) * error


def contributions(decode: Decode, params: Tree, config: DictionaryConfig, a: Any, x: Array) -> Array:
    """What activations ``a [G, ..., N]`` write at ``x [L, ..., D]``, ``[L, ..., D]``, without bias and skip."""
    bare: dict[str, Any] = {**params, "b_dec": jnp.zeros_like(params["b_dec"])}
    return decode(bare, dataclasses.replace(config, skip=False), a, x)
