"""Dense MLPs, experts and the routers that choose among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tests.references.numpy_decoder.parts import Weights, sigmoid, softmax

Expert = Callable[[int, np.ndarray], np.ndarray]
Router = Callable[[np.ndarray], Mapping[int, float]]

# Constants of GPT-OSS's experts, which its configs need not hold.
LIMIT = 7.0
SHARPNESS = 1.702


def gated(
    weights: Weights, x: np.ndarray, act: Callable, names: str = "gate_proj up_proj down_proj"
) -> np.ndarray:
    """``W_down (act(W_gate x) * W_up x)`` (Shazeer 2020)."""
    gate, up, down = names.split()
    return weights.linear(down, act(weights.linear(gate, x)) * weights.linear(up, x))


def mixture(x: np.ndarray, route: Router, expert: Expert) -> np.ndarray:
    """The sum of the chosen experts' outputs times their weights, token by token; (T, D)."""
    out = np.zeros_like(x)
    for position, token in enumerate(x):
        for index, weight in route(token).items():
            out[position] += weight * expert(index, token)
    return out


def top(weights: Weights, scores: np.ndarray, number: int) -> np.ndarray:
    """Indices of the largest scores; how clear the choice is goes to ``weights``."""
    chosen = np.argsort(-scores, kind="stable")[:number]
    weights.note_margin(scores[chosen], np.delete(scores, chosen))
    return chosen


def softmax_first(weights: Weights, token: np.ndarray, number: int, renormalise: bool) -> dict[int, float]:
    """Mixtral and Qwen3-MoE: softmax over all experts, then the largest, rescaled to sum to one or not."""
    probabilities = softmax(weights.linear("gate", token))
    chosen = top(weights, probabilities, number)
    total = np.sum(probabilities[chosen]) if renormalise else 1.0
    return {int(i): probabilities[i] / total for i in chosen}


def softmax_last(weights: Weights, token: np.ndarray, number: int) -> dict[int, float]:
    """GPT-OSS: the largest logits, then softmax over those alone."""
    logits = weights.linear("router", token)
    chosen = top(weights, logits, number)
    return dict(zip(map(int, chosen), softmax(logits[chosen]), strict=True))


def _within(scores: np.ndarray, groups: int, kept: np.ndarray) -> np.ndarray:
    """The scores of experts in the kept groups, minus infinity elsewhere."""
    table = np.full((groups, len(scores) // groups), -np.inf)
    table[kept] = scores.reshape(groups, -1)[kept]
    return table.reshape(-1)


def best_in_group(
    weights: Weights,
    token: np.ndarray,
    number: int,
    groups: int | None,
    kept_groups: int | None,
    factor: float,
) -> dict[int, float]:
    """DeepSeek-V2 (section 2.2.2): softmax; the groups with the best single expert; the best in those.

    With ``groups`` None every expert may be chosen. The weights are the probabilities times ``factor``.
    """
    probabilities = softmax(weights.linear("gate", token))
    allowed = probabilities
    if groups is not None:
        per_group = np.max(probabilities.reshape(groups, -1), axis=1)
        allowed = _within(probabilities, groups, top(weights, per_group, kept_groups))
    return {int(i): factor * probabilities[i] for i in top(weights, allowed, number)}


def biased_groups(
    weights: Weights,
    token: np.ndarray,
    number: int,
    groups: int,
    kept_groups: int,
    factor: float,
    renormalise: bool,
) -> dict[int, float]:
    """DeepSeek-V3 (section 2.1.2): sigmoid affinities; a bias per expert takes part in choosing only.

    Groups are chosen by the sum of their two best biased scores, experts among them by the biased score;
    the weights are the affinities themselves, rescaled to sum to ``factor`` or multiplied by it.
    """
    affinity = sigmoid(weights.linear("gate", token))
    biased = affinity + weights["gate.e_score_correction_bias"]
    two_best = np.sort(biased.reshape(groups, -1), axis=1)[:, -2:].sum(axis=1)
    chosen = top(weights, _within(biased, groups, top(weights, two_best, kept_groups)), number)
    # transformers gives experts of other groups the score zero, not minus infinity, and so prefers them to
    # an expert whose biased score is negative. The margin tells of such a case.
    if kept_groups < groups:
        weights.note_margin(biased[chosen], np.zeros(1))
    total = np.sum(affinity[chosen]) if renormalise else 1.0
    return {int(i): factor * affinity[i] / total for i in chosen}


def clamped_glu(weights: Weights, index: int, token: np.ndarray) -> np.ndarray:
    """An expert of GPT-OSS: gates and linear parts alternate in the columns of one matrix, both are
    clamped at `LIMIT`, the gate is ``g * sigmoid(SHARPNESS g)``, and the linear part is shifted by one."""
    both = token @ weights["experts.gate_up_proj"][index] + weights["experts.gate_up_proj_bias"][index]
    gate, up = np.minimum(both[0::2], LIMIT), np.clip(both[1::2], -LIMIT, LIMIT)
    hidden = (up + 1.0) * gate * sigmoid(SHARPNESS * gate)
    return hidden @ weights["experts.down_proj"][index] + weights["experts.down_proj_bias"][index]
