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
    config = read_fields(path / CONFIG) if (path / CONFIG).is_file() else Fields({}, path)
    architecture = config.get("architecture", str, "jump_relu")
    if architecture != "jump_relu":
        raise InputError(f"{config.where}: architecture is {architecture!r}, expected jump_relu")
    affine = config.get("affine_connection", bool, None) if "affine_connection" in config else None
    files = {int(m.group(1)): file for file in path.iterdir() if (m := _SEVERAL.fullmatch(file.name))}
    sites, layers = _sites(config, path)
    model = config.get("model_name", str, "")
    if not files:
        if len(layers) != 1:
            raise InputError(
                f"{path}: {ONE} is of one layer, but the hooks or folders name {layers or 'none'}"
            )
        arrays, _ = _arrays(path / ONE, np.dtype(dtype), None, affine)
        return single.build(arrays, "jumprelu", sites, layers[0], model_name=model)
    numbers = sorted(files)
    if numbers not in (list(range(len(files))), list(layers)):
        raise InputError(f"{path}: there are params_layer_ files for {numbers}, expected 0 to {max(numbers)}")
    if layers and len(layers) != len(files):
        raise InputError(f"{path}: files of {len(files)} layers, but the hooks or folders name {layers}")
    rows: list[single.Arrays] = []
    decoders: list[np.ndarray] = []
    for number in numbers:
        row, decoder = _arrays(files[number], np.dtype(dtype), len(files), affine)
        if rows and any(row[name].shape != rows[0][name].shape for name in rows[0].keys() & row.keys()):
            raise InputError(f"{files[number]}: sizes differ from {files[numbers[0]].name}")
        if rows and row.keys() != rows[0].keys():
            raise InputError(f"{path}: affine_skip_connection is in some layers and not in others")
        rows.append(row)
        decoders.append(decoder)
    (n, d), out = rows[0]["W_enc"].shape, rows[0]["b_dec"].shape[0]
    params: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    params["W_dec"] = tuple(
        np.stack([decoders[source][:, target] for source in range(target + 1)])
        for target in range(len(files))
    )
    whole = tuple(range(len(files)))
    return DictionaryConfig(
        "clt", len(files), n, d, skip="W_skip" in params, read_site=sites[0], write_site=sites[1],
        model_name=model, d_write=None if out == d else out, layers=() if layers in ((), whole) else layers,
    ), params  # fmt: skip


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


def _arrays(
    path: Path, dtype: np.dtype, targets: int | None, affine: bool | None
) -> tuple[single.Arrays, np.ndarray]:
    """One file in our orientation; for several layers the decoders [N, L, D'] apart."""
    with tensors.reading(path) as file:
        d, n = file.sizes("w_enc", ("width", "features"))
        out = file.sizes("b_dec", ("width",))[0]
        arrays = {
            "W_enc": file.take("w_enc", (d, n), dtype).T,
            "b_enc": file.take("b_enc", (n,), dtype),
            "b_dec": file.take("b_dec", (out,), dtype),
            "threshold": single.rectified(file.take("threshold", (n,), dtype)),
        }
        decoder = file.take("w_dec", (n, out) if targets is None else (n, targets, out), dtype)
        if targets is None:
            arrays["W_dec"] = decoder
        if affine or (affine is None and "affine_skip_connection" in file.names):
            arrays["W_skip"] = file.take("affine_skip_connection", (d, out), dtype).T
        file.finish(("affine_skip_connection",))
    return arrays, decoder


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.activation != "jumprelu":
        return f"it has no activation {config.activation!r}"
    if config.kind != "clt" and not (config.kind == "plt" and config.n_layers == 1):
        return f"it has one layer or a clt, not the kind {config.kind!r} with {config.n_layers} layers"
    for name in ("read_site", "write_site"):
        if hooks.module_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return "it has nothing for centre = True" if config.centre else None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a one-layer dictionary or a cross-layer transcoder; ``folder`` must exist. Tied decoders are repeated.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    stored = tensors.host(params, dtype)
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
