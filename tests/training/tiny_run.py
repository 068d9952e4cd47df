"""A tiny model on disk and a run that trains a dictionary of it. Also runs as a program that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

SIZES = {
    "vocab_size": 23, "d_model": 8, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "d_head": 4, "d_mlp": 24,
    "context": 32,
}  # fmt: skip


def make(folder: Path) -> Path:
    """A random model in ``folder``/model."""
    import jax
    import jax.numpy as jnp

    from jaxinterp.checkpoints.native import save_model
    from jaxinterp.models.config import ModelConfig
    from jaxinterp.models.model import Model
    from jaxinterp.models.weights import declare
    from jaxinterp.parallel.weights import initialise

    config = ModelConfig(**SIZES)
    params = initialise(declare(config), key=jax.random.key(0), dtype=jnp.float32)
    params["layers"]["down"] = 4.0 * params["layers"]["down"]
    save_model(Model(params, config, None, "tiny"), folder / "model")
    return folder


def config(folder: Path, name: str = "c", **changes: Any) -> Path:
    """A configuration file in ``folder``."""
    values = {
        "task": "dictionary", "model": str(folder / "model"), "steps": 12, "batch": 64,
        "dictionary": {"kind": "plt", "n_features": 32},
        "text": {"start": 1, "length": 16, "batch": 16, "limit": 4},
        "stream": {"text_batches": 2}, "start": {"rate": 0.2, "decoder": 0.2},
        "sparsity": {"method": "top-k", "l0": 4, "pre_activation": 0}, "resample": {"every": 0},
        "optimiser": {"warmup": 4}, "held_out": {"tokens": 64, "validation_tokens": 64},
        "loop": {"log_every": 2, "checkpoint_every": 4}, **changes,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def main(path: str, out: str, devices: int) -> None:
    """Train, or go on, on so many devices along the batch."""
    import jax

    jax.config.update("jax_num_cpu_devices", max(devices, 1))
    from jaxinterp.parallel import mesh
    from jaxinterp.training import train

    train(path, out=out, mesh=mesh.make(devices) if devices > 1 else None)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
