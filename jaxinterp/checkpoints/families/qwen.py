"""Qwen2 (biases on queries, keys and values) and Qwen3 (norms of queries and keys); windows in the upper layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families import rope
from jaxinterp.checkpoints.families.base import (
    REQUIRED,
    SIZES,
    Family,
    Tensor,
    activation,
    flag,
    number,
    sizes,
    window_fields,
    windows,
)
from jaxinterp.checkpoints.families.llama import BUFFERS, head_norms, llama_fields, llama_tensors
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig

_FIELDS: dict[str, Any] = {
    **SIZES,
    **rope.FIELDS,
    "head_dim": None,
    "rms_norm_eps": REQUIRED,
    "hidden_act": "silu",
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 28,
    "layer_types": None,
    "tie_word_embeddings": False,
}


def _config(values: Mapping[str, Any], where: str, **more: Any) -> ModelConfig:
    base, scaling = rope.read(values, where)
    shape = sizes(values, where)
    on = flag(values, "use_sliding_window", where)
    first = values["max_window_layers"]
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise InputError(f"{where}: max_window_layers is {first!r}, expected a whole number")
    return ModelConfig(
        **shape,
        norm_eps=number(values, "rms_norm_eps", where),
        activation=activation(values, "hidden_act", where),
        rope_base=base,
        rope_scaling=scaling,
        windows=windows(values, shape["n_layers"], lambda layer: layer >= first, where) if on else (),
        tied=flag(values, "tie_word_embeddings", where),
        **more,
    )


def _fields(config: ModelConfig) -> dict[str, Any]:
    fields = {**llama_fields(config), "use_sliding_window": any(config.windows)}
    if any(config.windows):
        first = next(layer for layer, window in enumerate(config.windows) if window)
        fields |= {**window_fields(config), "max_window_layers": first}
    return fields


def _qwen3_fields(config: ModelConfig) -> dict[str, Any]:
    return {**_fields(config), "attention_bias": config.qkv_bias}


def _qwen2(values: Mapping[str, Any], where: str) -> ModelConfig:
    return _config(values, where, qkv_bias=True)


def _qwen3(values: Mapping[str, Any], where: str) -> ModelConfig:
    bias = flag(values, "attention_bias", where)
    return _config(values, where, qk_norm="head", qkv_bias=bias, out_bias=bias)


def _qwen3_tensors(config: ModelConfig) -> list[Tensor]:
    return [*llama_tensors(config), *head_norms(config)]


QWEN2 = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    fields=_FIELDS,
    fixed={"use_mrope": (None, False)},
    harmless=frozenset(),
    config=_qwen2,
    tensors=llama_tensors,
    buffers=BUFFERS,
    export=_fields,
)

QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    fields={**_FIELDS, "head_dim": 128, "attention_bias": False},
    fixed={},
    harmless=frozenset(),
    config=_qwen3,
    tensors=_qwen3_tensors,
    buffers=BUFFERS,
    export=_qwen3_fields,
)
