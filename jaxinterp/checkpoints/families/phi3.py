"""Phi-3 and Phi-4-mini: one matrix for query, key and value, one for gate and up, part of a head turning, longrope."""

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
    flag,
    names,
    number,
    sizes,
    whole_number,
)
from jaxinterp.checkpoints.families.llama import BUFFERS, llama_fields, llama_tensors
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig


def _config(values: Mapping[str, Any], where: str) -> ModelConfig:
    values = rope.with_share(values, "partial_rotary_factor")
    shape = sizes(values, where)
    scaling = values["rope_scaling"]
    if isinstance(scaling, dict) and scaling.get("type") == "yarn" and "short_factor" in scaling:
        # The first files of this family called it so.
        scaling = {**scaling, "type": "longrope"}
    base, parsed = rope.read({**values, "rope_scaling": scaling}, where)
    whole = values["sliding_window"] is None
    window = () if whole else (whole_number(values, "sliding_window", where),) * shape["n_layers"]
    return ModelConfig(
        **shape,
        norm_eps=number(values, "rms_norm_eps", where),
        activation=activation(values, "hidden_act", where),
        rope_base=base,
        rope_scaling=parsed,
        rope_width=rope_width(shape["d_head"], values, "partial_rotary_factor", where),
        windows=window,
        tied=flag(values, "tie_word_embeddings", where),
    )


def rope_width(d_head: int, values: Mapping[str, Any], field: str, where: str) -> int | None:
    """How many entries of a head turn, from the share in ``field``; None for all."""
    share = number(values, field, where)
    if share > 1:
        raise InputError(f"{where}: {field} is {share}, expected at most 1")
    width = int(d_head * share)
    return None if width == d_head else width


def rope_share(config: ModelConfig) -> float:
    """The inverse of `rope_width`: a share that gives the same whole number of entries."""
    if config.rope_width is None:
        return 1.0
    share = config.rope_width / config.d_head
    return (
        share
        if int(config.d_head * share) == config.rope_width
        else (config.rope_width + 0.5) / config.d_head
    )


def _export(config: ModelConfig) -> dict[str, Any]:
    fields = {
        **llama_fields(config, kind="type"),
        "partial_rotary_factor": rope_share(config),
        "original_max_position_embeddings": config.context,
        "sliding_window": max(config.windows, default=0) or None,
    }
    scaling, name = fields["rope_scaling"], "original_max_position_embeddings"
    if scaling is not None and scaling["type"] == "longrope":
        # The reference allows no field beside the divisors here.
        fields[name] = scaling.pop(name)
    return fields


def _tensors(config: ModelConfig) -> list[Tensor]:
    q, kv, m = config.n_heads * config.d_head, config.n_kv_heads * config.d_head, config.d_mlp
    qkv, mlp = "model.layers.{l}.self_attn.qkv_proj.weight", "model.layers.{l}.mlp.gate_up_proj.weight"
    fused = {
        "layers.q": Tensor("layers.q", qkv, "(h e) d -> d h e", rows=(0, q, q + 2 * kv)),
        "layers.k": Tensor("layers.k", qkv, "(k e) d -> d k e", rows=(q, q + kv, q + 2 * kv)),
        "layers.v": Tensor("layers.v", qkv, "(k e) d -> d k e", rows=(q + kv, q + 2 * kv, q + 2 * kv)),
        "layers.gate": Tensor("layers.gate", mlp, "m d -> d m", rows=(0, m, 2 * m)),
        "layers.up": Tensor("layers.up", mlp, "m d -> d m", rows=(m, 2 * m, 2 * m)),
    }
    return [fused.get(tensor.ours, tensor) for tensor in llama_tensors(config)]


PHI3 = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    fields={
        **SIZES,
        **rope.FIELDS,
        "head_dim": None,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 1.0,
        "rms_norm_eps": REQUIRED,
        "hidden_act": "silu",
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    fixed={"attention_bias": (False,), "mlp_bias": (False,), "lm_head_bias": (False,)},
    harmless=names("resid_pdrop embd_pdrop auto_map full_attn_mod interpolate_factor"),
    config=_config,
    tensors=_tensors,
    buffers=BUFFERS,
    export=_export,
)
