"""What `make_families` needs to know about the PyTorch models."""

from __future__ import annotations

import math

import torch


class DynamicTanh(torch.nn.Module):
    """``weight * tanh(alpha x) + bias`` with one alpha (Zhu et al. 2025)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.ones(1))
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * torch.tanh(self.alpha * x) + self.bias


def replace_norms(model: torch.nn.Module) -> None:
    """Put a Dynamic Tanh in the place of every norm."""
    norms = [name for name, part in model.named_modules() if type(part).__name__.endswith("Norm")]
    assert norms
    for name in norms:
        parent, _, leaf = name.rpartition(".")
        width = model.get_submodule(name).weight.shape[0]
        setattr(model.get_submodule(parent), leaf, DynamicTanh(width))


def correct(model: torch.nn.Module) -> None:
    """Mend what transformers 4.57 is known to get wrong.

    Its DeepSeek-V2 leaves out the factor of YaRN on attention scores (``mscale_all_dim``), which the
    authors' code, later versions of transformers (pull request 47435) and its own DeepSeek-V3 have.
    """
    scaling = model.config.rope_scaling if model.config.model_type == "deepseek_v2" else None
    if scaling and scaling.get("mscale_all_dim"):
        factor = 1.0 + 0.1 * scaling["mscale_all_dim"] * math.log(scaling["factor"])
        for layer in model.model.layers:
            layer.self_attn.scaling = layer.self_attn.qk_head_dim**-0.5 * factor**2


def layers_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The decoder layers, first to last."""
    if model.config.model_type == "gemma3":
        return list(model.model.language_model.layers)
    base = getattr(model, "model", model.base_model)
    return list(base.h if hasattr(base, "h") else base.layers)
