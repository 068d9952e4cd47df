"""Weights in float64, norms, activations and attention."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


class Weights:
    """Tensors as float64 by name, below a prefix; keeps the smallest margin that a router has met."""

    def __init__(self, tensors: Mapping[str, np.ndarray], prefix: str = "", root: Weights | None = None):
        self.tensors, self.prefix, self.root = tensors, prefix, root or self
        self.router_margin = math.inf

    def at(self, name: str) -> Weights:
        """The tensors below ``name``."""
        return Weights(self.tensors, f"{self.prefix}{name}.", self.root)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.tensors[self.prefix + name], np.float64)

    def get(self, name: str) -> np.ndarray | None:
        """The tensor, or None where there is none."""
        if name not in self:
            return None
        return self[name]

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """``W x + b`` with W stored (out, in), b where there is one."""
        y, bias = x @ self[f"{name}.weight"].T, self.get(f"{name}.bias")
        return y if bias is None else y + bias

    def note_margin(self, chosen: np.ndarray, others: np.ndarray) -> None:
        """Remember how far the scores of what is chosen are above those of the others."""
        if others.size:
            margin = float(np.min(chosen) - np.max(others))
            self.root.router_margin = min(self.root.router_margin, margin)


def dynamic_tanh(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """``gamma * tanh(alpha x) + beta`` with one alpha per norm (Zhu et al. 2025, section 4)."""
    alpha = weights[f"{name}.alpha"].item()
    return weights[f"{name}.weight"] * np.tanh(alpha * x) + weights[f"{name}.bias"]


def rms_norm(weights: Weights, name: str, x: np.ndarray, eps: float, offset: float = 0.0) -> np.ndarray:
    """``x / sqrt(mean(x^2) + eps) * (offset + gain)`` over the last axis, or Dynamic Tanh in its place."""
    if f"{name}.alpha" in weights:
        return dynamic_tanh(weights, name, x)
    scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x / scale * (offset + weights[f"{name}.weight"])


def layer_norm(weights: Weights, name: str, x: np.ndarray, eps: float) -> np.ndarray:
    """LayerNorm with gain and bias over the last axis, or Dynamic Tanh in its place."""
    if f"{name}.alpha" in weights:
        return dynamic_tanh(weights, name, x)
    centred = x - np.mean(x, axis=-1, keepdims=True)
    scale = np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def gelu(x: np.ndarray) -> np.ndarray:
    """``x`` times the normal distribution function."""
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """The approximation of Hendrycks and Gimpel (2016)."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


ACTIVATIONS = {
    "silu": silu,
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": relu,
}


def softcap(x: np.ndarray, cap: float | None) -> np.ndarray:
    """``cap * tanh(x / cap)``; unchanged without a cap."""
    return x if cap is None else cap * np.tanh(x / cap)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    grown = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return grown / np.sum(grown, axis=-1, keepdims=True)


def heads(x: np.ndarray, number: int) -> np.ndarray:
    """(T, H E) to (T, H, E)."""
    return x.reshape(len(x), number, -1)


def attend(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    scale: float,
    window: int | None = None,
    cap: float | None = None,
    sinks: np.ndarray | None = None,
) -> np.ndarray:
    """Causal attention; (T, H * value width).

    Args:
      q, k, v: (T, H, E), (T, K, E), (T, K, value width); consecutive query heads share a key/value head.
      scale: factor on the scores.
      window: how many positions, its own included, a query sees; all before it if None.
      cap: softcap of the scores.
      sinks: (H,) a further score per head that takes part in the softmax but carries no value.
    """
    length, n_heads, _ = q.shape
    shared = n_heads // k.shape[1]
    behind = np.arange(length)[:, None] - np.arange(length)[None, :]
    visible = (behind >= 0) & (behind < (length if window is None else window))
    out = []
    for head in range(n_heads):
        scores = softcap(scale * (q[:, head] @ k[:, head // shared].T), cap)
        scores = np.where(visible, scores, -np.inf)
        if sinks is not None:
            scores = np.concatenate([scores, np.full((length, 1), sinks[head])], axis=1)
        pattern = softmax(scores)[:, :length]
        out.append(pattern @ v[:, head // shared])
    return np.concatenate(out, axis=1)
