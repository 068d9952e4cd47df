"""DeepSeek-V2 and DeepSeek-V3: multi-head latent attention, shared and routed experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.references.numpy_decoder import mlps, positions
from tests.references.numpy_decoder.parts import ACTIVATIONS, Weights, attend, heads, rms_norm

Config = Mapping[str, Any]
Pass = tuple[np.ndarray, list[np.ndarray]]

# The norms inside latent attention do not follow the config's rms_norm_eps.
LATENT_EPS = 1e-6


def latent_attention(
    config: Config, layer: Weights, x: np.ndarray, cos: np.ndarray, sin: np.ndarray, adjacent: bool
) -> np.ndarray:
    """Attention of DeepSeek-V2, section 2.1, before its output projection; (T, H * value width).

    Keys and values are expanded from one compressed vector a token. A part of the query of each head and one
    vector a token, common to all heads, carry the positions.
    """
    n_heads = config["num_attention_heads"]
    plain, turned = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    if config["q_lora_rank"] is None:
        q = layer.linear("q_proj", x)
    else:
        q = layer.linear(
            "q_b_proj", rms_norm(layer, "q_a_layernorm", layer.linear("q_a_proj", x), LATENT_EPS)
        )
    q = heads(q, n_heads)
    rank = config["kv_lora_rank"]
    both = layer.linear("kv_a_proj_with_mqa", x)
    latent = rms_norm(layer, "kv_a_layernorm", both[:, :rank], LATENT_EPS)
    expanded = heads(layer.linear("kv_b_proj", latent), n_heads)
    common = positions.turn(heads(both[:, rank:], 1), cos, sin, adjacent)
    query = np.concatenate([q[:, :, :plain], positions.turn(q[:, :, plain:], cos, sin, adjacent)], axis=2)
    key = np.concatenate([expanded[:, :, :plain], np.repeat(common, n_heads, axis=1)], axis=2)

    scale = (plain + turned) ** -0.5
    scaling = config["rope_scaling"]
    if scaling and scaling.get("mscale_all_dim"):
        # The scores of the parts without positions are sharpened like those with them.
        scale *= positions.magnitude(scaling["factor"], scaling["mscale_all_dim"]) ** 2
    return attend(query, key, expanded[:, :, plain:], scale)


def decoder(
    config: Config,
    weights: Weights,
    tokens: np.ndarray,
    route: Callable[[Weights, np.ndarray], Mapping[int, float]],
    adjacent: bool,
) -> Pass:
    """Logits (T, V) and the residual stream, L + 1 times (T, D)."""
    model, eps = weights.at("model"), config["rms_norm_eps"]
    act = ACTIVATIONS[config["hidden_act"]]
    cos, sin = positions.table(
        config, len(tokens), config["qk_rope_head_dim"], config["rope_theta"], config["rope_scaling"]
    )
    embedding = model["embed_tokens.weight"]
    x = embedding[tokens]
    stream = [x]
    for index in range(config["num_hidden_layers"]):
        layer = model.at(f"layers.{index}")
        attention = layer.at("self_attn")
        read = rms_norm(layer, "input_layernorm", x, eps)
        x = x + attention.linear("o_proj", latent_attention(config, attention, read, cos, sin, adjacent))
        read = rms_norm(layer, "post_attention_layernorm", x, eps)
        block = layer.at("mlp")
        if index < config["first_k_dense_replace"]:
            x = x + mlps.gated(block, read, act)
        else:
            routed = mlps.mixture(
                read,
                lambda token, block=block: route(block, token),
                lambda index, token, block=block: mlps.gated(block.at(f"experts.{index}"), token, act),
            )
            x = x + routed + mlps.gated(block.at("shared_experts"), read, act)
        stream.append(x)
    final = rms_norm(model, "norm", x, eps)
    unembedding = embedding if config["tie_word_embeddings"] else weights["lm_head.weight"]
    return final @ unembedding.T, stream


def deepseek_v2(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    number, factor = config["num_experts_per_tok"], config["routed_scaling_factor"]
    grouped = config["topk_method"] == "group_limited_greedy"
    groups, kept = (config["n_group"], config["topk_group"]) if grouped else (None, None)

    def route(block: Weights, token: np.ndarray) -> Mapping[int, float]:
        return mlps.best_in_group(block, token, number, groups, kept, factor)

    return decoder(config, weights, tokens, route, adjacent=True)


def deepseek_v3(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    def route(block: Weights, token: np.ndarray) -> Mapping[int, float]:
        return mlps.biased_groups(
            block, token, config["num_experts_per_tok"], config["n_group"], config["topk_group"],
            config["routed_scaling_factor"], config["norm_topk_prob"],
        )  # fmt: skip

    return decoder(config, weights, tokens, route, adjacent=config["rope_interleave"])
