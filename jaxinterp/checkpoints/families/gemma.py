"""The first Gemma (unit-offset norms, scaled embeddings) and Gemma-3 (norms of queries and keys, two rotary bases)."""

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
    sizes,
    whole_number,
    windows,
)
from jaxinterp.checkpoints.families.gemma2 import four_norms, gemma_fields, softcap
from jaxinterp.checkpoints.families.llama import BUFFERS, head_norms, llama_fields, llama_tensors
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig


def _gemma(values: Mapping[str, Any], where: str) -> ModelConfig:
    base, scaling = rope.read(values, where)
    shape = sizes(values, where)
    bias = flag(values, "attention_bias", where)
    # The first files said "gelu" and meant its tanh form; the reference reads hidden_act as it stands today.
    given = {values[field] for field in ("hidden_act", "hidden_activation") if values[field] is not None}
    if len(given) > 1 and values["hidden_activation"] != "gelu_pytorch_tanh":
        raise InputError(
            f"{where}: hidden_act and hidden_activation differ: {', '.join(sorted(map(repr, given)))}"
        )
    field = "hidden_act" if values["hidden_activation"] is None else "hidden_activation"
    return ModelConfig(
        **shape,
        norm_eps=number(values, "rms_norm_eps", where),
        norm_unit_offset=True,
        activation=activation(values, field, where),
        rope_base=base,
        rope_scaling=scaling,
        qkv_bias=bias,
        out_bias=bias,
        tied=flag(values, "tie_word_embeddings", where),
        embed_scale=shape["d_model"] ** 0.5,
    )


def _export(config: ModelConfig) -> dict[str, Any]:
    return {
        **llama_fields(config),
        "hidden_activation": activation_name(config),
        "attention_bias": config.qkv_bias,
    }


GEMMA = Family(
    model_type="gemma",
    architecture="GemmaForCausalLM",
    fields={
        **SIZES,
        **rope.FIELDS,
        "num_key_value_heads": REQUIRED,
        "head_dim": REQUIRED,
        "rms_norm_eps": REQUIRED,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": None,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    fixed={"use_bidirectional_attention": (None, False)},
    harmless=frozenset(),
    config=_gemma,
    tensors=llama_tensors,
    buffers=BUFFERS,
    export=_export,
)


def _gemma3(values: Mapping[str, Any], where: str) -> ModelConfig:
    values = rope.by_kind(values, "rope_local_base_freq", where)
    base, scaling = rope.read(values, where)
    shape = sizes(values, where)
    patterns = [values[field] for field in ("sliding_window_pattern", "_sliding_window_pattern")]
    pattern = next((p for p in patterns if p is not None), 6)
    every = whole_number({"sliding_window_pattern": pattern}, "sliding_window_pattern", where)
    bias = flag(values, "attention_bias", where)
    return ModelConfig(
        **shape,
        norm_eps=number(values, "rms_norm_eps", where),
        norm_unit_offset=True,
        post_norms=True,
        activation=activation(values, "hidden_activation", where),
        rope_base=base,
        rope_scaling=scaling,
        rope_local_base=number(values, "rope_local_base_freq", where),
        qk_norm="head",
        qkv_bias=bias,
        out_bias=bias,
        query_scale=number(values, "query_pre_attn_scalar", where) ** -0.5,
        final_softcap=softcap(values, "final_logit_softcapping", where),
        windows=windows(values, shape["n_layers"], lambda layer: (layer + 1) % every != 0, where),
        tied=flag(values, "tie_word_embeddings", where),
        embed_scale=shape["d_model"] ** 0.5,
    )


def _gemma3_fields(config: ModelConfig) -> dict[str, Any]:
    local = config.rope_base if config.rope_local_base is None else config.rope_local_base
    fields = {**gemma_fields(config), "rope_local_base_freq": local}
    del fields["attn_logit_softcapping"]
    return fields


def _gemma3_tensors(config: ModelConfig) -> list[Tensor]:
    return [*four_norms(config), *head_norms(config)]


# The defaults count: files of the larger models leave most fields out.
_GEMMA3_FIELDS: dict[str, Any] = {
    **SIZES,
    **rope.FIELDS,
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": None,
    "_sliding_window_pattern": None,
    "layer_types": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "final_logit_softcapping": None,
    "attention_bias": False,
    "tie_word_embeddings": True,
}

GEMMA3_TEXT = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    fields=_GEMMA3_FIELDS,
    # The reference reads no cap on scores in this family, whatever the config says.
    fixed={"use_bidirectional_attention": (None, False), "attn_logit_softcapping": (None,)},
    harmless=frozenset(),
    config=_gemma3,
    tensors=_gemma3_tensors,
    buffers=BUFFERS,
    export=_gemma3_fields,
)

_OTHER_PARTS = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)


def _text_part(name: str) -> str | None:
    """The name of a tensor in the text model alone; None for one of the image part."""
    if name.startswith(_OTHER_PARTS):
        return None
    for old, new in (
        ("language_model.model.", "model."),
        ("model.language_model.", "model."),
        ("language_model.", ""),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


GEMMA3 = GEMMA3_TEXT._replace(
    model_type="gemma3",
    architecture="Gemma3ForConditionalGeneration",
    harmless=names(
        """vision_config mm_tokens_per_image boi_token_index eoi_token_index image_token_index boi_token_id eoi_token_id
        image_token_id"""
    ),
    rename=_text_part,
    inner="text_config",
    # Written without the image part, as a gemma3_text model.
    export=None,
)
