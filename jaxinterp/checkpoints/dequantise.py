"""Numbers out of the codes of quantised checkpoints."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from jaxinterp.checkpoints import placing
from jaxinterp.core.errors import InputError

# Code → number. The bits of float8_e4m3fn are those that ml_dtypes has.
_E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def fp8(
    codes: np.ndarray, scales: np.ndarray, block: tuple[int, int], dtype: np.dtype, where: str
) -> np.ndarray:
    """What a matrix in fp8 says: every code times the factor of its block (DeepSeek-V3, README_WEIGHTS).

    Products are rounded to float32 and then to ``dtype``, as in the authors' conversion. Besides ``codes`` and the
    result, no more than a row of blocks is held.

    Args:
      codes: (rows, columns), uint8, the bits of float8_e4m3fn.
      scales: (ceil(rows / block rows), ceil(columns / block columns)), float32; the last blocks may be smaller.

    Raises:
      InputError: a NaN, an infinity, or a number too large for ``dtype``.
    """
    (rows, columns), (high, wide) = codes.shape, block
    out = np.empty(codes.shape, dtype)
    for band, first in enumerate(range(0, rows, high)):
        numbers = _E4M3.take(codes[first : first + high], mode="clip")
        with np.errstate(over="ignore", invalid="ignore"):
            numbers *= np.repeat(scales[band], wide)[None, :columns]
        out[first : first + high] = placing.cast(numbers, dtype, where)
    return out


def mxfp4(blocks: np.ndarray, scales: np.ndarray, where: str) -> np.ndarray:
    """What a tensor in MXFP4 says, float32: exact, as every number is a 4-bit float times a power of two.

    Args:
      blocks: (..., blocks, 16), uint8: two codes of E2M1 a byte, the lower half of the byte first.
      scales: (..., blocks), uint8: the exponent of two plus 127 (E8M0).

    Returns:
      (..., 32 * blocks). bfloat16 holds each exactly too, for its exponents are those of float32.

    Raises:
      InputError: the scale 255, which stands for no number.
    """
    if (scales == 255).any():
        raise InputError(f"{where} holds numbers that are not finite: a scale is 255")
    numbers = np.empty((*blocks.shape, 2), np.float32)
    _E2M1.take(blocks & 15, out=numbers[..., 0], mode="clip")
    _E2M1.take(blocks >> 4, out=numbers[..., 1], mode="clip")
    with np.errstate(over="ignore"):
        numbers *= np.ldexp(np.float32(1), scales.astype(np.int32) - 127)[..., None, None]
    return numbers.reshape(*scales.shape[:-1], -1)
