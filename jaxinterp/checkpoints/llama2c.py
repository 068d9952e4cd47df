"""llama2.c model files: seven int32, then float32 weights in a fixed order."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxinterp.checkpoints import placing
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic
from jaxinterp.core.letters import Tree
from jaxinterp.core.trees import paths, unflatten
from jaxinterp.models.config import ModelConfig

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxinterp.parallel.rules import Rules

_HEADER = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
_LATER_MAGIC = 0x616B3432
_LIMIT = 1 << 24


def looks_like(path: str | os.PathLike[str]) -> bool:
    """Whether the first bytes of ``path`` could be a llama2.c header."""
    with Path(path).open("rb") as stream:
        head = stream.read(28)
    if len(head) < 28:
        return False
    sizes = struct.unpack("<7i", head)
    return all(0 < abs(n) < _LIMIT for n in sizes) and all(n > 0 for n in (*sizes[:5], sizes[6]))


def read_model(
    path: str | os.PathLike[str], dtype: Any = "float32", mesh: Mesh | None = None, rules: Rules | None = None
) -> tuple[Tree, ModelConfig]:
    """Read a llama2.c ``.bin``: (parameters, config with ``rope_pairs="adjacent"``).

    The file holds, after the header, float32 row-major: token embedding (V, D), attention norms (L, D),
    wq (L, H E, D), wk, wv (L, K E, D), wo (L, D, H E), MLP norms (L, D), w1 (L, M, D), w2 (L, D, M),
    w3 (L, M, D), final norm (D,), the cosine and sine tables of rotary positions (context, E / 2), and
    the classifier (V, D) unless it is the embedding. The rotary base comes from the tables; tables of
    zeros mean 10,000, which is what llama2.c itself always uses.

    Args:
      path: the file.
      dtype: dtype of the parameters.
      mesh, rules: where the parameters go; none means the default device.

    Raises:
      InputError: header values that make no sense, another file size (both are named), rotary tables that
        are none, or weights that are not finite.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(28)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(head) < 28:
        raise InputError(f"{path} has {len(head)} bytes, a llama2.c model begins with a header of 28")
    values = dict(zip(_HEADER, struct.unpack("<7i", head), strict=True))
    if values["dim"] == _LATER_MAGIC:
        raise InputError(
            f"{path} is a llama2.c export of version {values['hidden_dim']}, supported is version 0 "
            "(export.py --version 0)"
        )
    config = _config(path, values)
    layout = _layout(config)
    expected = 28 + 4 * sum(math.prod(shape) for _, shape, _ in layout)
    if size != expected:
        what = "truncated" if size < expected else "too long"
        raise InputError(
            f"{path} is {what}: it has {size} bytes, its header ({_describe(values)}) needs {expected}"
        )
    stored: dict[str, np.ndarray] = {}
    at = 28
    for name, shape, _ in layout:
        stored[name] = np.memmap(path, "<f4", "r", at, shape)
        at += 4 * math.prod(shape)
    base = _rope_base(path, stored["freq_cos"], stored["freq_sin"], config.d_head)
    config = ModelConfig.from_dict({**config.to_dict(), "rope_base": base})

    target = placing.as_dtype(dtype)
    placements = placing.shardings(config, mesh, rules)
    leaves = {}
    for name, _, ours in layout:
        if ours is None:
            continue
        host = placing.cast(np.asarray(ours(stored[name])), target, f"{path}: {name}")
        host = np.array(host, copy=True, order="C")
        leaves[name] = placing.whole(host.shape, host.__getitem__, placements[name])
    return unflatten(leaves), config


def _describe(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _config(path: Path, values: dict[str, int]) -> ModelConfig:
    vocab = values["vocab_size"]
    for name, value in values.items():
        if not 0 < (abs(value) if name == "vocab_size" else value) < _LIMIT:
            raise InputError(f"{path} is not a llama2.c model: its header says {name} {value}")
    heads, kv_heads = values["n_heads"], values["n_kv_heads"]
    if values["dim"] % heads or heads % kv_heads or values["dim"] // heads % 2:
        raise InputError(
            f"{path} is not a llama2.c model: dim {values['dim']}, n_heads {heads} and n_kv_heads {kv_heads} "
            "do not fit each other"
        )
    return ModelConfig(
        vocab_size=abs(vocab), d_model=values["dim"], n_layers=values["n_layers"], n_heads=heads,
        n_kv_heads=kv_heads, d_head=values["dim"] // heads, d_mlp=values["hidden_dim"],
        context=values["seq_len"], rope_pairs="adjacent", tied=vocab > 0,
    )  # fmt: skip


Rearrange = Callable[[np.ndarray], np.ndarray]


def _layout(c: ModelConfig) -> list[tuple[str, tuple[int, ...], Rearrange | None]]:
    """Our path (or a table's name), shape in the file, and how it becomes our layout; in file order."""
    n, d, h, k, e, m, v = c.n_layers, c.d_model, c.n_heads, c.n_kv_heads, c.d_head, c.d_mlp, c.vocab_size
    table = (c.context, e // 2)

    def same(a: np.ndarray) -> np.ndarray:
        return a

    def projection(a: np.ndarray) -> np.ndarray:
        return a.reshape(n, -1, e, d).transpose(0, 3, 1, 2)

    def output(a: np.ndarray) -> np.ndarray:
        return a.reshape(n, d, h, e).transpose(0, 2, 3, 1)

    def turned(a: np.ndarray) -> np.ndarray:
        return np.swapaxes(a, -1, -2)

    layout: list[tuple[str, tuple[int, ...], Rearrange | None]] = [
        ("embed.tokens", (v, d), same),
        ("layers.attn_norm.scale", (n, d), same),
        ("layers.q", (n, h * e, d), projection),
        ("layers.k", (n, k * e, d), projection),
        ("layers.v", (n, k * e, d), projection),
        ("layers.o", (n, d, h * e), output),
        ("layers.mlp_norm.scale", (n, d), same),
        ("layers.gate", (n, m, d), turned),
        ("layers.down", (n, d, m), turned),
        ("layers.up", (n, m, d), turned),
        ("final_norm.scale", (d,), same),
        ("freq_cos", table, None),
        ("freq_sin", table, None),
    ]
    return layout if c.tied else [*layout, ("unembed", (v, d), turned)]


def _angles(context: int, d_head: int, base: float) -> np.ndarray:
    """Rotary angles (context, E / 2), in float64: position times base ** (-2 i / E)."""
    rates = base ** (-np.arange(0, d_head, 2, dtype=np.float64) / d_head)
    return np.arange(context, dtype=np.float64)[:, None] * rates[None, :]


def _rope_base(path: Path, cos: np.ndarray, sin: np.ndarray, d_head: int) -> float:
    default = 10000.0
    if not cos.any() and not sin.any():
        return default
    base = default
    if d_head > 2 and cos.shape[0] > 1:
        angle = math.atan2(float(sin[1, -1]), float(cos[1, -1]))
        estimate = angle ** (-d_head / (d_head - 2)) if angle > 0 else math.nan
        # The tables are float32; a base within a thousandth of a round number is that number.
        digits = float(f"{estimate:.2g}") if math.isfinite(estimate) else estimate
        base = digits if math.isclose(digits, estimate, rel_tol=1e-3) else estimate
    angles = _angles(cos.shape[0], d_head, base)
    if not (np.allclose(cos, np.cos(angles), atol=2e-3) and np.allclose(sin, np.sin(angles), atol=2e-3)):
        raise InputError(
            f"{path}: the rotary tables after the weights are not those of any base, expected cosines and "
            "sines of position * base ** (-2 i / head width)"
        )
    return base


def write_model(path: str | os.PathLike[str], params: Tree, config: ModelConfig) -> None:
    """Write parameters as a llama2.c ``.bin`` (float32).

    Raises:
      InputError: the model has something that this format cannot say; the message names it.
    """
    expected = ModelConfig(
        vocab_size=config.vocab_size, d_model=config.d_model, n_layers=config.n_layers,
        n_heads=config.n_heads, n_kv_heads=config.n_kv_heads,
        d_head=config.d_model // config.n_heads, d_mlp=config.d_mlp,
        context=config.context, rope_pairs="adjacent", rope_base=10000.0, tied=config.tied,
    ).to_dict()  # fmt: skip
    for name, value in config.to_dict().items():
        if value != expected[name]:
            raise InputError(
                f"llama2.c files cannot hold a model with {name} {value!r}, only {expected[name]!r}"
            )
    leaves = {name: np.asarray(leaf, dtype=np.float32) for name, leaf in paths(params)}
    angles = _angles(config.context, config.d_head, config.rope_base)
    leaves |= {"freq_cos": np.cos(angles), "freq_sin": np.sin(angles)}
    inverse: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        **dict.fromkeys(("layers.q", "layers.k", "layers.v"), lambda a: a.transpose(0, 2, 3, 1)),
        "layers.o": lambda a: a.transpose(0, 3, 1, 2),
        **dict.fromkeys(
            ("layers.gate", "layers.up", "layers.down", "unembed"), lambda a: np.swapaxes(a, -1, -2)
        ),
    }
    vocab = config.vocab_size if config.tied else -config.vocab_size
    head = (config.d_model, config.d_mlp, config.n_layers, config.n_heads, config.n_kv_heads, vocab)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<7i", *head, config.context))
        for name, shape, _ in _layout(config):
            array = inverse.get(name, np.asarray)(leaves[name]).reshape(shape)
            stream.write(np.ascontiguousarray(array, dtype="<f4").tobytes())
