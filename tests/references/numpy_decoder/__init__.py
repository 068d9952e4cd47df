"""Forward passes of every supported family in plain NumPy float64, one sequence at a time.

Written from the papers and the definitions of the models, with loops where they read better, to be compared
with: nothing here is shared with the library. The keys of configs and the names of tensors are those of
Hugging Face folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.references.numpy_decoder import deepseek, gpt, llama
from tests.references.numpy_decoder.parts import Weights

_FAMILIES = {
    "gpt2": gpt.gpt2,
    "gpt_neox": gpt.gpt_neox,
    "llama": llama.llama,
    "mistral": llama.mistral,
    "mixtral": llama.mixtral,
    "qwen2": llama.qwen2,
    "qwen3": llama.qwen3,
    "qwen3_moe": llama.qwen3_moe,
    "gemma": llama.gemma,
    "gemma2": llama.gemma2,
    "gemma3_text": llama.gemma3,
    "gemma3": llama.gemma3_multimodal,
    "phi3": llama.phi3,
    "olmo2": llama.olmo2,
    "gpt_oss": llama.gpt_oss,
    "deepseek_v2": deepseek.deepseek_v2,
    "deepseek_v3": deepseek.deepseek_v3,
}


class Output(NamedTuple):
    """What a pass computes, float64.

    Attributes:
      logits: (B, T, V), after any final softcap.
      residuals: (L + 1, B, T, D), before each layer and after the last (before the final norm).
      router_margin: smallest distance, over all tokens and layers, between the score of an expert (or group
        of experts) that is chosen and one that is not; infinite without routers. Where it is tiny, rounding
        may change the choice.
    """

    logits: np.ndarray
    residuals: np.ndarray
    router_margin: float


def forward(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], tokens: np.ndarray) -> Output:
    """Run a decoder.

    Args:
      config: the content of config.json; ``model_type`` says the family.
      tensors: the weights under their Hugging Face names. Where a norm has a tensor ``<norm>.alpha`` it is a
        Dynamic Tanh: ``gamma * tanh(alpha x) + beta`` with gamma ``<norm>.weight``, beta ``<norm>.bias``.
      tokens: (B, T) token ids.
    """
    weights = Weights(tensors)
    passes = [_FAMILIES[config["model_type"]](config, weights, np.asarray(row)) for row in tokens]
    return Output(
        logits=np.stack([logits for logits, _ in passes]),
        residuals=np.stack([np.stack(stream) for _, stream in passes], axis=1),
        router_margin=weights.router_margin,
    )
