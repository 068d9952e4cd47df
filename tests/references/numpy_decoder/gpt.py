"""GPT-2 and GPT-NeoX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.references.numpy_decoder import positions
from tests.references.numpy_decoder.parts import ACTIVATIONS, Weights, attend, heads, layer_norm

Pass = tuple[np.ndarray, list[np.ndarray]]


def gpt2(config: Mapping[str, Any], weights: Weights, tokens: np.ndarray) -> Pass:
    """GPT-2 (Radford et al. 2019): learned positions, weights of projections stored (in, out)."""
    model, eps, n_heads = weights.at("transformer"), config["layer_norm_epsilon"], config["n_head"]
    act = ACTIVATIONS[config["activation_function"]]
    width = config["n_embd"]
    scale = (width // n_heads) ** -0.5 if config["scale_attn_weights"] else 1.0
    embedding = model["wte.weight"]
    x = embedding[tokens] + model["wpe.weight"][: len(tokens)]
    stream = [x]
    for index in range(config["n_layer"]):
        block = model.at(f"h.{index}")

        def affine(name: str, value: np.ndarray, block: Weights = block) -> np.ndarray:
            return value @ block[f"{name}.weight"] + block[f"{name}.bias"]

        qkv = affine("attn.c_attn", layer_norm(block, "ln_1", x, eps))
        q, k, v = (heads(part, n_heads) for part in np.split(qkv, 3, axis=1))
        x = x + affine("attn.c_proj", attend(q, k, v, scale))
        hidden = act(affine("mlp.c_fc", layer_norm(block, "ln_2", x, eps)))
        x = x + affine("mlp.c_proj", hidden)
        stream.append(x)
    final = layer_norm(model, "ln_f", x, eps)
    unembedding = embedding if config.get("tie_word_embeddings", True) else weights["lm_head.weight"]
    return final @ unembedding.T, stream


def gpt_neox(config: Mapping[str, Any], weights: Weights, tokens: np.ndarray) -> Pass:
    """GPT-NeoX (Black et al. 2022): partial rotary, attention and MLP side by side or in turn.

    The fused projection holds query, key and value of one head next to each other.
    """
    model, eps, n_heads = weights.at("gpt_neox"), config["layer_norm_eps"], config["num_attention_heads"]
    act = ACTIVATIONS[config["hidden_act"]]
    width = config["hidden_size"] // n_heads
    cos, sin = positions.table(
        config,
        len(tokens),
        int(width * config["rotary_pct"]),
        config["rotary_emb_base"],
        config["rope_scaling"],
    )
    embedding = model["embed_in.weight"]
    x = embedding[tokens]
    stream = [x]
    for index in range(config["num_hidden_layers"]):
        layer = model.at(f"layers.{index}")
        fused = layer.linear("attention.query_key_value", layer_norm(layer, "input_layernorm", x, eps))
        q, k, v = np.split(heads(fused, n_heads), 3, axis=2)
        q, k = positions.turn(q, cos, sin), positions.turn(k, cos, sin)
        attention = layer.linear("attention.dense", attend(q, k, v, width**-0.5))
        seen = x if config["use_parallel_residual"] else x + attention
        hidden = act(
            layer.linear("mlp.dense_h_to_4h", layer_norm(layer, "post_attention_layernorm", seen, eps))
        )
        x = x + attention + layer.linear("mlp.dense_4h_to_h", hidden)
        stream.append(x)
    final = layer_norm(model, "final_layer_norm", x, eps)
    unembedding = embedding if config["tie_word_embeddings"] else weights["embed_out.weight"]
    return final @ unembedding.T, stream
