"""dictionary_learning's ``ae.pt`` (or ``checkpoints/ae_{step}.pt``) with ``config.json``.

Batch top-k and Matryoshka dictionaries are read as they are used after training, as a JumpReLU with one threshold.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import single, tensors, torch_files
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.notes import note

NAME = "dictionary-learning"
CONFIG = "config.json"
CLASSES = {
    "AutoEncoder": "relu", "AutoEncoderNew": "relu", "GatedAutoEncoder": "gated", "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu", "MatryoshkaBatchTopKSAE": "jumprelu", "JumpReluAutoEncoder": "jumprelu",
}  # fmt: skip
UNCENTRED = ("AutoEncoderNew", "JumpReluAutoEncoder")
_BIAS = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}
_ENCODER_BIAS = {
    "JumpReluAutoEncoder": "b_enc", "MatryoshkaBatchTopKSAE": "b_enc", "GatedAutoEncoder": "gate_bias",
}  # fmt: skip
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
    arrays["b_dec"] = file.take(_BIAS.get(name, "b_dec"), (d,), dtype)
    arrays["b_enc"] = file.take(_ENCODER_BIAS.get(name, "encoder.bias"), (n,), dtype)
    if name == "GatedAutoEncoder":
        arrays |= {"r_mag": file.take("r_mag", (n,), dtype), "b_mag": file.take("mag_bias", (n,), dtype)}
    if name == "JumpReluAutoEncoder":
        arrays["threshold"] = single.rectified(file.take("threshold", (n,), dtype))
    elif CLASSES[name] == "jumprelu":
        note("batch top-k becomes JumpReLU with its one threshold")
        arrays["threshold"] = np.full(n, max(file.scalar("threshold"), 0.0), dtype)
    return arrays


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "plt" or config.n_layers != 1:
        return f"it holds one layer, not the kind {config.kind!r} with {config.n_layers} layers"
    if config.activation not in CLASSES.values():
        return f"it has no activation {config.activation!r}"
    if not single.autoencoder(config) or _submodule(config) is None:
        return f"it has nothing that reads {config.read_site} and writes {config.write_site}"
    for name in ("skip", "d_write"):
        if getattr(config, name):
            return f"it has nothing for {name} = {getattr(config, name)}"
    return single.refuses_rows(config)


def _submodule(config: DictionaryConfig) -> str | None:
    names = {site: name for name, site in _SITES.items()} | {
        "resid_post": "resid_post",
        "resid_pre": "resid_pre",
    }
    name = names.get(config.read_site)
    return None if name is None else f"{name}_layer_{single.layer_of(config)}"


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write ``ae.pt`` and ``config.json``; ``folder`` must exist.

    Of classes whose input is always centred, or never, the encoder bias takes the difference. Features ranked by
    decoder length are written with that length folded in, which multiplies their activations.

    Raises:
      InputError: a value that ``dtype`` cannot hold, or a threshold below zero.
    """
    arrays = single.layer_arrays(params)
    if config.ranked:
        arrays = single.fold_norms(arrays)
    threshold = arrays.get("threshold")
    single.check_rectified(arrays, NAME)
    name = {"topk": "AutoEncoderTopK", "gated": "GatedAutoEncoder"}.get(config.activation, "")
    if config.activation == "relu":
        name = "AutoEncoder" if config.centre else "AutoEncoderNew"
    elif threshold is not None:
        one = config.centre and bool((threshold == threshold[0]).all())
        name = "BatchTopKSAE" if one else "JumpReluAutoEncoder"
    if config.centre and name in UNCENTRED:
        arrays = single.uncentre(arrays)
    elif not config.centre and name not in UNCENTRED:
        arrays = single.centre(arrays)
    stored = tensors.host(arrays, dtype)
    values: dict[str, Any] = {"W_enc": stored["W_enc"].T, "W_dec": stored["W_dec"]}
    if name != "JumpReluAutoEncoder":
        values = {"encoder.weight": stored["W_enc"], "decoder.weight": stored["W_dec"].T}
    values[_BIAS.get(name, "b_dec")] = stored["b_dec"]
    values[_ENCODER_BIAS.get(name, "encoder.bias")] = stored["b_enc"]
    if name == "GatedAutoEncoder":
        values |= {"r_mag": stored["r_mag"], "mag_bias": stored["b_mag"]}
    if name == "JumpReluAutoEncoder":
        values["threshold"] = stored["threshold"]
    k = config.k
    if name == "BatchTopKSAE":
        assert threshold is not None
        values |= {"k": np.array(1, np.int32), "threshold": np.array(threshold[0], np.float32)}
        note(
            "one threshold for all features is written as batch top-k with it; k is not known and written as 1"
        )
        k = 1  # it is not known and of training only: with a threshold it does not count
    if name == "AutoEncoderTopK":
        values |= {"k": np.array(k, np.int32), "threshold": np.array(-1.0, np.float32)}
    torch_files.write(folder / "ae.pt", values)
    trainer: dict[str, Any] = {
        "dict_class": name, "activation_dim": config.d_model, "dict_size": config.n_features,
        "layer": single.layer_of(config), "lm_name": config.model_name, "submodule_name": _submodule(config),
    }  # fmt: skip
    write_json(folder / CONFIG, {"trainer": {**trainer, **({"k": k} if k else {})}, "buffer": {}})
