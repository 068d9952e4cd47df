"""The stored cases: config and outputs from files, weights from their seed.

A test of a decoder does

    case = stored.case("qwen3_gqa")
    folder = stored.write_folder(case, tmp_path / case.name)     # config.json and model.safetensors
    reference = case.reference()                                 # tokens, logits, residuals
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from tests.references import seeded

FAMILIES = Path(__file__).parent / "families"


@dataclass(frozen=True)
class Case:
    """One tiny random model and what `transformers` computes on it.

    Attributes:
      name: its folder under `families/`.
      family: ``model_type`` of its config.
      seed, gain, scale: arguments of `seeded.tensors`.
      shapes: name and shape of each tensor, as `transformers` saves the model.
      digest: `seeded.digest` of the tensors that the stored outputs belong to.
      dynamic_tanh: every norm is a Dynamic Tanh, of which config.json, a plain one of the family, says
        nothing.
      root: the folder of all cases.
    """

    name: str
    family: str
    seed: int
    gain: float
    scale: dict[str, float]
    shapes: dict[str, tuple[int, ...]]
    digest: str
    dynamic_tanh: bool = False
    root: Path = FAMILIES

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return json.loads((self.folder / "config.json").read_text())

    def tensors(self) -> dict[str, np.ndarray]:
        """The weights, float32, under their Hugging Face names."""
        return seeded.tensors(self.seed, self.shapes, self.gain, self.scale)

    def reference(self) -> dict[str, np.ndarray]:
        """tokens (B, T) int32, logits (B, T, V) and residuals (L + 1, B, T, D) float32."""
        with np.load(self.folder / "reference.npz") as file:
            return dict(file)


def names(family: str | None = None, dynamic_tanh: bool = False) -> tuple[str, ...]:
    """The names of all cases, or of those of a family; those with norms, or those with Dynamic Tanh."""
    every = (case(path.parent.name) for path in sorted(FAMILIES.glob("*/case.json")))
    return tuple(
        each.name for each in every if each.dynamic_tanh == dynamic_tanh and family in (None, each.family)
    )


@functools.cache
def case(name: str, root: Path = FAMILIES) -> Case:
    """The case of that name."""
    content = json.loads((root / name / "case.json").read_text())
    shapes = {key: tuple(shape) for key, shape in content.pop("tensors").items()}
    return Case(name=name, shapes=shapes, root=root, **content)


def write_folder(which: Case | str, path: Path) -> Path:
    """Write the case as a Hugging Face folder (config.json, model.safetensors in float32); its path."""
    which = case(which) if isinstance(which, str) else which
    path.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(which.folder / "config.json", path / "config.json")
    safetensors.numpy.save_file(which.tensors(), path / "model.safetensors", metadata={"format": "pt"})
    return path
