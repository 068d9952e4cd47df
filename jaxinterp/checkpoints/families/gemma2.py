"""Gemma-2: unit-offset norms before and after each part, softcaps, sliding windows on even layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families.base import (
    REQUIRED,
    Family,
    Tensor,
    activation,
    flag,
    number,
    rope_base,
    whole_number,
)
from jaxinterp.checkpoints.families.llama import decoder_tensors
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig

_TYPES = ("sliding_attention", "full_attention")


def _windows(values: Mapping[str, Any], n_layers: int, where: str) -> tuple[int, ...]:
    types = values["layer_types"]
    if types is None:
        types = [_TYPES[layer % 2] for layer in range(n_layers)]
    if not isinstance(types, list) or len(types) != n_layers:
        raise InputError(f"{where}: layer_types is {types!r}, expected a list of {n_layers}, one a layer")
    for kind in types:
        if kind not in _TYPES:
            raise InputError(f"{where}: layer_types has {kind!r}, supported are {' and '.join(_TYPES)}")
    if values["sliding_window"] is None:
        if _TYPES[0] in types:
            raise InputError(f"{where}: sliding_window is null but layer_types has {_TYPES[0]!r}")
        return ()
    window = whole_number(values, "sliding_window", where)
    if values["sliding_window_size"] not in (None, window):
        raise InputError(
            f"{where}: sliding_window_size is {values['sliding_window_size']!r}, sliding_window is {window}"
        )
    return tuple(window if kind == _TYPES[0] else 0 for kind in types)


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    d = whole_number(values, "hidden_size", where)
    n = whole_number(values, "num_hidden_layers", where)
    caps = {
        field: None if values[field] is None else number(values, field, where)
        for field in ("attn_logit_softcapping", "final_logit_softcapping")
    }
    bias = flag(values, "attention_bias", where)
    return ModelConfig(
        vocab_size=whole_number(values, "vocab_size", where),
        d_model=d,
        n_layers=n,
        n_heads=whole_number(values, "num_attention_heads", where),
        n_kv_heads=whole_number(values, "num_key_value_heads", where),
        d_head=whole_number(values, "head_dim", where),
        d_mlp=whole_number(values, "intermediate_size", where),
        context=whole_number(values, "max_position_embeddings", where),
        norm_eps=number(values, "rms_norm_eps", where),
        norm_unit_offset=True,
        post_norms=True,
        activation=activation(values, "hidden_activation", where),
        rope_base=rope_base(values, where),
        qkv_bias=bias,
        out_bias=bias,
        query_scale=number(values, "query_pre_attn_scalar", where) ** -0.5,
        attn_softcap=caps["attn_logit_softcapping"],
        final_softcap=caps["final_logit_softcapping"],
        windows=_windows(values, n, where),
        tied=flag(values, "tie_word_embeddings", where),
        embed_scale=d**0.5,
    )


def _tensors(config: ModelConfig) -> list[Tensor]:
    layer = "model.layers.{l}."
    return [
        *decoder_tensors(config),
        Tensor("layers.attn_post_norm.scale", layer + "post_attention_layernorm.weight", "d -> d"),
        Tensor("layers.mlp_norm.scale", layer + "pre_feedforward_layernorm.weight", "d -> d"),
        Tensor("layers.mlp_post_norm.scale", layer + "post_feedforward_layernorm.weight", "d -> d"),
    ]


GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    fields={
        "vocab_size": REQUIRED,
        "hidden_size": REQUIRED,
        "intermediate_size": REQUIRED,
        "num_hidden_layers": REQUIRED,
        "num_attention_heads": REQUIRED,
        "num_key_value_heads": REQUIRED,
        "head_dim": REQUIRED,
        "max_position_embeddings": REQUIRED,
        "rms_norm_eps": REQUIRED,
        "query_pre_attn_scalar": REQUIRED,
        "sliding_window": REQUIRED,
        "sliding_window_size": None,
        "layer_types": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": REQUIRED,
        "final_logit_softcapping": REQUIRED,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "rope_parameters": None,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    fixed={"use_bidirectional_attention": (None, False)},
    # The model itself reads hidden_activation; hidden_act is a leftover of the first Gemma.
    harmless=frozenset({"hidden_act"}),
    config=_config,
    tensors=_tensors,
    buffers=(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
)
