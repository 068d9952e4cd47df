"""Llama: RMS norms, rotary positions, grouped key/value heads, SwiGLU."""

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
    activation_name,
    flag,
    number,
    size_fields,
    sizes,
)
from jaxinterp.models.config import ModelConfig


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    attention_bias = flag(values, "attention_bias", where)
    base, scaling = rope.read(values, where)
    return ModelConfig(
        **sizes(values, where),
        norm_eps=number(values, "rms_norm_eps", where),
        activation=activation(values, "hidden_act", where),
        rope_base=base,
        rope_scaling=scaling,
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        mlp_bias=flag(values, "mlp_bias", where),
        tied=flag(values, "tie_word_embeddings", where),
    )


def llama_fields(config: ModelConfig, *, kind: str = "rope_type") -> dict[str, Any]:
    """Sizes, head width, positions, norm, activation and tying as Llama and its relatives write them.

    Args:
      kind: the field that names the kind of rotary scaling; some references check their own fields by the older "type".
    """
    return {
        **size_fields(config),
        **rope.write(config, kind=kind),
        "head_dim": config.d_head,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": activation_name(config),
        "tie_word_embeddings": config.tied,
    }


def _export(config: ModelConfig) -> dict[str, Any]:
    return {**llama_fields(config), "attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


def decoder_tensors(config: ModelConfig) -> list[Tensor]:
    """Embedding, attention, gated MLP, final norm and unembedding as Llama and its relatives call them."""
    layer = "model.layers.{l}."
    found = [
        Tensor("embed.tokens", "model.embed_tokens.weight", "v d -> v d"),
        Tensor("layers.q", layer + "self_attn.q_proj.weight", "(h e) d -> d h e"),
        Tensor("layers.k", layer + "self_attn.k_proj.weight", "(k e) d -> d k e"),
        Tensor("layers.v", layer + "self_attn.v_proj.weight", "(k e) d -> d k e"),
        Tensor("layers.o", layer + "self_attn.o_proj.weight", "d (h e) -> h e d"),
        Tensor("final_norm.scale", "model.norm.weight", "d -> d"),
    ]
    if config.experts is None:
        found += gated_mlp("layers")
    elif config.experts.dense_layers:
        found += gated_mlp("dense", config.experts.dense_layers)
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


def gated_mlp(stack: str, layers: tuple[int, ...] | None = None) -> list[Tensor]:
    """The MLPs of all layers or of some, without biases."""
    block = "model.layers.{l}.mlp."
    return [
        Tensor(f"{stack}.gate", block + "gate_proj.weight", "m d -> d m", layers=layers),
        Tensor(f"{stack}.up", block + "up_proj.weight", "m d -> d m", layers=layers),
        Tensor(f"{stack}.down", block + "down_proj.weight", "d m -> m d", layers=layers),
    ]


def expert_tensors(
    config: ModelConfig, router: str, expert: str, names: tuple[str, str, str]
) -> list[Tensor]:
    """The routers and experts of the layers that have them.

    Args:
      router, expert: name of the router's weight and of what comes before ``names``, without "model.layers.{l}.".
      names: of gate, up and down.
    """
    assert config.experts is not None
    layer = "model.layers.{l}."
    layers = tuple(i for i in range(config.n_layers) if i not in config.experts.dense_layers)
    gate, up, down = (layer + expert + name + ".weight" for name in names)
    return [
        Tensor("experts.router", layer + router, "x d -> d x", layers=layers),
        Tensor("experts.gate", gate, "f d -> d f", layers=layers),
        Tensor("experts.up", up, "f d -> d f", layers=layers),
        Tensor("experts.down", down, "d f -> f d", layers=layers),
    ]


def expert_fields(config: ModelConfig) -> dict[str, Any]:
    """How many experts there are and how many a token uses; 1 and 1 without any, which does not come back as none."""
    n, active = (1, 1) if config.experts is None else (config.experts.n, config.experts.active)
    return {"num_local_experts": n, "num_experts_per_tok": active}


def expert_width(config: ModelConfig) -> int:
    """The width of an expert."""
    return config.d_mlp if config.experts is None else config.experts.d_expert


def llama_tensors(config: ModelConfig) -> list[Tensor]:
    """`decoder_tensors` with Llama's two norms a layer."""
    layer = "model.layers.{l}."
    return [
        *decoder_tensors(config),
        Tensor("layers.attn_norm.scale", layer + "input_layernorm.weight", "d -> d"),
        Tensor("layers.mlp_norm.scale", layer + "post_attention_layernorm.weight", "d -> d"),
    ]


def head_norms(config: ModelConfig) -> list[Tensor]:
    """The norms of queries and keys, of each head or of all heads together."""
    layer, every = "model.layers.{l}.self_attn.", config.qk_norm == "heads"
    return [
        Tensor("layers.q_norm", layer + "q_norm.weight", "(h e) -> h e" if every else "e -> e"),
        Tensor("layers.k_norm", layer + "k_norm.weight", "(k e) -> k e" if every else "e -> e"),
    ]


BUFFERS = (r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",)

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    fields={
        **SIZES,
        **rope.FIELDS,
        "head_dim": None,
        "rms_norm_eps": REQUIRED,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    },
    fixed={
        "layer_types": (None,),
        "sliding_window": (None,),
        "use_sliding_window": (None, False),
        "rope_interleaved": (None, False),
    },
    # Splitting a product over pretraining_tp slices changes its rounding only. The others stand in SmolLM's files.
    harmless=frozenset({"pretraining_tp", "is_llama_config", "transformers.js_config"}),
    config=_config,
    tensors=llama_tensors,
    buffers=BUFFERS,
    export=_export,
)
