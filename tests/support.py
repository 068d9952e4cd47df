"""Helpers that tests share: where optional material is, tiny models, tiny dictionaries."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.core.trees import unflatten
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts
from jaxinterp.models.latent import Latent
from jaxinterp.models.model import Model
from jaxinterp.models.rotary import RopeScaling
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights

ROOT = Path(__file__).resolve().parent.parent


def normal(seed: int, shape: tuple[int, ...]) -> Any:
    """Normal numbers of the widest type that is on. NumPy's: jax compiles its own anew for every shape."""
    import jax.numpy as jnp

    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def shared(name: str) -> Path:
    """A file or folder of the optional test material beside the repository; skips where it is absent."""
    path = ROOT.parent / "shared" / name
    if not path.exists():
        pytest.skip(f"optional test material {name} is not here")
    return path


FAMILIES = ("llama", "gpt2", "gemma2")
# Ways of building a layer that those three have not.
FURTHER = ("gpt_neox", "gemma3", "olmo2", "sinks", "experts", "latent", "dyt")
EVERY = (*FAMILIES, *FURTHER)


def tiny_config(family: str, **changes: Any) -> ModelConfig:
    """A tiny config with what sets a family apart; ``changes`` replace single fields."""
    sizes = {
        "vocab_size": 40,
        "d_model": 16,
        "n_layers": 3,
        "n_heads": 4,
        "d_head": 4,
        "d_mlp": 24,
        "context": 32,
    }
    families: dict[str, dict[str, Any]] = {
        "llama": {"n_kv_heads": 2, "norm_eps": 1e-5},
        "gpt2": {
            "n_kv_heads": 4, "norm": "layer", "activation": "gelu_tanh", "gated": False,
            "positions": "learned", "qkv_bias": True, "out_bias": True, "mlp_bias": True, "tied": True,
        },
        "gemma2": {
            "n_kv_heads": 2, "d_head": 6, "norm_eps": 1e-6, "norm_unit_offset": True, "post_norms": True,
            "activation": "gelu_tanh", "query_scale": 0.5, "attn_softcap": 4.0, "final_softcap": 6.0,
            "windows": (4, 0, 4), "tied": True, "embed_scale": 4.0,
        },
        "gpt_neox": {
            "n_kv_heads": 4, "norm": "layer", "parallel": True, "activation": "gelu", "gated": False,
            "rope_width": 2, "qkv_bias": True, "out_bias": True, "mlp_bias": True,
        },
        "gemma3": {
            "n_kv_heads": 1, "d_head": 6, "norm_eps": 1e-6, "norm_unit_offset": True, "post_norms": True,
            "activation": "gelu_tanh", "qk_norm": "head", "rope_base": 1e5, "rope_local_base": 1e3,
            "rope_scaling": RopeScaling("linear", 8.0), "windows": (4, 4, 0), "tied": True, "embed_scale": 4.0,
        },
        "olmo2": {"n_kv_heads": 2, "norm_eps": 1e-6, "pre_norms": False, "post_norms": True, "qk_norm": "heads"},
        "sinks": {
            "n_kv_heads": 2, "qkv_bias": True, "out_bias": True, "sinks": True, "windows": (4, 0, 4),
            "rope_scaling": RopeScaling("yarn", 4.0, 8, size=1.1),
        },
        "experts": {
            "n_kv_heads": 2,
            "experts": Experts(
                8, 2, 8, score="sigmoid", scale=1.5, groups=4, active_groups=2, group_score="two_best",
                correction=True, router_bias=True, bias=True, d_shared=8, dense_layers=(0,),
            ),
        },
        "latent": {
            "n_kv_heads": 4, "d_head": 10, "rope_width": 4, "rope_pairs": "adjacent", "qkv_bias": True,
            "out_bias": True, "latent": Latent(kv_rank=8, d_plain=6, d_turned=4, d_value=5, q_rank=7),
        },
        "dyt": {"n_kv_heads": 2, "norm": "tanh", "post_norms": True, "qk_norm": "head", "embed_scale": 4.0},
    }  # fmt: skip
    families["dyt_latent"] = {**families["latent"], "norm": "tanh"}
    return ModelConfig(**{**sizes, **families[family], **changes})


def tiny_model(family: str, *, dtype: str = "float32", seed: int = 0, **changes: Any) -> Model:
    """A tiny random model in which no gain is one, no bias zero and no attention uniform.

    The same numbers come out in float32 (rounded) and in float64 (which needs 64-bit types on).
    """
    import jax.numpy as jnp

    config = tiny_config(family, **changes)
    leaves = {}
    for path, weight in weights.leaves(declare(config)).items():
        draw = np.random.default_rng([seed, zlib.crc32(path.encode())]).normal(size=weight.shape)
        if path.endswith(("scale", "_norm")):
            draw = 0.3 * draw + (0.0 if config.norm_unit_offset else 1.0)
        elif path.endswith("bias"):
            draw = 0.3 * draw
        elif path.endswith("alpha"):
            draw = 0.7 + 0.2 * draw
        elif path == "embed.tokens":
            draw = draw / config.embed_scale
        elif path == "embed.positions":
            draw = 0.5 * draw
        else:
            d, h, e, m = config.d_model, config.n_heads, config.d_head, config.d_mlp
            e = config.d_value if path == "layers.o" else e
            fan_in = {"layers.o": h * e, "layers.down": m, "dense.down": m, "experts.down": 8}.get(path, d)
            draw = draw * fan_in**-0.5 * (1.5 if path in ("layers.q", "layers.k") else 1.0)
        leaves[path] = jnp.asarray(draw, dtype)
    return Model(unflatten(leaves), config, name=f"tiny-{family}")
