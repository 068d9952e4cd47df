"""GPT-NeoX and Pythia: layer norms, attention and MLP side by side, part of a head turning, one matrix a layer for
query, key and value, head by head.
"""

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
    names,
    number,
    size_fields,
    sizes,
)
from jaxinterp.checkpoints.families.phi3 import rope_share, rope_width
from jaxinterp.models.config import ModelConfig


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    values = rope.with_share(values, "partial_rotary_factor")
    shape = sizes(values, where)
    field = "rotary_emb_base" if values["rope_theta"] is None else "rope_theta"
    base, scaling = rope.read(values, where, base=field)
    share = "rotary_pct" if values["partial_rotary_factor"] is None else "partial_rotary_factor"
    bias = flag(values, "attention_bias", where)
    return ModelConfig(
        **shape,
        norm="layer",
        norm_eps=number(values, "layer_norm_eps", where),
        parallel=flag(values, "use_parallel_residual", where),
        activation=activation(values, "hidden_act", where),
        gated=False,
        rope_base=base,
        rope_scaling=scaling,
        rope_width=rope_width(shape["d_head"], values, share, where),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=True,
        tied=flag(values, "tie_word_embeddings", where),
    )


def _export(config: ModelConfig) -> dict[str, Any]:
    fields = {
        **size_fields(config),
        **rope.write(config, base="rotary_emb_base"),
        "layer_norm_eps": config.norm_eps,
        "hidden_act": activation_name(config),
        "rotary_pct": rope_share(config),
        "use_parallel_residual": config.parallel,
        "attention_bias": config.qkv_bias,
        "tie_word_embeddings": config.tied,
    }
    del fields["num_key_value_heads"]  # always as many as heads
    return fields


def _tensors(config: ModelConfig) -> list[Tensor]:
    layer = "gpt_neox.layers.{l}."
    fused = layer + "attention.query_key_value."
    found = [
        Tensor("embed.tokens", "gpt_neox.embed_in.weight", "v d -> v d"),
        *(
            Tensor(f"layers.{name}", fused + "weight", "(h p e) d -> p d h e", part)
            for part, name in enumerate("qkv")
        ),
        Tensor("layers.o", layer + "attention.dense.weight", "d (h e) -> h e d"),
        Tensor("layers.up", layer + "mlp.dense_h_to_4h.weight", "m d -> d m"),
        Tensor("layers.up_bias", layer + "mlp.dense_h_to_4h.bias", "m -> m"),
        Tensor("layers.down", layer + "mlp.dense_4h_to_h.weight", "d m -> m d"),
        Tensor("layers.down_bias", layer + "mlp.dense_4h_to_h.bias", "d -> d"),
    ]
    norms = (
        ("layers.attn_norm", layer + "input_layernorm"),
        ("layers.mlp_norm", layer + "post_attention_layernorm"),
        ("final_norm", "gpt_neox.final_layer_norm"),
    )
    for ours, stored in norms:
        found += [
            Tensor(ours + ".scale", stored + ".weight", "d -> d"),
            Tensor(ours + ".bias", stored + ".bias", "d -> d"),
        ]
    if config.qkv_bias:
        found += [
            Tensor(f"layers.{name}_bias", fused + "bias", "(h p e) -> p h e", part)
            for part, name in enumerate("qkv")
        ]
    if config.out_bias:
        found.append(Tensor("layers.o_bias", layer + "attention.dense.bias", "d -> d"))
    if not config.tied:
        found.append(Tensor("unembed", "embed_out.weight", "v d -> d v"))
    return found


GPT_NEOX = Family(
    model_type="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    fields={
        **{name: default for name, default in SIZES.items() if name != "num_key_value_heads"},
        "layer_norm_eps": REQUIRED,
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "partial_rotary_factor": None,
        "rotary_emb_base": 10000.0,
        "rope_theta": None,
        "rope_scaling": None,
        "rope_parameters": None,
        "use_parallel_residual": True,
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
    fixed={"num_key_value_heads": (None,), "head_dim": (None,)},
    harmless=names("hidden_dropout hidden_dropout_prob attention_probs_dropout_prob classifier_dropout"),
    config=_config,
    tensors=_tensors,
    buffers=(
        r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
        r"gpt_neox\.rotary_emb\.inv_freq",
    ),
    prefix="gpt_neox.",
    head="embed_out.weight",
    export=_export,
)
