"""dictionary_learning's ``ae.pt`` (or ``checkpoints/ae_{step}.pt``) with ``config.json``; read only.

Batch top-k and Matryoshka dictionaries are read as they are used after training, as a JumpReLU with one threshold.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import single, tensors, torch_files
from jaxinterp.dictionaries.formats.fields import Fields, read_fields

NAME = "dictionary-learning"
CONFIG = "config.json"
CLASSES = {
    "AutoEncoder": "relu", "AutoEncoderNew": "relu", "GatedAutoEncoder": "gated", "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu", "MatryoshkaBatchTopKSAE": "jumprelu", "JumpReluAutoEncoder": "jumprelu",
}  # fmt: skip
UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
_FILE = re.compile(r"ae(_\d+)?\.pt")
_SUBMODULE = re.compile(r"(resid_post|resid_pre|mlp_out|attn_out)_layer_(\d+)")
_SITES = {"mlp_out": "mlp_out_raw", "attn_out": "attn_out_raw"}


def recognises(path: Path) -> bool:
    """Whether ``path`` is such a file, or a folder with ``ae.pt``."""
    return _FILE.fullmatch(path.name) is not None if path.is_file() else (path / "ae.pt").is_file()


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one dictionary.

    Raises:
      InputError: a class or submodule that is not understood, a missing, unknown or wrong field or tensor, or a file
        that is damaged or holds more than tensors.
    """
    file = path if path.is_file() else path / "ae.pt"
    places = [folder / CONFIG for folder in (file.parent, file.parent.parent) if (folder / CONFIG).is_file()]
    if not places:
        raise InputError(f"{file}: there is no {CONFIG} beside it, which says what it is")
    trainer = read_fields(places[0]).inner("trainer")
    name = trainer.get("dict_class", str)
    if name not in CLASSES:
        raise InputError(f"{trainer.where}: dict_class is {name!r}, expected one of {', '.join(CLASSES)}")
    site, layer = _site(trainer)
    n, d = trainer.size("dict_size"), trainer.size("activation_dim")
    found = torch_files.read(file)
    reader = tensors.Reader(file, tensors.Arrays({key: np.asarray(value) for key, value in found.items()}))
    arrays = _arrays(reader, name, n, d, np.dtype(dtype))
    k = 0
    if name == "AutoEncoderTopK":
        k = reader.whole("k", 1) if "k" in reader.names else trainer.size("k")
    reader.ignore("k", "threshold", "group_sizes")
    reader.finish()
    return single.build(
        arrays, CLASSES[name], (site, site), layer, k=k, centre=name not in UNCENTRED,
        model_name=trainer.get("lm_name", str, ""),
    )  # fmt: skip


def _site(trainer: Fields) -> tuple[str, int]:
    name, layer = trainer.get("submodule_name", str, None), trainer.get("layer", int, None)
    match = _SUBMODULE.fullmatch(name or "")
    if match is None or layer not in (None, int(match.group(2))):
        raise InputError(
            f"{trainer.where}: submodule_name is {name!r} and layer {layer}, expected a name such as "
            f"resid_post_layer_{layer or 0} with that layer"
        )
    return _SITES.get(match.group(1), match.group(1)), int(match.group(2))


def _arrays(file: tensors.Reader, name: str, n: int, d: int, dtype: np.dtype) -> single.Arrays:
    plain = name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")
    arrays = {
        "W_enc": file.take("W_enc", (d, n), dtype).T if plain else file.take("encoder.weight", (n, d), dtype),
        "W_dec": file.take("W_dec", (n, d), dtype) if plain else file.take("decoder.weight", (d, n), dtype).T,
    }
    bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}
    arrays["b_dec"] = file.take(bias.get(name, "b_dec"), (d,), dtype)
    own = "b_enc" if plain else "gate_bias" if name == "GatedAutoEncoder" else "encoder.bias"
    arrays["b_enc"] = file.take(own, (n,), dtype)
    if name == "GatedAutoEncoder":
        arrays |= {"r_mag": file.take("r_mag", (n,), dtype), "b_mag": file.take("mag_bias", (n,), dtype)}
    if name == "JumpReluAutoEncoder":
        arrays["threshold"] = single.rectified(file.take("threshold", (n,), dtype))
    elif CLASSES[name] == "jumprelu":
        arrays["threshold"] = np.full(n, max(file.scalar("threshold"), 0.0), dtype)
    return arrays
