"""Tiny models stored in fp8 or MXFP4, and what their numbers are, worked out here in another way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from jaxinterp.checkpoints import load_model
from jaxinterp.core.errors import InputError
from tests.references import quantised_cases, stored
from tests.references.quantised_cases import Stored

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
Change = Callable[[Stored], Any]


def e4m3(code: int) -> float:
    """A code of float8_e4m3fn by its definition: sign, four bits of exponent with bias 7, three of mantissa."""
    sign, exponent, mantissa = -1.0 if code & 128 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    if exponent == 0:
        return sign * mantissa / 8 * 2.0**-6
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def encode(matrix: np.ndarray, block: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A float32 matrix as fp8 codes (uint8) and the factor of each block."""
    high, wide = block
    grid = tuple(-(-n // step) for n, step in zip(matrix.shape, block, strict=True))
    codes, factors = np.empty(matrix.shape, np.uint8), np.empty(grid, np.float32)
    for i, j in np.ndindex(grid):
        part = (slice(i * high, (i + 1) * high), slice(j * wide, (j + 1) * wide))
        factors[i, j] = np.abs(matrix[part]).max() / 448 or 1.0
        codes[part] = (matrix[part] / factors[i, j]).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return codes, factors


def decode(codes: np.ndarray, factors: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Entry by entry: the code's number times the factor of the block it lies in, rounded to float32 once."""
    out = np.empty(codes.shape, np.float32)
    for i, j in np.ndindex(codes.shape):
        out[i, j] = np.float32(e4m3(int(codes[i, j])) * float(factors[i // block[0], j // block[1]]))
    return out


def fp8_case(
    folder: Path, name: str, block: tuple[int, int] = (5, 8), change: Change | None = None, **config: Any
) -> dict[str, np.ndarray]:
    """Write the reference case ``name`` with its projections in fp8; returns the numbers that the folder holds.

    Args:
      change: of the tensors before they are written.
      config: further fields of the config.
    """
    case = stored.case(name)
    tensors: Stored = {}
    numbers: dict[str, np.ndarray] = {}
    for key, array in case.tensors().items():
        if array.ndim == 2 and key.endswith("_proj.weight"):
            codes, factors = encode(array, block)
            tensors |= {key: ("F8_E4M3", codes), f"{key}_scale_inv": ("F32", factors)}
            numbers[key] = decode(codes, factors, block)
        else:
            tensors[key], numbers[key] = ("F32", array), array
    quantisation = {"quantization_config": {**FP8, "weight_block_size": list(block)}}
    write(folder, {**case.config, **quantisation, **config}, tensors, change)
    return numbers


def gpt_oss(folder: Path, change: Change | None = None, **config: Any) -> Path:
    """Write the tiny GPT-OSS with MXFP4 experts."""
    return write(folder, {**quantised_cases.GPT_OSS, **config}, quantised_cases.gpt_oss_tensors(), change)


def write(folder: Path, config: dict[str, Any], tensors: Stored, change: Change | None = None) -> Path:
    """Write a folder, ``change`` applied to its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    result = change(tensors) if change else None
    quantised_cases.write_safetensors(folder / "model.safetensors", tensors if result is None else result)
    return folder


def refused(folder: Path, *words: str) -> None:
    """Loading raises an InputError of one line with the folder's name and every one of ``words``."""
    with pytest.raises(InputError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"
