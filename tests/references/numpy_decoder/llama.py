"""Llama and the families that change a few of its parts.

`decoder` is the common frame; each family says what differs: where norms stand, how queries, keys and values
come about, which layers have windows and which rotary table, and what the MLP is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.references.numpy_decoder import mlps, positions
from tests.references.numpy_decoder.parts import (
    ACTIVATIONS,
    Weights,
    attend,
    gelu_tanh,
    heads,
    rms_norm,
    softcap,
)

Config = Mapping[str, Any]
Pass = tuple[np.ndarray, list[np.ndarray]]
Mlp = Callable[[Weights, int, np.ndarray], np.ndarray]


def head_width(config: Config) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def window_everywhere(config: Config, _: int) -> int | None:
    """One window for all layers, or none."""
    return config.get("sliding_window")


def window_by_type(config: Config, layer: int) -> int | None:
    """A window in the layers that the config lists as sliding."""
    return config["sliding_window"] if config["layer_types"][layer] == "sliding_attention" else None


def no_window(_: Config, __: int) -> None:
    return None


def plain_table(config: Config, length: int, _: int) -> tuple[np.ndarray, np.ndarray]:
    """The same rotary table in every layer."""
    return positions.table(
        config, length, head_width(config), config["rope_theta"], config.get("rope_scaling")
    )


def dense(config: Config) -> Mlp:
    """A gated MLP with the config's activation."""
    act = ACTIVATIONS[config["hidden_act"]]
    return lambda layer, _, x: mlps.gated(layer.at("mlp"), x, act)


def separate(config: Config, layer: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and values from three projections, with biases where there are any."""
    attention = layer.at("self_attn")
    q, k, v = (attention.linear(name, x) for name in ("q_proj", "k_proj", "v_proj"))
    shared = config["num_key_value_heads"]
    return heads(q, config["num_attention_heads"]), heads(k, shared), heads(v, shared)


def fused(config: Config, layer: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phi-3: all queries, then all keys, then all values from one projection."""
    n_heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    every = heads(layer.linear("self_attn.qkv_proj", x), n_heads + 2 * shared)
    return every[:, :n_heads], every[:, n_heads : n_heads + shared], every[:, n_heads + shared :]


def normed_heads(
    config: Config, layer: Weights, x: np.ndarray, offset: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Qwen3, Gemma 3: an RMSNorm over each head of queries and keys, one gain for all heads."""
    q, k, v = separate(config, layer, x)
    eps, attention = config["rms_norm_eps"], layer.at("self_attn")
    return rms_norm(attention, "q_norm", q, eps, offset), rms_norm(attention, "k_norm", k, eps, offset), v


def normed_whole(config: Config, layer: Weights, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """OLMo 2: an RMSNorm over all heads together of queries and of keys."""
    attention, eps = layer.at("self_attn"), config["rms_norm_eps"]
    q = rms_norm(attention, "q_norm", attention.linear("q_proj", x), eps)
    k = rms_norm(attention, "k_norm", attention.linear("k_proj", x), eps)
    shared = config["num_key_value_heads"]
    v = attention.linear("v_proj", x)
    return heads(q, config["num_attention_heads"]), heads(k, shared), heads(v, shared)


def decoder(
    config: Config,
    weights: Weights,
    tokens: np.ndarray,
    *,
    mlp: Mlp,
    qkv: Callable = separate,
    window: Callable[[Config, int], int | None] = no_window,
    table: Callable = plain_table,
    scale: float | None = None,
    cap: float | None = None,
    final_cap: float | None = None,
    embed_scale: float = 1.0,
    offset: float = 0.0,
    norms: tuple[str | None, str | None, str | None, str | None] = (
        "input_layernorm",
        None,
        "post_attention_layernorm",
        None,
    ),
    model: str = "model",
) -> Pass:
    """Logits (T, V) and the residual stream, L + 1 times (T, D).

    ``norms`` names the norms before and after attention and before and after the MLP, None where absent.
    """  # fmt: skip
    root, eps = weights, config["rms_norm_eps"]
    weights = weights.at(model)
    scale = head_width(config) ** -0.5 if scale is None else scale

    def norm(layer: Weights, name: str | None, value: np.ndarray) -> np.ndarray:
        return value if name is None else rms_norm(layer, name, value, eps, offset)

    embedding = weights["embed_tokens.weight"]
    x = embed_scale * embedding[tokens]
    stream = [x]
    for index in range(config["num_hidden_layers"]):
        layer = weights.at(f"layers.{index}")
        q, k, v = qkv(config, layer, norm(layer, norms[0], x))
        cos, sin = table(config, len(tokens), index)
        q, k = positions.turn(q, cos, sin), positions.turn(k, cos, sin)
        sinks = layer.get("self_attn.sinks")
        mixed = attend(q, k, v, scale, window(config, index), cap, sinks)
        x = x + norm(layer, norms[1], layer.linear("self_attn.o_proj", mixed))
        x = x + norm(layer, norms[3], mlp(layer, index, norm(layer, norms[2], x)))
        stream.append(x)
    final = rms_norm(weights, "norm", x, eps, offset)
    unembedding = embedding if config.get("tie_word_embeddings", offset == 1.0) else root["lm_head.weight"]
    return softcap(final @ unembedding.T, final_cap), stream


def llama(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    return decoder(config, weights, tokens, mlp=dense(config))


def mistral(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    return decoder(config, weights, tokens, mlp=dense(config), window=window_everywhere)


def mixtral(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    act, number = ACTIVATIONS[config["hidden_act"]], config["num_experts_per_tok"]

    def mlp(layer: Weights, _: int, x: np.ndarray) -> np.ndarray:
        block = layer.at("block_sparse_moe")
        return mlps.mixture(
            x,
            lambda token: mlps.softmax_first(block, token, number, renormalise=True),
            lambda index, token: mlps.gated(block.at(f"experts.{index}"), token, act, "w1 w3 w2"),
        )

    return decoder(config, weights, tokens, mlp=mlp, window=window_everywhere)


def qwen2(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    return decoder(config, weights, tokens, mlp=dense(config), window=window_by_type)


def qwen3(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    return decoder(config, weights, tokens, mlp=dense(config), qkv=normed_heads, window=window_by_type)


def qwen3_moe(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    act, number = ACTIVATIONS[config["hidden_act"]], config["num_experts_per_tok"]

    def mlp(layer: Weights, index: int, x: np.ndarray) -> np.ndarray:
        block = layer.at("mlp")
        if index in config["mlp_only_layers"] or (index + 1) % config["decoder_sparse_step"]:
            return mlps.gated(block, x, act)
        return mlps.mixture(
            x,
            lambda token: mlps.softmax_first(block, token, number, config["norm_topk_prob"]),
            lambda index, token: mlps.gated(block.at(f"experts.{index}"), token, act),
        )

    return decoder(config, weights, tokens, mlp=mlp, qkv=normed_heads, window=window_everywhere)


def gemma(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    """Gemma: embeddings times sqrt(D), gains stored less one, tanh-GELU gates."""
    return decoder(
        config, weights, tokens, mlp=dense(config), offset=1.0, embed_scale=config["hidden_size"] ** 0.5
    )


_FOUR = (
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
)  # fmt: skip


def gemma2(config: Config, weights: Weights, tokens: np.ndarray, **more: Any) -> Pass:
    """Gemma 2: norms after attention and MLP too, softcaps, windows in some layers."""
    act = ACTIVATIONS[config["hidden_activation"]]
    assert act is gelu_tanh
    return decoder(
        config, weights, tokens, offset=1.0, embed_scale=config["hidden_size"] ** 0.5, norms=_FOUR,
        mlp=lambda layer, _, x: mlps.gated(layer.at("mlp"), x, act), window=window_by_type,
        scale=config["query_pre_attn_scalar"] ** -0.5,
        final_cap=config["final_logit_softcapping"],
        **{"cap": config["attn_logit_softcapping"], **more},
    )  # fmt: skip


def gemma3(config: Config, weights: Weights, tokens: np.ndarray, **more: Any) -> Pass:
    """Gemma 3: Gemma 2 with normed queries and keys in place of the cap on scores, and a rotary base of its
    own, never stretched, in layers with windows."""

    def table(config: Config, length: int, layer: int) -> tuple[np.ndarray, np.ndarray]:
        if config["layer_types"][layer] == "sliding_attention":
            return positions.table(config, length, head_width(config), config["rope_local_base_freq"], None)
        return plain_table(config, length, layer)

    qkv = functools.partial(normed_heads, offset=1.0)
    return gemma2(config, weights, tokens, cap=None, qkv=qkv, table=table, **more)


def gemma3_multimodal(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    """The text part of a Gemma 3 with a vision tower, on text alone."""
    return gemma3(config["text_config"], weights, tokens, model="language_model.model")


def phi3(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    """Phi-3: fused projections, rotary on the first part of each head."""
    act = ACTIVATIONS[config["hidden_act"]]
    turned = int(head_width(config) * config["partial_rotary_factor"])

    def mlp(layer: Weights, _: int, x: np.ndarray) -> np.ndarray:
        gate, up = np.split(layer.linear("mlp.gate_up_proj", x), 2, axis=1)
        return layer.linear("mlp.down_proj", act(gate) * up)

    def table(config: Config, length: int, _: int) -> tuple[np.ndarray, np.ndarray]:
        return positions.table(config, length, turned, config["rope_theta"], config["rope_scaling"])

    return decoder(config, weights, tokens, mlp=mlp, qkv=fused, table=table, window=window_everywhere)


def olmo2(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    """OLMo 2: norms only after attention and after the MLP."""
    norms = (None, "post_attention_layernorm", None, "post_feedforward_layernorm")
    return decoder(config, weights, tokens, mlp=dense(config), qkv=normed_whole, norms=norms)


def gpt_oss(config: Config, weights: Weights, tokens: np.ndarray) -> Pass:
    """GPT-OSS: attention sinks, windows in some layers, experts with clamped gates and biases."""

    def mlp(layer: Weights, _: int, x: np.ndarray) -> np.ndarray:
        block = layer.at("mlp")
        return mlps.mixture(
            x,
            lambda token: mlps.softmax_last(block, token, config["num_experts_per_tok"]),
            lambda index, token: mlps.clamped_glu(block, index, token),
        )

    return decoder(config, weights, tokens, mlp=mlp, window=window_by_type)
