"""Published sets that are single torch files, read only: Goodfire's, DeepSeek-R1's, and crosscoders of two models.

Goodfire's files (``{model}-SAE-l{layer}.pt``, ``encoder_linear.*`` or ``encoder.*``) say in their names what is read. A
crosscoder in the layout of ckkissane's (``W_enc`` [2, D, N]) has its config beside it, ``{name}_cfg.json``; the two
models' activations are taken as they are, without the factors its training had multiplied them by.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors, torch_files
from jaxinterp.dictionaries.formats.fields import read_fields

NAME = "torch-file"
_NAMED = re.compile(r"(.+)-SAE-l(\d+)")
ORGANISATIONS = {"Llama": "meta-llama", "DeepSeek": "deepseek-ai"}


def recognises(path: Path) -> bool:
    """Whether ``path`` is a torch file."""
    return path.is_file() and path.suffix in (".pt", ".pth")


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one file.

    Raises:
      InputError: names that are those of no set, a name or config that does not say what is read, a missing, unknown or
        wrong tensor, or a file that is damaged or holds more.
    """
    found = torch_files.read(path)
    reader = tensors.Reader(path, tensors.Arrays({name: np.asarray(value) for name, value in found.items()}))
    for encoder, decoder in (("encoder_linear", "decoder_linear"), ("encoder", "decoder")):
        if {f"{encoder}.weight", f"{encoder}.bias", f"{decoder}.weight", f"{decoder}.bias"} <= found.keys():
            return _linear(path, reader, encoder, decoder, np.dtype(dtype))
    if "W_enc" in found and len(reader.shape("W_enc")) == 3:
        return _crosscoder(path, reader, np.dtype(dtype))
    raise InputError(
        f"{path}: its tensors ({', '.join(sorted(found)[:6])}) are none of OpenAI's (latent_bias), Qwen Scope's "
        "(W_enc), Goodfire's (encoder_linear.weight), or a crosscoder's (W_enc [2, D, N])"
    )


def _linear(
    path: Path, reader: tensors.Reader, encoder: str, decoder: str, dtype: np.dtype
) -> tuple[DictionaryConfig, dict[str, Any]]:
    match = _NAMED.fullmatch(path.stem)
    if match is None:
        raise InputError(
            f"{path}: nothing in it says what it reads; expected a name such as Llama-3.1-8B-Instruct-SAE-l19.pth"
        )
    n, d = reader.sizes(f"{encoder}.weight", ("features", "width"))
    arrays = {
        "W_enc": reader.take(f"{encoder}.weight", (n, d), dtype),
        "W_dec": reader.take(f"{decoder}.weight", (d, n), dtype).T,
        "b_enc": reader.take(f"{encoder}.bias", (n,), dtype),
        "b_dec": reader.take(f"{decoder}.bias", (d,), dtype),
    }
    reader.finish()
    model, layer = match.groups()
    organisation = ORGANISATIONS.get(model.split("-")[0])
    return single.build(
        arrays, "relu", ("resid_post", "resid_post"), int(layer),
        model_name=f"{organisation}/{model}" if organisation else model,
    )  # fmt: skip


def _crosscoder(
    path: Path, reader: tensors.Reader, dtype: np.dtype
) -> tuple[DictionaryConfig, dict[str, Any]]:
    place = path.with_name(f"{path.stem}_cfg.json")
    if not place.is_file():
        raise InputError(f"{path}: there is no {place.name} beside it, which says what is read (hook_point)")
    config = read_fields(place)
    models, d, n = reader.sizes("W_enc", ("models", "width", "features"))
    site, _ = hooks.lens_site(config.get("hook_point", str), config.where, "hook_point")
    params = {
        "W_enc": np.swapaxes(reader.take("W_enc", (models, d, n), dtype), 1, 2),
        "W_dec": np.swapaxes(reader.take("W_dec", (n, models, d), dtype), 0, 1),
        "b_enc": reader.take("b_enc", (n,), dtype)[None],
        "b_dec": reader.take("b_dec", (models, d), dtype),
    }
    reader.finish()
    return DictionaryConfig(
        "crosscoder", models, n, d, activation="relu", read_site=site, write_site=site,
        model_name=config.get("model_name", str, ""),
    ), params  # fmt: skip
