"""Copies of the reference folders that tests may change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.numpy

from tests.support import ROOT

DATA = ROOT / "tests" / "references" / "data"
SHARDED = "llama_mqa_biases_tied_sharded"


def copied(tmp_path: Path, name: str) -> Path:
    return Path(shutil.copytree(DATA / name, tmp_path / name))


def rewrite(folder: Path, change: Any) -> None:
    """Apply ``change`` to the dict of tensors of an unsharded folder."""
    file = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    result = change(tensors)
    safetensors.numpy.save_file(tensors if result is None else result, file)


def edit_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
