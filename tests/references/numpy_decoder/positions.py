"""Rotary positions and the ways of stretching them beyond the trained context."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(base: float, width: int) -> np.ndarray:
    """Angular frequencies ``base^(-2i / width)``, (width / 2,) (Su et al. 2021)."""
    return np.array([base ** (-2 * i / width) for i in range(width // 2)])


def llama3(frequencies: np.ndarray, scaling: Mapping[str, Any]) -> np.ndarray:
    """Llama 3.1: low frequencies divided by ``factor``, high ones kept, a linear passage between.

    A frequency is judged by how many turns it makes over the original context.
    """
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    out = []
    for frequency in frequencies:
        turns = frequency * scaling["original_max_position_embeddings"] / (2 * math.pi)
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(kept * frequency + (1 - kept) * frequency / scaling["factor"])
    return np.array(out)


def magnitude(factor: float, weight: float = 1.0) -> float:
    """YaRN's ``0.1 weight ln(factor) + 1``."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def yarn(
    frequencies: np.ndarray, base: float, scaling: Mapping[str, Any], context: int
) -> tuple[np.ndarray, float]:
    """YaRN (Peng et al. 2023, section 3.2 and equation 22): frequencies and the factor on cos and sin.

    The pair index at which a frequency makes a given number of turns over the original context bounds the
    ramp between frequencies that are kept (many turns) and divided by ``factor`` (few).
    """
    width, factor = 2 * len(frequencies), scaling["factor"]
    original = scaling.get("original_max_position_embeddings") or context

    def pair(turns: float) -> float:
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = pair(scaling.get("beta_fast") or 32), pair(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    # The public code bounds the ramp by the width, not by the number of pairs.
    first, last = max(first, 0), min(last, width - 1)
    if first == last:
        last += 0.001
    divided = np.clip((np.arange(width // 2) - first) / (last - first), 0.0, 1.0)
    out = frequencies * (1 - divided) + frequencies / factor * divided

    strength = scaling.get("attention_factor")
    if strength is None:
        weight, all_weight = scaling.get("mscale"), scaling.get("mscale_all_dim")
        if weight and all_weight:
            strength = magnitude(factor, weight) / magnitude(factor, all_weight)
        else:
            strength = magnitude(factor)
    return out, strength


def longrope(
    frequencies: np.ndarray, scaling: Mapping[str, Any], context: int, original: int, length: int
) -> tuple[np.ndarray, float]:
    """LongRoPE (Ding et al. 2024) as in Phi-3: a divisor per frequency, one list for prompts up to the
    original context and one for longer ones; and the factor on cos and sin."""
    divisors = scaling["long_factor"] if length > original else scaling["short_factor"]
    stretch = context / original
    strength = scaling.get("attention_factor")
    if strength is None:
        strength = 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(original))
    return frequencies / np.array(divisors), strength


def table(
    config: Mapping[str, Any],
    length: int,
    width: int,
    base: float,
    scaling: Mapping[str, Any] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of the angles of each position, (T, width / 2) each, times the scaling's strength."""
    frequencies, strength = plain(base, width), 1.0
    kind = (scaling or {}).get("rope_type") or (scaling or {}).get("type") or "default"
    if kind == "linear":
        frequencies = frequencies / scaling["factor"]
    elif kind == "llama3":
        frequencies = llama3(frequencies, scaling)
    elif kind == "yarn":
        frequencies, strength = yarn(frequencies, base, scaling, config["max_position_embeddings"])
    elif kind == "longrope":
        context = config["max_position_embeddings"]
        original = config.get("original_max_position_embeddings") or context
        frequencies, strength = longrope(frequencies, scaling, context, original, length)
    elif kind != "default":
        raise ValueError(f"rope_type {kind!r}")
    angles = np.arange(length)[:, None] * frequencies[None, :]
    return strength * np.cos(angles), strength * np.sin(angles)


def turn(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, adjacent: bool = False) -> np.ndarray:
    """Rotate the first ``2 * cos.shape[1]`` entries of each head of x (T, H, E) and keep the rest.

    Pair i is the entries (i, i + n) of the n pairs, or (2i, 2i + 1) if ``adjacent``.
    """
    pairs = cos.shape[1]
    out = x.copy()
    for i in range(pairs):
        a, b = (2 * i, 2 * i + 1) if adjacent else (i, i + pairs)
        c, s = cos[:, i, None], sin[:, i, None]
        out[:, :, a] = x[:, :, a] * c - x[:, :, b] * s
        out[:, :, b] = x[:, :, b] * c + x[:, :, a] * s
    return out
