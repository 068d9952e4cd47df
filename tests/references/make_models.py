"""Make `data/<model>/`: tiny random Hugging Face models with logits and activations from PyTorch.

Run in an environment with PyTorch and transformers (see README.md); the library itself needs neither.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Gemma2Config, GPT2Config, LlamaConfig

DATA = Path(__file__).parent / "data"
PROMPTS, LENGTH = 2, 14

CASES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "config": GPT2Config(
            vocab_size=50, n_positions=24, n_embd=16, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=0
        ),
        "seed": 1,
    },
    "gpt2_untied_gelu": {
        "config": GPT2Config(
            vocab_size=37, n_positions=16, n_embd=12, n_layer=2, n_head=2, n_inner=20,
            activation_function="gelu", scale_attn_weights=False, tie_word_embeddings=False,
            layer_norm_epsilon=1e-3, bos_token_id=0, eos_token_id=0,
        ),
        "seed": 2,
    },
    "llama_gqa": {
        "config": LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=28, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5,
            bos_token_id=0, eos_token_id=0,
        ),
        "seed": 3,
    },
    "llama_mqa_biases_tied_sharded": {
        "config": LlamaConfig(
            vocab_size=41, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3,
            num_key_value_heads=1, head_dim=6, max_position_embeddings=32, rms_norm_eps=1e-3,
            rope_theta=500.0, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=0,
        ),
        "seed": 4,
        "dtype": "bfloat16",
        "max_shard_size": "4KB",
    },
    "gemma2": {
        "config": Gemma2Config(
            vocab_size=50, hidden_size=16, intermediate_size=28, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=6, max_position_embeddings=32, query_pre_attn_scalar=3,
            sliding_window=4, attn_logit_softcapping=4.0, final_logit_softcapping=6.0,
            bos_token_id=0, eos_token_id=0, pad_token_id=None,
        ),
        "seed": 5,
    },
    "gemma2_mqa_no_caps": {
        "config": Gemma2Config(
            vocab_size=41, hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=32, query_pre_attn_scalar=8,
            sliding_window=5, layer_types=["full_attention", "sliding_attention"],
            attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=True,
            rope_theta=100.0, bos_token_id=0, eos_token_id=0, pad_token_id=None,
        ),
        "seed": 6,
        "dtype": "float16",
    },
}  # fmt: skip


def randomise(model: torch.nn.Module, seed: int, unit_offset: bool) -> None:
    """Give every parameter values that leave nothing trivial: no gain one, no bias zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        draw = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            norm = "norm" in name or ".ln_" in name
            draw = 0.3 * draw + (1.0 if norm and name.endswith("weight") and not unit_offset else 0.0)
        elif "embed" in name or "wte" in name or "wpe" in name:
            draw = 0.5 * draw
        else:
            draw = 1.3 * draw * min(parameter.shape) ** -0.5
        parameter.data.copy_(draw)


def run(model: torch.nn.Module, tokens: torch.Tensor) -> dict[str, np.ndarray]:
    """Logits and activations of one forward pass."""
    kept: dict[str, list[torch.Tensor]] = {"resid_pre": [], "resid_post": [], "mlp_out": []}

    def keep(name: str, value: Any) -> None:
        kept[name].append((value[0] if isinstance(value, tuple) else value).detach().clone())

    base = model.base_model
    for layer in base.h if hasattr(base, "h") else base.layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: keep("resid_pre", args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        layer.register_forward_hook(lambda _, __, out: keep("resid_post", out))
        last = getattr(layer, "post_feedforward_layernorm", layer.mlp)
        last.register_forward_hook(lambda _, __, out: keep("mlp_out", out))
    with torch.no_grad():
        out = model(tokens, output_attentions=True, output_hidden_states=True, use_cache=False)
    arrays = {name: torch.stack(values).numpy() for name, values in kept.items()}
    return {
        "tokens": tokens.numpy().astype(np.int32),
        "logits": out.logits.numpy(),
        "pattern": torch.stack(out.attentions).numpy(),
        "final_norm": out.hidden_states[-1].numpy(),
        **arrays,
    }


def main() -> None:
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "attention": "eager",
        "models": {},
    }
    for name, case in CASES.items():
        config, seed = case["config"], case["seed"]
        dtype = getattr(torch, case.get("dtype", "float32"))
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        randomise(model, seed, unit_offset=config.model_type == "gemma2")
        model.tie_weights()
        # Rounded as they are stored, computed with in float32. Casting the module itself would also round
        # the rotary frequencies, which are no weights.
        for parameter in model.parameters():
            parameter.data.copy_(parameter.data.to(dtype))
        folder = DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        copy.deepcopy(model).to(dtype).save_pretrained(
            folder, max_shard_size=case.get("max_shard_size", "1GB")
        )
        (folder / "generation_config.json").unlink(missing_ok=True)
        generator = torch.Generator().manual_seed(100 + seed)
        tokens = torch.randint(0, config.vocab_size, (PROMPTS, LENGTH), generator=generator)
        arrays = run(model, tokens)
        np.savez_compressed(folder / "reference.npz", **arrays)
        record["models"][name] = {
            "seed": seed,
            "stored": case.get("dtype", "float32"),
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        print(name, {k: v.shape for k, v in arrays.items()}, "std of logits", arrays["logits"].std())
    (DATA / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
