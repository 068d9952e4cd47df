"""Llamascopium's mixtures of linear transforms: ``config.json`` with ``sae_type: molt``, ``sae_weights.safetensors``.

``W_E [D, N]``, ``b_E [N]``, ``U_matrices.{rank} [C, D, rank]``, ``V_matrices.{rank} [C, rank, D]``, ``b_D [D]``;
``rank_counts`` says how many features C have a rank, and features stand in the order of rising ranks. Scaling to the
data's average length is folded in; thresholds are of activations times the norm of U V where
``sparsity_include_decoder_norm`` says so. One file is one layer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import Fields, read_fields

NAME = "llamascopium-molt"
CONFIG, TENSORS = "config.json", "sae_weights.safetensors"
THRESHOLD, AVERAGE = "activation_function.log_jumprelu_threshold", "dataset_average_activation_norm."
ACTIVATIONS = ("relu", "jumprelu", "topk")
OUT, IN = "W_dec_U", "W_dec_V"


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's two files, of a molt."""
    if not ((path / CONFIG).is_file() and (path / TENSORS).is_file()):
        return False
    try:
        values = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("sae_type") == "molt"


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a Llamascopium folder with a molt.

    Raises:
      InputError: another type, ranks, an activation function or hook that are not understood, a missing, unknown or
        wrong field or tensor, or a damaged file.
    """
    fields, kind = read_fields(path / CONFIG), np.dtype(dtype)
    where = fields.where
    if (found := fields.get("sae_type", str)) != "molt":
        raise InputError(f"{where}: sae_type is {found!r}, expected molt")
    activation = fields.get("act_fn", str)
    if activation not in ACTIVATIONS:
        raise InputError(f"{where}: act_fn is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    norm = fields.get("norm_activation", str, "inference")
    if norm not in ("inference", "dataset-wise"):
        raise InputError(f"{where}: norm_activation is {norm!r}, which no weights can hold")
    by_length = fields.get("sparsity_include_decoder_norm", bool, False)
    names = [fields.get(f"hook_point_{side}", str) for side in ("in", "out")]
    (read_site, layer), (write_site, other) = (hooks.lens_site(name, where, "a hook point") for name in names)
    if layer != other:
        raise InputError(f"{where}: hook points read layer {layer} and write layer {other}")
    ranks, d = _ranks(fields), fields.size("d_model")
    n = sum(count for _, count in ranks)
    with tensors.reading(path / TENSORS) as file:
        scale = [_scale(file, name, d, norm) for name in names]
        us = [file.take(f"U_matrices.{rank}", (count, d, rank), kind) for rank, count in ranks]
        vs = [file.take(f"V_matrices.{rank}", (count, rank, d), kind) for rank, count in ranks]
        arrays = {
            "W_enc": (file.take("W_E", (d, n), kind).T * scale[0]).astype(kind),
            "b_enc": file.take("b_E", (n,), kind),
            "b_dec": np.zeros(d, kind),
        }
        if fields.get("use_decoder_bias", bool, True):
            arrays["b_dec"] = (file.take("b_D", (d,), kind) / scale[1]).astype(kind)
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
        "molt", 1, n, d, activation=activation, k=k, ranked=by_length and bool(k), read_site=read_site,
        write_site=write_site, layers=(layer,), ranks=ranks,
    )  # fmt: skip
    maps = {
        OUT: tuple((u / scale[1]).astype(kind)[None] for u in us),
        IN: tuple((v * scale[0]).astype(kind)[None] for v in vs),
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


def _scale(file: tensors.Reader, hook: str, d: int, norm: str) -> float:
    if norm == "inference":
        return 1.0
    average = file.scalar(AVERAGE + hook)
    if average <= 0:
        raise InputError(f"{file.path}: {AVERAGE}{hook} is {average}, expected a positive number")
    return float(np.sqrt(d) / average)


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "molt" or config.n_layers != 1:
        return f"it has one layer of a molt, not the kind {config.kind!r} with {config.n_layers} layers"
    if config.activation not in ACTIVATIONS:
        return f"it has no activation {config.activation!r}"
    if config.skip:
        return "it has nothing for skip = True"
    if config.d_write is not None:
        return f"it has nothing for d_write = {config.d_write}"
    if list(config.ranks) != sorted(config.ranks):
        return f"its features stand by rising rank, not as {config.ranks}"
    for name in ("read_site", "write_site"):
        if hooks.lens_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return None


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
        if not (stored["threshold"] > 0).all():
            raise InputError(
                f"a threshold is not positive, which the format {NAME} (log_threshold) cannot say"
            )
        values[THRESHOLD] = np.log(stored["threshold"][0])
    tensors.write(folder / TENSORS, values)
    layer = single.layer_of(config)
    fields: dict[str, Any] = {
        "sae_type": "molt", "d_model": config.d_model, "expansion_factor": config.n_features / config.d_model,
        "act_fn": config.activation, "norm_activation": "inference", "use_decoder_bias": True,
        "sparsity_include_decoder_norm": config.ranked, "dtype": f"torch.{np.dtype(dtype).name}",
        "hook_point_in": hooks.lens_name(config.read_site, layer),
        "hook_point_out": hooks.lens_name(config.write_site, layer),
        "rank_counts": {str(rank): count for rank, count in config.ranks},
    }  # fmt: skip
    if config.activation == "topk":
        fields["top_k"] = config.k
    write_json(folder / CONFIG, fields)
