"""GPT-2: layer norms with biases, learned positions, one matrix for query, key and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families.base import (
    REQUIRED,
    Family,
    Tensor,
    activation,
    activation_name,
    flag,
    head_width,
    names,
    number,
    whole_number,
)
from jaxinterp.models.config import ModelConfig


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    heads = whole_number(values, "n_head", where)
    d = whole_number(values, "n_embd", where)
    return ModelConfig(
        vocab_size=whole_number(values, "vocab_size", where),
        d_model=d,
        n_layers=whole_number(values, "n_layer", where),
        n_heads=heads,
        n_kv_heads=heads,
        d_head=head_width(values, "n_embd", "n_head", where),
        d_mlp=4 * d if values["n_inner"] is None else whole_number(values, "n_inner", where),
        context=whole_number(values, "n_positions", where),
        norm="layer",
        norm_eps=number(values, "layer_norm_epsilon", where),
        activation=activation(values, "activation_function", where),
        gated=False,
        positions="learned",
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        query_scale=None if flag(values, "scale_attn_weights", where) else 1.0,
        tied=flag(values, "tie_word_embeddings", where),
    )


def _export(config: ModelConfig) -> dict[str, Any]:
    name = activation_name(config)
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_mlp,
        "activation_function": "gelu_new" if name == "gelu_pytorch_tanh" else name,
        "layer_norm_epsilon": config.norm_eps,
        "scale_attn_weights": config.score_scale != 1.0,
        "tie_word_embeddings": config.tied,
    }


def _tensors(config: ModelConfig) -> list[Tensor]:
    layer = "transformer.h.{l}."
    found = [
        Tensor("embed.tokens", "transformer.wte.weight", "v d -> v d"),
        Tensor("embed.positions", "transformer.wpe.weight", "c d -> c d"),
        Tensor("layers.attn_norm.scale", layer + "ln_1.weight", "d -> d"),
        Tensor("layers.attn_norm.bias", layer + "ln_1.bias", "d -> d"),
        *(
            Tensor(f"layers.{name}", layer + "attn.c_attn.weight", "d (p h e) -> p d h e", part)
            for part, name in enumerate("qkv")
        ),
        *(
            Tensor(f"layers.{name}_bias", layer + "attn.c_attn.bias", "(p h e) -> p h e", part)
            for part, name in enumerate("qkv")
        ),
        Tensor("layers.o", layer + "attn.c_proj.weight", "(h e) d -> h e d"),
        Tensor("layers.o_bias", layer + "attn.c_proj.bias", "d -> d"),
        Tensor("layers.mlp_norm.scale", layer + "ln_2.weight", "d -> d"),
        Tensor("layers.mlp_norm.bias", layer + "ln_2.bias", "d -> d"),
        Tensor("layers.up", layer + "mlp.c_fc.weight", "d m -> d m"),
        Tensor("layers.up_bias", layer + "mlp.c_fc.bias", "m -> m"),
        Tensor("layers.down", layer + "mlp.c_proj.weight", "m d -> m d"),
        Tensor("layers.down_bias", layer + "mlp.c_proj.bias", "d -> d"),
        Tensor("final_norm.scale", "transformer.ln_f.weight", "d -> d"),
        Tensor("final_norm.bias", "transformer.ln_f.bias", "d -> d"),
    ]
    if not config.tied:
        found.append(Tensor("unembed", "lm_head.weight", "v d -> d v"))
    return found


GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    fields={
        "vocab_size": REQUIRED,
        "n_positions": REQUIRED,
        "n_embd": REQUIRED,
        "n_layer": REQUIRED,
        "n_head": REQUIRED,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    },
    fixed={"scale_attn_by_inverse_layer_idx": (False,)},
    harmless=names(
        """n_ctx attn_pdrop embd_pdrop resid_pdrop reorder_and_upcast_attn summary_type summary_use_proj
        summary_activation summary_first_dropout summary_proj_to_labels n_special predict_special_tokens _num_labels
        output_past"""
    ),
    config=_config,
    tensors=_tensors,
    buffers=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
    prefix="transformer.",
    export=_export,
)
