"""Quantised tensors and folders as a function of a seed, made without PyTorch and without the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.references import seeded

SEED = 20
GPT_OSS: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "vocab_size": 31, "hidden_size": 64,
    "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 150.0, "rope_scaling": None, "attention_bias": True, "hidden_act": "silu",
    "layer_types": ["sliding_attention", "full_attention"], "tie_word_embeddings": False, "bos_token_id": 0,
    "eos_token_id": 0, "pad_token_id": None, "torch_dtype": "bfloat16", "swiglu_limit": 7.0,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
        ],
    },
}  # fmt: skip


def mxfp4(
    seed: int, name: str, shape: tuple[int, int, int], around: int = 127
) -> tuple[np.ndarray, np.ndarray]:
    """Random blocks (experts, rows, groups, 16) and scales (experts, rows, groups), uint8, scales near ``around``."""
    blocks = seeded.bits(seed, f"{name}.blocks", int(np.prod(shape)) * 16).astype(np.uint8)
    spread = seeded.bits(seed, f"{name}.scales", int(np.prod(shape))) % np.uint64(5)
    return blocks.reshape(*shape, 16), (spread + np.uint64(around - 2)).astype(np.uint8).reshape(shape)


def fp8(
    seed: int, name: str, shape: tuple[int, int], block: tuple[int, int], size: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Random codes of float8_e4m3fn (uint8, none of them a NaN) and float32 factors of its blocks."""
    codes = seeded.bits(seed, f"{name}.codes", int(np.prod(shape))).astype(np.uint8).reshape(shape)
    codes = np.where((codes & 127) == 127, np.uint8(1), codes).astype(np.uint8)
    blocks = tuple(-(-n // step) for n, step in zip(shape, block, strict=True))
    factors = (size * (1.5 + seeded.symmetric(seed, f"{name}.factors", blocks)) / 448).astype(np.float32)
    return codes, factors


Stored = dict[str, tuple[str, np.ndarray]]
"""Name → (dtype as safetensors calls it, the numbers or their bits)."""


def bfloat16(numbers: np.ndarray) -> tuple[str, np.ndarray]:
    """Float32 numbers rounded to bfloat16 (to even), as bits."""
    bits = np.asarray(numbers, np.float32).view(np.uint32)
    return "BF16", ((bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: Stored) -> None:
    """A safetensors file, written here byte by byte, so that it may hold dtypes that NumPy has not."""
    header, end = {}, 0
    for name, (code, array) in tensors.items():
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors.values():
            stream.write(np.ascontiguousarray(array).tobytes())


def gpt_oss_tensors(config: dict[str, Any] | None = None) -> Stored:
    """Every tensor of the tiny model (or of another size) under the names of the published files; bfloat16 but for the
    experts."""
    c = GPT_OSS if config is None else config
    d, f, v, x, h = (
        c[n]
        for n in (
            "hidden_size",
            "intermediate_size",
            "vocab_size",
            "num_local_experts",
            "num_attention_heads",
        )
    )
    wide, narrow = h * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (v, d), "model.norm.weight": (d,), "lm_head.weight": (v, d),
    }  # fmt: skip
    experts: Stored = {}
    for layer in range(c["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        for part, size in (("q", wide), ("k", narrow), ("v", narrow)):
            shapes[f"{block}self_attn.{part}_proj.weight"] = (size, d)
            shapes[f"{block}self_attn.{part}_proj.bias"] = (size,)
        shapes |= {
            f"{block}self_attn.o_proj.weight": (d, wide), f"{block}self_attn.o_proj.bias": (d,),
            f"{block}self_attn.sinks": (h,), f"{block}input_layernorm.weight": (d,),
            f"{block}post_attention_layernorm.weight": (d,), f"{block}mlp.router.weight": (x, d),
            f"{block}mlp.router.bias": (x,), f"{block}mlp.experts.gate_up_proj_bias": (x, 2 * f),
            f"{block}mlp.experts.down_proj_bias": (x, d),
        }  # fmt: skip
        for part, rows, columns in (("gate_up_proj", 2 * f, d), ("down_proj", d, f)):
            name = f"{block}mlp.experts.{part}"
            blocks, scales = mxfp4(SEED, name, (x, rows, columns // 32), around=123)
            experts |= {f"{name}_blocks": ("U8", blocks), f"{name}_scales": ("U8", scales)}
    plain = {name: bfloat16(seeded.tensor(SEED, name, shape)) for name, shape in shapes.items()}
    return {**plain, **experts}


def write_gpt_oss(folder: Path) -> Path:
    """The tiny model as a folder with config.json and model.safetensors."""
    (folder / "config.json").write_text(json.dumps(GPT_OSS, indent=2))
    write_safetensors(folder / "model.safetensors", gpt_oss_tensors())
    return folder
