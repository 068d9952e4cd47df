"""Any family with Dynamic Tanh in place of its norms, as the public code of Zhu et al. 2025 stores it.

That code (arXiv 2503.10622) puts a module with ``weight``, ``bias`` and ``alpha`` in the place of every norm of an
ordinary model. The config says nothing about it: the tensors do.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxinterp.checkpoints.families.base import Tensor
from jaxinterp.models.config import ModelConfig

_INSIDE_ATTENTION = ("layers.q_norm", "layers.k_norm", "layers.kv_norm")


def stored_in(names: Iterable[str]) -> bool:
    """Whether a folder's tensors are those of a model with Dynamic Tanh."""
    return any(name.endswith("norm.alpha") or (".ln_" in name and name.endswith(".alpha")) for name in names)


def config(config: ModelConfig) -> ModelConfig:
    """The config with Dynamic Tanh; its gain is stored as it is, whatever that of the family's norms."""
    return config.replace(norm="tanh", norm_unit_offset=False)


def tensors(entries: list[Tensor]) -> list[Tensor]:
    """A family's table with the biases and alphas that its norms have not."""
    known = {entry.ours for entry in entries}
    found = list(entries)
    for entry in entries:
        inside = entry.ours in _INSIDE_ATTENTION
        if not inside and not entry.ours.endswith("norm.scale"):
            continue
        ours = f"{entry.ours}_" if inside else entry.ours.removesuffix("scale")
        stored = entry.stored.removesuffix("weight")
        if f"{ours}bias" not in known:
            found.append(entry._replace(ours=f"{ours}bias", stored=f"{stored}bias"))
        found.append(Tensor(f"{ours}alpha", f"{stored}alpha", "o -> o", part=0))
    return found
