"""OLMo-2: norms only after attention and MLP, and on all queries and all keys together."""

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
)
from jaxinterp.checkpoints.families.llama import BUFFERS, decoder_tensors, head_norms, llama_fields
from jaxinterp.models.config import ModelConfig


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    base, scaling = rope.read(values, where)
    bias = flag(values, "attention_bias", where)
    return ModelConfig(
        **sizes(values, where),
        norm_eps=number(values, "rms_norm_eps", where),
        pre_norms=False,
        post_norms=True,
        activation=activation(values, "hidden_act", where),
        rope_base=base,
        rope_scaling=scaling,
        qk_norm="heads",
        qkv_bias=bias,
        out_bias=bias,
        tied=flag(values, "tie_word_embeddings", where),
    )


def _export(config: ModelConfig) -> dict[str, Any]:
    fields = {**llama_fields(config, kind="type"), "attention_bias": config.qkv_bias}
    del fields["head_dim"]  # always the width divided by the heads
    return fields


def _tensors(config: ModelConfig) -> list[Tensor]:
    layer = "model.layers.{l}."
    return [
        *decoder_tensors(config),
        *head_norms(config),
        Tensor("layers.attn_post_norm.scale", layer + "post_attention_layernorm.weight", "d -> d"),
        Tensor("layers.mlp_post_norm.scale", layer + "post_feedforward_layernorm.weight", "d -> d"),
    ]


OLMO2 = Family(
    model_type="olmo2",
    architecture="Olmo2ForCausalLM",
    fields={
        **SIZES,
        **rope.FIELDS,
        "rms_norm_eps": REQUIRED,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
    },
    fixed={},
    harmless=frozenset(),
    config=_config,
    tensors=_tensors,
    buffers=BUFFERS,
    export=_export,
)
