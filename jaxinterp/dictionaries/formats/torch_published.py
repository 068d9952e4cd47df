"""Two published sets that are single torch files, read only: OpenAI's and Qwen Scope.

Nothing inside says what is read: the path does, as it is where they were published.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import single, tensors, torch_files

NAME = "torch-file"
OPENAI = {
    "resid_post_attn": "resid_mid", "resid_post_mlp": "resid_post", "resid_delta_attn": "attn_out",
    "resid_delta_mlp": "mlp_out",
}  # fmt: skip
_QWEN_FILE = re.compile(r"layer(\d+)\.sae\.pt")
_QWEN_FOLDER = re.compile(r".*SAE-Res-(.+)-W\d+K-L0_(\d+)")


def recognises(path: Path) -> bool:
    """Whether ``path`` is a torch file."""
    return path.is_file() and path.suffix in (".pt", ".pth")


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one file.

    Raises:
      InputError: names that are those of neither set, a path that does not say what is read, an activation function
        that is not understood, a missing, unknown or wrong tensor, or a file that is damaged or holds more.
    """
    found = torch_files.read(path)
    if "latent_bias" in found:
        return _openai(path, found, np.dtype(dtype))
    if "W_enc" in found:
        return _qwen(path, found, np.dtype(dtype))
    raise InputError(
        f"{path}: its tensors ({', '.join(sorted(found)[:6])}) are neither OpenAI's (latent_bias) nor "
        "Qwen Scope's (W_enc)"
    )


def _openai(path: Path, found: dict[str, Any], dtype: np.dtype) -> tuple[DictionaryConfig, dict[str, Any]]:
    activation = found.pop("activation", None)
    found.pop("activation_state_dict", None)
    if activation != "ReLU":
        raise InputError(
            f"{path}: activation is {activation!r}, expected 'ReLU'; with TopK the program divides each row by its "
            "standard deviation first, which no weights can hold"
        )
    names = path.absolute().parts
    places = [name for name in names for known in OPENAI if re.fullmatch(rf"{known}(_v\d+_\w+)?", name)]
    if not places or not path.stem.isdigit():
        raise InputError(
            f"{path}: nothing in it says what it reads; expected a path such as resid_post_mlp/autoencoders/8.pt"
        )
    site = OPENAI[re.sub(r"_v\d+_\w+$", "", places[-1])]
    reader = tensors.Reader(path, tensors.Arrays({name: np.asarray(value) for name, value in found.items()}))
    n, d = reader.sizes("encoder.weight", ("features", "width"))
    arrays = {
        "W_enc": reader.take("encoder.weight", (n, d), dtype),
        "W_dec": reader.take("decoder.weight", (d, n), dtype).T,
        "b_enc": reader.take("latent_bias", (n,), dtype),
        "b_dec": reader.take("pre_bias", (d,), dtype),
    }
    reader.ignore("stats_last_nonzero")
    reader.finish()
    return single.build(arrays, "relu", (site, site), int(path.stem), centre=True, model_name="gpt2")


def _qwen(path: Path, found: dict[str, Any], dtype: np.dtype) -> tuple[DictionaryConfig, dict[str, Any]]:
    layer = _QWEN_FILE.fullmatch(path.name)
    folders = [match for name in path.absolute().parts[:-1] if (match := _QWEN_FOLDER.fullmatch(name))]
    if layer is None or not folders:
        raise InputError(
            f"{path}: nothing in it says how many features are active; expected a path such as "
            "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer0.sae.pt"
        )
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
        model_name=f"Qwen/{model}",
    )
