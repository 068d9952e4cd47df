"""GPT-OSS: attention sinks, windows in every other layer, experts with biases, YaRN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families import rope
from jaxinterp.checkpoints.families.base import (
    REQUIRED,
    SIZES,
    Family,
    Tensor,
    flag,
    names,
    number,
    sizes,
    whole_number,
    window_fields,
    windows,
)
from jaxinterp.checkpoints.families.llama import (
    BUFFERS,
    expert_fields,
    expert_width,
    llama_fields,
    llama_tensors,
)
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    base, scaling = rope.read(values, where)
    shape = sizes(values, where)
    bias = flag(values, "attention_bias", where)
    experts = Experts(
        n=whole_number(values, "num_local_experts", where),
        active=whole_number(values, "num_experts_per_tok", where),
        d_expert=shape["d_mlp"],
        router_bias=True,
        bias=True,
    )
    return ModelConfig(
        **shape,
        norm_eps=number(values, "rms_norm_eps", where),
        activation="clipped_swish",
        rope_base=base,
        rope_scaling=scaling,
        sinks=True,
        experts=experts,
        qkv_bias=bias,
        out_bias=bias,
        windows=windows(values, shape["n_layers"], lambda layer: layer % 2 == 0, where),
        tied=flag(values, "tie_word_embeddings", where),
    )


def _export(config: ModelConfig) -> dict[str, Any]:
    fields = {**llama_fields(config), **window_fields(config), **expert_fields(config)}
    del fields["hidden_act"]  # always the clipped swish
    return {**fields, "intermediate_size": expert_width(config), "attention_bias": config.qkv_bias}


def _tensors(config: ModelConfig) -> list[Tensor]:
    layer = "model.layers.{l}."
    both, out = layer + "mlp.experts.gate_up_proj", layer + "mlp.experts.down_proj"
    return [
        *llama_tensors(config),
        Tensor("layers.sinks", layer + "self_attn.sinks", "h -> h"),
        Tensor("experts.router", layer + "mlp.router.weight", "x d -> d x"),
        Tensor("experts.router_bias", layer + "mlp.router.bias", "x -> x"),
        # Columns of gate and up alternate.
        Tensor("experts.gate", both, "x d (f w) -> w x d f", 0),
        Tensor("experts.up", both, "x d (f w) -> w x d f", 1),
        Tensor("experts.gate_bias", both + "_bias", "x (f w) -> w x f", 0),
        Tensor("experts.up_bias", both + "_bias", "x (f w) -> w x f", 1),
        Tensor("experts.down", out, "x f d -> x f d"),
        Tensor("experts.down_bias", out + "_bias", "x d -> x d"),
    ]


GPT_OSS = Family(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    fields={
        **SIZES,
        **rope.FIELDS,
        "head_dim": REQUIRED,
        "rms_norm_eps": REQUIRED,
        "rope_theta": 150000.0,
        "num_local_experts": REQUIRED,
        "num_experts_per_tok": REQUIRED,
        "sliding_window": REQUIRED,
        "layer_types": None,
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
    fixed={"swiglu_limit": (7.0,), "hidden_act": ("silu",)},
    harmless=names("output_router_logits router_aux_loss_coef experts_per_token initial_context_length"),
    config=_config,
    tensors=_tensors,
    buffers=BUFFERS,
    export=_export,
)
