"""Mixtures of experts: which MLPs a token is sent to, and two ways of computing them that agree.

Letters: B batch, T position, D width, X experts, F width of an expert, A experts a token is sent to, N = B·T.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.letters import Array, Tree
from jaxinterp.core.precision import wide, wide_einsum
from jaxinterp.models.expert_parallel import OnMesh, by_expert, spread

DISPATCHES = ("sparse", "dense")
Product = Callable[[Array, Array], Array]
"""(gate, up) → hidden, both [..., F]."""
Dispatch = str | OnMesh
"""One of `DISPATCHES`, or the mesh whose devices each compute their own experts."""


@dataclass(frozen=True)
class Experts:
    """Everything in which mixtures of experts differ.

    Attributes:
      n, active, d_expert: X, A and F.
      score: "softmax" over all experts or "sigmoid" of each.
      normalise: the chosen scores are divided by their sum. With softmax this is the softmax over the chosen alone.
      scale: factor on the weights of the chosen.
      groups, active_groups, group_score: experts stand in equal groups, and only those of the best groups may be
        chosen; a group is as good as its "best" expert or its "two_best" together (DeepSeek-V2, V3).
      correction: a trained bias that takes part in choosing but not in the weights (DeepSeek-V3).
      router_bias, bias: whether the router and the experts have biases.
      d_shared: width of an MLP that every token goes through besides (DeepSeek); 0 means none.
      dense_layers: layers with an ordinary MLP instead.
    """

    n: int
    active: int
    d_expert: int
    score: str = "softmax"
    normalise: bool = True
    scale: float = 1.0
    groups: int = 1
    active_groups: int = 1
    group_score: str = "best"
    correction: bool = False
    router_bias: bool = False
    bias: bool = False
    d_shared: int = 0
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (
            ("n", 1), ("active", 1), ("d_expert", 1), ("groups", 1), ("active_groups", 1), ("d_shared", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"experts: {name} is {value!r}, expected a whole number of at least {least}")
        for name, allowed in (("score", ("softmax", "sigmoid")), ("group_score", ("best", "two_best"))):
            if getattr(self, name) not in allowed:
                raise InputError(f"experts: {name} is {getattr(self, name)!r}, expected one of {allowed}")
        object.__setattr__(self, "dense_layers", tuple(sorted(self.dense_layers)))
        if self.n % self.groups or self.active_groups > self.groups:
            raise InputError(
                f"experts: {self.n} experts in {self.groups} groups, {self.active_groups} of them active"
            )
        if self.active > self.n // self.groups * self.active_groups:
            raise InputError(f"experts: {self.active} are to be chosen among fewer")

    @staticmethod
    def from_dict(values: Any) -> Experts:
        """The inverse of `dataclasses.asdict`. An unknown field raises an `InputError` that names it."""
        if not isinstance(values, dict):
            raise InputError(f"experts is {values!r}, expected fields and values")
        known = [f.name for f in dataclasses.fields(Experts)]
        for name in values:
            if name not in known:
                raise InputError(f"experts: unknown field {name!r}{near(name, known)}")
        read: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        try:
            return Experts(**read)
        except TypeError as error:
            raise InputError(f"experts: {error}") from error


def route(w: Tree, config: Experts, x: Array, precision: Any) -> tuple[Array, Array]:
    """Which experts tokens [B, T, D] are sent to: weights [B, T, A], at least float32, and numbers [B, T, A]."""
    logits = wide_einsum("btd,dx->btx", x, w["router"], precision=precision)
    if config.router_bias:
        logits = logits + wide(w["router_bias"])[None, None]
    scores = jax.nn.softmax(logits, axis=-1) if config.score == "softmax" else jax.nn.sigmoid(logits)
    choice = scores + wide(w["correction"])[None, None] if config.correction else scores
    if config.groups > 1:
        grouped = choice.reshape(*choice.shape[:2], config.groups, -1)
        best = jax.lax.top_k(grouped, min(1 if config.group_score == "best" else 2, grouped.shape[-1]))[0]
        _, groups = jax.lax.top_k(jnp.sum(best, axis=-1), config.active_groups)
        kept = jax.nn.one_hot(groups, config.groups, dtype=bool).any(axis=2)
        choice = jnp.where(kept[..., None], grouped, -jnp.inf).reshape(choice.shape)
    _, numbers = jax.lax.top_k(choice, config.active)
    weights = jnp.take_along_axis(scores, numbers, axis=-1)
    if config.normalise:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return config.scale * weights, numbers


def apply(w: Tree, config: Experts, x: Array, product: Product, dispatch: Dispatch, precision: Any) -> Array:
    """The mixture of x [B, T, D] → [B, T, D].

    Args:
      w: `router` [D, X], `gate`, `up` [X, D, F], `down` [X, F, D], and what ``config`` says besides.
      product: what an expert does between its matrices.
      dispatch: "sparse" sorts tokens by expert and multiplies each with its own experts only; "dense" multiplies every
        token with every expert, which is simpler and costs X / A times as much. `OnMesh` is "sparse" with each device
        computing the experts that it holds; use it where experts are divided over a mesh.
    """
    weights, numbers = route(w, config, x, precision)
    if isinstance(dispatch, OnMesh):
        out = spread(w, x, product, weights, numbers, dispatch, precision)
    elif dispatch == "dense":
        out = _dense(w, config, x, product, weights, numbers, precision)
    elif dispatch == "sparse":
        out = _sparse(w, x, product, weights, numbers, precision)
    else:
        raise InputError(f"dispatch is {dispatch!r}, expected one of {', '.join(DISPATCHES)}")
    if config.d_shared:
        gate, up = (
            jnp.einsum("btd,ds->bts", x, w[f"shared_{name}"], precision=precision) for name in ("gate", "up")
        )
        out = out + wide_einsum("bts,sd->btd", product(gate, up), w["shared_down"], precision=precision)
    return out.astype(x.dtype)


def _dense(
    w: Tree, config: Experts, x: Array, product: Product, weights: Array, numbers: Array, precision: Any
) -> Array:
    chosen = jax.nn.one_hot(numbers, config.n, dtype=weights.dtype)
    share = jnp.einsum("bta,btax->btx", weights, chosen, precision=precision)

    def biased(value: Array, name: str) -> Array:
        return value + w[name][None, None] if name in w else value

    gate, up = (
        biased(jnp.einsum("btd,xdf->btxf", x, w[name], precision=precision), f"{name}_bias")
        for name in ("gate", "up")
    )
    out = jnp.einsum("btxf,xfd->btxd", product(gate, up), w["down"], precision=precision)
    return jnp.einsum("btxd,btx->btd", wide(biased(out, "down_bias")), share, precision=precision)


def _sparse(w: Tree, x: Array, product: Product, weights: Array, numbers: Array, precision: Any) -> Array:
    b, t, d = x.shape
    active, n_experts = numbers.shape[-1], w["gate"].shape[0]
    expert = numbers.reshape(-1)  # of each (token, choice)
    order = jnp.argsort(expert, stable=True)
    sizes = jnp.bincount(expert, length=n_experts).astype(jnp.int32)
    rows, owner = x.reshape(-1, d)[order // active], expert[order]

    def through(value: Array, name: str) -> Array:
        out = by_expert(value, w[name], sizes, precision)
        return out + w[f"{name}_bias"][owner] if f"{name}_bias" in w else out

    out = through(product(through(rows, "gate"), through(rows, "up")), "down")
    back = jnp.argsort(order)  # where each (token, choice) went
    out = wide(out[back].reshape(b, t, active, d))
    return jnp.einsum("btad,bta->btd", out, weights, precision=precision)
