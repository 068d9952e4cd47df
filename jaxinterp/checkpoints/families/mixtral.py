"""Mixtral: Mistral with experts in place of MLPs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families.base import REQUIRED, Family, names, whole_number
from jaxinterp.checkpoints.families.llama import (
    BUFFERS,
    expert_fields,
    expert_tensors,
    expert_width,
    llama_tensors,
)
from jaxinterp.checkpoints.families.mistral import MISTRAL
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    experts = Experts(
        n=whole_number(values, "num_local_experts", where),
        active=whole_number(values, "num_experts_per_tok", where),
        d_expert=whole_number(values, "intermediate_size", where),
    )
    return MISTRAL.config(values, where).replace(experts=experts)


def _export(config: ModelConfig) -> dict[str, Any]:
    assert MISTRAL.export is not None
    return {**MISTRAL.export(config), **expert_fields(config), "intermediate_size": expert_width(config)}


def _tensors(config: ModelConfig) -> list:
    block = "block_sparse_moe."
    experts = expert_tensors(config, block + "gate.weight", block + "experts.{x}.", ("w1", "w3", "w2"))
    return [*llama_tensors(config), *experts]


MIXTRAL = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    fields={**MISTRAL.fields, "num_local_experts": REQUIRED, "num_experts_per_tok": REQUIRED},
    fixed=MISTRAL.fixed,
    harmless=names("output_router_logits router_aux_loss_coef router_jitter_noise"),
    config=_config,
    tensors=_tensors,
    buffers=BUFFERS,
    export=_export,
)
