"""Llama: RMS norms, rotary positions, grouped key/value heads, SwiGLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families.base import (
    REQUIRED,
    Family,
    Tensor,
    activation,
    flag,
    head_width,
    number,
    rope_base,
    whole_number,
)
from jaxinterp.models.config import ModelConfig


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    heads = whole_number(values, "num_attention_heads", where)
    kv_heads = values["num_key_value_heads"]
    attention_bias = flag(values, "attention_bias", where)
    return ModelConfig(
        vocab_size=whole_number(values, "vocab_size", where),
        d_model=whole_number(values, "hidden_size", where),
        n_layers=whole_number(values, "num_hidden_layers", where),
        n_heads=heads,
        n_kv_heads=heads if kv_heads is None else whole_number(values, "num_key_value_heads", where),
        d_head=head_width(values, "hidden_size", "num_attention_heads", where),
        d_mlp=whole_number(values, "intermediate_size", where),
        context=whole_number(values, "max_position_embeddings", where),
        norm_eps=number(values, "rms_norm_eps", where),
        activation=activation(values, "hidden_act", where),
        rope_base=rope_base(values, where),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=flag(values, "mlp_bias", where),
        tied=flag(values, "tie_word_embeddings", where),
    )


def decoder_tensors(config: ModelConfig) -> list[Tensor]:
    """Embedding, attention, gated MLP, final norm and unembedding as Llama and its relatives call them."""
    layer = "model.layers.{l}."
    found = [
        Tensor("embed.tokens", "model.embed_tokens.weight", "v d -> v d"),
        Tensor("layers.attn_norm.scale", layer + "input_layernorm.weight", "d -> d"),
        Tensor("layers.q", layer + "self_attn.q_proj.weight", "(h e) d -> d h e"),
        Tensor("layers.k", layer + "self_attn.k_proj.weight", "(k e) d -> d k e"),
        Tensor("layers.v", layer + "self_attn.v_proj.weight", "(k e) d -> d k e"),
        Tensor("layers.o", layer + "self_attn.o_proj.weight", "d (h e) -> h e d"),
        Tensor("layers.gate", layer + "mlp.gate_proj.weight", "m d -> d m"),
        Tensor("layers.up", layer + "mlp.up_proj.weight", "m d -> d m"),
        Tensor("layers.down", layer + "mlp.down_proj.weight", "d m -> m d"),
        Tensor("final_norm.scale", "model.norm.weight", "d -> d"),
    ]
    if config.qkv_bias:
        found += [
            Tensor("layers.q_bias", layer + "self_attn.q_proj.bias", "(h e) -> h e"),
            Tensor("layers.k_bias", layer + "self_attn.k_proj.bias", "(k e) -> k e"),
            Tensor("layers.v_bias", layer + "self_attn.v_proj.bias", "(k e) -> k e"),
        ]
    if config.out_bias:
        found.append(Tensor("layers.o_bias", layer + "self_attn.o_proj.bias", "d -> d"))
    if config.mlp_bias:
        found += [
            Tensor("layers.gate_bias", layer + "mlp.gate_proj.bias", "m -> m"),
            Tensor("layers.up_bias", layer + "mlp.up_proj.bias", "m -> m"),
            Tensor("layers.down_bias", layer + "mlp.down_proj.bias", "d -> d"),
        ]
    if not config.tied:
        found.append(Tensor("unembed", "lm_head.weight", "v d -> d v"))
    return found


def _tensors(config: ModelConfig) -> list[Tensor]:
    norm = Tensor("layers.mlp_norm.scale", "model.layers.{l}.post_attention_layernorm.weight", "d -> d")
    return [*decoder_tensors(config), norm]


LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fields={
        "vocab_size": REQUIRED,
        "hidden_size": REQUIRED,
        "intermediate_size": REQUIRED,
        "num_hidden_layers": REQUIRED,
        "num_attention_heads": REQUIRED,
        "num_key_value_heads": None,
        "head_dim": None,
        "max_position_embeddings": REQUIRED,
        "rms_norm_eps": REQUIRED,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "rope_parameters": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    },
    fixed={"layer_types": (None,), "sliding_window": (None,), "use_sliding_window": (None, False)},
    # Splitting a product over pretraining_tp slices changes its rounding only.
    harmless=frozenset({"pretraining_tp"}),
    config=_config,
    tensors=_tensors,
    buffers=(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
)
