"""Mistral: Llama with a sliding window in every layer, or in none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families import rope
from jaxinterp.checkpoints.families.base import (
    REQUIRED,
    SIZES,
    Family,
    activation,
    flag,
    number,
    sizes,
    whole_number,
)
from jaxinterp.checkpoints.families.llama import BUFFERS, llama_fields, llama_tensors
from jaxinterp.models.config import ModelConfig


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    base, scaling = rope.read(values, where)
    shape = sizes(values, where)
    whole = values["sliding_window"] is None
    window = () if whole else (whole_number(values, "sliding_window", where),) * shape["n_layers"]
    return ModelConfig(
        **shape,
        norm_eps=number(values, "rms_norm_eps", where),
        activation=activation(values, "hidden_act", where),
        rope_base=base,
        rope_scaling=scaling,
        windows=window,
        tied=flag(values, "tie_word_embeddings", where),
    )


def _export(config: ModelConfig) -> dict[str, Any]:
    # Windows of several widths come back as those of one, which the comparison finds.
    return {**llama_fields(config), "sliding_window": max(config.windows, default=0) or None}


MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    fields={
        **SIZES,
        **rope.FIELDS,
        "head_dim": None,
        "rms_norm_eps": REQUIRED,
        "hidden_act": "silu",
        # Absent, the reference takes 4,096; every known config says what it means.
        "sliding_window": REQUIRED,
        "tie_word_embeddings": False,
    },
    fixed={"layer_types": (None,), "attention_bias": (False,), "mlp_bias": (False,)},
    harmless=frozenset(),
    config=_config,
    tensors=llama_tensors,
    buffers=BUFFERS,
    export=_export,
)
