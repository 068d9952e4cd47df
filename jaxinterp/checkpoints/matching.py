"""The tensors of a folder against those that a family asks for: every one exactly once, then read one at a time."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxinterp.checkpoints import placing, quantised, rearrange
from jaxinterp.checkpoints.families.base import Family, Tensor
from jaxinterp.checkpoints.placing import Place, Spans
from jaxinterp.checkpoints.quantised import Source
from jaxinterp.core.errors import InputError, near
from jaxinterp.models.config import ModelConfig


class Leaf(NamedTuple):
    """One of our arrays, before any of it is read.

    Attributes:
      shape: of the whole array.
      places: where in it the parts belong that are read one at a time: numbers on its leading axes, ``()`` for all.
      read: place → what stands there, in the dtype that was asked for; with spans (start and stop along each of its
        axes) only that part of it.
    """

    shape: tuple[int, ...]
    places: tuple[Place, ...]
    read: placing.Read


def match(
    family: Family,
    config: ModelConfig,
    entries: list[Tensor],
    found: Mapping[str, Source],
    sizes: Mapping[str, int],
    folder: Path,
    left_out: Collection[str] = (),
) -> dict[str, Source]:
    """Expected name → what holds it, every one exactly once and of the right shape.

    Args:
      entries: the family's table.
      found: name in the files → tensor.
      sizes: the size behind each letter of the table's patterns.
      left_out: names of tensors that the model's config announces and that are no part of the decoder.

    Raises:
      InputError: naming the file, the tensor, and what was expected and found.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for entry in entries:
        shape = rearrange.stored_shape(entry.pattern, sizes)
        shape = shape if entry.rows is None else (entry.rows[2], *shape[1:])
        expected |= dict.fromkeys(entry.names(config).values(), shape)
    prefixed = any(name.startswith(family.prefix) for name in found)
    names: dict[str, str] = {}
    for name in found:
        bare = family.prefix if family.prefix and not prefixed and name != family.head else ""
        renamed = family.rename(name) if family.rename else bare + name
        if renamed is not None:
            names[renamed] = name
    for name, inside in names.items():
        source = found[inside]
        if name in expected:
            _check(source, expected[name])
            continue
        buffer = any(re.fullmatch(pattern, name) for pattern in family.buffers)
        if not (buffer or name in left_out or (config.tied and name == family.head)):
            what = quantised.sign(inside)
            hint = near(name, expected)
            if what is not None:
                hint = f", as in models quantised by {what}, {quantised.UNSAID}; read are {quantised.READ}"
            raise InputError(f"{source.path}: unexpected tensor {inside!r}{hint}")
    for name, shape in expected.items():
        if name not in names:
            raise InputError(f"{folder}: the tensor {name!r} of shape {shape} is missing{near(name, names)}")
    return {name: found[inside] for name, inside in names.items()}


def _check(source: Source, expected: tuple[int, ...]) -> None:
    if source.dtype not in (*quantised.STORED, "fp8", "mxfp4"):
        code = source.dtype in ("U8", "I8", "U32", "I32") or source.dtype.startswith("F8_")
        why = f", {quantised.UNSAID}" if code else ""
        raise InputError(f"{source.where} has dtype {source.dtype}{why}; read are {quantised.READ}")
    if source.shape != expected:
        stands = " stands for numbers of" if source.dtype == "mxfp4" else " has"
        raise InputError(f"{source.where}{stands} shape {source.shape}, the config asks for {expected}")


def leaf(
    entry: Tensor,
    shape: tuple[int, ...],
    config: ModelConfig,
    stored: Mapping[str, Source],
    sizes: Mapping[str, int],
    dtype: np.dtype,
) -> Leaf:
    """How one of our arrays is read.

    Experts that lie in one tensor are read one by one, so no more than one expert's part of it is held.

    Args:
      entry: of the family's table.
      shape: of our array.
      stored: as `match` returns it.
      sizes: the size behind each letter of the pattern.
    """
    places: dict[Place, tuple[Source, int | None]] = {
        place: (stored[name], None) for place, name in entry.names(config).items()
    }
    pattern = rearrange.parse(entry.pattern)
    ours = pattern.ours[1:] if isinstance(entry.part, int) else pattern.ours
    text = entry.pattern
    if pattern.stored[0] == ("x",) and ours[:1] == ("x",) and entry.part in (None, 0, 1):
        text = rearrange.without(entry.pattern, "x")
        places = {
            (*place, expert): (source, expert)
            for place, (source, _) in places.items()
            for expert in range(sizes["x"])
        }

    def read(place: Place, spans: Spans | None = None) -> np.ndarray:
        source, index = places[place]
        plain = source.dtype in quantised.STORED and entry.rows is None and index is None
        if spans is not None and plain:
            return placing.cast(_part(source, entry, text, spans, sizes, dtype), dtype, source.where)
        array = source.read(... if index is None else index, dtype)
        array = array if entry.rows is None else array[entry.rows[0] : entry.rows[1]]
        array = rearrange.to_ours(array, text, sizes)
        array = array if entry.part is None else array[entry.part]
        array = array if spans is None else array[tuple(slice(*span) for span in spans)]
        return placing.cast(array, dtype, source.where)

    return Leaf(shape, tuple(places), read)


def _part(
    source: Source, entry: Tensor, text: str, spans: Spans, sizes: Mapping[str, int], dtype: np.dtype
) -> np.ndarray:
    """A part of what an entry makes of its stored tensor, of which no more is read than its order there asks for."""
    part = entry.part
    if isinstance(part, int):
        spans = [(part, part + 1), *spans]
    elif part is not None:
        (start, stop), *rest = spans
        first = part.start or 0
        spans = [(first + start, first + stop), *rest]
    box = rearrange.box(text, spans, sizes)
    array = rearrange.to_ours(source.read(box.stored, dtype), text, box.sizes)[box.ours]
    return array[0] if isinstance(part, int) else array


def check_tied(family: Family, stored: Mapping[str, Source], entries: list[Tensor], folder: Path) -> None:
    """A tied model may store its unembedding a second time, but not a different one.

    Raises:
      InputError: it does.
    """
    if family.head not in stored:
        return
    embedding = stored[next(entry.stored for entry in entries if entry.ours == "embed.tokens")]
    head, exact = stored[family.head], np.dtype(np.float32)
    if head.shape != embedding.shape or not np.array_equal(head.read(..., exact), embedding.read(..., exact)):
        raise InputError(
            f"{folder}: tie_word_embeddings is true, but {head.stored} differs from {embedding.stored}"
        )
