"""What a tree of parameters does not say, for the published sizes: rotary bases, windows, caps, contexts.

Gemma's values are those of the published Hugging Face configs, read by the families of this room; they agree with
google-deepmind/gemma, gm/nn/_gemma.py. Llama's are those of MaxText's configs/models with the published contexts.
"""

from __future__ import annotations

from typing import Any

from jaxinterp.checkpoints.flax_gemma import Gemma
from jaxinterp.checkpoints.flax_maxtext import MaxText
from jaxinterp.checkpoints.huggingface import read_config
from jaxinterp.core.errors import InputError, near
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.rotary import RopeScaling

# Layers, width, MLP, query heads, key heads, head width.
_SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    "gemma_2b": (18, 2048, 16384, 8, 1, 256),
    "gemma_7b": (28, 3072, 24576, 16, 16, 256),
    "gemma2_2b": (26, 2304, 9216, 8, 4, 256),
    "gemma2_9b": (42, 3584, 14336, 16, 8, 256),
    "gemma2_27b": (46, 4608, 36864, 32, 16, 128),
    "gemma3_270m": (18, 640, 2048, 4, 1, 256),
    "gemma3_1b": (26, 1152, 6912, 4, 1, 256),
    "gemma3_4b": (34, 2560, 10240, 8, 4, 256),
    "gemma3_12b": (48, 3840, 15360, 16, 8, 256),
    "gemma3_27b": (62, 5376, 21504, 32, 16, 128),
    "llama2-7b": (32, 4096, 11008, 32, 32, 128),
    "llama2-13b": (40, 5120, 13824, 40, 40, 128),
    "llama2-70b": (80, 8192, 28672, 64, 8, 128),
    "llama3-8b": (32, 4096, 14336, 32, 8, 128),
    "llama3-70b": (80, 8192, 28672, 64, 8, 128),
    "llama3.1-8b": (32, 4096, 14336, 32, 8, 128),
    "llama3.1-70b": (80, 8192, 28672, 64, 8, 128),
    "llama3.1-405b": (126, 16384, 53248, 128, 8, 128),
}
# The factor on attention scores is this number to the power -1/2; elsewhere it is the head width.
_SCALAR = {"gemma2_27b": 144, "gemma3_27b": 168}
_SMALL = ("gemma3_270m", "gemma3_1b")


def names(layout: str) -> list[str]:
    """The presets of a layout."""
    return [name for name in _SIZES if name.startswith("gemma") == (layout == "gemma")]


def preset(name: str, layout: Gemma | MaxText) -> tuple[ModelConfig, Gemma | MaxText]:
    """The config of a published size, and the layout with what the preset says of it.

    The vocabulary is that of the published trees (Gemma 1 and 2: padded to 256,128 rows).

    Raises:
      InputError: an unknown name, one of another layout, or a ``rope_type`` other than the preset's.
    """
    known = names(layout.name)
    if name not in known:
        raise InputError(
            f"no preset {name!r} of the {layout.name} layout{near(name, known)}: give one of {', '.join(known)}, or a "
            "ModelConfig"
        )
    if isinstance(layout, Gemma):
        return read_config(_gemma(name), f"the preset {name}")[1], layout
    rope_type = "llama3.1" if name.startswith("llama3.1") else "default"
    if layout.rope_type not in (None, rope_type):
        raise InputError(f"the preset {name} has rope_type {rope_type!r}, not {layout.rope_type!r}")
    fields = {f: getattr(layout, f) for f in ("normalize_embedding_logits", "scanned", "scan_axis")}
    return _llama(name), MaxText(rope_type, **fields)


def _gemma(name: str) -> dict[str, Any]:
    """The published Hugging Face config."""
    n, d, m, h, k, e = _SIZES[name]
    content: dict[str, Any] = {
        "model_type": "gemma", "vocab_size": 256128, "hidden_size": d, "intermediate_size": m, "num_hidden_layers": n,
        "num_attention_heads": h, "num_key_value_heads": k, "head_dim": e, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_activation": "gelu_pytorch_tanh",
    }  # fmt: skip
    if name.startswith("gemma2"):
        content |= {
            "model_type": "gemma2", "query_pre_attn_scalar": _SCALAR.get(name, e), "sliding_window": 4096,
            "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        }  # fmt: skip
    elif name.startswith("gemma3"):
        small = name in _SMALL
        content |= {
            "model_type": "gemma3_text", "query_pre_attn_scalar": _SCALAR.get(name, e), "vocab_size": 262144,
            "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window": 512 if small else 1024,
            "max_position_embeddings": 32768 if small else 131072,
            "rope_scaling": None if small else {"rope_type": "linear", "factor": 8.0},
        }  # fmt: skip
    return content


def _llama(name: str) -> ModelConfig:
    """Weights as MaxText stores them: the factor on scores in the query kernel, its pairs."""
    n, d, m, h, k, e = _SIZES[name]
    kind = name.split("-")[0]
    return ModelConfig(
        vocab_size=32000 if kind == "llama2" else 128256, d_model=d, n_layers=n, n_heads=h, n_kv_heads=k, d_head=e,
        d_mlp=m, context={"llama2": 4096, "llama3": 8192, "llama3.1": 131072}[kind], norm_eps=1e-5,
        rope_base=10000.0 if kind == "llama2" else 500000.0,
        rope_pairs="adjacent" if kind == "llama3.1" else "half",
        rope_scaling=RopeScaling("llama3", 8.0, 8192) if kind == "llama3.1" else None, query_scale=1.0,
    )  # fmt: skip
