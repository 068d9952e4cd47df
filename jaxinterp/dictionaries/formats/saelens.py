"""SAELens' folders, of version 6 and before: ``cfg.json`` and ``sae_weights.safetensors``, one dictionary each.

Differences of convention, all of them resolved so that activations and outputs are those of SAELens:
encoders lie there as [D, N]; top-k with ``rescale_acts_by_decoder_norm`` ranks and gives activations times decoder
length, which is folded into the encoder here; a JumpReLU there is rectified too, so a negative threshold is zero here;
checkpoints of batch top-k become a JumpReLU with one threshold for all; ``scaling_factor`` multiplies decoders;
``normalize_activations: expected_average_only_in`` needs the factor in ``activation_scaler.json``; ``layer_norm`` and
``constant_norm_rescale`` are kept (`DictionaryConfig.normalise_rows`), of autoencoders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.notes import note

NAME = "saelens"
CONFIG, TENSORS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
AUTOENCODERS = {
    "standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated", "batchtopk": "jumprelu",
    "matryoshka_batchtopk": "jumprelu",
}  # fmt: skip
TRANSCODERS = {
    "transcoder": "relu", "skip_transcoder": "relu", "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}  # fmt: skip
ROWS = {"layer_norm": "layer_norm", "constant_norm_rescale": "length"}
"""What is done to each row there, and its name here."""
FIELDS = (
    "architecture", "d_in", "d_sae", "d_out", "k", "rescale_acts_by_decoder_norm", "dtype", "device",
    "apply_b_dec_to_input", "normalize_activations", "reshape_activations", "metadata",
    # Of training only.
    "aux_loss_coefficient", "decoder_init_norm", "jumprelu_bandwidth", "jumprelu_init_threshold",
    "jumprelu_sparsity_loss_mode", "jumprelu_ste_to_input", "jumprelu_tanh_scale", "l0_coefficient",
    "l0_warm_up_steps", "l1_coefficient", "l1_warm_up_steps", "lp_norm", "matryoshka_widths",
    "pre_act_loss_coefficient", "target_l0", "topk_threshold_lr", "use_matryoshka_aux_loss",
    "use_sparse_activations",
)  # fmt: skip


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's two files."""
    return (path / CONFIG).is_file() and (path / TENSORS).is_file()


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in an SAELens folder.

    Raises:
      InputError: an architecture, normalisation or hook that is not understood, a missing, unknown or wrong field or
        tensor, or a damaged file.
    """
    config = read_fields(path / CONFIG)
    if "metadata" not in config:
        config = _modern(config)
    for name in config.values:
        if name not in FIELDS:
            raise InputError(f"{config.where}: unknown field {name!r}{near(name, FIELDS)}")
    architecture = config.get("architecture", str)
    known = {**AUTOENCODERS, **TRANSCODERS}
    if architecture not in known:
        raise InputError(
            f"{config.where}: architecture is {architecture!r}, expected one of {', '.join(known)}"
        )
    sites, layer = _sites(config, architecture in TRANSCODERS)
    centre = config.get("apply_b_dec_to_input", bool, architecture not in TRANSCODERS)
    if centre and architecture in TRANSCODERS:
        raise InputError(f"{config.where}: apply_b_dec_to_input is true, expected false for {architecture}")
    ranked = config.get("rescale_acts_by_decoder_norm", bool, False)
    k = config.size("k") if architecture == "topk" else 0
    arrays, threshold = _arrays(path, config, architecture, np.dtype(dtype))
    if architecture in ("topk", "batchtopk", "matryoshka_batchtopk") and ranked:
        arrays = single.fold_norms(arrays)
    if threshold is not None:
        note(f"batch top-k becomes JumpReLU with the one threshold {threshold:.6g}")
        arrays["threshold"] = np.full_like(arrays["b_enc"], threshold)
    if "threshold" in arrays:
        arrays["threshold"] = single.rectified(arrays["threshold"])
    metadata = config.inner("metadata")
    return single.build(
        _scaled(arrays, config, path), known[architecture], sites, layer, k=k, centre=centre,
        normalise_rows=ROWS.get(config.get("normalize_activations", str, "none"), "none"),
        model_name=metadata.get("model_name", str, ""), scan=metadata.get("neuronpedia_id", str, ""),
    )  # fmt: skip


def _modern(old: Fields) -> Fields:
    """The fields of version 6 for those of before, which has many more that say nothing about the function."""
    values = dict(old.values)
    for before, after in (
        ("hook_point", "hook_name"), ("hook_point_head_index", "hook_head_index"),
        ("activation_fn_str", "activation_fn"),
    ):  # fmt: skip
        if before in values:
            values[after] = values.pop(before)
    fields = Fields(values, old.where)
    architecture = fields.get("architecture", str, "standard")
    function = fields.get("activation_fn", str, "relu")
    kept: dict[str, Any] = {"architecture": architecture}
    if function == "topk":
        if architecture not in ("standard", "topk"):
            raise InputError(
                f"{old.where}: the activation function is topk, but the architecture {architecture!r}"
            )
        kept |= {"architecture": "topk", "k": fields.inner("activation_fn_kwargs").size("k")}
    elif function != "relu":
        raise InputError(f"{old.where}: the activation function is {function!r}, expected relu or topk")
    normalised = values.get("normalize_activations")
    if isinstance(normalised, bool):
        normalised = "expected_average_only_in" if normalised else None
    kept["normalize_activations"] = normalised or "none"
    for name in ("d_in", "d_sae", "d_out", "apply_b_dec_to_input", "reshape_activations"):
        if values.get(name) is not None:
            kept[name] = values[name]
    kept["metadata"] = {
        name: values[name]
        for name in ("model_name", "hook_name", "hook_name_out", "hook_head_index", "neuronpedia_id")
        if values.get(name) is not None
    }
    return Fields(kept, old.where)


def _sites(config: Fields, transcoder: bool) -> tuple[tuple[str, str], int]:
    metadata = config.inner("metadata")
    if metadata.values.get("hook_head_index") is not None:
        raise InputError(
            f"{metadata.where}: hook_head_index is set; dictionaries of a single head are not supported"
        )
    site, layer = hooks.lens_site(metadata.values.get("hook_name"), config.where, "metadata.hook_name")
    shape = config.get("reshape_activations", str, "none")
    if shape not in ("none", "hook_z") or (shape == "hook_z" and site != "attn_z"):
        raise InputError(f"{config.where}: reshape_activations is {shape!r} at {site}, expected none")
    if not transcoder:
        return (site, site), layer
    out, target = hooks.lens_site(
        metadata.values.get("hook_name_out"), config.where, "metadata.hook_name_out"
    )
    if target != layer:
        raise InputError(
            f"{config.where}: it reads layer {layer} and writes layer {target}, expected the same layer"
        )
    return (site, out), layer


def _arrays(
    path: Path, config: Fields, architecture: str, dtype: np.dtype
) -> tuple[single.Arrays, float | None]:
    """The arrays in our orientation, and the one threshold of a batch top-k checkpoint."""
    n, d = config.size("d_sae", None), config.size("d_in")
    out = config.size("d_out", d) if architecture in TRANSCODERS else d
    threshold = None
    with tensors.reading(path / TENSORS) as file:
        if n is None:
            n = file.sizes("W_enc", ("width", "features"))[1]
        arrays = {"W_enc": file.take("W_enc", (d, n), dtype).T, "W_dec": file.take("W_dec", (n, out), dtype)}
        arrays["b_enc"] = file.take("b_gate" if architecture == "gated" else "b_enc", (n,), dtype)
        arrays["b_dec"] = file.take("b_dec", (out,), dtype)
        if architecture == "gated":
            arrays |= {name: file.take(name, (n,), dtype) for name in ("r_mag", "b_mag")}
        elif {**AUTOENCODERS, **TRANSCODERS}[architecture] == "jumprelu":
            if architecture in ("batchtopk", "matryoshka_batchtopk"):
                threshold = file.scalar("topk_threshold")
            elif "log_threshold" in file.names and "threshold" not in file.names:
                arrays["threshold"] = np.exp(file.take("log_threshold", (n,), dtype))
            else:
                arrays["threshold"] = file.take("threshold", (n,), dtype)
        if "skip" in architecture:
            arrays["W_skip"] = file.take("W_skip", (out, d), dtype)
        for name in ("scaling_factor", "finetuning_scaling_factor"):
            if name in file.names:
                note(f"{name} is folded into the decoder")
                arrays["W_dec"] = arrays["W_dec"] * file.take(name, (n,), dtype)[:, None]
        file.finish(("W_skip", "threshold", "scaling_factor"))
    return arrays, threshold


def _scaled(arrays: single.Arrays, config: Fields, path: Path) -> single.Arrays:
    """With the normalisation of what is read folded in."""
    how = config.get("normalize_activations", str, "none")
    if how in ("none", *ROWS):
        return arrays
    if how != "expected_average_only_in":
        raise InputError(
            f"{config.where}: normalize_activations is {how!r}, which no weights can hold; expected none, "
            f"expected_average_only_in, {' or '.join(ROWS)}"
        )
    if not (path / SCALER).is_file():
        raise InputError(
            f"{config.where}: normalize_activations is {how!r}, but there is no {SCALER} with the factor"
        )
    factor = read_fields(path / SCALER).get("scaling_factor", float)
    if not 0 < factor < float("inf"):
        raise InputError(f"{path / SCALER}: scaling_factor is {factor}, expected a positive number")
    return single.scale_input(arrays, factor)


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "plt" or config.n_layers != 1:
        return f"it holds one layer, not the kind {config.kind!r} with {config.n_layers} layers"
    for name in ("read_site", "write_site"):
        if hooks.lens_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    transcoder = _is_transcoder(config)
    if config.activation not in (TRANSCODERS if transcoder else AUTOENCODERS).values():
        return f"it has no activation {config.activation!r} for {'transcoders' if transcoder else 'autoencoders'}"
    if config.centre and transcoder:
        return "it has no transcoders whose input is centred"
    return None


def _is_transcoder(config: DictionaryConfig) -> bool:
    return not single.autoencoder(config) or config.skip or config.d_out != config.d_model


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a one-layer dictionary as SAELens 6 does; ``folder`` must exist.

    Features ranked by decoder length are written with that length folded in, which multiplies their activations.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    arrays = single.layer_arrays(params)
    if config.ranked:
        arrays = single.fold_norms(arrays)
    single.check_rectified(arrays, NAME)
    arrays = tensors.host(arrays, dtype)
    layer, transcoder = single.layer_of(config), _is_transcoder(config)
    architecture = {"relu": "standard"}.get(config.activation, config.activation)
    if transcoder:
        jump = "jumprelu_" if config.activation == "jumprelu" else ""
        architecture = f"{jump}{'skip_' if config.skip else ''}transcoder"
    arrays["W_enc"] = arrays["W_enc"].T
    if config.activation == "gated":
        arrays["b_gate"] = arrays.pop("b_enc")
    tensors.write(folder / TENSORS, arrays)
    name, rows = np.dtype(dtype).name, {ours: theirs for theirs, ours in ROWS.items()}
    values: dict[str, Any] = {
        "architecture": architecture, "d_in": config.d_model, "d_sae": config.n_features, "dtype": name,
        "device": "cpu", "apply_b_dec_to_input": config.centre,
        "normalize_activations": rows.get(config.normalise_rows, "none"),
        "reshape_activations": "none",
    }  # fmt: skip
    if config.activation == "topk":
        values |= {"k": config.k, "rescale_acts_by_decoder_norm": False}
    metadata = {"model_name": config.model_name, "hook_name": hooks.lens_name(config.read_site, layer)}
    if transcoder:
        values["d_out"] = config.d_out
        metadata["hook_name_out"] = hooks.lens_name(config.write_site, layer)
    if config.scan:
        metadata["neuronpedia_id"] = config.scan
    write_json(folder / CONFIG, {**values, "metadata": metadata})
