"""circuit-tracer's folders of per-layer and cross-layer transcoders, read and written.

A folder holds ``config.yaml`` and one file a layer (PLT) or two (CLT); see the tables below. Decoders of a
CLT are grouped by source layer there and by target layer here; a skip is applied as ``x @ W_skip.T`` in a
PLT's file and as ``x @ W_skip`` in a CLT's. Top-k is of per-layer transcoders only; that program's keeps the ``k``
largest even where they are negative, ours where they are positive, so the two differ on rows with fewer than ``k``
positive ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_bytes, write_text
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.dictionaries.formats import tensors
from jaxinterp.dictionaries.formats.mapped import Count, Opened, Piece, opened
from jaxinterp.dictionaries.formats.notes import note
from jaxinterp.dictionaries.formats.pieces import Pieces, whole

NAME = "circuit-tracer"
KIND_NAMES = {"plt": "transcoder_set", "clt": "cross_layer_transcoder"}
READ_HOOKS = {"resid_mid": "hook_resid_mid", "mlp_normalized": "ln2.hook_normalized", "mlp_in": "mlp.hook_in"}
WRITE_HOOKS = {"mlp_out": "hook_mlp_out", "mlp_out_raw": "mlp.hook_out"}
FIELDS = (
    "model_name", "model_kind", "feature_input_hook", "feature_output_hook", "scan", "activation", "k",
    "transcoders",
)  # fmt: skip
THRESHOLD = "activation_function.threshold"
_PLT_FILE = re.compile(r"layer_(\d+)\.safetensors")
_CLT_FILE = re.compile(r"W_(enc|dec)_(\d+)\.safetensors")


def recognises(folder: Path) -> bool:
    """Whether ``folder`` has this format's config file."""
    return (folder / "config.yaml").is_file()


def read(folder: Path, dtype: str = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) in a circuit-tracer folder.

    Raises:
      InputError: an unknown field or tensor, a missing or truncated file, another shape, or layers that
        do not add up.
    """
    return whole(pieces(folder, dtype))


def pieces(folder: Path, dtype: Any = "float32") -> Pieces:
    """The same, read when it is asked for."""
    header = _header(folder)
    kind = _lookup(KIND_NAMES, header["model_kind"], "model_kind", folder)
    return {"plt": _pieces_plt, "clt": _pieces_clt}[kind](folder, header, np.dtype(dtype))


def _config(
    folder: Path, header: dict[str, Any], kind: str, layers: int, n: int, d: int, names: list[str], threshold: str,
    skip: str, k: int,
) -> DictionaryConfig:  # fmt: skip
    read_site = _lookup(READ_HOOKS, header["feature_input_hook"], "feature_input_hook", folder)
    write_site = _lookup(WRITE_HOOKS, header["feature_output_hook"], "feature_output_hook", folder)
    return DictionaryConfig(
        kind, layers, n, d, **_activation(header, kind, threshold in names, k, folder / "config.yaml"),
        skip=skip in names, read_site=read_site, write_site=write_site, model_name=str(header.get("model_name") or ""),
        scan=str(header.get("scan") or ""),
    )  # fmt: skip


def _header(folder: Path) -> dict[str, Any]:
    import yaml

    path = folder / "config.yaml"
    try:
        header = yaml.safe_load(read_bytes(path).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path} is not YAML: {line}") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: expected fields such as model_kind, found {type(header).__name__}")
    for name in header:
        if name not in FIELDS:
            raise InputError(f"{path}: unknown field {name!r}{near(name, FIELDS)}")
    for name in ("model_kind", "feature_input_hook", "feature_output_hook"):
        if name not in header:
            raise InputError(f"{path}: the field {name!r} is missing")
    if header.get("transcoders"):
        raise InputError(
            f"{path} points to files elsewhere (transcoders: ...); download them into the folder first"
        )
    for name in ("model_name", "scan"):
        if not isinstance(header.get(name) or "", str):
            raise InputError(f"{path}: {name} is {header[name]!r}, expected text")
    return header


def _activation(
    header: dict[str, Any], kind: str, thresholds: bool, stored_k: int, path: Path
) -> dict[str, Any]:
    """The config's ``activation`` and ``k``, after comparing what the header and the layer files say."""
    declared, k = header.get("activation"), header.get("k")
    if declared not in (None, "relu", "jump_relu", "jumprelu", "topk"):
        raise InputError(f"{path}: activation is {declared!r}, expected relu, jump_relu or topk")
    if declared != "topk" and (k is not None or (stored_k and declared is not None)):
        raise InputError(
            f"{path}: k is {k or stored_k} with the activation {declared!r}, expected activation: topk"
        )
    if declared != "topk" and not stored_k:
        return {"activation": "jumprelu" if thresholds else "relu"}
    if kind != "plt":
        raise InputError(f"{path}: activation topk is of {KIND_NAMES['plt']}, not of {KIND_NAMES[kind]}")
    if thresholds:
        raise InputError(f"{path}: activation topk, but the layer files hold thresholds")
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise InputError(f"{path}: k is {k!r}, expected a whole number of at least 1")
    if k is not None and stored_k and k != stored_k:
        raise InputError(f"{path}: k is {k}, but {stored_k} in the layer files")
    if not (k or stored_k):
        raise InputError(f"{path}: the field 'k' is missing, activation topk needs it")
    return {"activation": "topk", "k": k or stored_k}


def _lookup(table: dict[str, str], value: object, field: str, folder: Path) -> str:
    for ours, theirs in table.items():
        if value == theirs:
            return ours
    raise InputError(
        f"{folder / 'config.yaml'}: {field} is {value!r}, expected one of {', '.join(table.values())}"
        f"{near(value, table.values())}"
    )


def _layers(folder: Path, pattern: re.Pattern[str], stems: tuple[str, ...]) -> int:
    """How many layers the folder's files are for, after checking that none is missing or left over."""
    found = set()
    for path in folder.glob("*.safetensors"):
        match = pattern.fullmatch(path.name)
        if match is None:
            raise InputError(f"{path}: no file of that name belongs in this kind of dictionary folder")
        found.add(int(match.groups()[-1]))
    if not found:
        raise InputError(f"{folder}: no {stems[0]}_0.safetensors here, the folder holds no layer files")
    count = max(found) + 1
    for layer in range(count):
        for stem in stems:
            path = folder / f"{stem}_{layer}.safetensors"
            if not path.is_file():
                raise InputError(f"{path} is missing, though the folder has files up to layer {count - 1}")
    return count


def _alike(folder: Path, names: list[tuple[str, str]], file: Opened, first: Opened, index: int) -> None:
    """Refuse what only some layers have."""
    for here, there in names:
        if (here in file.names) != (there in first.names):
            raise InputError(
                f"{folder}: {there} is in some layers and not in others (layers 0 and {index} differ)"
            )


def _pieces_plt(folder: Path, header: dict[str, Any], dtype: np.dtype) -> Pieces:
    count, read = _layers(folder, _PLT_FILE, ("layer",)), Count()
    files = [opened(folder / f"layer_{layer}.safetensors", read) for layer in range(count)]
    n, d = files[0].sizes("W_enc", ("features", "width"))
    ks: set[int] = set()
    for index, file in enumerate(files):
        ks.add(file.whole("k", 1) if "k" in file.names else 0)
        file.ignore("W_enc", "W_dec", "b_enc", "b_dec", THRESHOLD, "W_skip")
        file.finish((THRESHOLD, "W_skip", "k"))
        _alike(folder, [(n, n) for n in (THRESHOLD, "W_skip")], file, files[0], index)
    if len(ks) > 1:
        raise InputError(
            f"{folder}: layers differ in k ({', '.join(map(str, sorted(ks)))}), one for all is supported"
        )

    def layer(index: int) -> dict[str, np.ndarray]:
        file = files[index]
        row = {
            "b_enc": file.take("b_enc", (n,), dtype),
            "b_dec": file.take("b_dec", (d,), dtype),
        }
        if THRESHOLD in file.names:
            row["threshold"] = file.take(THRESHOLD, (n,), dtype)
        if "W_skip" in file.names:
            row["W_skip"] = file.take("W_skip", (d, d), dtype)
        return row

    config = _config(folder, header, "plt", count, n, d, files[0].names, THRESHOLD, "W_skip", ks.pop())
    return Pieces(
        config, layer, lambda index: files[index].piece("W_enc", (n, d), dtype),
        lambda source, _: files[source].piece("W_dec", (n, d), dtype), read,
    )  # fmt: skip


def _pieces_clt(folder: Path, header: dict[str, Any], dtype: np.dtype) -> Pieces:
    count, read = _layers(folder, _CLT_FILE, ("W_enc", "W_dec")), Count()
    files = [opened(folder / f"W_enc_{layer}.safetensors", read) for layer in range(count)]
    decoders = [opened(folder / f"W_dec_{layer}.safetensors", read) for layer in range(count)]
    n, d = files[0].sizes("W_enc_0", ("features", "width"))
    for index, (file, decoder) in enumerate(zip(files, decoders, strict=True)):
        file.ignore(*(f"{name}_{index}" for name in ("W_enc", "b_enc", "b_dec", "threshold", "W_skip")))
        file.finish((f"threshold_{index}", f"W_skip_{index}"))
        _alike(folder, [(f"{n}_{index}", f"{n}_0") for n in ("threshold", "W_skip")], file, files[0], index)
        shape = decoder.shape(f"W_dec_{index}")
        if len(shape) == 3 and shape[1] != count - index:
            raise InputError(
                f"{decoder.path}: W_dec_{index} writes to {shape[1]} layers, but layer {index} of {count} layers "
                f"must write to {count - index}"
            )
        decoder.ignore(f"W_dec_{index}")
        decoder.finish()

    def layer(index: int) -> dict[str, np.ndarray]:
        file = files[index]
        row = {
            "b_enc": file.take(f"b_enc_{index}", (n,), dtype),
            "b_dec": file.take(f"b_dec_{index}", (d,), dtype),
        }
        if f"threshold_{index}" in file.names:
            row["threshold"] = file.take(f"threshold_{index}", (n,), dtype)
        if f"W_skip_{index}" in file.names:
            row["W_skip"] = file.take(f"W_skip_{index}", (d, d), dtype).T
        return row

    def decoder_of(source: int, target: int) -> Piece:
        at = (slice(None), target - source)
        return decoders[source].piece(f"W_dec_{source}", (n, count - source, d), dtype, at)

    config = _config(folder, header, "clt", count, n, d, files[0].names, "threshold_0", "W_skip_0", 0)
    return Pieces(
        config, layer, lambda index: files[index].piece(f"W_enc_{index}", (n, d), dtype), decoder_of, read
    )


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind not in KIND_NAMES:
        return f"it has no kind {config.kind!r}"
    if config.activation not in ("relu", "jumprelu", "topk") or (
        config.activation == "topk" and config.kind != "plt"
    ):
        return f"it has no activation {config.activation!r} for the kind {config.kind!r}"
    for name in ("ranked", "centre", "tied", "layers"):
        if getattr(config, name):
            return f"it has nothing for {name} = {getattr(config, name)}"
    if config.d_write is not None:
        return f"it has nothing for d_write = {config.d_write}"
    for name, hooks in (("read_site", READ_HOOKS), ("write_site", WRITE_HOOKS)):
        if getattr(config, name) not in hooks:
            return f"it has nothing for {name} = {getattr(config, name)}"
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: str = "float32") -> None:
    """Write a dictionary's parameters as a circuit-tracer folder; ``folder`` must exist and be empty.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    import yaml

    host = tensors.host(params, dtype)
    if config.kind == "plt":
        _write_plt(folder, config, host)
    else:
        _write_clt(folder, config, host)
    header: dict[str, Any] = {
        "model_name": config.model_name,
        "model_kind": KIND_NAMES[config.kind],
        "feature_input_hook": READ_HOOKS[config.read_site],
        "feature_output_hook": WRITE_HOOKS[config.write_site],
        "scan": config.scan,
    }
    if config.activation == "topk":
        note(
            "that program's top-k keeps the k largest even where they are negative, ours where they are positive"
        )
        header |= {"activation": "topk", "k": config.k}
    write_text(folder / "config.yaml", yaml.safe_dump(header, sort_keys=False))


def _write_plt(folder: Path, config: DictionaryConfig, params: dict[str, Any]) -> None:
    names = {"threshold": THRESHOLD}
    for layer in range(config.n_layers):
        row = {names.get(name, name): params[name][layer] for name in kind_of(config).declare(config)}
        tensors.write(folder / f"layer_{layer}.safetensors", row)


def _write_clt(folder: Path, config: DictionaryConfig, params: dict[str, Any]) -> None:
    for layer in range(config.n_layers):
        row = {f"{name}_{layer}": params[name][layer] for name in ("W_enc", "b_enc", "b_dec")}
        if config.activation == "jumprelu":
            row[f"threshold_{layer}"] = params["threshold"][layer]
        if config.skip:
            row[f"W_skip_{layer}"] = params["W_skip"][layer].T
        tensors.write(folder / f"W_enc_{layer}.safetensors", row)
        decoders = [params["W_dec"][target][layer] for target in range(layer, config.n_layers)]
        tensors.write(folder / f"W_dec_{layer}.safetensors", {f"W_dec_{layer}": np.stack(decoders, axis=1)})


def decoder_rows(folder: Path, source: int, features: np.ndarray, dtype: Any = "float32") -> np.ndarray:
    """Decoder vectors of some ``features [n]`` of one layer into all layers they write: ``[n, T, D]``.

    T is L - ``source`` for a cross-layer transcoder and 1 for per-layer ones. Only these rows are read, so that a
    dictionary larger than memory can be used for the features that are active.

    Raises:
      InputError: no such layer or feature, or a damaged file.
    """
    found = pieces(folder, dtype)
    if not 0 <= source < found.config.n_layers:
        raise InputError(f"{folder}: no layer {source}, it has {found.config.n_layers}")
    last = source + 1 if found.config.kind == "plt" else found.config.n_layers
    rows = [
        found.decoder(source, target).rows(np.asarray(features, np.int64)) for target in range(source, last)
    ]
    return np.stack(rows, axis=1)
