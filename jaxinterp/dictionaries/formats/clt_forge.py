"""CLT-Forge: ``clt_cfg.json`` and ``clt_weights.safetensors`` of a cross-layer transcoder.

Decoders lie there one a pair of layers, ``W_dec`` [L (L + 1) / 2, N, D] with the source layer's first, and so do their
biases, which add up in a target layer. Inputs are multiplied and outputs divided by ``estimated_norm_scaling_factor``;
both are folded in. The config names no sites: they are those of its own export, the normalised input of the MLP and its
output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import tensors
from jaxinterp.dictionaries.formats.fields import read_fields
from jaxinterp.dictionaries.formats.mapped import Count, Piece, opened
from jaxinterp.dictionaries.formats.notes import note
from jaxinterp.dictionaries.formats.pieces import Pieces, whole

NAME = "clt-forge"
CONFIG, TENSORS = "clt_cfg.json", "clt_weights.safetensors"
SITES = ("mlp_normalized", "mlp_out")
IN, OUT = "estimated_norm_scaling_factor_in", "estimated_norm_scaling_factor_out"


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's config."""
    return (path / CONFIG).is_file()


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a CLT-Forge folder.

    Raises:
      InputError: weights in several pieces, a missing, unknown or wrong tensor, or a damaged file.
    """
    return whole(pieces(path, dtype))


def pieces(path: Path, dtype: Any = "float32") -> Pieces:
    """The same, read when it is asked for."""
    config = read_fields(path / CONFIG)
    if not (path / TENSORS).is_file() and any(path.glob(f"rank*_{TENSORS}")):
        raise InputError(f"{path}: its weights are in pieces (rank*_{TENSORS}), expected one {TENSORS}")
    kind, count = np.dtype(dtype), Count()
    file = opened(path / TENSORS, count)
    layers, d, n = file.sizes("W_enc", ("layers", "width", "features"))
    places = [(source, target) for source in range(layers) for target in range(source, layers)]
    out = file.sizes("W_dec", ("pairs of layers", "features", "width"))[2]
    small = {name: file.take(name, (layers, n), kind) for name in ("b_enc", "log_threshold")}
    biases = file.take("b_dec", (len(places), out), kind)
    read_by, write_by = (
        file.take(name, (layers,), kind) if name in file.names else np.ones(layers, kind)
        for name in (IN, OUT)
    )
    file.ignore("W_enc", "W_dec", "feature_count", "layer_mask")
    file.finish()
    if not (read_by > 0).all() or not (write_by > 0).all():
        raise InputError(f"{path / TENSORS}: a scaling factor is not positive")
    if (read_by != 1).any() or (write_by != 1).any():
        note("estimated_norm_scaling_factor is folded in; activations are those of the scaled input")
    b_dec = np.zeros((layers, out), kind)
    for (_, target), bias in zip(places, biases, strict=True):
        b_dec[target] += bias / write_by[target]

    def layer(index: int) -> dict[str, np.ndarray]:
        threshold = np.exp(small["log_threshold"][index])
        return {"b_enc": small["b_enc"][index], "b_dec": b_dec[index], "threshold": threshold}

    def encoder(index: int) -> Piece:
        return file.piece("W_enc", (layers, d, n), kind, index, transpose=True, multiply=read_by[index])

    def decoder(source: int, target: int) -> Piece:
        shape, place = (len(places), n, out), places.index((source, target))
        return file.piece("W_dec", shape, kind, place, divide=write_by[target])

    found = DictionaryConfig(
        "clt", layers, n, d, read_site=SITES[0], write_site=SITES[1], d_write=None if out == d else out,
        model_name=config.get("model_name", str, ""),
    )  # fmt: skip
    return Pieces(found, layer, encoder, decoder, count)


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "clt" or config.activation != "jumprelu":
        return f"it has the kind 'clt' with jumprelu only, not {config.kind!r} with {config.activation!r}"
    if (config.read_site, config.write_site) != SITES:
        return f"it reads {SITES[0]} and writes {SITES[1]}, not {config.read_site} and {config.write_site}"
    if config.skip or config.layers:
        return f"it has nothing for {'skip' if config.skip else 'layers'}"
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a cross-layer transcoder; ``folder`` must exist. Tied decoders are repeated; thresholds must be positive.

    Raises:
      InputError: a value that ``dtype`` cannot hold, or a threshold of zero.
    """
    stored = tensors.host(params, dtype)
    if not (stored["threshold"] > 0).all():
        raise InputError(f"a threshold is not positive, which the format {NAME} (log_threshold) cannot say")
    kind = stored["b_enc"].dtype
    note("thresholds are stored as logarithms, which changes their last digits")
    if config.tied:
        note("decoders that are the same for several layers are written once for each")
    pairs = [(s, t) for s in range(config.n_layers) for t in range(s, config.n_layers)]
    decoder = [stored["W_dec"][s] if config.tied else stored["W_dec"][t][s] for s, t in pairs]
    nothing = np.zeros(config.d_out, kind)
    values = {
        "W_enc": np.swapaxes(stored["W_enc"], 1, 2), "b_enc": stored["b_enc"], "W_dec": np.stack(decoder),
        "b_dec": np.stack([stored["b_dec"][t] if s == t else nothing for s, t in pairs]),
        "log_threshold": np.log(stored["threshold"]), IN: np.ones(config.n_layers, kind),
        OUT: np.ones(config.n_layers, kind),
    }  # fmt: skip
    tensors.write(folder / TENSORS, values)
    note("the format names no sites: they are those of its own export, as here")
    fields = {
        "model_name": config.model_name, "n_layers": config.n_layers, "d_in": config.d_model,
        "d_latent": config.n_features,
    }  # fmt: skip
    write_json(folder / CONFIG, fields)
