"""Quantised checkpoints: which are understood, and what their tensors say, one at a time.

Two forms are read. Block-wise fp8 (DeepSeek-V3 and R1, Qwen's FP8 models): a matrix of float8_e4m3fn and, as
``NAME_scale_inv``, a factor for each block of it; an entry is its code times the factor of its block. MXFP4 (GPT-OSS;
OCP Microscaling Formats 1.0): ``NAME_blocks`` holds two 4-bit floats a byte, ``NAME_scales`` a power of two for every
32 of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.checkpoints.dequantise import fp8, mxfp4
from jaxinterp.checkpoints.tensors import TensorFile
from jaxinterp.core.errors import InputError, near

STORED = ("F16", "BF16", "F32")
READ = f"{', '.join(STORED)}, fp8 in blocks with weight_scale_inv (quant_method fp8), and mxfp4 of gpt_oss models"
UNSAID = "which the config's quantization_config would have to explain"
_SCALE, _BLOCKS, _SCALES = "_scale_inv", "_blocks", "_scales"
# Factors of fp8 blocks: float32 of DeepSeek, bfloat16 of Qwen.
_FACTORS = ("F32", "BF16")
_FIELDS = {
    "fp8": ("quant_method", "fmt", "scale_fmt", "activation_scheme", "weight_block_size", "modules_to_not_convert"),
    "mxfp4": ("quant_method", "modules_to_not_convert"),
}  # fmt: skip
# Field → values that say nothing about what the stored numbers are. Activations stay in the dtype that was asked for.
_FIXED: dict[str, tuple[Any, ...]] = {
    "fmt": ("e4m3", None), "scale_fmt": ("ue8m0", None), "activation_scheme": ("dynamic", None),
}  # fmt: skip
# How a tensor's name ends → what wrote it.
_SIGNS = {
    r"\.qweight|\.qzeros": "GPTQ or AWQ",
    r"\.g_idx": "GPTQ",
    r"\.absmax|\.quant_map|\.nested_\w+|\.quant_state\.\w+|\.SCB": "bitsandbytes",
    r"\.weight_packed|\.weight_shape|\.weight_zero_point|\.weight_global_scale": "compressed-tensors",
    r"\.weight_scale|\.weight_scale_2|\.input_scale": "compressed-tensors, ModelOpt or FBGEMM",
    r"_scale_inv": "fp8 in blocks",
    r"_blocks|_scales": "mxfp4",
}


class Quantisation(NamedTuple):
    """What a config says about quantisation.

    Attributes:
      method: "fp8" or "mxfp4".
      block: rows and columns of a block (fp8).
      kept: modules that are not quantised; ``*`` stands for any text.
    """

    method: str
    block: tuple[int, int]
    kept: tuple[str, ...]

    def lists(self, tensor: str) -> bool:
        """Whether ``tensor`` is of a module that is listed as not quantised."""
        return _listed(self.kept).match(tensor) is not None


@functools.cache
def _listed(kept: tuple[str, ...]) -> re.Pattern[str]:
    names = "|".join(".*".join(map(re.escape, name.split("*"))) for name in kept)
    return re.compile(rf"({names})(\.|$)" if kept else r"(?!)")


def read_quantisation(content: Any, family: str, where: str) -> Quantisation | None:
    """The field ``quantization_config`` of a config; None where the model is not quantised.

    Args:
      family: the ``model_type``.
      where: of the config, for messages.

    Raises:
      InputError: a method that is not read, or a field or value that is not understood.
    """
    if content is None:
        return None
    place = f"{where}: quantization_config"
    if not isinstance(content, dict):
        raise InputError(f"{place} is {content!r}, expected null or fields and values")
    method = content.get("quant_method")
    if method is None:
        fields = ", ".join(sorted(map(str, content))) or "nothing"
        raise InputError(f"{place} names no quant_method, it has {fields}; read are {READ}")
    if not isinstance(method, str) or method not in _FIELDS:
        raise InputError(f"{place}: the quant_method {method!r} is not supported; read are {READ}")
    if method == "mxfp4" and family != "gpt_oss":
        raise InputError(
            f"{place}: the quant_method mxfp4 of a {family} model is not supported; read are {READ}"
        )
    for name, value in content.items():
        if name not in _FIELDS[method]:
            raise InputError(
                f"{place}: unknown field {name!r} = {value!r} of {method}{near(name, _FIELDS[method])}"
            )
        if name in _FIXED and value not in _FIXED[name]:
            raise InputError(f"{place}: {name} is {value!r}, supported is {_FIXED[name][0]!r}")
    kept = content.get("modules_to_not_convert")
    kept = [] if kept is None else kept
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        raise InputError(f"{place}: modules_to_not_convert is {kept!r}, expected a list of names")
    return Quantisation(method, _block(content, place) if method == "fp8" else (1, 32), tuple(kept))


def _block(content: Mapping[str, Any], place: str) -> tuple[int, int]:
    block = content.get("weight_block_size")
    if isinstance(block, list) and len(block) == 2:
        rows, columns = block
        if all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in block):
            return rows, columns
    raise InputError(
        f"{place}: weight_block_size is {block!r}, expected rows and columns of a block; fp8 with one scale for "
        f"a tensor or a row is not supported"
    )


class Source(NamedTuple):
    """A tensor of a model, however it is stored.

    Attributes:
      path: the file it is in.
      stored: what to call it in a message, with its dtype.
      shape: of the numbers.
      dtype: the header's, or the quantisation method.
      read: (index on the first axis or ``...``, dtype) → numbers: those that are stored, or, if quantised, what they
        stand for, already in that dtype. Nothing else of the tensor is held.
    """

    path: Path
    stored: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[Any, np.dtype], np.ndarray]

    @property
    def where(self) -> str:
        """File and tensor, for messages."""
        return f"{self.path}: the tensor {self.stored}"


def sources(files: Mapping[str, TensorFile], quantisation: Quantisation | None) -> dict[str, Source]:
    """Every tensor under the name that its family's table has.

    Args:
      files: name in the files → its file.

    Raises:
      InputError: a tensor without its scales or the other way round, or scales of another shape or dtype.
    """
    if quantisation is None:
        return {name: _plain(file, name) for name, file in files.items()}
    find = _fp8 if quantisation.method == "fp8" else _mxfp4
    found = ((name, find(files, name, quantisation)) for name in files)
    return {
        (name.removesuffix(_BLOCKS) if source.dtype == "mxfp4" else name): source
        for name, source in found
        if source is not None
    }


def sign(name: str) -> str | None:
    """Which way of quantising a tensor's name points to, None for an ordinary name."""
    return next((what for end, what in _SIGNS.items() if re.search(rf"({end})$", name)), None)


def _plain(file: TensorFile, name: str) -> Source:
    entry = file.entries[name]

    def read(index: Any, dtype: np.dtype) -> np.ndarray:
        del dtype
        return file.read(name, index)

    return Source(file.path, repr(name), entry.shape, entry.dtype, read)


def _fp8(files: Mapping[str, TensorFile], name: str, quantisation: Quantisation) -> Source | None:
    """``name`` as a source; None for factors, which belong to another tensor."""
    file = files[name]
    entry = file.entries[name]
    if name.endswith(_SCALE):
        weight = name.removesuffix(_SCALE)
        if weight not in files:
            raise InputError(
                f"{file.path}: the tensor {name!r} has no {weight!r} to scale{near(weight, files)}"
            )
        found = files[weight].entries[weight].dtype
        if found != "F8_E4M3":
            raise InputError(
                f"{files[weight].path}: the tensor {weight!r} has dtype {found}, but {name!r} has factors for its "
                f"blocks, expected F8_E4M3"
            )
        return None
    if entry.dtype != "F8_E4M3":
        return _plain(file, name)
    here = f"{file.path}: the tensor {name!r} of dtype F8_E4M3"
    if quantisation.lists(name):
        raise InputError(f"{here} is listed in modules_to_not_convert, expected one of {', '.join(STORED)}")
    if len(entry.shape) != 2:
        raise InputError(f"{here} has shape {entry.shape}, blocks are of matrices")
    factors = name + _SCALE
    if factors not in files:
        raise InputError(f"{here} and shape {entry.shape} has no {factors!r} with the factors of its blocks")
    beside = files[factors].entries[factors]
    block = quantisation.block
    expected = tuple(-(-size // step) for size, step in zip(entry.shape, block, strict=True))
    there = f"{files[factors].path}: the tensor {factors!r}"
    if beside.shape != expected:
        raise InputError(
            f"{there} has shape {beside.shape}, expected {expected} for {name!r} of shape {entry.shape} in blocks "
            f"of {block}"
        )
    if beside.dtype not in _FACTORS:
        raise InputError(f"{there} has dtype {beside.dtype}, expected {' or '.join(_FACTORS)}")

    def read(index: Any, dtype: np.dtype) -> np.ndarray:
        assert index is ...
        scales = files[factors].read(factors).astype(np.float32)
        return fp8(file.read_codes(name), scales, block, dtype, f"{file.path}: the tensor {name!r}")

    return Source(file.path, repr(name), entry.shape, "fp8", read)


def _mxfp4(files: Mapping[str, TensorFile], name: str, quantisation: Quantisation) -> Source | None:
    """``name`` as a source; None for scales, which belong to another tensor."""
    file = files[name]
    for end, other in ((_BLOCKS, _SCALES), (_SCALES, _BLOCKS)):
        if name.endswith(end) and name.removesuffix(end) + other not in files:
            absent = name.removesuffix(end) + other
            raise InputError(
                f"{file.path}: the tensor {name!r} has no {absent!r} beside it{near(absent, files)}"
            )
    if name.endswith(_SCALES):
        return None
    if not name.endswith(_BLOCKS):
        return _plain(file, name)
    whole = name.removesuffix(_BLOCKS)
    scales = whole + _SCALES
    entry, beside = file.entries[name], files[scales].entries[scales]
    if quantisation.lists(whole):
        raise InputError(f"{file.path}: the tensor {name!r} is listed in modules_to_not_convert")
    for which, found in ((name, entry), (scales, beside)):
        if found.dtype != "U8":
            raise InputError(
                f"{files[which].path}: the tensor {which!r} has dtype {found.dtype}, expected U8"
            )
    if len(entry.shape) != 4 or entry.shape[3] != 16:
        raise InputError(
            f"{file.path}: the tensor {name!r} has shape {entry.shape}, expected (experts, rows, blocks, 16)"
        )
    if beside.shape != entry.shape[:3]:
        raise InputError(
            f"{files[scales].path}: the tensor {scales!r} has shape {beside.shape}, expected {entry.shape[:3]} for "
            f"{name!r} of shape {entry.shape}"
        )
    experts, rows, groups, _ = entry.shape

    def read(index: Any, dtype: np.dtype) -> np.ndarray:
        where = f"{file.path}: the tensor {name!r}"
        codes, powers = file.read_codes(name, index), files[scales].read_codes(scales, index)
        return np.swapaxes(mxfp4(codes, powers, dtype, where), -1, -2)

    return Source(file.path, f"{name!r} of shape {entry.shape}", (experts, 32 * groups, rows), "mxfp4", read)
