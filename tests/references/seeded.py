"""Weights and prompts as a function of a seed, so that the repository need not hold them.

The numbers come from the raw 64-bit output of PCG64 with its state set from a hash of the seed and of the
tensor's name. That stream is fixed by the generator's definition: no distribution code, whose results may
change between releases of NumPy, takes part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]


def bits(seed: int, name: str, count: int) -> np.ndarray:
    """``count`` random unsigned 64-bit integers that belong to a seed and a name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = np.random.PCG64(0)
    state = generator.state
    # PCG64's increment must be odd.
    state["state"] = {
        "state": int.from_bytes(digest[:16], "little"),
        "inc": int.from_bytes(digest[16:], "little") | 1,
    }
    generator.state = state
    return generator.random_raw(count)


def symmetric(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers in [-1, 1), float64, each a multiple of 2^-23."""
    count = int(np.prod(shape, dtype=np.int64))
    return ((bits(seed, name, count) >> np.uint64(40)) * 2.0**-23 - 1.0).reshape(shape)


def tensor(seed: int, name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """A float32 tensor that leaves nothing trivial: no gain one, no bias zero, routers that choose.

    Args:
      seed, name, shape: what the numbers depend on.
      gain: centre of the gains of norms: 1, or 0 where the family adds one to what it stores (Gemma).
    """
    draw = symmetric(seed, name, shape)
    leaf = name.rsplit(".", 2)
    is_norm = "norm" in name or ".ln_" in name
    if name.endswith(".alpha"):
        value = 0.6 + 0.3 * draw
    elif name.endswith("e_score_correction_bias"):
        value = 0.1 * draw
    elif name.endswith("sinks"):
        value = 1.5 * draw
    elif is_norm and leaf[-1] == "weight":
        value = gain + 0.3 * draw
    elif len(shape) == 1 or leaf[-1].endswith("bias"):
        value = 0.3 * draw
    elif "embed" in name or "wte" in name:
        value = draw
    elif "wpe" in name:
        value = 0.5 * draw
    else:
        # Uniform numbers have a standard deviation of 3^-1/2.
        value = 1.3 * (3.0 / min(shape[-2:])) ** 0.5 * draw
    return np.asarray(value, np.float32)


def tensors(
    seed: int, shapes: Shapes, gain: float = 1.0, scale: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """Every tensor of a model. ``scale`` multiplies the tensors whose names hold its keys."""
    out = {}
    for name, shape in shapes.items():
        value = tensor(seed, name, tuple(shape), gain)
        for part, factor in (scale or {}).items():
            value = np.float32(factor) * value if part in name else value
        out[name] = value
    return out


def prompts(seed: int, batch: int, length: int, vocab_size: int) -> np.ndarray:
    """Token ids (B, T), int32."""
    draw = bits(seed, "prompts", batch * length) % np.uint64(vocab_size)
    return draw.astype(np.int32).reshape(batch, length)


def with_dynamic_tanh(shapes: Shapes, keep: tuple[str, ...] = ()) -> dict[str, tuple[int, ...]]:
    """The shapes of the model with Dynamic Tanh in place of its norms, except those named in ``keep``.

    A norm ``x`` becomes the three tensors ``x.weight`` (gamma), ``x.bias`` (beta) and ``x.alpha``, the last
    of shape (1,), as in the public code of Zhu et al. 2025.
    """
    out = dict(shapes)
    for name, shape in shapes.items():
        stem, _, leaf = name.rpartition(".")
        if leaf == "weight" and len(shape) == 1 and not stem.endswith(keep or ("/",)):
            out[f"{stem}.bias"] = shape
            out[f"{stem}.alpha"] = (1,)
    return out


def digest(model: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and bytes of all tensors in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(model):
        value = np.ascontiguousarray(model[name])
        total.update(f"{name}:{value.dtype.str}:{value.shape}".encode())
        total.update(value.tobytes())
    return total.hexdigest()
