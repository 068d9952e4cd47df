"""Numbers out of the codes of quantised checkpoints."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from jaxinterp.checkpoints import placing
from jaxinterp.core.errors import InputError

# Code → number. The bits of float8_e4m3fn are those that ml_dtypes has.
_E4M3 = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
# Codes looked up at once: their places in a table take eight bytes each.
_AT_ONCE = 1 << 15


def fp8(
    codes: np.ndarray, scales: np.ndarray, block: tuple[int, int], dtype: np.dtype, where: str
) -> np.ndarray:
    """What a matrix in fp8 says: every code times the factor of its block (DeepSeek-V3, README_WEIGHTS).

    Products are rounded to float32 and then to ``dtype``, as in the authors' conversion.

    Args:
      codes: (rows, columns), uint8, the bits of float8_e4m3fn.
      scales: (ceil(rows / block rows), ceil(columns / block columns)), float32; the last blocks may be smaller.

    Raises:
      InputError: a NaN, an infinity, or a number too large for ``dtype``.
    """
    (rows, columns), (high, wide) = codes.shape, block
    out = np.empty(codes.shape, dtype)
    for band, first in enumerate(range(0, rows, high)):
        factors = np.repeat(scales[band], wide)[None, :columns]
        last = min(first + high, rows)
        for some in _pieces(first, last, columns):
            numbers = _E4M3.take(codes[some], mode="clip")
            with np.errstate(over="ignore", invalid="ignore"):
                numbers *= factors
            out[some] = placing.cast(numbers, dtype, where)
    return out


def mxfp4(blocks: np.ndarray, scales: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray:
    """What a tensor in MXFP4 says: 4-bit floats times powers of two (OCP Microscaling Formats 1.0, sections 5 and 6).

    Every such number is exactly one of float32, and of bfloat16, whose exponents are the same.

    Args:
      blocks: (..., blocks, 16), uint8: two codes of E2M1 a byte, the lower half of the byte first.
      scales: (..., blocks), uint8: the exponent of two plus 127 (E8M0).

    Returns:
      (..., 32 * blocks).

    Raises:
      InputError: the scale 255, which stands for no number, or a number too large for ``dtype``.
    """
    if (scales == 255).any():
        raise InputError(f"{where} holds numbers that are not finite: a scale is 255")
    shape = (*scales.shape[:-1], 32 * scales.shape[-1])
    blocks, scales = blocks.reshape(-1, 16), scales.reshape(-1)
    out = np.empty((len(scales), 16, 2), dtype)
    for some in _pieces(0, len(scales), 32):
        powers = np.ldexp(np.float32(1), scales[some].astype(np.int32) - 127)[:, None]
        for half, codes in enumerate((blocks[some] & 15, blocks[some] >> 4)):
            numbers = _E2M1.take(codes, mode="clip")
            with np.errstate(over="ignore"):
                numbers *= powers
            out[some, :, half] = placing.cast(numbers, dtype, where)
    return out.reshape(shape)


def _pieces(first: int, last: int, width: int) -> list[slice]:
    """Rows from ``first`` to ``last`` in pieces of not too many codes."""
    step = max(1, _AT_ONCE // max(width, 1))
    return [slice(start, min(start + step, last)) for start in range(first, last, step)]
