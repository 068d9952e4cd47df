"""Qwen Scope: ``SAE-Res-{model}-W{width}K-L0_{k}/layer{n}.sae.pt``, one torch file a layer.

Nothing inside says how many features are active or of which model: the folder's name does, as where they were
published.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import single, tensors, torch_files

NAME = "qwen-scope"
MODEL = "Qwen/"
_FILE = re.compile(r"layer(\d+)\.sae\.pt")
_FOLDER = re.compile(r".*SAE-Res-(.+)-W\d+K-L0_(\d+)")
_NAMES = {"W_enc", "W_dec", "b_enc", "b_dec"}


def recognises(path: Path) -> bool:
    """Whether ``path`` is such a file, or a folder with such files or with one such folder."""
    if path.is_dir():
        return bool(_files(path))
    if path.suffix != ".pt" or path.with_name(f"{path.stem}_cfg.json").exists():
        return False  # with such a config it is a crosscoder
    return set(torch_files.peek(path)) == _NAMES


def _files(path: Path) -> list[Path]:
    here = [file for file in path.glob("layer*.sae.pt") if _FILE.fullmatch(file.name)]
    return here or [file for file in path.glob("*SAE-Res-*/layer*.sae.pt") if _FILE.fullmatch(file.name)]


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one file, or of a folder of alike ones.

    Raises:
      InputError: a path that does not say what is missing, a missing, unknown or wrong tensor, or a file that is
        damaged or holds more.
    """
    files = [path] if path.is_file() else _files(path)
    return single.stack([_one(file, np.dtype(dtype)) for file in files], path)


def _one(path: Path, dtype: np.dtype) -> tuple[DictionaryConfig, dict[str, Any]]:
    layer = _FILE.fullmatch(path.name)
    folders = [match for name in path.absolute().parts[:-1] if (match := _FOLDER.fullmatch(name))]
    if layer is None or not folders:
        raise InputError(
            f"{path}: nothing in it says how many features are active; expected a path such as "
            "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer0.sae.pt"
        )
    found = torch_files.read(path)
    reader = tensors.Reader(path, tensors.Arrays({name: np.asarray(value) for name, value in found.items()}))
    n, d = reader.sizes("W_enc", ("features", "width"))
    arrays = {
        "W_enc": reader.take("W_enc", (n, d), dtype),
        "W_dec": reader.take("W_dec", (d, n), dtype).T,
        "b_enc": reader.take("b_enc", (n,), dtype),
        "b_dec": reader.take("b_dec", (d,), dtype),
    }
    reader.finish()
    model, k = folders[-1].groups()
    return single.build(
        arrays,
        "topk",
        ("resid_post", "resid_post"),
        int(layer.group(1)),
        k=int(k),
        model_name=f"{MODEL}{model}",
    )


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "plt" or config.activation != "topk" or config.normalise_rows != "none":
        return f"it has autoencoders with topk only, not the kind {config.kind!r} with {config.activation!r}"
    if (config.read_site, config.write_site) != ("resid_post", "resid_post"):
        return f"it reads and writes resid_post, not {config.read_site} and {config.write_site}"
    for name in ("skip", "d_write"):
        if getattr(config, name):
            return f"it has nothing for {name} = {getattr(config, name)}"
    if config.n_features % 1024:
        return f"its folder's name has the width in thousands (1024), which {config.n_features} is not a multiple of"
    if not config.model_name.startswith(MODEL):
        return f"it is of models of {MODEL}, not of {config.model_name or 'one without a name'}"
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write one file a layer; ``folder`` must exist. Of a centred input the encoder bias takes the difference.

    Features ranked by decoder length are written with that length folded in, which multiplies their activations.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    model = config.model_name.removeprefix(MODEL)
    inner = folder / f"SAE-Res-{model}-W{config.n_features // 1024}K-L0_{config.k}"
    inner.mkdir()
    for index in range(config.n_layers):
        arrays = single.layer_arrays(params, index)
        if config.ranked:
            arrays = single.fold_norms(arrays)
        stored = tensors.host(single.uncentre(arrays) if config.centre else arrays, dtype)
        values = {
            "W_enc": stored["W_enc"],
            "W_dec": stored["W_dec"].T,
            "b_enc": stored["b_enc"],
            "b_dec": stored["b_dec"],
        }
        torch_files.write(inner / f"layer{single.layer_of(config, index)}.sae.pt", values)
