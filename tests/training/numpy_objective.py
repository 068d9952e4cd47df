"""The loss of a dictionary a second time, in NumPy: what training minimises, written out without the library's pieces.

Letters: L layers, G groups of N features, R rows, D width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Params = dict[str, Any]


class Setting(NamedTuple):
    """One loss: the kind of dictionary, the gate's method with its numbers, and what the objective adds."""

    kind: str
    method: str
    weight: float  # of the sparsity penalty, ramp included
    k: int = 3
    cut: np.ndarray | None = None  # [G], threshold on activation times decoder length
    scale: float = 2.0
    pre_activation: float = 0.0
    nesting: tuple[int, ...] = ()
    auxiliary: float = 0.0
    auxiliary_k: int = 0
    dead: np.ndarray | None = None  # [G, N]


def decoders(params: Params, kind: str) -> dict[tuple[int, int], np.ndarray]:
    """(group, target layer) → ``[N, D]``."""
    w = params["W_dec"]
    if kind == "clt":
        return {(s, t): w[t][s] for t in range(len(w)) for s in range(t + 1)}
    groups = range(len(w)) if kind == "plt" else [0] * len(w)
    return {(g, layer): w[layer] for layer, g in enumerate(groups)}


def lengths(params: Params, kind: str) -> np.ndarray:
    """``[G, N]``, of all decoder vectors of a feature joined."""
    squares: dict[int, np.ndarray] = {}
    for (group, _), rows in decoders(params, kind).items():
        squares[group] = squares.get(group, 0.0) + (rows**2).sum(-1)
    return np.sqrt(np.stack([squares[g] for g in sorted(squares)]))


def decode(params: Params, kind: str, a: np.ndarray, bias: bool = True) -> np.ndarray:
    """``a [G, R, N]`` → ``[L, R, D]``."""
    y = np.zeros((len(params["b_dec"]), a.shape[1], params["b_dec"].shape[1]))
    for (group, layer), rows in decoders(params, kind).items():
        y[layer] += a[group] @ rows
    return y + params["b_dec"][:, None] if bias else y


def pre_activations(params: Params, kind: str, x: np.ndarray) -> np.ndarray:
    """``x [L, R, D]`` → ``[G, R, N]``."""
    h = np.stack([x[layer] @ rows.T for layer, rows in enumerate(params["W_enc"])])
    if kind == "crosscoder":
        h = h.sum(0, keepdims=True)
    return h + params["b_enc"][:, None]


def winners(rank: np.ndarray, k: int) -> np.ndarray:
    """Which of ``rank [..., N]`` are among the k largest of the last axis."""
    order = np.argsort(-rank, axis=-1)
    chosen = np.zeros(rank.shape, bool)
    np.put_along_axis(chosen, order[..., :k], True, axis=-1)
    return chosen


def activations(setting: Setting, params: Params, h: np.ndarray) -> np.ndarray:
    """``[G, R, N]`` of ``h`` by the method's rule."""
    rank, k = h * lengths(params, setting.kind)[:, None], setting.k
    positive = np.maximum(h, 0.0)
    if setting.method == "l1":
        return positive
    if setting.method == "tanh":
        return h * (h > np.exp(params["threshold"])[:, None])
    if setting.method == "gated":
        size = np.exp(params["r_mag"])[:, None] * (h - params["b_enc"][:, None]) + params["b_mag"][:, None]
        return np.maximum(size, 0.0) * (h > 0)
    if setting.method == "layer-threshold":
        assert setting.cut is not None
        return h * (rank > setting.cut[:, None, None])
    if setting.method == "top-k":
        return positive * winners(rank, k)
    if setting.method == "batch-top-k":
        return positive * winners(rank.reshape(len(h), -1), k * h.shape[1]).reshape(h.shape)
    assert setting.method == "group-max"
    return positive * winners(rank.reshape(*h.shape[:2], k, -1), 1).reshape(h.shape)


def loss(setting: Setting, params: Params, held: Params, x: np.ndarray, y: np.ndarray) -> float:
    """The loss on ``x, y [L, R, D]``.

    Args:
      params: what it is a function of.
      held: the same parameters where the loss holds them fixed: the decoder by which a gate reconstructs alone, and
        those by which the residual was computed that aux-k predicts.
    """
    kind, width = setting.kind, y.shape[-1]

    def error(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        return ((target - predicted) ** 2).sum(-1).mean(1) / width

    h = pre_activations(params, kind, x)
    a, norms = activations(setting, params, h), lengths(params, kind)
    prefixes = [*setting.nesting, a.shape[-1]]
    inside = [np.arange(a.shape[-1]) < size for size in prefixes]
    total = np.mean([error(y, decode(params, kind, a * mask)) for mask in inside])
    if setting.method == "l1":
        total += setting.weight * (a * norms[:, None]).sum(-1).mean()
    if setting.method == "tanh":
        total += setting.weight * np.tanh(setting.scale * a * norms[:, None]).sum(-1).mean()
    if setting.method == "gated":
        gate = np.maximum(h, 0.0)
        total += setting.weight * (gate * norms[:, None]).sum(-1).mean()
        total += error(y, decode(held, kind, gate)).mean()
    if setting.pre_activation:
        least = np.exp(params["threshold"]) if setting.method == "tanh" else np.zeros_like(norms)
        if setting.method == "layer-threshold":
            least = setting.cut[:, None] / lengths(held, kind)
        short = np.maximum(least[:, None] - h, 0.0)
        total += setting.pre_activation * (short * norms[:, None]).sum(-1).mean()
    if setting.auxiliary:
        dead, k = setting.dead, setting.auxiliary_k
        before = pre_activations(held, kind, x)
        left = y - decode(held, kind, activations(setting, held, before))
        rank = np.where(dead[:, None], h * norms[:, None], -np.inf)
        chosen = np.where(winners(rank, k) & dead[:, None], h, 0.0)
        weight = np.minimum(dead.sum(-1) / k, 1.0)
        errors = error(left, decode(params, kind, chosen, bias=False))
        total += (
            setting.auxiliary
            * (np.mean(weight) * errors if len(weight) != len(errors) else weight * errors).mean()
        )
    return float(total)


class Penalised(NamedTuple):
    """JumpReLU in training: λ, its penalty, and the straight-through estimator's settings."""

    penalty: str
    variant: str
    weight: float
    bandwidth: float
    scale: float
    target: float
    pre_activation: float


def straight_through(given: Penalised, params: Params, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients of the loss of a per-layer JumpReLU dictionary by hand, thresholds stored as logarithms.

    With K the rectangle of width ε around θ (Rajamanoharan et al. 2024, arXiv 2407.14435, equations 11 and 12):
    ``∂a/∂θ = -(θ/ε) K``, ``∂1[h > θ]/∂θ = -K/ε``, ``∂a/∂h = 1[h > θ]``, in the variant "all" (January 2025 Circuits
    Update) plus ``(θ/ε) K``.
    """
    layers, rows, width = y.shape
    share = 1.0 / (rows * layers)
    theta, eps = np.exp(params["threshold"])[:, None], given.bandwidth
    h = np.einsum("lrd,lnd->lrn", x, params["W_enc"]) + params["b_enc"][:, None]
    on = h > theta
    a = h * on
    kernel = np.abs(h - theta) < eps / 2
    norms = np.sqrt((params["W_dec"] ** 2).sum(-1))[:, None]
    predicted = np.einsum("lrn,lnd->lrd", a, params["W_dec"]) + params["b_dec"][:, None]
    to_y = 2 * (predicted - y) * share / width
    to_a = np.einsum("lrd,lnd->lrn", to_y, params["W_dec"])
    to_theta, to_norm = np.zeros_like(h), np.zeros_like(h)
    if given.penalty == "tanh":
        slope = given.weight * given.scale * (1 - np.tanh(given.scale * norms * a) ** 2) * share
        to_a, to_norm = to_a + slope * norms, slope * a
    else:
        count = on.sum(-1, keepdims=True).astype(float)
        mean = count.mean(1, keepdims=True)
        factor = {
            "step": np.ones_like(count) * share,
            "quadratic": 2 * (mean / given.target - 1) / given.target * share * np.ones_like(count),
            "quadratic-rows": 4 / given.target * (count - given.target) * share,
        }[given.penalty]
        to_theta = -given.weight * factor * kernel / eps
    low = h < theta
    to_theta = to_theta + given.pre_activation * norms * low * share - to_a * theta / eps * kernel
    to_norm = to_norm + given.pre_activation * np.maximum(theta - h, 0.0) * share
    to_h = to_a * (on + (theta / eps * kernel if given.variant == "all" else 0.0))
    to_h = to_h - given.pre_activation * norms * low * share
    return {
        "W_enc": np.einsum("lrn,lrd->lnd", to_h, x),
        "b_enc": to_h.sum(1),
        "threshold": (to_theta * theta).sum(1),
        "W_dec": np.einsum("lrn,lrd->lnd", a, to_y)
        + to_norm.sum(1)[..., None] * params["W_dec"] / norms[:, 0, :, None],
        "b_dec": to_y.sum(1),
    }
