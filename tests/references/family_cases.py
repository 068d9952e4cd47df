"""The tiny random models of each family: what their configs say and how long their prompts are.

Every family has at least three, between them full, grouped and single key/value heads, tied and untied
unembeddings, unusual head widths, prompts longer than the sliding windows, and contexts longer than the
original one wherever rotary frequencies are rescaled.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Definition:
    """A model to make.

    Attributes:
      family, config: ``model_type`` and arguments of its config class.
      length, batch: size of the prompts.
      scale: factors on tensors whose names hold the key, see `seeded.tensors`.
      salt: changes the seed; chosen so that no router is closer than 1e-3 to another choice.
      dynamic_tanh: every norm is replaced by a Dynamic Tanh.
    """

    family: str
    config: dict[str, Any]
    length: int = 12
    batch: int = 2
    scale: dict[str, float] = field(default_factory=dict)
    salt: int = 0
    dynamic_tanh: bool = False

    @property
    def gain(self) -> float:
        """Centre of the stored gains of norms; Gemma adds one to them."""
        return 0.0 if self.family.startswith("gemma") else 1.0


def seed(name: str) -> int:
    """The seed of a case: a checksum of its name and salt."""
    salt = CASES[name].salt
    return zlib.crc32((f"{name}/{salt}" if salt else name).encode())


_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}


def _sizes(
    vocab: int, width: int, mlp: int, layers: int, heads: int, shared: int, **more: Any
) -> dict[str, Any]:
    """The sizes that most config classes call by the same names."""
    return {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "max_position_embeddings": 64,
        **_SPECIAL,
        **more,
    }


_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10}
# So short a context holds few turns, so the ramp must lie low to have both ends within the pairs.
_YARN_FULL = {**_YARN, "beta_fast": 0.9, "beta_slow": 0.1, "truncate": False}

_GPT = {
    "gpt2_tied": Definition("gpt2", {
        "vocab_size": 31, "n_positions": 20, "n_embd": 16, "n_layer": 3, "n_head": 4, **_SPECIAL,
    }),
    "gpt2_odd_head_full_context": Definition("gpt2", {
        "vocab_size": 29, "n_positions": 16, "n_embd": 21, "n_layer": 2, "n_head": 3, "n_inner": 26,
        "activation_function": "gelu", "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3, **_SPECIAL,
    }, length=16),
    "gpt2_relu_unscaled": Definition("gpt2", {
        "vocab_size": 30, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 1, "n_inner": 20,
        "activation_function": "relu", "scale_attn_weights": False, **_SPECIAL,
    }),
    "gpt_neox_parallel": Definition("gpt_neox", {
        "vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 28, "rotary_pct": 0.25, "max_position_embeddings": 32, **_SPECIAL,
    }),
    "gpt_neox_serial_tied": Definition("gpt_neox", {
        "vocab_size": 29, "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "rotary_pct": 0.4, "rotary_emb_base": 500, "use_parallel_residual": False,
        "tie_word_embeddings": True, "layer_norm_eps": 1e-3, "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": 32, **_SPECIAL,
    }),
    "gpt_neox_no_attention_bias": Definition("gpt_neox", {
        "vocab_size": 30, "hidden_size": 18, "num_hidden_layers": 2, "num_attention_heads": 3,
        "intermediate_size": 20, "rotary_pct": 1.0, "attention_bias": False, "hidden_act": "gelu_new",
        "max_position_embeddings": 32, **_SPECIAL,
    }),
}  # fmt: skip

_LLAMA = {
    "llama_mha": Definition("llama", _sizes(31, 16, 28, 3, 4, 4)),
    "llama_mqa_odd_head_biases_tied": Definition("llama", _sizes(
        29, 16, 20, 2, 3, 1, head_dim=6, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
        rope_theta=500.0, rms_norm_eps=1e-3,
    )),
    "llama_linear_gqa": Definition("llama", _sizes(
        30, 16, 20, 2, 4, 2, head_dim=10, rope_scaling={"rope_type": "linear", "factor": 4.0},
    ), length=20),
    "llama3_gqa_long": Definition("llama", _sizes(
        30, 24, 20, 2, 4, 2, head_dim=12, rope_theta=50.0, rope_scaling=_LLAMA3,
    ), length=40, batch=1),
    "llama3_mqa_tied_long": Definition("llama", _sizes(
        29, 16, 20, 2, 4, 1, rope_theta=5000.0, tie_word_embeddings=True, rms_norm_eps=1e-5,
        rope_scaling={**_LLAMA3, "factor": 32.0, "high_freq_factor": 2.0},
    ), length=36, batch=1),
    "llama_yarn_gqa_long": Definition("llama", _sizes(
        30, 16, 20, 2, 4, 2, head_dim=10, rope_theta=300.0,
        rope_scaling={**_YARN, "beta_fast": 0.5, "beta_slow": 0.1, "attention_factor": 1.25},
    ), length=32, batch=1),
    "mistral_gqa_window": Definition("mistral", _sizes(31, 16, 28, 3, 4, 2, sliding_window=4)),
    "mistral_mqa_odd_head_window_tied": Definition("mistral", _sizes(
        29, 16, 20, 2, 3, 1, head_dim=10, sliding_window=5, tie_word_embeddings=True, rope_theta=1e6,
    ), length=18),
    "mistral_mha_no_window": Definition("mistral", _sizes(
        30, 12, 20, 2, 2, 2, sliding_window=None, rms_norm_eps=1e-3,
    )),
    "mixtral_gqa": Definition("mixtral", _sizes(
        31, 16, 14, 3, 4, 2, num_local_experts=4, num_experts_per_tok=2,
    ), salt=8),
    "mixtral_mha_window_tied": Definition("mixtral", _sizes(
        29, 12, 10, 2, 2, 2, num_local_experts=8, num_experts_per_tok=3, sliding_window=4,
        tie_word_embeddings=True, rope_theta=1e4,
    ), salt=2),
    "mixtral_mqa_odd_head_one_expert": Definition("mixtral", _sizes(
        30, 16, 12, 2, 3, 1, head_dim=6, num_local_experts=3, num_experts_per_tok=1,
    )),
}  # fmt: skip

_QWEN = {
    "qwen2_gqa_tied": Definition("qwen2", _sizes(31, 16, 28, 3, 4, 2, tie_word_embeddings=True)),
    "qwen2_mqa_window": Definition("qwen2", _sizes(
        29, 18, 20, 3, 3, 1, use_sliding_window=True, sliding_window=4, max_window_layers=1,
        rope_theta=1e6,
    )),
    "qwen2_mha_yarn_long": Definition("qwen2", _sizes(
        30, 16, 20, 2, 2, 2, rope_theta=200.0, rope_scaling=_YARN,
    ), length=32, batch=1),
    "qwen3_gqa": Definition("qwen3", _sizes(31, 16, 28, 3, 4, 2, head_dim=10, rope_theta=1e6)),
    "qwen3_mqa_bias_window_tied": Definition("qwen3", _sizes(
        29, 16, 20, 3, 3, 1, head_dim=6, attention_bias=True, use_sliding_window=True, sliding_window=5,
        max_window_layers=2, tie_word_embeddings=True, rms_norm_eps=1e-3,
    )),
    "qwen3_mha_yarn_long": Definition("qwen3", _sizes(
        30, 12, 20, 2, 2, 2, head_dim=8, rope_theta=100.0, rope_scaling=_YARN_FULL,
    ), length=32, batch=1),
    "qwen3_moe_gqa": Definition("qwen3_moe", _sizes(
        31, 16, 24, 3, 4, 2, head_dim=10, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=10,
        norm_topk_prob=True,
    ), salt=3),
    "qwen3_moe_mha_some_dense": Definition("qwen3_moe", _sizes(
        29, 12, 20, 4, 2, 2, head_dim=6, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8,
        decoder_sparse_step=2, mlp_only_layers=[1], attention_bias=True,
    )),
    "qwen3_moe_mqa_window_tied": Definition("qwen3_moe", _sizes(
        30, 16, 20, 2, 3, 1, head_dim=8, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=8,
        use_sliding_window=True, sliding_window=4, tie_word_embeddings=True, rms_norm_eps=1e-3,
    )),
}  # fmt: skip

_GEMMA = {
    "gemma_mha": Definition("gemma", _sizes(31, 16, 28, 3, 2, 2, head_dim=8, pad_token_id=None)),
    "gemma_mqa_odd_head": Definition("gemma", _sizes(
        29, 16, 20, 2, 3, 1, head_dim=10, rope_theta=200.0, rms_norm_eps=1e-3, pad_token_id=None,
    )),
    "gemma_gqa_untied_bias": Definition("gemma", _sizes(
        30, 12, 20, 2, 4, 2, head_dim=6, tie_word_embeddings=False, attention_bias=True, pad_token_id=None,
    )),
    "gemma2_gqa": Definition("gemma2", _sizes(
        31, 16, 28, 3, 4, 2, head_dim=6, query_pre_attn_scalar=3, sliding_window=4,
        attn_logit_softcapping=4.0, final_logit_softcapping=6.0, pad_token_id=None,
    )),
    "gemma2_mqa_no_caps": Definition("gemma2", _sizes(
        29, 12, 20, 2, 2, 1, head_dim=8, query_pre_attn_scalar=8, sliding_window=5,
        layer_types=["full_attention", "sliding_attention"], attn_logit_softcapping=None,
        final_logit_softcapping=None, rope_theta=100.0, pad_token_id=None,
    )),
    "gemma2_mha_untied": Definition("gemma2", _sizes(
        30, 12, 20, 2, 2, 2, head_dim=10, query_pre_attn_scalar=10, sliding_window=3,
        attn_logit_softcapping=2.0, final_logit_softcapping=8.0, tie_word_embeddings=False,
        attention_bias=True, pad_token_id=None,
    )),
    "gemma3_gqa": Definition("gemma3_text", _sizes(
        31, 16, 28, 3, 4, 2, head_dim=6, query_pre_attn_scalar=3, sliding_window=4, rope_theta=1000.0,
        rope_local_base_freq=20.0, sliding_window_pattern=2, pad_token_id=None,
    )),
    "gemma3_mqa_linear_scaling": Definition("gemma3_text", _sizes(
        29, 16, 20, 3, 3, 1, head_dim=10, query_pre_attn_scalar=10, sliding_window=5,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], pad_token_id=None,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    ), length=20, batch=1),
    "gemma3_mha_untied_cap": Definition("gemma3_text", _sizes(
        30, 12, 20, 2, 2, 2, head_dim=8, query_pre_attn_scalar=8, sliding_window=3,
        layer_types=["full_attention", "sliding_attention"], final_logit_softcapping=7.0,
        tie_word_embeddings=False, attention_bias=True, rms_norm_eps=1e-3, pad_token_id=None,
    )),
    "gemma3_multimodal_text": Definition("gemma3", {
        "text_config": _sizes(
            31, 16, 20, 2, 2, 1, head_dim=8, query_pre_attn_scalar=8, sliding_window=4,
            layer_types=["sliding_attention", "full_attention"], pad_token_id=0,
        ),
        "vision_config": {
            "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 8, "patch_size": 4,
        },
        "mm_tokens_per_image": 4, "boi_token_index": 31, "eoi_token_index": 32, "image_token_index": 33,
    }),
}  # fmt: skip

_FACTORS = {"type": "longrope", "short_factor": [1.0, 1.2, 1.5], "long_factor": [1.1, 2.5, 6.0]}
_LONGROPE = _sizes(
    30, 24, 20, 2, 4, 2, rope_scaling=_FACTORS, original_max_position_embeddings=16, pad_token_id=None,
)  # fmt: skip

_OTHERS = {
    "phi3_mha": Definition("phi3", _sizes(31, 16, 28, 3, 4, 4, pad_token_id=None)),
    "phi3_mqa_window_tied": Definition("phi3", _sizes(
        29, 18, 20, 2, 3, 1, sliding_window=4, tie_word_embeddings=True, rms_norm_eps=1e-3, pad_token_id=None,
    )),
    "phi3_gqa_partial": Definition("phi3", _sizes(
        30, 40, 20, 2, 4, 2, partial_rotary_factor=0.6, pad_token_id=None,
    )),
    "phi3_longrope_short": Definition("phi3", _LONGROPE, length=16),
    "phi3_longrope_long": Definition("phi3", _LONGROPE, length=30, batch=1),
    "phi3_longrope_partial_long": Definition("phi3", _sizes(
        29, 32, 20, 2, 4, 2, rope_scaling=_FACTORS, original_max_position_embeddings=12,
        partial_rotary_factor=0.75, sliding_window=7, pad_token_id=None,
    ), length=20, batch=1),
    "olmo2_mha": Definition("olmo2", _sizes(31, 16, 28, 3, 4, 4, pad_token_id=None, rope_theta=5e5)),
    "olmo2_gqa_bias": Definition("olmo2", _sizes(
        29, 24, 20, 2, 4, 2, attention_bias=True, rms_norm_eps=1e-3, pad_token_id=None,
    )),
    "olmo2_mqa_tied_linear": Definition("olmo2", _sizes(
        30, 18, 20, 2, 3, 1, tie_word_embeddings=True, pad_token_id=None, rope_theta=100.0,
        rope_scaling={"type": "linear", "factor": 4.0},
    ), length=24, batch=1),
    "gpt_oss_gqa_long": Definition("gpt_oss", _sizes(
        31, 16, 12, 3, 4, 2, head_dim=8, sliding_window=4, num_local_experts=4, num_experts_per_tok=2,
        rope_theta=150.0, rope_scaling=_YARN_FULL,
    ), length=24, salt=1, scale={"gate_up_proj": 4.0, "down_proj": 0.1}),
    "gpt_oss_mqa_truncated_yarn": Definition("gpt_oss", _sizes(
        29, 16, 10, 2, 3, 1, head_dim=10, sliding_window=5, num_local_experts=6, num_experts_per_tok=3,
        rope_theta=150.0, tie_word_embeddings=True, layer_types=["full_attention", "sliding_attention"],
        rope_scaling={**_YARN, "beta_fast": 32.0, "beta_slow": 1.0},
    ), length=20),
    "gpt_oss_mha_plain_rope": Definition("gpt_oss", _sizes(
        30, 12, 14, 2, 2, 2, head_dim=6, sliding_window=3, num_local_experts=3, num_experts_per_tok=1,
        rope_scaling=None, rms_norm_eps=1e-3,
    )),
}  # fmt: skip


def _latent(q_rank: int | None, kv_rank: int, plain: int, turned: int, value: int) -> dict[str, Any]:
    """The sizes of multi-head latent attention."""
    return {
        "q_lora_rank": q_rank, "kv_lora_rank": kv_rank, "qk_nope_head_dim": plain,
        "qk_rope_head_dim": turned, "v_head_dim": value,
    }  # fmt: skip


def _experts(number: int, chosen: int, shared: int, width: int, dense: int, **more: Any) -> dict[str, Any]:
    """The sizes of DeepSeek's mixture of experts."""
    return {
        "n_routed_experts": number, "num_experts_per_tok": chosen, "n_shared_experts": shared,
        "moe_intermediate_size": width, "first_k_dense_replace": dense, **more,
    }  # fmt: skip


_DEEPSEEK = {
    "deepseek_v2_lite": Definition("deepseek_v2", _sizes(
        31, 16, 24, 3, 2, 2, **_latent(None, 10, 8, 4, 8), **_experts(6, 2, 2, 8, 1),
    )),
    "deepseek_v2_groups": Definition("deepseek_v2", _sizes(
        29, 16, 20, 3, 3, 3, **_latent(12, 8, 6, 6, 10),
        **_experts(8, 3, 1, 6, 1, topk_method="group_limited_greedy", n_group=4, topk_group=2),
        routed_scaling_factor=2.0, rms_norm_eps=1e-3, attention_bias=True,
    ), salt=2),
    "deepseek_v2_yarn_tied_long": Definition("deepseek_v2", _sizes(
        30, 16, 20, 2, 2, 2, **_latent(12, 10, 10, 8, 6), **_experts(4, 2, 1, 8, 0),
        tie_word_embeddings=True, rope_theta=100.0,
        rope_scaling={**_YARN, "beta_fast": 0.5, "beta_slow": 0.1, "mscale": 0.707, "mscale_all_dim": 0.707},
    ), length=32, batch=1, salt=1),
    "deepseek_v3_groups": Definition("deepseek_v3", _sizes(
        31, 16, 24, 3, 2, 2, **_latent(12, 10, 8, 4, 8), **_experts(8, 3, 1, 8, 1, n_group=4, topk_group=2),
    )),
    "deepseek_v3_no_q_rank_tied": Definition("deepseek_v3", _sizes(
        29, 16, 20, 3, 3, 3, **_latent(None, 8, 6, 6, 10), **_experts(6, 2, 2, 6, 2, n_group=1, topk_group=1),
        tie_word_embeddings=True, norm_topk_prob=False, routed_scaling_factor=1.5, rms_norm_eps=1e-3,
        attention_bias=True,
    )),
    "deepseek_v3_yarn_long": Definition("deepseek_v3", _sizes(
        30, 16, 20, 2, 4, 4, **_latent(10, 12, 6, 10, 6), **_experts(6, 2, 1, 8, 0, n_group=2, topk_group=1),
        rope_theta=100.0,
        rope_scaling={**_YARN, "beta_fast": 0.5, "beta_slow": 0.1, "mscale": 1.0, "mscale_all_dim": 1.0},
    ), length=32, batch=1, salt=1),
    "deepseek_v3_yarn_halves_long": Definition("deepseek_v3", _sizes(
        29, 16, 20, 2, 2, 2, **_latent(10, 12, 4, 8, 6), **_experts(4, 2, 1, 6, 1, n_group=2, topk_group=2),
        rope_interleave=False, rope_theta=100.0,
        rope_scaling={**_YARN, "beta_fast": 0.5, "beta_slow": 0.2, "mscale": 0.8, "mscale_all_dim": 0.4},
    ), length=24, batch=1),
}  # fmt: skip

_DYNAMIC_TANH = {
    "dyt_gpt2": Definition("gpt2", {
        "vocab_size": 31, "n_positions": 20, "n_embd": 16, "n_layer": 3, "n_head": 4, **_SPECIAL,
    }, dynamic_tanh=True),
    "dyt_llama_gqa": Definition("llama", _sizes(31, 16, 28, 3, 4, 2), dynamic_tanh=True),
    "dyt_qwen3_mqa_tied": Definition("qwen3", _sizes(
        29, 16, 20, 2, 3, 1, head_dim=10, tie_word_embeddings=True,
    ), dynamic_tanh=True),
    "dyt_olmo2_mha": Definition("olmo2", _sizes(30, 16, 20, 2, 2, 2, pad_token_id=None), dynamic_tanh=True),
}  # fmt: skip

CASES: dict[str, Definition] = {
    **_GPT, **_LLAMA, **_QWEN, **_GEMMA, **_OTHERS, **_DEEPSEEK, **_DYNAMIC_TANH,
}  # fmt: skip
