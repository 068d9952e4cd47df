"""Gemma Scope 2: ``config.json``, one layer in ``params.safetensors`` or several in ``params_layer_{i}.safetensors``.

Several are a cross-layer transcoder, or, where one site is read and written, a weakly causal crosscoder; ``w_dec``
[N, L, D] of source layer i is used for targets from i on. The affine connection is [D, D'] there. Where there is no
``config.json`` the folders' names say what is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.mapped import Count, Piece, opened
from jaxinterp.dictionaries.formats.notes import note
from jaxinterp.dictionaries.formats.pieces import Pieces, whole

NAME = "gemma-scope-2"
CONFIG, ONE = "config.json", "params.safetensors"
FOLDERS = {
    "resid_post": ("resid_post", "resid_post"),
    "crosscoder": ("resid_post", "resid_post"),
    "attn_out": ("attn_z", "attn_z"),
    "mlp_out": ("mlp_out", "mlp_out"),
    "transcoder": ("mlp_in", "mlp_out"),
    "clt": ("mlp_in", "mlp_out"),
}
_SEVERAL = re.compile(r"params_layer_(\d+)\.safetensors")
_LAYERS = re.compile(r"layers?((?:_\d+)+)_width_.*")


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with these files."""
    return path.is_dir() and ((path / ONE).is_file() or any(path.glob("params_layer_*.safetensors")))


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a folder of Gemma Scope 2.

    Raises:
      InputError: another architecture, hooks that are none of our sites, a missing, unknown or wrong tensor, layers
        that do not add up, or a damaged file.
    """
    config, files, sites, layers = _header(path)
    if files:
        return whole(pieces(path, dtype))
    if len(layers) != 1:
        raise InputError(f"{path}: {ONE} is of one layer, but the hooks or folders name {layers or 'none'}")
    with tensors.reading(path / ONE) as file:
        d, n, out, skip = _check(file, _affine(config), None)
        arrays = _row(file, d, n, out, skip, np.dtype(dtype))
        arrays["W_enc"] = file.take("w_enc", (d, n), np.dtype(dtype)).T
        arrays["W_dec"] = file.take("w_dec", (n, out), np.dtype(dtype))
    return single.build(arrays, "jumprelu", sites, layers[0], model_name=config.get("model_name", str, ""))


def _header(path: Path) -> tuple[Fields, dict[int, Path], tuple[str, str], tuple[int, ...]]:
    config = read_fields(path / CONFIG) if (path / CONFIG).is_file() else Fields({}, path)
    architecture = config.get("architecture", str, "jump_relu")
    if architecture != "jump_relu":
        raise InputError(f"{config.where}: architecture is {architecture!r}, expected jump_relu")
    files = {int(m.group(1)): file for file in path.iterdir() if (m := _SEVERAL.fullmatch(file.name))}
    return config, files, *_sites(config, path)


def _affine(config: Fields) -> bool | None:
    return config.get("affine_connection", bool, None) if "affine_connection" in config else None


def pieces(path: Path, dtype: Any = "float32") -> Pieces:
    """The files of several layers, read when they are asked for."""
    config, paths, sites, layers = _header(path)
    numbers, count = sorted(paths), Count()
    if not paths:
        raise InputError(f"{path}: one layer is not read in pieces, load it whole")
    if numbers not in (list(range(len(paths))), list(layers)):
        raise InputError(f"{path}: there are params_layer_ files for {numbers}, expected 0 to {max(numbers)}")
    if layers and len(layers) != len(paths):
        raise InputError(f"{path}: files of {len(paths)} layers, but the hooks or folders name {layers}")
    files = [opened(paths[number], count) for number in numbers]
    sizes = [_check(file, _affine(config), len(files)) for file in files]
    for file, found in zip(files, sizes, strict=True):
        if found[:3] != sizes[0][:3]:
            raise InputError(f"{file.path}: sizes differ from {files[0].path.name}")
        if found != sizes[0]:
            raise InputError(f"{path}: affine_skip_connection is in some layers and not in others")
    d, n, out, skip = sizes[0]

    def layer(index: int) -> dict[str, np.ndarray]:
        return _row(files[index], d, n, out, skip, np.dtype(dtype))

    def decoder(source: int, target: int) -> Piece:
        return files[source].piece("w_dec", (n, len(files), out), dtype, (slice(None), target))

    def encoder(index: int) -> Piece:
        return files[index].piece("w_enc", (d, n), dtype, transpose=True)

    whole_model = tuple(range(len(files)))
    return Pieces(
        DictionaryConfig(
            "clt", len(files), n, d, skip=skip, read_site=sites[0], write_site=sites[1],
            model_name=config.get("model_name", str, ""), d_write=None if out == d else out,
            layers=() if layers in ((), whole_model) else layers,
        ), layer, encoder, decoder, count)  # fmt: skip


def _sites(config: Fields, path: Path) -> tuple[tuple[str, str], tuple[int, ...]]:
    """What is read and written, and the layers as far as hooks or folders say them."""
    names = path.absolute().parts
    found = [match for name in names if (match := _LAYERS.fullmatch(name))]
    layers = tuple(int(text) for text in found[-1].group(1).split("_")[1:]) if found else ()
    if "hf_hook_point_in" not in config:
        for name in reversed(names):
            if (stem := name.removesuffix("_all")) in FOLDERS:
                return FOLDERS[stem], layers
        raise InputError(
            f"{path}: no {CONFIG} with hf_hook_point_in, and no folder above is named {', '.join(FOLDERS)}"
        )

    def several(field: str) -> list[tuple[str, int]]:
        value = config.values[field]
        hooks_there = value if isinstance(value, list) and value else [value]
        return [hooks.module_site(hook, config.where, field) for hook in hooks_there]

    reads = several("hf_hook_point_in")
    writes = several("hf_hook_point_out") if config.values.get("hf_hook_point_out") is not None else reads
    if len({site for site, _ in reads}) != 1 or len({site for site, _ in writes}) != 1:
        raise InputError(f"{config.where}: hooks at different places of layers are not supported")
    if [layer for _, layer in reads] != [layer for _, layer in writes]:
        raise InputError(f"{config.where}: it reads and writes different layers")
    one_of_several = len(reads) == 1 and not (path / ONE).is_file()
    return (reads[0][0], writes[0][0]), layers if one_of_several else tuple(layer for _, layer in reads)


def _check(file: tensors.Reader, affine: bool | None, targets: int | None) -> tuple[int, int, int, bool]:
    """D, N, D' and whether there is a skip, of one file whose arrays' names are then all known."""
    d, n = file.sizes("w_enc", ("width", "features"))
    out = file.sizes("b_dec", ("width",))[0]
    skip = affine or (affine is None and "affine_skip_connection" in file.names)
    decoder = (n, out) if targets is None else (n, targets, out)
    if file.shape("w_dec") != decoder:
        raise InputError(f"{file.path}: w_dec has shape {file.shape('w_dec')}, expected {decoder}")
    file.ignore(
        "w_enc", "w_dec", "b_enc", "b_dec", "threshold", *(("affine_skip_connection",) if skip else ())
    )
    file.finish(("affine_skip_connection",))
    return d, n, out, bool(skip)


def _row(file: tensors.Reader, d: int, n: int, out: int, skip: bool, dtype: np.dtype) -> single.Arrays:
    """One file in our orientation, without encoder and decoders."""
    arrays = {
        "b_enc": file.take("b_enc", (n,), dtype),
        "b_dec": file.take("b_dec", (out,), dtype),
        "threshold": single.rectified(file.take("threshold", (n,), dtype)),
    }
    if skip:
        arrays["W_skip"] = file.take("affine_skip_connection", (d, out), dtype).T
    return arrays


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.activation != "jumprelu":
        return f"it has no activation {config.activation!r}"
    if config.kind != "clt" and not (config.kind == "plt" and config.n_layers == 1):
        return f"it has one layer or a clt, not the kind {config.kind!r} with {config.n_layers} layers"
    for name in ("read_site", "write_site"):
        if hooks.module_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return "it has nothing for centre = True" if config.centre else single.refuses_rows(config)


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a one-layer dictionary or a cross-layer transcoder; ``folder`` must exist. Tied decoders are repeated.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    single.check_rectified(params, NAME)
    stored = tensors.host(params, dtype)
    if config.tied:
        note("decoders that are the same for several layers are written once for each")
    for layer in range(config.n_layers):
        row = {name: stored[name][layer] for name in ("b_enc", "b_dec", "threshold")}
        row["w_enc"] = stored["W_enc"][layer].T
        if config.skip:
            row["affine_skip_connection"] = stored["W_skip"][layer].T
        if config.kind == "plt":
            tensors.write(folder / ONE, {**row, "w_dec": stored["W_dec"][layer]})
            continue
        decoder = np.zeros((config.n_features, config.n_layers, config.d_out), row["w_enc"].dtype)
        for target in range(layer, config.n_layers):
            decoder[:, target] = stored["W_dec"][layer] if config.tied else stored["W_dec"][target][layer]
        tensors.write(folder / f"params_layer_{layer}.safetensors", {**row, "w_dec": decoder})

    def hook(site: str) -> Any:
        named = [hooks.module_name(site, single.layer_of(config, i)) for i in range(config.n_layers)]
        points = [f"model.{found[0]}.{found[1]}" for found in named if found is not None]
        return points[0] if config.kind == "plt" else points

    values = {
        "architecture": "jump_relu", "model_name": config.model_name, "hf_hook_point_in": hook(config.read_site),
        "hf_hook_point_out": hook(config.write_site), "affine_connection": config.skip,
    }  # fmt: skip
    write_json(folder / CONFIG, values)
