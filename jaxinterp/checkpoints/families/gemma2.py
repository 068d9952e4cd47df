"""Gemma-2: unit-offset norms before and after each part, softcaps, sliding windows on even layers."""

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
    inverse_root,
    number,
    sizes,
    window_fields,
    windows,
)
from jaxinterp.checkpoints.families.llama import BUFFERS, decoder_tensors, llama_fields
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig


def _windows(values: Mapping[str, Any], n_layers: int, where: str) -> tuple[int, ...]:
    if values["sliding_window"] is None and values["layer_types"] is None:
        return ()
    found = windows(values, n_layers, lambda layer: layer % 2 == 0, where)
    if values["sliding_window_size"] not in (None, values["sliding_window"]):
        raise InputError(
            f"{where}: sliding_window_size is {values['sliding_window_size']!r}, sliding_window is "
            f"{values['sliding_window']!r}"
        )
    return found


def softcap(values: Mapping[str, Any], field: str, where: str) -> float | None:
    """The cap in ``field``, or None."""
    return None if values[field] is None else number(values, field, where)


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    bias = flag(values, "attention_bias", where)
    base, scaling = rope.read(values, where)
    shape = sizes(values, where)
    return ModelConfig(
        **shape,
        norm_eps=number(values, "rms_norm_eps", where),
        norm_unit_offset=True,
        post_norms=True,
        activation=activation(values, "hidden_activation", where),
        rope_base=base,
        rope_scaling=scaling,
        qkv_bias=bias,
        out_bias=bias,
        query_scale=number(values, "query_pre_attn_scalar", where) ** -0.5,
        attn_softcap=softcap(values, "attn_logit_softcapping", where),
        final_softcap=softcap(values, "final_logit_softcapping", where),
        windows=_windows(values, shape["n_layers"], where),
        tied=flag(values, "tie_word_embeddings", where),
        embed_scale=shape["d_model"] ** 0.5,
    )


def gemma_fields(config: ModelConfig) -> dict[str, Any]:
    """What the Gemmas after the first write alike; windows, caps and the scale of scores included."""
    fields = llama_fields(config)
    del fields["hidden_act"]
    return {
        **fields,
        **window_fields(config),
        "hidden_activation": activation_name(config),
        "query_pre_attn_scalar": inverse_root(config.score_scale),
        "attn_logit_softcapping": config.attn_softcap,
        "final_logit_softcapping": config.final_softcap,
        "attention_bias": config.qkv_bias,
    }


def four_norms(config: ModelConfig) -> list[Tensor]:
    """`decoder_tensors` with norms before and after attention and MLP."""
    layer = "model.layers.{l}."
    return [
        *decoder_tensors(config),
        Tensor("layers.attn_norm.scale", layer + "input_layernorm.weight", "d -> d"),
        Tensor("layers.attn_post_norm.scale", layer + "post_attention_layernorm.weight", "d -> d"),
        Tensor("layers.mlp_norm.scale", layer + "pre_feedforward_layernorm.weight", "d -> d"),
        Tensor("layers.mlp_post_norm.scale", layer + "post_feedforward_layernorm.weight", "d -> d"),
    ]


GEMMA2 = Family(
    model_type="gemma2",
    architecture="Gemma2ForCausalLM",
    fields={
        **SIZES,
        **rope.FIELDS,
        "num_key_value_heads": REQUIRED,
        "head_dim": REQUIRED,
        "rms_norm_eps": REQUIRED,
        "query_pre_attn_scalar": REQUIRED,
        "sliding_window": REQUIRED,
        "sliding_window_size": None,
        "layer_types": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": REQUIRED,
        "final_logit_softcapping": REQUIRED,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    fixed={"use_bidirectional_attention": (None, False)},
    # The model itself reads hidden_activation; hidden_act is a leftover of the first Gemma.
    harmless=frozenset({"hidden_act"}),
    config=_config,
    tensors=four_norms,
    buffers=BUFFERS,
    export=gemma_fields,
)
