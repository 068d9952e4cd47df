"""DeepSeek configs written: the inverse of what `deepseek` reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jaxinterp.checkpoints.families import rope
from jaxinterp.checkpoints.families.base import activation_name, size_fields
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.experts import Experts
from jaxinterp.models.latent import Latent


def v2(config: ModelConfig) -> dict[str, Any]:
    """The fields of a DeepSeek-V2 config."""
    experts = _experts_of(config)
    grouped = (experts.groups, experts.active_groups) != (1, 1)
    method = {"topk_method": "group_limited_greedy" if grouped else "greedy", "scoring_func": "softmax"}
    return {**_common(config), **_groups(experts), **method}


def v3(config: ModelConfig) -> dict[str, Any]:
    """The fields of a DeepSeek-V3 config."""
    experts = _experts_of(config)
    return {
        **_common(config),
        **_groups(experts),
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": experts.normalise,
        "rope_interleave": config.rope_pairs == "adjacent",
    }


def _experts_of(config: ModelConfig) -> Experts:
    """The experts; without any, some that do not come back as none."""
    return config.experts or Experts(n=1, active=1, d_expert=config.d_mlp)


def _groups(experts: Experts) -> dict[str, Any]:
    return {"n_group": experts.groups, "topk_group": experts.active_groups}


def _common(config: ModelConfig) -> dict[str, Any]:
    # Without latent attention, one that does not come back as none.
    turned = min(config.rope_width or config.d_head, max(config.d_head - 1, 1))
    latent = config.latent or Latent(1, max(config.d_head - turned, 1), turned, config.d_head)
    experts = _experts_of(config)
    return {
        **size_fields(config),
        **_rope(config),
        "rms_norm_eps": config.norm_eps,
        "hidden_act": activation_name(config),
        "q_lora_rank": latent.q_rank,
        "kv_lora_rank": latent.kv_rank,
        "qk_nope_head_dim": latent.d_plain,
        "qk_rope_head_dim": latent.d_turned,
        "v_head_dim": latent.d_value,
        "n_routed_experts": experts.n,
        "n_shared_experts": experts.d_shared // experts.d_expert or None,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.d_expert,
        "first_k_dense_replace": len(experts.dense_layers),
        "moe_layer_freq": 1,
        "routed_scaling_factor": experts.scale,
        "attention_bias": config.qkv_bias,
        "tie_word_embeddings": config.tied,
    }


def _rope(config: ModelConfig) -> dict[str, Any]:
    """`rope.write` with ``mscale_all_dim`` for the scale of scores, and ``mscale`` instead of a factor if it can be."""
    fields = rope.write(config, kind="type")
    scaling, content = config.rope_scaling, fields["rope_scaling"]
    if scaling is None or scaling.kind != "yarn" or scaling.factor <= 1:
        return fields
    plain, slope = config.d_head**-0.5, 0.1 * math.log(scaling.factor)
    if config.score_scale <= plain:
        return fields
    every = _decimal(
        ((config.score_scale / plain) ** 0.5 - 1) / slope,
        lambda weight: plain * rope.magnitude(scaling.factor, weight) ** 2 == config.score_scale,
    )
    if every is None:
        return fields
    content["mscale_all_dim"] = every
    both = rope.magnitude(scaling.factor, every)
    turned = _decimal(
        (scaling.size * both - 1) / slope,
        lambda weight: rope.magnitude(scaling.factor, weight) / both == scaling.size,
    )
    if "attention_factor" in content and turned is not None:
        del content["attention_factor"]
        content["mscale"] = turned
    return fields


def _decimal(estimate: float, holds: Callable[[float], bool]) -> float | None:
    """The positive number near ``estimate`` with the fewest decimals for which ``holds``; None if there is none."""
    below = above = estimate
    candidates = [round(estimate, digits) for digits in range(18)]
    for _ in range(32):
        below, above = math.nextafter(below, -math.inf), math.nextafter(above, math.inf)
        candidates += [below, above]
    return next((weight for weight in candidates if weight > 0 and holds(weight)), None)
