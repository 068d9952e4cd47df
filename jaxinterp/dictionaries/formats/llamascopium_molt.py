"""Llamascopium's mixtures of linear transforms: ``config.json`` with ``sae_type: molt``, ``sae_weights.safetensors``.

``W_E [D, N]``, ``b_E [N]``, ``U_matrices.{rank} [C, D, rank]``, ``V_matrices.{rank} [C, rank, D]``, ``b_D [D]``;
``rank_counts`` says how many features C have a rank, and features stand in the order of rising ranks. Scaling to the
data's average length is folded in; thresholds are of activations times the norm of U V where
``sparsity_include_decoder_norm`` says so. One file is one layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import tensors
from jaxinterp.dictionaries.formats.fields import Fields
from jaxinterp.dictionaries.formats.llamascopium_common import (
    AVERAGE,
    CONFIG,
    TENSORS,
    THRESHOLD,
    header,
    is_type,
    logarithms,
    refuses_sites,
    scale,
    written_fields,
)

NAME = "llamascopium-molt"
OUT, IN = "W_dec_U", "W_dec_V"


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's two files, of a molt."""
    return is_type(path, "molt")


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a Llamascopium folder with a molt.

    Raises:
      InputError: another type, ranks, an activation function or hook that are not understood, a missing, unknown or
        wrong field or tensor, or a damaged file.
    """
    head, kind = header(path, "molt"), np.dtype(dtype)
    fields, activation, by_length = head.fields, head.activation, head.by_length
    ranks, d = _ranks(fields), fields.size("d_model")
    n = sum(count for _, count in ranks)
    with tensors.reading(path / TENSORS) as file:
        by = [scale(file, name, d, head.norm) for name in head.hooks]
        us = [file.take(f"U_matrices.{rank}", (count, d, rank), kind) for rank, count in ranks]
        vs = [file.take(f"V_matrices.{rank}", (count, rank, d), kind) for rank, count in ranks]
        arrays = {
            "W_enc": (file.take("W_E", (d, n), kind).T * by[0]).astype(kind),
            "b_enc": file.take("b_E", (n,), kind),
            "b_dec": np.zeros(d, kind),
        }
        if fields.get("use_decoder_bias", bool, True):
            arrays["b_dec"] = (file.take("b_D", (d,), kind) / by[1]).astype(kind)
        if activation == "jumprelu":
            threshold = np.exp(file.take(THRESHOLD, (n,), np.float64))
            if by_length:
                size = np.concatenate([_norms(u, v) for u, v in zip(us, vs, strict=True)])
                if not (size > 0).all():
                    raise InputError(f"{file.path}: a transform is zero, its threshold is unknown")
                threshold = threshold / size
            arrays["threshold"] = threshold.astype(kind)
        file.ignore(*(name for name in file.names if name.startswith(AVERAGE)))
        file.finish((THRESHOLD,))
    k = fields.size("top_k") if activation == "topk" else 0
    config = DictionaryConfig(
        "molt", 1, n, d, activation=activation, k=k, ranked=by_length and bool(k), read_site=head.sites[0],
        write_site=head.sites[1], layers=(head.layer,), ranks=ranks,
    )  # fmt: skip
    maps = {
        OUT: tuple((u / by[1]).astype(kind)[None] for u in us),
        IN: tuple((v * by[0]).astype(kind)[None] for v in vs),
    }
    return config, {**{name: value[None] for name, value in arrays.items()}, **maps}


def _ranks(fields: Fields) -> tuple[tuple[int, int], ...]:
    """Pairs (rank, count) by rising rank."""
    counts = fields.get("rank_counts", dict)
    good = all(
        rank.isdecimal() and int(rank) > 0 and isinstance(n, int) and not isinstance(n, bool) and n > 0
        for rank, n in counts.items()
    )
    if not counts or not good:
        raise InputError(
            f"{fields.where}: rank_counts is {counts!r}, expected ranks and how many features have each"
        )
    return tuple(sorted((int(rank), count) for rank, count in counts.items()))


def _norms(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """``[C]``, norms of U V, in float64."""
    u, v = u.astype(np.float64), v.astype(np.float64)
    squares = np.einsum("cek,cej->ckj", u, u) * np.einsum("ckd,cjd->ckj", v, v)
    return np.sqrt(np.maximum(squares.sum(axis=(1, 2)), 0.0))


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "molt" or config.n_layers != 1:
        return f"it has one layer of a molt, not the kind {config.kind!r} with {config.n_layers} layers"
    if config.skip:
        return "it has nothing for skip = True"
    if list(config.ranks) != sorted(config.ranks):
        return f"its features stand by rising rank, not as {config.ranks}"
    return refuses_sites(config)


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a molt of one layer; ``folder`` must exist.

    Raises:
      InputError: a value that ``dtype`` cannot hold, or a threshold that is not positive.
    """
    stored = tensors.host(params, dtype)
    values = {"W_E": stored["W_enc"][0].T, "b_E": stored["b_enc"][0], "b_D": stored["b_dec"][0]}
    for (rank, _), u, v in zip(config.ranks, stored[OUT], stored[IN], strict=True):
        values |= {f"U_matrices.{rank}": u[0], f"V_matrices.{rank}": v[0]}
    if config.activation == "jumprelu":
        values[THRESHOLD] = logarithms(stored["threshold"][0], NAME)
    tensors.write(folder / TENSORS, values)
    counts = {str(rank): count for rank, count in config.ranks}
    fields = written_fields(config, "molt", dtype) | {"rank_counts": counts}
    write_json(folder / CONFIG, fields)
