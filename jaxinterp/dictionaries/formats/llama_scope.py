"""Llama Scope: ``hyperparams.json`` with ``checkpoints/final.safetensors``, and R1-Distill with ``config.json``.

One layer. What is read and written is multiplied by sqrt(D) over its average length first. The one threshold of Llama
Scope is compared with activations times decoder length in units of what is written, as the program that made it has
them in inference (scale folded in, decoders of length one): our pre-activations, which are those of the scaled input,
are larger by sqrt(D) over the average length of what is written. R1-Distill has a threshold a feature, in the
pre-activations' own units. Decoder lengths count where ``sparsity_include_decoder_norm`` says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.notes import note

NAME = "llama-scope"
CONFIG, TENSORS = "hyperparams.json", "checkpoints/final.safetensors"
DISTILL_CONFIG, DISTILL_TENSORS = "config.json", "sae_weights.safetensors"
LOG = "log_jumprelu_threshold"
AVERAGE = "dataset_average_activation_norm"
MODEL = "meta-llama/Llama-3.1-8B"


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with these files and names."""
    if (path / CONFIG).is_file() and (path / TENSORS).is_file():
        return True
    return (path / DISTILL_CONFIG).is_file() and "encoder.weight" in tensors.peek(path / DISTILL_TENSORS)


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one dictionary.

    Raises:
      InputError: an activation function, normalisation or hook that is not understood, a missing, unknown or wrong
        field or tensor, or a damaged file.
    """
    scope = (path / CONFIG).is_file()
    config = read_fields(path / (CONFIG if scope else DISTILL_CONFIG))
    hook_in = config.get("hook_point_in", str)
    hook_out = config.get("hook_point_out", str, hook_in)
    site, layer = hooks.lens_site(hook_in, config.where, "hook_point_in")
    out, target = hooks.lens_site(hook_out, config.where, "hook_point_out")
    if layer != target:
        raise InputError(
            f"{config.where}: it reads layer {layer} and writes layer {target}, expected the same layer"
        )
    if config.get("use_glu_encoder", bool, False):
        raise InputError(f"{config.where}: use_glu_encoder is true; gated linear encoders are not supported")
    with tensors.reading(path / (TENSORS if scope else DISTILL_TENSORS)) as file:
        arrays, activation, k, ranked = _arrays(file, config, (hook_in, hook_out), np.dtype(dtype))
        file.finish()
    return single.build(
        arrays,
        activation,
        (site, out),
        layer,
        k=k,
        ranked=ranked,
        model_name=config.get("model_name", str, MODEL),
    )


def _arrays(
    file: tensors.Reader, config: Fields, places: tuple[str, str], dtype: np.dtype
) -> tuple[single.Arrays, str, int, bool]:
    n, d = file.sizes("encoder.weight", ("features", "width"))
    for name, expected in (("d_model", d), ("d_sae", n)):
        if config.size(name, expected) != expected:
            raise InputError(
                f"{config.where}: {name} is {config.get(name, int)}, the tensors have {expected}"
            )
    arrays = {
        "W_enc": file.take("encoder.weight", (n, d), dtype),
        "b_enc": file.take("encoder.bias", (n,), dtype),
        "W_dec": file.take("decoder.weight", (d, n), dtype).T,
        "b_dec": np.zeros(d, dtype),
    }
    if config.get("use_decoder_bias", bool, True):
        arrays["b_dec"] = file.take("decoder.bias", (d,), dtype)
    if config.get("apply_decoder_bias_to_pre_encoder", bool, False):
        arrays = single.uncentre(arrays)
    read_by, write_by = (
        _scale(config, side, hook, d) for side, hook in zip(("in", "out"), places, strict=True)
    )
    ranked = config.get("sparsity_include_decoder_norm", bool, False)
    activation, k = config.get("act_fn", str, "jumprelu"), 0
    one = config.get("jump_relu_threshold", float, 0.0)
    if LOG in file.names:
        activation, arrays["threshold"] = "jumprelu", np.exp(file.take(LOG, (n,), dtype))
    elif activation in ("jumprelu", "topk") and (activation == "jumprelu" or one > 0):
        # With a threshold, the program turns top-k into JumpReLU for inference.
        activation, arrays["threshold"] = "jumprelu", np.full(n, max(one, 0.0) * write_by, dtype)
        note(f"the one threshold {one:.6g} is multiplied by the scale {write_by:.6g} of what is written")
    elif activation == "topk":
        k = config.size("top_k")
    elif activation != "relu":
        raise InputError(f"{config.where}: act_fn is {activation!r}, expected relu, jumprelu or topk")
    if ranked and "threshold" in arrays:
        length = single.norms(arrays)
        if not (length > 0).all():
            raise InputError(
                f"{file.path}: decoder.weight has a column of length zero, its threshold is unknown"
            )
        note("thresholds are divided by decoder lengths")
        arrays["threshold"] = (arrays["threshold"] / length).astype(dtype)
    if (read_by, write_by) != (1.0, 1.0):
        note(
            f"the scales {read_by:.6g} of what is read and {write_by:.6g} of what is written are folded in; "
            "activations are those of the scaled input"
        )
    arrays["W_enc"] = (arrays["W_enc"] * read_by).astype(dtype)
    arrays |= {name: (arrays[name] / write_by).astype(dtype) for name in ("W_dec", "b_dec")}
    return arrays, activation, k, ranked and bool(k)


def _scale(config: Fields, side: str, hook: str, d: int) -> float:
    """What a site is multiplied by before anything else."""
    norm = config.get("norm_activation", str, "dataset-wise" if AVERAGE in config else "inference")
    if norm == "inference":
        return 1.0
    if norm != "dataset-wise":
        raise InputError(f"{config.where}: norm_activation is {norm!r}, expected dataset-wise or inference")
    averages = config.inner(AVERAGE)
    name = hook if hook in averages else side if side in averages else "in"
    average = averages.get(name, float)
    if not 0 < average < float("inf"):
        raise InputError(f"{config.where}: {AVERAGE}.{name} is {average}, expected a positive number")
    return float(np.sqrt(d) / average)


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "plt" or config.n_layers != 1:
        return f"it holds one layer, not the kind {config.kind!r} with {config.n_layers} layers"
    if config.activation not in ("relu", "jumprelu", "topk"):
        return f"it has no activation {config.activation!r}"
    for name in ("skip", "centre", "d_write"):
        if getattr(config, name):
            return f"it has nothing for {name} = {getattr(config, name)}"
    for name in ("read_site", "write_site"):
        if hooks.lens_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return single.refuses_rows(config)


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a one-layer dictionary; ``folder`` must exist. No scale is left to apply (``norm_activation: inference``).

    One threshold for all features makes a Llama Scope folder, one each an R1-Distill folder, whose logarithm changes
    their last digits.

    Raises:
      InputError: a value that ``dtype`` cannot hold, or thresholds that differ and are not positive.
    """
    stored = {name: value[0] for name, value in tensors.host(params, dtype).items()}
    threshold = stored.pop("threshold", None)
    layer = single.layer_of(config)
    values = {
        "encoder.weight": stored["W_enc"], "encoder.bias": stored["b_enc"], "decoder.weight": stored["W_dec"].T,
        "decoder.bias": stored["b_dec"],
    }  # fmt: skip
    fields: dict[str, Any] = {
        "model_name": config.model_name, "hook_point_in": hooks.lens_name(config.read_site, layer),
        "hook_point_out": hooks.lens_name(config.write_site, layer), "d_model": config.d_model,
        "d_sae": config.n_features, "expansion_factor": config.n_features / config.d_model,
        "act_fn": config.activation, "norm_activation": "inference", "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": config.ranked,
    }  # fmt: skip
    if config.activation == "topk":
        fields["top_k"] = config.k
    distill = threshold is not None and bool((threshold != threshold[0]).any())
    if threshold is not None and not distill:
        fields["jump_relu_threshold"] = float(threshold[0])
    if distill:
        assert threshold is not None
        if not (threshold > 0).all():
            raise InputError(f"a threshold is not positive, which the format {NAME} ({LOG}) cannot say")
        note("thresholds are stored as logarithms, which changes their last digits")
        values[LOG] = np.log(threshold)
    place = folder / (DISTILL_TENSORS if distill else TENSORS)
    place.parent.mkdir(exist_ok=True)
    tensors.write(place, values)
    write_json(folder / (DISTILL_CONFIG if distill else CONFIG), fields)
