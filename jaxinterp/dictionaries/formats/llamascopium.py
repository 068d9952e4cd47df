"""Llamascopium's ``config.json`` and ``sae_weights.safetensors``: autoencoders, transcoders, crosscoders, CLTs.

With ``norm_activation: dataset-wise`` a site is multiplied by sqrt(D) over its average length, stored in the file; that
is folded in, and activations are those of the scaled input, as there. With ``sparsity_include_decoder_norm`` thresholds
and top-k are of activations times decoder length, activations themselves are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.llamascopium_common import (
    ACTIVATIONS,
    AVERAGE,
    CONFIG,
    TENSORS,
    THRESHOLD,
    logarithms,
    norm_of,
    scale,
)
from jaxinterp.dictionaries.formats.mapped import Count, Piece, opened
from jaxinterp.dictionaries.formats.notes import note
from jaxinterp.dictionaries.formats.pieces import Pieces, whole

NAME = "llamascopium"


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's two files."""
    return (path / CONFIG).is_file() and (path / TENSORS).is_file()


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a Llamascopium folder.

    Raises:
      InputError: a type, activation function, normalisation or hook that is not understood, a missing, unknown or wrong
        field or tensor, or a damaged file.
    """
    config, kind, activation, ranked = _header(path)
    if kind == "clt":
        return whole(pieces(path, dtype))
    reads, writes, sites, layers = _hooks(config, kind)
    norm = norm_of(config)
    with tensors.reading(path / TENSORS) as file:
        by = [scale(file, hook, config.size("d_model"), norm) for hook in (*reads, *writes)]
        read_by, write_by = by[: len(reads)], by[len(reads) :]
        load = _crosscoder if kind == "crosscoder" else _sae
        params = load(file, config, activation, np.dtype(dtype), read_by, write_by)
        file.ignore(*(name for name in file.names if name.startswith(AVERAGE)))
        file.finish((THRESHOLD,))
    if kind == "sae":
        k = config.size("top_k") if activation == "topk" else 0
        return single.build(params, activation, sites, layers[0], k=k, ranked=ranked and bool(k))
    count, n, d = params["W_enc"].shape
    return DictionaryConfig(
        "crosscoder", count, n, d, activation=activation, read_site=sites[0], write_site=sites[1],
        layers=() if layers == tuple(range(count)) else layers,
    ), params  # fmt: skip


def _header(path: Path) -> tuple[Fields, str, str, bool]:
    """The config, the type, the activation function, and whether decoder lengths count."""
    config = read_fields(path / CONFIG)
    kind, activation = config.get("sae_type", str), config.get("act_fn", str)
    if kind not in ("sae", "clt", "crosscoder"):
        raise InputError(f"{config.where}: sae_type is {kind!r}, expected sae, clt or crosscoder")
    if activation not in ACTIVATIONS or (kind == "clt" and activation == "topk"):
        raise InputError(
            f"{config.where}: act_fn is {activation!r} with the type {kind}, expected relu, jumprelu or topk (sae only)"
        )
    if kind == "crosscoder" and activation != "relu":
        raise InputError(
            f"{config.where}: act_fn is {activation!r}: a crosscoder's features are compared with it times the length "
            "of each layer's decoder, so that one can be active in some layers only; expected relu"
        )
    if config.get("use_glu_encoder", bool, False):
        raise InputError(f"{config.where}: use_glu_encoder is true; gated linear encoders are not supported")
    norm_of(config)
    ranked = config.get("sparsity_include_decoder_norm", bool, False)
    if ranked and kind == "clt" and activation != "relu":
        raise InputError(f"{config.where}: sparsity_include_decoder_norm is not supported for a clt")
    return config, kind, activation, ranked


def pieces(path: Path, dtype: Any = "float32") -> Pieces:
    """A cross-layer transcoder, read when it is asked for."""
    config, kind, activation, _ = _header(path)
    if kind != "clt":
        raise InputError(f"{path}: the type {kind} is not read in pieces, load it whole")
    reads, writes, sites, layers = _hooks(config, kind)
    norm, wanted = norm_of(config), np.dtype(dtype)
    counter, count, d = Count(), len(reads), config.size("d_model")
    file = opened(path / TENSORS, counter)
    read_by, write_by = ([scale(file, hook, d, norm) for hook in side] for side in (reads, writes))
    n = file.sizes("W_E", ("layers", "width", "features"))[2]
    file.ignore("W_E", "b_E", *(f"{name}.{target}" for name in ("W_D", "b_D") for target in range(count)))
    file.ignore(*(name for name in file.names if name.startswith(AVERAGE)))
    if activation == "jumprelu":
        file.ignore(THRESHOLD)
    file.finish((THRESHOLD,))

    def layer(index: int) -> dict[str, np.ndarray]:
        one = np.array([index])
        b_dec = file.take(f"b_D.{index}", (d,), wanted) / write_by[index]
        row = {"b_enc": file.take_rows("b_E", (count, n), one, wanted)[0], "b_dec": b_dec.astype(wanted)}
        if activation == "jumprelu":
            row["threshold"] = np.exp(file.take_rows(THRESHOLD, (count, n), one, wanted)[0])
        return row

    def encoder(index: int) -> Piece:
        return file.piece("W_E", (count, d, n), wanted, index, transpose=True, multiply=read_by[index])

    def decoder(source: int, target: int) -> Piece:
        return file.piece(f"W_D.{target}", (target + 1, n, d), wanted, source, divide=write_by[target])

    found = DictionaryConfig(
        "clt", count, n, d, activation=activation, read_site=sites[0], write_site=sites[1],
        layers=() if layers == tuple(range(count)) else layers,
    )  # fmt: skip
    return Pieces(found, layer, encoder, decoder, counter)


def _hooks(config: Fields, kind: str) -> tuple[list[str], list[str], tuple[str, str], tuple[int, ...]]:
    if kind == "crosscoder":
        reads = config.get("hook_points", list, None) or config.get("hook_points_in", list)
        writes = reads
    elif kind == "clt":
        reads, writes = config.get("hook_points_in", list), config.get("hook_points_out", list)
    else:
        reads = [config.get("hook_point_in", str)]
        writes = [config.get("hook_point_out", str, reads[0])]
    found = [hooks.lens_site(hook, config.where, "a hook point") for hook in (*reads, *writes)]
    ins, outs = found[: len(reads)], found[len(reads) :]
    if len({site for site, _ in ins}) != 1 or len({site for site, _ in outs}) != 1:
        raise InputError(f"{config.where}: hook points at different places of layers are not supported")
    if [layer for _, layer in ins] != [layer for _, layer in outs]:
        raise InputError(f"{config.where}: hook points read and write different layers")
    return reads, writes, (ins[0][0], outs[0][0]), tuple(layer for _, layer in ins)


def _sae(
    file: tensors.Reader,
    config: Fields,
    activation: str,
    dtype: np.dtype,
    reads: list[float],
    writes: list[float],
) -> dict[str, Any]:
    d, n = config.size("d_model"), file.sizes("W_E", ("width", "features"))[1]
    arrays = {
        "W_enc": file.take("W_E", (d, n), dtype).T,
        "b_enc": file.take("b_E", (n,), dtype),
        "W_dec": file.take("W_D", (n, d), dtype),
        "b_dec": np.zeros(d, dtype),
    }
    if config.get("use_decoder_bias", bool, True):
        arrays["b_dec"] = file.take("b_D", (d,), dtype)
    if config.get("apply_decoder_bias_to_pre_encoder", bool, False):
        arrays = single.uncentre(arrays)
    if activation == "jumprelu":
        threshold = np.exp(file.take(THRESHOLD, (n,), dtype))
        if config.get("sparsity_include_decoder_norm", bool, False):
            length = single.norms(arrays)
            if not (length > 0).all():
                raise InputError(f"{file.path}: W_D has a row of length zero, its threshold is unknown")
            note("thresholds are divided by decoder lengths")
            threshold = (threshold / length).astype(dtype)
        arrays["threshold"] = threshold
    arrays["W_enc"] = (arrays["W_enc"] * reads[0]).astype(dtype)
    return {**arrays, **{name: (arrays[name] / writes[0]).astype(dtype) for name in ("W_dec", "b_dec")}}


def _crosscoder(
    file: tensors.Reader,
    config: Fields,
    activation: str,
    dtype: np.dtype,
    reads: list[float],
    writes: list[float],
) -> dict[str, Any]:
    """Layers are heads there; the biases of all of them add up."""
    count, d = len(reads), config.size("d_model")
    n = file.sizes("W_E", ("heads", "width", "features"))[2]
    by_read, by_write = (np.asarray(side)[:, None, None] for side in (reads, writes))
    biases = file.take("b_E", (count, n), dtype)
    return {
        "W_enc": (np.swapaxes(file.take("W_E", (count, d, n), dtype), 1, 2) * by_read).astype(dtype),
        "b_enc": np.sum(biases, axis=0, keepdims=True),
        "W_dec": (file.take("W_D", (count, n, d), dtype) / by_write).astype(dtype),
        "b_dec": (file.take("b_D", (count, d), dtype) / by_write[:, :, 0]).astype(dtype),
    }


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind == "crosscoder":
        if config.activation != "relu" or config.read_site != config.write_site:
            return "it has crosscoders with relu that write where they read"
    elif config.kind != "clt" and not (config.kind == "plt" and config.n_layers == 1):
        return f"it has one layer, a clt or a crosscoder, not the kind {config.kind!r} with {config.n_layers} layers"
    if config.activation not in ACTIVATIONS or (config.kind == "clt" and config.activation == "topk"):
        return f"it has no activation {config.activation!r} for the kind {config.kind!r}"
    for name in ("skip", "centre"):
        if getattr(config, name):
            return f"it has nothing for {name} = True"
    if config.d_write is not None:
        return f"it has nothing for d_write = {config.d_write}"
    for name in ("read_site", "write_site"):
        if hooks.lens_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return single.refuses_rows(config)


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a one-layer dictionary, a crosscoder or a cross-layer transcoder; ``folder`` must exist.

    Tied and shared decoders are repeated.

    Raises:
      InputError: a value that ``dtype`` cannot hold, or a threshold that is not positive.
    """
    stored = tensors.host(params, dtype)
    clt, count = config.kind == "clt", config.n_layers
    cross = config.kind == "crosscoder"
    one = slice(None) if clt or cross else 0
    values = {"W_E": np.swapaxes(stored["W_enc"], 1, 2)[one], "b_E": stored["b_enc"][one]}
    if config.activation == "jumprelu":
        values[THRESHOLD] = logarithms(stored["threshold"], NAME)[one]
    if config.tied or config.shared:
        note("decoders that are the same for several layers are written once for each")
    if clt:
        decoders = [stored["W_dec"][: t + 1] if config.tied else stored["W_dec"][t] for t in range(count)]
        values |= {f"W_D.{t}": decoder for t, decoder in enumerate(decoders)}
        values |= {f"b_D.{t}": stored["b_dec"][t] for t in range(count)}
    elif cross:
        values["b_E"] = np.pad(stored["b_enc"], [(0, count - 1), (0, 0)])
        own = stored["W_dec"]
        if config.shared:
            own = np.concatenate([np.repeat(stored["W_dec_shared"][None], count, axis=0), own], axis=1)
        values |= {"W_D": own, "b_D": stored["b_dec"]}
    else:
        values |= {"W_D": stored["W_dec"][0], "b_D": stored["b_dec"][0]}
    tensors.write(folder / TENSORS, values)
    fields: dict[str, Any] = {
        "sae_type": config.kind if clt or cross else "sae", "d_model": config.d_model,
        "expansion_factor": config.n_features / config.d_model, "act_fn": config.activation,
        "norm_activation": "inference", "sparsity_include_decoder_norm": config.ranked or cross,
        "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "dtype": f"torch.{np.dtype(dtype).name}",
    }  # fmt: skip
    if config.activation == "topk":
        fields["top_k"] = config.k
    for side, site in (("in", config.read_site), ("out", config.write_site)):
        named = [hooks.lens_name(site, single.layer_of(config, i)) for i in range(count)]
        if cross:
            fields["hook_points"] = named
        else:
            fields |= {f"hook_points_{side}": named} if clt else {f"hook_point_{side}": named[0]}
    write_json(folder / CONFIG, fields)
