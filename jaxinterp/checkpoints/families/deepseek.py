"""DeepSeek-V2, V3 and R1: latent attention, shared and routed experts, first layers without experts, YaRN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxinterp.checkpoints.families import deepseek_export, rope
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
from jaxinterp.checkpoints.families.llama import BUFFERS, expert_tensors, gated_mlp
from jaxinterp.core.errors import InputError
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts
from jaxinterp.models.latent import Latent


def _experts(values: Mapping[str, Any], n_layers: int, where: str, **more: Any) -> Experts:
    first = values["first_k_dense_replace"]
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise InputError(f"{where}: first_k_dense_replace is {first!r}, expected a whole number")
    width = whole_number(values, "moe_intermediate_size", where)
    shared = 0 if not values["n_shared_experts"] else whole_number(values, "n_shared_experts", where)
    return Experts(
        n=whole_number(values, "n_routed_experts", where),
        active=whole_number(values, "num_experts_per_tok", where),
        d_expert=width,
        scale=number(values, "routed_scaling_factor", where),
        d_shared=width * shared,
        dense_layers=tuple(range(min(first, n_layers))),
        **more,
    )


def _groups(values: Mapping[str, Any], where: str) -> dict[str, int]:
    return {
        "groups": whole_number(values, "n_group", where),
        "active_groups": whole_number(values, "topk_group", where),
    }


def _common(values: Mapping[str, Any], where: str, adjacent: bool) -> dict[str, Any]:
    base, scaling = rope.read(values, where)
    plain, turned = (whole_number(values, f"qk_{part}_head_dim", where) for part in ("nope", "rope"))
    width = plain + turned
    bias = flag(values, "attention_bias", where)
    low = values["q_lora_rank"]
    _announced(values, where)
    content = values["rope_scaling"] or values["rope_parameters"] or {}
    sharper = number(content, "mscale_all_dim", where) if content.get("mscale_all_dim") else 0.0
    # Heads are as wide here as queries and keys; head_dim says something else.
    shape = {
        **sizes({**values, "head_dim": width}, where),
        "n_kv_heads": whole_number(values, "num_attention_heads", where),
    }
    return {
        **shape,
        "norm_eps": number(values, "rms_norm_eps", where),
        "activation": activation(values, "hidden_act", where),
        "rope_base": base,
        "rope_scaling": scaling,
        "rope_width": turned,
        "rope_pairs": "adjacent" if adjacent else "half",
        # YaRN sharpens the scores of the entries that do not turn like those that do.
        "query_scale": width**-0.5 * rope.magnitude(scaling.factor, sharper) ** 2
        if scaling and sharper
        else None,
        "qkv_bias": bias,
        "out_bias": bias,
        "latent": Latent(
            kv_rank=whole_number(values, "kv_lora_rank", where),
            d_plain=plain,
            d_turned=turned,
            d_value=whole_number(values, "v_head_dim", where),
            q_rank=None if low is None else whole_number(values, "q_lora_rank", where),
        ),
        "tied": flag(values, "tie_word_embeddings", where),
    }


def _v2(values: Mapping[str, Any], where: str) -> ModelConfig:
    methods = (
        {"greedy": {}, "group_limited_greedy": _groups(values, where)}
        if values["n_group"]
        else {"greedy": {}}
    )
    method = values["topk_method"]
    if method not in methods:
        raise InputError(f"{where}: topk_method is {method!r}, supported are {' and '.join(methods)}")
    common = _common(values, where, adjacent=True)
    experts = _experts(values, common["n_layers"], where, normalise=False, **methods[method])
    return ModelConfig(**common, experts=experts)


def _v3(values: Mapping[str, Any], where: str) -> ModelConfig:
    common = _common(values, where, adjacent=flag(values, "rope_interleave", where))
    experts = _experts(
        values, common["n_layers"], where, score="sigmoid", group_score="two_best", correction=True,
        normalise=flag(values, "norm_topk_prob", where), **_groups(values, where),
    )  # fmt: skip
    return ModelConfig(**common, experts=experts)


def _announced(values: Mapping[str, Any], where: str) -> int:
    """How many layers after the last predict further tokens in training."""
    more = values.get("num_nextn_predict_layers")
    if more is not None and (not isinstance(more, int) or isinstance(more, bool) or not 0 <= more <= 16):
        raise InputError(f"{where}: num_nextn_predict_layers is {more!r}, expected a whole number up to 16")
    return more or 0


def _left_out(content: Mapping[str, Any], config: ModelConfig) -> frozenset[str]:
    """The tensors of those layers (DeepSeek-V3, README_WEIGHTS): a layer with experts, and what leads in and out."""
    more = _announced(content, "config.json")
    if not more:
        return frozenset()
    n = config.n_layers
    longer = config.replace(n_layers=n + more, windows=())
    layers = {name for entry in _tensors(longer) for place, name in entry.names(longer).items() if place}
    known = {name for entry in _tensors(config) for name in entry.names(config).values()}
    around = ("embed_tokens", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head")
    return frozenset(layers - known) | {
        f"model.layers.{layer}.{part}.weight" for layer in range(n, n + more) for part in around
    }


def _tensors(config: ModelConfig) -> list[Tensor]:
    latent, experts = config.latent, config.experts
    assert latent is not None and experts is not None
    layer = "model.layers.{l}."
    attention, c, n = layer + "self_attn.", latent.kv_rank, latent.d_plain
    both = c + latent.d_turned
    down, up = attention + "kv_a_proj_with_mqa.", attention + "kv_b_proj.weight"
    found = [
        Tensor("embed.tokens", "model.embed_tokens.weight", "v d -> v d"),
        Tensor("layers.attn_norm.scale", layer + "input_layernorm.weight", "d -> d"),
        Tensor("layers.mlp_norm.scale", layer + "post_attention_layernorm.weight", "d -> d"),
        Tensor("layers.kv_down", down + "weight", "a d -> d a", rows=(0, c, both)),
        Tensor("layers.k_turned", down + "weight", "u d -> d u", rows=(c, both, both)),
        Tensor("layers.kv_norm", attention + "kv_a_layernorm.weight", "a -> a"),
        # Keys and values of one head stand next to each other.
        Tensor("layers.k_up", up, "(h z) a -> z a h", slice(0, n)),
        Tensor("layers.v_up", up, "(h z) a -> z a h", slice(n, n + latent.d_value)),
        Tensor("layers.o", attention + "o_proj.weight", "d (h y) -> h y d"),
        Tensor("final_norm.scale", "model.norm.weight", "d -> d"),
        *(gated_mlp("dense", experts.dense_layers) if experts.dense_layers else ()),
    ]
    if latent.q_rank is None:
        found.append(Tensor("layers.q", attention + "q_proj.weight", "(h e) d -> d h e"))
    else:
        found += [
            Tensor("layers.q_down", attention + "q_a_proj.weight", "r d -> d r"),
            Tensor("layers.q_norm", attention + "q_a_layernorm.weight", "r -> r"),
            Tensor("layers.q_up", attention + "q_b_proj.weight", "(h e) r -> r h e"),
        ]
    if config.qkv_bias:
        found += [
            Tensor("layers.kv_down_bias", down + "bias", "a -> a", rows=(0, c, both)),
            Tensor("layers.k_turned_bias", down + "bias", "u -> u", rows=(c, both, both)),
        ]
        if latent.q_rank is not None:
            found.append(Tensor("layers.q_down_bias", attention + "q_a_proj.bias", "r -> r"))
    if config.out_bias:
        found.append(Tensor("layers.o_bias", attention + "o_proj.bias", "d -> d"))
    if len(experts.dense_layers) < config.n_layers:
        found += _routed(config, experts)
    if not config.tied:
        found.append(Tensor("unembed", "lm_head.weight", "v d -> d v"))
    return found


def _routed(config: ModelConfig, experts: Experts) -> list[Tensor]:
    parts = ("gate_proj", "up_proj", "down_proj")
    found = expert_tensors(config, "mlp.gate.weight", "mlp.experts.{x}.", parts)
    layers, layer = found[0].layers, "model.layers.{l}.mlp."
    if experts.correction:
        found.append(
            Tensor("experts.correction", layer + "gate.e_score_correction_bias", "x -> x", layers=layers)
        )
    if experts.d_shared:
        gate, up, down = (f"{layer}shared_experts.{part}.weight" for part in parts)
        found += [
            Tensor("experts.shared_gate", gate, "s d -> d s", layers=layers),
            Tensor("experts.shared_up", up, "s d -> d s", layers=layers),
            Tensor("experts.shared_down", down, "d s -> s d", layers=layers),
        ]
    return found


_FIELDS: dict[str, Any] = {
    **SIZES,
    **rope.FIELDS,
    "rms_norm_eps": REQUIRED,
    "hidden_act": "silu",
    "q_lora_rank": REQUIRED,
    "kv_lora_rank": REQUIRED,
    "qk_nope_head_dim": REQUIRED,
    "qk_rope_head_dim": REQUIRED,
    "v_head_dim": REQUIRED,
    "n_routed_experts": REQUIRED,
    "n_shared_experts": None,
    "num_experts_per_tok": REQUIRED,
    "moe_intermediate_size": REQUIRED,
    "first_k_dense_replace": 0,
    "routed_scaling_factor": 1.0,
    "n_group": None,
    "topk_group": None,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "num_nextn_predict_layers": None,
}
_HARMLESS = names("head_dim qk_head_dim aux_loss_alpha seq_aux pretraining_tp ep_size auto_map")

DEEPSEEK_V2 = Family(
    model_type="deepseek_v2",
    architecture="DeepseekV2ForCausalLM",
    fields={**_FIELDS, "topk_method": "greedy"},
    # The reference does not rescale the chosen weights in this family, whatever the config says.
    fixed={
        "norm_topk_prob": (False,),
        "moe_layer_freq": (1,),
        "scoring_func": ("softmax",),
        "mlp_bias": (False,),
    },
    harmless=_HARMLESS,
    config=_v2,
    tensors=_tensors,
    buffers=BUFFERS,
    left_out=_left_out,
    export=deepseek_export.v2,
)

DEEPSEEK_V3 = Family(
    model_type="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    fields={**_FIELDS, "norm_topk_prob": True, "rope_interleave": True},
    fixed={
        "topk_method": ("noaux_tc",),
        "moe_layer_freq": (1,),
        "scoring_func": ("sigmoid",),
        "mlp_bias": (False,),
    },
    harmless=_HARMLESS,
    config=_v3,
    tensors=_tensors,
    buffers=BUFFERS,
    left_out=_left_out,
    export=deepseek_export.v3,
)
