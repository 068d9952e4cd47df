"""crosslayer-coding: ``cfg.json`` and ``clt_checkpoint_{step or latest}`` as .safetensors or .pt.

Decoders lie there one a pair of layers, as [D, N], or one a source or target layer where they are tied; each has a
bias, and these add up. A feature is active from its threshold on, not above it: ours is the next smaller number.
Normalisation of each dimension (``normalization_method: mean_std``) is folded in from ``norm_stats.json`` beside it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, tensors, torch_files
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.mapped import Count, Opened, Piece, opened
from jaxinterp.dictionaries.formats.notes import note
from jaxinterp.dictionaries.formats.pieces import Pieces, whole

NAME = "crosslayer-coding"
CONFIG, STATS, WRITTEN = "cfg.json", "norm_stats.json", "clt_checkpoint_latest.safetensors"
ENCODER, DECODER, THRESHOLD = (
    "encoder_module.encoders",
    "decoder_module.decoders",
    "theta_manager.log_threshold",
)
_FILE = re.compile(r"(clt_checkpoint_(\d+|latest)|clt|model)\.(safetensors|pt)")
SITES = ("mlp_in", "mlp_out_raw")
"""Where the config has no templates."""


def recognises(path: Path) -> bool:
    """Whether ``path`` is a folder with this format's config and a checkpoint."""
    if not path.is_dir() or not (path / CONFIG).is_file() or not _files(path):
        return False
    try:
        values = read_json(path / CONFIG)
    except InputError:
        return False
    return isinstance(values, dict) and {"num_features", "num_layers", "d_model"} <= values.keys()


def _files(path: Path) -> list[Path]:
    """Checkpoints, the latest last and safetensors after torch's."""
    found = [(match, file) for file in path.iterdir() if (match := _FILE.fullmatch(file.name))]

    def order(entry: tuple[re.Match[str], Path]) -> tuple[float, str]:
        step = entry[0].group(2)
        return (float("inf") if step is None or step == "latest" else float(step), entry[0].group(3))

    return [file for _, file in sorted(found, key=order)]


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of the latest checkpoint in a folder.

    Raises:
      InputError: features that compete over layers or a batch, an offset of activations or a skip into other layers
        that is not zero, normalisation that is not known, a missing, unknown or wrong field or tensor, or a damaged
        file.
    """
    return whole(pieces(path, dtype))


def pieces(path: Path, dtype: Any = "float32") -> Pieces:
    """The same, read when it is asked for (a .pt file is read whole)."""
    fields, kind, counter = read_fields(path / CONFIG), np.dtype(dtype), Count()
    layers, n, d = (fields.size(name) for name in ("num_layers", "num_features", "d_model"))
    activation, tying = fields.get("activation_fn", str, "jumprelu"), fields.get("decoder_tying", str, "none")
    if activation not in ("relu", "jumprelu"):
        raise InputError(
            f"{fields.where}: activation_fn is {activation!r}: features of several layers or tokens compete; that "
            "program turns it into jumprelu (convert_batchtopk_to_jumprelu)"
        )
    if tying not in ("none", "per_source", "per_target"):
        raise InputError(
            f"{fields.where}: decoder_tying is {tying!r}, expected none, per_source or per_target"
        )
    file = _open(_files(path)[-1], counter)
    names = _Names(file, layers, n, d, tying)
    skips = names.check(kind)
    norms = _norms(path, fields, layers, d)
    config = DictionaryConfig(
        "clt", layers, n, d, activation=activation, skip=skips,
        read_site=_site(fields, "input"), write_site=_site(fields, "output"),
        model_name=fields.get("model_name", str, ""),
        tied=tying == "per_source" and norms is None and not _scaled(file),
    )  # fmt: skip

    def encoder(index: int) -> Piece:
        shift = None if norms is None else 1 / norms[index]["inputs"][1]
        return file.piece(f"{ENCODER}.{index}.weight", (n, d), kind, multiply=shift)

    def decoder(source: int, target: int) -> Piece:
        spread = None if norms is None else norms[target]["targets"][1]
        name, scale = names.decoder(source, target), names.scale(target, kind)
        return file.piece(f"{name}.weight", (d, n), kind, transpose=True, scale=scale, multiply=spread)

    def layer(index: int) -> dict[str, np.ndarray]:
        row = {
            "b_enc": names.bias(f"{ENCODER}.{index}", n, kind),
            "b_dec": np.sum([names.bias(name, d, kind) for name in names.biases(index)], axis=0),
        }
        if activation == "jumprelu":
            log = file.take_rows(THRESHOLD, (layers, n), np.array([index]), kind)[0]
            note("a feature is active from its threshold on there: ours is the next smaller number")
            row["threshold"] = np.nextafter(np.exp(log), kind.type(-np.inf))
        if config.skip:
            row["W_skip"] = file.take(names.skip(index), (d, d), kind)
        return row if norms is None else _shifted(row, encoder(index), norms[index])

    return Pieces(config, layer, encoder, decoder, counter)


def _open(path: Path, counter: Count) -> Opened:
    if path.suffix == ".safetensors":
        return opened(path, counter)
    found = torch_files.read(path)
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    return Opened(path, tensors.Arrays(arrays), counter)


class _Names:
    """Which tensor says what, by how decoders are tied."""

    def __init__(self, file: Opened, layers: int, n: int, d: int, tying: str) -> None:
        self.file, self.layers, self.n, self.d, self.tying = file, layers, n, d, tying

    def decoder(self, source: int, target: int) -> str:
        which = {"none": f"{source}->{target}", "per_source": f"{source}", "per_target": f"{target}"}
        return f"{DECODER}.{which[self.tying]}"

    def biases(self, target: int) -> list[str]:
        """The decoders whose biases reach a layer."""
        sources = (target,) if self.tying == "per_target" else range(target + 1)
        return [self.decoder(source, target) for source in sources]

    def bias(self, module: str, size: int, kind: np.dtype) -> np.ndarray:
        for end in ("bias_param", "bias"):
            if f"{module}.{end}" in self.file.names:
                return self.file.take(f"{module}.{end}", (size,), kind)
        return np.zeros(size, kind)

    def scale(self, target: int, kind: np.dtype) -> np.ndarray | None:
        name = f"decoder_module.feature_scale.{target}"
        return self.file.take(name, (self.n,), kind)[:, None] if name in self.file.names else None

    def skip(self, layer: int) -> str:
        return f"decoder_module.skip_weights.{layer}->{layer}" if self.tying == "none" else ""

    def check(self, kind: np.dtype) -> bool:
        """Refuse what weights cannot hold; afterwards every name in the file is known. Whether there is a skip."""
        file, own = self.file, [self.skip(layer) for layer in range(self.layers)]
        for name in file.names:
            stem = name.removeprefix("decoder_module.")
            if stem.startswith("feature_offset.") and file.take(name, (self.n,), kind).any():
                raise InputError(
                    f"{file.path}: {name} adds to activations that are not zero, which no weights can hold"
                )
            if (
                stem.startswith("skip_weights.")
                and name not in own
                and file.take(name, (self.d, self.d), kind).any()
            ):
                raise InputError(f"{file.path}: {name} is a skip into other layers, which is not supported")
            if stem.startswith(("feature_scale.", "skip_weights.", "decoders.")) or name.startswith(ENCODER):
                file.ignore(name)
        file.ignore(THRESHOLD, "log_threshold")
        file.finish((THRESHOLD,))
        return all(name in file.names for name in own)


def _scaled(file: Opened) -> bool:
    return any(name.startswith("decoder_module.feature_scale.") for name in file.names)


def _site(fields: Fields, side: str) -> str:
    lens, module = fields.get(f"tl_{side}_template", str, None), fields.get(f"mlp_{side}_template", str, None)
    for template, find in (
        (lens, lambda name: hooks.lens_site(name, fields.where, f"tl_{side}_template")),
        (module, lambda name: hooks.module_site(name, fields.where, f"mlp_{side}_template", side)),
    ):  # type: tuple[str | None, Callable[[str], tuple[str, int]]]
        if template:
            return find(template.replace("{}", "0").replace("{layer}", "0"))[0]
    return SITES[side == "output"]


Norms = list[dict[str, tuple[np.ndarray, np.ndarray]]]


def _norms(path: Path, fields: Fields, layers: int, d: int) -> Norms | None:
    """For each layer mean and deviation of what is read and written; None where nothing was normalised."""
    method = fields.get("normalization_method", str, "none")
    if method == "none" and not fields.get("sqrt_d_model_normalize", bool, False):
        return None
    if method not in ("mean_std", "auto", "estimated_mean_std") or not (path / STATS).is_file():
        raise InputError(
            f"{fields.where}: normalization_method is {method!r}; expected none, or mean_std with {STATS} beside it"
        )
    stats = read_fields(path / STATS)
    found: Norms = []
    for layer in range(layers):
        one: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for side in ("inputs", "targets"):
            part = stats.inner(str(layer)).inner(side)
            mean, std = (_vector(part, name, d) for name in ("mean", "std"))
            if not (std > 0).all():
                raise InputError(f"{path / STATS}: a std of layer {layer} ({side}) is not positive")
            one[side] = mean, std
        found.append(one)
    return found


def _vector(fields: Fields, name: str, d: int) -> np.ndarray:
    values = fields.get(name, list)
    good = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(values) != d or not good or not np.isfinite(np.asarray(values, np.float64)).all():
        raise InputError(f"{fields.where}: {name} is not a list of {d} finite numbers")
    return np.asarray(values, np.float64)


def _shifted(row: dict[str, np.ndarray], encoder: Piece, norms: dict[str, Any]) -> dict[str, np.ndarray]:
    """With mean and deviation of what is read and written folded in; the encoder's rows have the former's already."""
    note(
        "mean and deviation of what is read and written are folded in; activations are those of the normalised input"
    )
    (mean_in, std_in), (mean_out, std_out) = norms["inputs"], norms["targets"]
    kind, row = row["b_enc"].dtype, dict(row)
    row["b_enc"] = (row["b_enc"] - encoder.rows(slice(None)) @ mean_in).astype(kind)
    b_dec = row["b_dec"] * std_out + mean_out
    if "W_skip" in row:
        row["W_skip"] = (row["W_skip"] * std_out[:, None] / std_in[None, :]).astype(kind)
        b_dec = b_dec - row["W_skip"] @ mean_in
    return {**row, "b_dec": b_dec.astype(kind)}


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "clt" or config.activation not in ("relu", "jumprelu"):
        return f"it has the kind 'clt' with relu or jumprelu, not {config.kind!r} with {config.activation!r}"
    if config.skip and config.tied:
        return "its skips of tied decoders go into every layer"
    for name in ("layers", "d_write"):
        if getattr(config, name):
            return f"it has nothing for {name} = {getattr(config, name)}"
    for name in ("read_site", "write_site"):
        if hooks.lens_name(getattr(config, name), 0) is None:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write a cross-layer transcoder; ``folder`` must exist. Thresholds must be positive; their logarithm is stored.

    Raises:
      InputError: a value that ``dtype`` cannot hold, or a threshold that is not positive.
    """
    stored = tensors.host(params, dtype)
    kind, layers = stored["b_enc"].dtype, range(config.n_layers)
    values: dict[str, np.ndarray] = {}
    for layer in layers:
        values[f"{ENCODER}.{layer}.weight"] = stored["W_enc"][layer]
        values[f"{ENCODER}.{layer}.bias_param"] = stored["b_enc"][layer]
    for source in layers:
        if config.tied:
            # What a layer's decoder adds it adds to every later layer as well.
            before = stored["b_dec"][source - 1] if source else np.zeros_like(stored["b_dec"][0])
            values[f"{DECODER}.{source}.weight"] = stored["W_dec"][source].T
            values[f"{DECODER}.{source}.bias_param"] = stored["b_dec"][source] - before
            continue
        for target in layers[source:]:
            own = source == target
            values[f"{DECODER}.{source}->{target}.weight"] = stored["W_dec"][target][source].T
            values[f"{DECODER}.{source}->{target}.bias_param"] = stored["b_dec"][target] * kind.type(own)
            if config.skip:
                skip = stored["W_skip"][target] * kind.type(own)
                values[f"decoder_module.skip_weights.{source}->{target}"] = skip
    fields: dict[str, Any] = {
        "num_features": config.n_features, "num_layers": config.n_layers, "d_model": config.d_model,
        "model_name": config.model_name or None, "normalization_method": "none", "activation_fn": config.activation,
        "decoder_tying": "per_source" if config.tied else "none", "skip_connection": config.skip,
        "enable_feature_offset": False, "enable_feature_scale": False, "clt_dtype": np.dtype(dtype).name,
    }  # fmt: skip
    for side, site in (("input", config.read_site), ("output", config.write_site)):
        fields[f"tl_{side}_template"] = (hooks.lens_name(site, 0) or "").replace("blocks.0.", "blocks.{}.")
    if config.activation == "jumprelu":
        threshold = np.nextafter(stored["threshold"], kind.type(np.inf))
        if not (stored["threshold"] > 0).all():
            raise InputError(
                f"a threshold is not positive, which the format {NAME} (log_threshold) cannot say"
            )
        note("thresholds are stored as logarithms, which changes their last digits")
        values[THRESHOLD] = np.log(threshold)
    tensors.write(folder / WRITTEN, values)
    write_json(folder / CONFIG, fields)
