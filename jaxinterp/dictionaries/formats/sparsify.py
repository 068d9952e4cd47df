"""sparsify's folders: one folder a hookpoint with ``cfg.json`` and ``sae.safetensors``, and those together.

An autoencoder there takes the decoder bias off its input. With a skip, or where ours does not, the difference is put
into the encoder bias, which keeps the function.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import CHOOSING, DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import read_fields

NAME = "sparsify"
CONFIG, TENSORS, RUN = "cfg.json", "sae.safetensors", "config.json"
FIELDS = (
    "activation", "expansion_factor", "normalize_decoder", "num_latents", "k", "multi_topk", "skip_connection",
    "transcode", "d_in", "signed",
)  # fmt: skip
TRANSCODED = {("mlp_in", "mlp_out_raw"): "layers.{}.mlp", ("resid_pre", "resid_post"): "layers.{}"}
ENCODED = {"mlp_out_raw": "layers.{}.mlp", "resid_post": "layers.{}", "attn_out_raw": "layers.{}.self_attn"}
_SEED = re.compile(r"seed\d+")


def recognises(path: Path) -> bool:
    """Whether ``path`` is the folder of a hookpoint or holds such folders."""
    return path.is_dir() and ((path / TENSORS).is_file() or any(path.glob(f"*/{TENSORS}")))


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one hookpoint, or of a folder of alike ones.

    Raises:
      InputError: a hookpoint that is none of our sites, hookpoints that do not go together, a missing, unknown or
        wrong field or tensor, or a damaged file.
    """
    if (path / TENSORS).is_file():
        return _one(path, dtype)
    parts = [_one(file.parent, dtype) for file in sorted(path.glob(f"*/{TENSORS}"))]
    if not parts:
        raise InputError(f"{path}: no folder of a hookpoint with {TENSORS} in it")
    return single.stack(parts, path)


def _one(path: Path, dtype: Any) -> tuple[DictionaryConfig, dict[str, Any]]:
    config = read_fields(path / CONFIG)
    for name in config.values:
        if name not in FIELDS:
            raise InputError(f"{config.where}: unknown field {name!r}{near(name, FIELDS)}")
    activation = config.get("activation", str, "topk")
    if activation not in CHOOSING:
        raise InputError(f"{config.where}: activation is {activation!r}, expected topk or groupmax")
    if config.get("signed", bool, False):
        raise InputError(f"{config.where}: signed is true; activations of both signs are not supported")
    d, transcode = config.size("d_in"), config.get("transcode", bool, False)
    n = config.get("num_latents", int, 0) or d * config.size("expansion_factor")
    folder = path.absolute()
    seeded = _SEED.fullmatch(folder.name) is not None
    hookpoint = (folder.parent if seeded else folder).name
    write_site, layer = hooks.module_site(hookpoint, path, "the hookpoint (the folder's name)")
    read_site = hooks.module_site(hookpoint, path, "the hookpoint", "input")[0] if transcode else write_site
    with tensors.reading(path / TENSORS) as file:
        arrays = {
            "W_enc": file.take("encoder.weight", (n, d), np.dtype(dtype)),
            "b_enc": file.take("encoder.bias", (n,), np.dtype(dtype)),
            "W_dec": file.take("W_dec", (n, d), np.dtype(dtype)),
            "b_dec": file.take("b_dec", (d,), np.dtype(dtype)),
        }
        if config.get("skip_connection", bool, False):
            arrays["W_skip"] = file.take("W_skip", (d, d), np.dtype(dtype))
        file.finish(("W_skip",))
    run = folder.parent.parent / RUN if seeded else folder.parent / RUN
    model = read_fields(run).get("model", str, "") if run.is_file() else ""
    return single.build(
        arrays, activation, (read_site, write_site), layer, k=config.size("k"), centre=not transcode,
        model_name=model,
    )  # fmt: skip


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "plt":
        return f"it has no kind {config.kind!r}"
    if config.activation not in CHOOSING:
        return f"it has no activation {config.activation!r}"
    if config.d_write is not None:
        return f"it has nothing for d_write = {config.d_write}"
    if _hookpoint(config) is None:
        return f"it has no hookpoint that reads {config.read_site} and writes {config.write_site}"
    return single.refuses_rows(config)


def _hookpoint(config: DictionaryConfig) -> str | None:
    if single.autoencoder(config):
        return ENCODED.get(config.write_site)
    return TRANSCODED.get((config.read_site, config.write_site))


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write one folder a layer into ``folder``, which must exist.

    Features ranked by decoder length are written with that length folded in, which multiplies their activations.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    name = _hookpoint(config)
    assert name is not None
    transcode = not single.autoencoder(config)
    for index in range(config.n_layers):
        arrays = single.layer_arrays(params, index)
        if config.ranked:
            arrays = single.fold_norms(arrays)
        if not transcode and not config.centre:
            arrays = single.centre(arrays)
        stored = tensors.host(arrays, dtype)
        inner = folder / name.format(single.layer_of(config, index))
        inner.mkdir()
        names = {"W_enc": "encoder.weight", "b_enc": "encoder.bias"}
        tensors.write(inner / TENSORS, {names.get(key, key): value for key, value in stored.items()})
        values = {
            "activation": config.activation, "expansion_factor": 32, "normalize_decoder": False,
            "num_latents": config.n_features, "k": config.k, "multi_topk": False,
            "skip_connection": config.skip, "transcode": transcode, "d_in": config.d_model,
        }  # fmt: skip
        write_json(inner / CONFIG, values)
    write_json(folder / RUN, {"model": config.model_name})
