"""OpenAI's autoencoders of GPT-2: ``{place}/autoencoders/{layer}.pt``, one torch file a layer.

Nothing inside says what is read: the path does, as where they were published. Those with top-k normalise each row
(layer norm) and undo it, those with ReLU do not; the input is always centred by ``pre_bias``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import single, tensors, torch_files

NAME = "openai"
PLACES = {
    "resid_post_attn": "resid_mid", "resid_post_mlp": "resid_post", "resid_delta_attn": "attn_out",
    "resid_delta_mlp": "mlp_out",
}  # fmt: skip
_FOLDER = "*/autoencoders/*.pt"


def recognises(path: Path) -> bool:
    """Whether ``path`` is such a file, or a folder with such files below a place's name."""
    if path.is_dir():
        return any(file.stem.isdigit() for file in path.glob(_FOLDER))
    return path.suffix == ".pt" and "latent_bias" in torch_files.peek(path)


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one file, or of a folder of alike ones.

    Raises:
      InputError: a path that does not say what is read, an activation function that is not understood, a missing,
        unknown or wrong tensor, or a file that is damaged or holds more.
    """
    files = [path] if path.is_file() else sorted(path.glob(_FOLDER))
    return single.stack([_one(file, np.dtype(dtype)) for file in files], path)


def _one(path: Path, dtype: np.dtype) -> tuple[DictionaryConfig, dict[str, Any]]:
    found = torch_files.read(path)
    activation, state = found.pop("activation", "ReLU"), found.pop("activation_state_dict", {})
    k = state.get("k") if isinstance(state, dict) else None
    if activation not in ("ReLU", "TopK"):
        raise InputError(f"{path}: activation is {activation!r}, expected ReLU or TopK")
    if activation == "TopK":
        after = state.get("postact_fn", "ReLU") if isinstance(state, dict) else None
        k = int(k) if isinstance(k, np.ndarray) and k.shape == () else k
        if after != "ReLU" or not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise InputError(
                f"{path}: activation_state_dict is {state!r}, expected k, a whole number of at least 1, "
                "and postact_fn ReLU"
            )
    places = [place for part in path.absolute().parts if (place := re.sub(r"_v\d+_\w+$", "", part)) in PLACES]
    if not places or not path.stem.isdigit():
        raise InputError(
            f"{path}: nothing in it says what it reads; expected a path such as resid_post_mlp/autoencoders/8.pt"
        )
    reader = tensors.Reader(path, tensors.Arrays({name: np.asarray(value) for name, value in found.items()}))
    n, d = reader.sizes("encoder.weight", ("features", "width"))
    arrays = {
        "W_enc": reader.take("encoder.weight", (n, d), dtype),
        "W_dec": reader.take("decoder.weight", (d, n), dtype).T,
        "b_enc": reader.take("latent_bias", (n,), dtype),
        "b_dec": reader.take("pre_bias", (d,), dtype),
    }
    reader.ignore("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
    reader.finish()
    topk, site = activation == "TopK", PLACES[places[-1]]
    return single.build(
        arrays, "topk" if topk else "relu", (site, site), int(path.stem), k=k if topk and k else 0, centre=True,
        normalise_rows="layer_norm" if topk else "none", model_name="gpt2",
    )  # fmt: skip


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "plt" or not single.autoencoder(config) or config.read_site not in PLACES.values():
        return f"it has autoencoders at {', '.join(PLACES.values())}"
    for name in ("skip", "d_write"):
        if getattr(config, name):
            return f"it has nothing for {name} = {getattr(config, name)}"
    if (config.activation, config.normalise_rows) not in (("relu", "none"), ("topk", "layer_norm")):
        return (
            "it has relu without and topk with normalise_rows = layer_norm, not "
            f"{config.activation} with {config.normalise_rows}"
        )
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write one file a layer; ``folder`` must exist. The encoder bias takes the difference where ours is not centred.

    Features ranked by decoder length are written with that length folded in, which multiplies their activations.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    place = next(name for name, site in PLACES.items() if site == config.read_site)
    inner = folder / place / "autoencoders"
    inner.mkdir(parents=True)
    for index in range(config.n_layers):
        arrays = single.layer_arrays(params, index)
        if config.ranked:
            arrays = single.fold_norms(arrays)
        stored = tensors.host(arrays if config.centre else single.centre(arrays), dtype)
        topk, n = config.activation == "topk", config.n_features
        values: dict[str, Any] = {
            "pre_bias": stored["b_dec"], "latent_bias": stored["b_enc"],
            "stats_last_nonzero": np.zeros(n, np.int64), "latents_activation_frequency": np.ones(n, np.float32),
            "latents_mean_square": np.zeros(n, np.float32), "encoder.weight": stored["W_enc"],
            "decoder.weight": stored["W_dec"].T, "activation": "TopK" if topk else "ReLU",
            "activation_state_dict": {"k": config.k, "postact_fn": "ReLU"} if topk else {},
        }  # fmt: skip
        torch_files.write(inner / f"{single.layer_of(config, index)}.pt", values)
