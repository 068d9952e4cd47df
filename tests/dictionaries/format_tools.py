"""What tests of dictionary formats share: dictionaries with every parameter different, and files to damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig, kind_of
from jaxinterp.parallel.weights import is_weight


def made(
    kind: str, activation: str = "jumprelu", *, layers: int = 3, n: int = 6, d: int = 4, **fields: Any
) -> Dictionary:
    """A dictionary whose every parameter is random, biases and thresholds (positive ones) too."""
    fields = {"k": 2 if activation in ("topk", "groupmax") else 0, **fields}
    config = DictionaryConfig(kind, layers, n, d, activation=activation, **fields)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda w: jax.numpy.asarray(rng.normal(size=w.shape).astype(np.float32)),
        kind_of(config).declare(config), is_leaf=is_weight,
    )  # fmt: skip
    if "threshold" in params:
        params["threshold"] = abs(params["threshold"]) / 4
    return Dictionary(params, config, "made")


def inputs(dictionary: Dictionary, rows: int = 7) -> jax.Array:
    """``[L, rows, D]``."""
    config = dictionary.config
    shape = (config.n_layers, rows, config.d_model)
    return jax.numpy.asarray(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def same_function(
    one: Dictionary, two: Dictionary, tolerance: float = 1e-5, activations: bool = True
) -> None:
    """Both do the same to the same input."""
    x = inputs(one)
    if activations:
        np.testing.assert_allclose(one.encode(x), two.encode(x), atol=tolerance)
    np.testing.assert_allclose(one.reconstruct(x), two.reconstruct(x), atol=tolerance)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the tensors of a safetensors file."""
    tensors = load_file(path)
    change(tensors)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)


def cut(path: Path) -> None:
    """Leave out a file's last bytes."""
    path.write_bytes(path.read_bytes()[:-9])
