"""Qwen3-MoE: Qwen3 with experts in some layers or all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families.base import REQUIRED, Family, Tensor, flag, names, whole_number
from jaxinterp.checkpoints.families.llama import BUFFERS, expert_fields, expert_tensors, expert_width
from jaxinterp.checkpoints.families.qwen import QWEN3
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    # A window is in every layer here, whatever max_window_layers says.
    plain = QWEN3.config({**values, "max_window_layers": 0, "layer_types": None}, where)
    step = whole_number(values, "decoder_sparse_step", where)
    listed = values["mlp_only_layers"] or []
    if not isinstance(listed, list) or not all(
        isinstance(i, int) and not isinstance(i, bool) for i in listed
    ):
        raise InputError(f"{where}: mlp_only_layers is {listed!r}, expected a list of layers")
    dense = {layer for layer in range(plain.n_layers) if layer in listed or (layer + 1) % step}
    experts = Experts(
        n=whole_number(values, "num_experts", where),
        active=whole_number(values, "num_experts_per_tok", where),
        d_expert=whole_number(values, "moe_intermediate_size", where),
        normalise=flag(values, "norm_topk_prob", where),
        dense_layers=tuple(dense),
    )
    return plain.replace(experts=experts)


def _export(config: ModelConfig) -> dict[str, Any]:
    assert QWEN3.export is not None
    experts = expert_fields(config)
    fields = {**QWEN3.export(config), **experts, "moe_intermediate_size": expert_width(config)}
    if config.experts is not None:
        fields |= {
            "norm_topk_prob": config.experts.normalise,
            "mlp_only_layers": list(config.experts.dense_layers),
        }
    fields["num_experts"] = fields.pop("num_local_experts")
    # One window for every layer: neither says anything here.
    for name in ("layer_types", "max_window_layers"):
        fields.pop(name, None)
    return fields


def _tensors(config: ModelConfig) -> list[Tensor]:
    names = ("gate_proj", "up_proj", "down_proj")
    return [*QWEN3.tensors(config), *expert_tensors(config, "mlp.gate.weight", "mlp.experts.{x}.", names)]


QWEN3_MOE = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    fields={
        **QWEN3.fields,
        "head_dim": None,
        "num_experts": REQUIRED,
        "num_experts_per_tok": REQUIRED,
        "moe_intermediate_size": REQUIRED,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": None,
    },
    fixed=QWEN3.fixed,
    harmless=names("output_router_logits router_aux_loss_coef"),
    config=_config,
    tensors=_tensors,
    buffers=BUFFERS,
    export=_export,
)
