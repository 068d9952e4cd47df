"""Counters of co-activation as files."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib

import numpy as np
from scipy import sparse

from jaxinterp.attribution.coactivation import Coactivation
from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic, read_bytes

_FORM = 1
_ZIP = (zipfile.BadZipFile, zlib.error, NotImplementedError)
_SUMS = ("gated", "products")


def save_coactivation(counter: Coactivation, path: str | os.PathLike[str]) -> None:
    """Write the counter as an .npz file."""
    arrays: dict[str, np.ndarray] = {}
    for side, chosen in (("source", counter.sources), ("target", counter.targets)):
        for layer, ids in chosen.items():
            arrays[f"{side}/{layer}/ids"] = ids
            arrays[f"{side}/{layer}/fired"] = counter.fired[side, layer]
            arrays[f"{side}/{layer}/total"] = counter.total[side, layer]
    for name in _SUMS:
        for (s, t), matrix in getattr(counter, name).items():
            if counter.dense:
                arrays[f"{name}/{s}/{t}"] = matrix
            else:
                for part in ("data", "indices", "indptr"):
                    arrays[f"{name}/{s}/{t}/{part}"] = getattr(matrix, part)
    head = {
        "form": _FORM, "dense": counter.dense, "pairs": counter.pairs, "rows": counter.rows, "blocks": counter.blocks,
        "made_by": counter.made_by, "sources": sorted(counter.sources), "targets": sorted(counter.targets),
    }  # fmt: skip
    arrays["head"] = np.frombuffer(json.dumps(head, sort_keys=True).encode(), np.uint8)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_coactivation(path: str | os.PathLike[str]) -> Coactivation:
    """A counter that was saved.

    Raises:
      InputError: no such file, or not a whole counter.
    """
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as file:
            arrays = dict(file)
        head = json.loads(arrays["head"].tobytes())
        if head["form"] != _FORM:
            raise InputError(f"{path} is a counter of form {head['form']}, this version reads {_FORM}")
        sources, targets = (
            {int(n): arrays[f"{side}/{n}/ids"] for n in head[f"{side}s"]} for side in ("source", "target")
        )
        pairs = tuple((int(s), int(t)) for s, t in head["pairs"])
        counter = Coactivation(
            sources, targets, pairs, bool(head["dense"]), dict(head["made_by"]), int(head["rows"]), int(head["blocks"])
        )  # fmt: skip
        for name, kept in (("fired", counter.fired), ("total", counter.total)):
            for side, layer in kept:
                kept[side, layer] = _like(arrays[f"{side}/{layer}/{name}"], kept[side, layer])
        for name in _SUMS:
            sums = getattr(counter, name)
            for s, t in counter.pairs:
                if counter.dense:
                    sums[s, t] = _like(arrays[f"{name}/{s}/{t}"], sums[s, t])
                    continue
                parts = [arrays[f"{name}/{s}/{t}/{part}"] for part in ("data", "indices", "indptr")]
                sums[s, t] = sparse.csr_array(tuple(parts), shape=sums[s, t].shape)
                sums[s, t].check_format(full_check=True)
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, OSError, EOFError, IndexError, MemoryError, *_ZIP) as error:
        raise InputError(f"{path} is no whole counter of co-activation: {error}") from error
    return counter


def _like(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{found.dtype} {found.shape} where {expected.dtype} {expected.shape} should be")
    return found
