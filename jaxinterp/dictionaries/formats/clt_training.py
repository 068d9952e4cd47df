"""EleutherAI's clt-training: sparsify's folders, one a hookpoint, with decoders into later layers.

``W_decs.{j}`` writes j layers further on. What is read is multiplied by sqrt(D) / ``in_norm`` and what is written by
``out_norm`` / sqrt(D) of the layer it is written to; scales of activations (``post_enc_scale``) and the division of
what earlier layers write (``divide_cross_layer``) are linear too: all of them are folded in. A bias of activations
(``post_enc``) is not, nor is top-k over several layers or a batch; where these do something, the file is refused.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import read_json, write_json
from jaxinterp.dictionaries.config import CHOOSING, DictionaryConfig
from jaxinterp.dictionaries.formats import hooks, single, tensors
from jaxinterp.dictionaries.formats.fields import Fields, read_fields
from jaxinterp.dictionaries.formats.mapped import Count, Opened, Piece, opened
from jaxinterp.dictionaries.formats.notes import note
from jaxinterp.dictionaries.formats.pieces import Pieces, stack, whole
from jaxinterp.dictionaries.formats.sparsify import CONFIG, RUN, TENSORS

NAME = "clt-training"
HOOKPOINT = "layers.{}.mlp"
MARKS = ("n_targets", "n_sources", "coalesce_topk", "post_encoder_scale", "normalize_io", "per_source_tied")
"""Fields of which sparsify's own files have none."""
REFUSED = ("secondary_target_tied", "topk_coalesced", "signed", "use_fp8")


class Layer(NamedTuple):
    """One hookpoint: its file and what its config says.

    Attributes:
      targets: how many layers it writes to, its own included.
      several: whether arrays that go with a target are in lists.
      tied: one decoder for all of them.
      scale: what is read is multiplied by, and what is written to it divided by.
      number: the model's layer.
    """

    config: Fields
    file: Opened
    targets: int
    several: bool
    tied: bool
    read_by: float
    write_by: float
    sites: tuple[str, str]
    number: int


def recognises(path: Path) -> bool:
    """Whether ``path`` is the folder of a hookpoint, or holds such folders, with this program's own fields."""
    if not path.is_dir():
        return False
    for place in (path, *sorted(file.parent for file in path.glob(f"*/{TENSORS}"))):
        if (place / TENSORS).is_file() and (place / CONFIG).is_file():
            try:
                values = read_json(place / CONFIG)
            except InputError:
                return False
            return isinstance(values, dict) and any(name in values for name in MARKS)
    return False


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of a hookpoint, or of a folder of them.

    Raises:
      InputError: a hookpoint that is none of our sites, hookpoints that do not go together, what no weights can hold, a
        missing, unknown or wrong field or tensor, or a damaged file.
    """
    return whole(pieces(path, dtype))


def pieces(path: Path, dtype: Any = "float32") -> Pieces:
    """The same, read when it is asked for."""
    places = [path] if (path / TENSORS).is_file() else sorted(f.parent for f in path.glob(f"*/{TENSORS}"))
    counter, kind = Count(), np.dtype(dtype)
    layers = sorted((_layer(place, counter) for place in places), key=lambda one: one.number)
    first = layers[0]
    n, d = first.file.sizes("encoder.weight", ("features", "width"))
    config = _config(path, layers, n, d)
    for position, one in enumerate(layers):
        _check(one, n, d, kind, len(layers) - position)
    rows = [_row(layers, position, n, d, kind, config.centre) for position in range(len(layers))]
    stack(rows, path)

    def encoder(index: int) -> Piece:
        one = layers[index]
        return one.file.piece(
            "encoder.weight", (n, d), kind, multiply=None if one.read_by == 1 else one.read_by
        )

    def decoder(source: int, target: int) -> Piece:
        one, offset = layers[source], target - source
        if not one.several and offset:
            raise ValueError(f"layer {source} does not write to layer {target}")
        if offset >= max(one.targets, 1):
            nothing = np.broadcast_to(np.zeros((), kind), (n, d))
            return Piece(nothing, kind, f"{one.file.path}: nothing", counter)
        name = f"W_decs.{offset}" if f"W_decs.{offset}" in one.file.names else "W_dec"
        factor: Any = float(_share(layers, source, target) / layers[target].write_by)
        scale = _scales(one, offset, n, kind)
        return one.file.piece(name, (n, d), kind, scale=scale, multiply=None if factor == 1 else factor)

    return Pieces(config, lambda index: rows[index], encoder, decoder, counter)


def _layer(place: Path, counter: Count) -> Layer:
    config = read_fields(place / CONFIG)
    for name in REFUSED:
        if config.get(name, bool, False):
            raise InputError(f"{config.where}: {name} is true, which is not supported")
    if config.get("coalesce_topk", str, "none") != "none":
        raise InputError(
            f"{config.where}: coalesce_topk is {config.get('coalesce_topk', str)!r}: features of several layers "
            "compete, expected none"
        )
    transcode, targets = config.get("transcode", bool, False), config.get("n_targets", int, 0)
    folder = place.absolute()
    write_site, index = hooks.module_site(folder.name, place, "the hookpoint (the folder's name)")
    read_site = (
        hooks.module_site(folder.name, place, "the hookpoint", "input")[0] if transcode else write_site
    )
    file = opened(place / TENSORS, counter)
    width = float(file.sizes("encoder.weight", ("features", "width"))[1]) ** 0.5
    scales = [1.0, 1.0]
    if config.get("normalize_io", bool, False):
        note("in_norm and out_norm are folded in; activations are those of the scaled input")
        scales = [width / file.scalar(name) if file.scalar(name) else 0.0 for name in ("in_norm", "out_norm")]
        if not all(0 < scale < float("inf") for scale in scales):
            raise InputError(f"{file.path}: in_norm and out_norm must be positive")
    several = targets > 0 and transcode
    return Layer(
        config, file, targets, several, config.get("per_source_tied", bool, False), scales[0], scales[1],
        (read_site, write_site), index,
    )  # fmt: skip


def _config(path: Path, layers: list[Layer], n: int, d: int) -> DictionaryConfig:
    found: list[DictionaryConfig] = []
    for one in layers:
        activation = one.config.get("activation", str, "topk")
        if activation not in CHOOSING:
            raise InputError(f"{one.config.where}: activation is {activation!r}, expected topk or groupmax")
        centre = not one.config.get("transcode", bool, False)
        found.append(
            DictionaryConfig(
                "clt" if one.several else "plt",
                len(layers),
                n,
                d,
                activation=activation,
                k=one.config.size("k"),
                skip=one.config.get("skip_connection", bool, False),
                read_site=one.sites[0],
                write_site=one.sites[1],
                centre=centre
                and not one.config.get("skip_connection", bool, False)
                and one.read_by == one.write_by,
                tied=_tied(layers),
            )
        )
    for one, config in zip(layers, found, strict=True):
        if config != found[0]:
            raise InputError(
                f"{path}: {one.config.where.parent.name} and {layers[0].config.where.parent.name} differ"
            )
    numbers = tuple(one.number for one in layers)
    if len(set(numbers)) != len(numbers):
        raise InputError(
            f"{path}: several dictionaries of one layer (layers {numbers}); load them one by one"
        )
    run = layers[0].config.where.parent.parent / RUN
    model = read_fields(run).get("model", str, "") if run.is_file() else ""
    clt = found[0].kind == "clt"
    return dataclasses.replace(
        found[0], model_name=model, layers=() if clt and numbers == tuple(range(len(numbers))) else numbers
    )


def _tied(layers: list[Layer]) -> bool:
    """Whether every layer writes the same to all layers from it on."""
    return all(
        one.several
        and one.tied
        and one.targets == len(layers) - position
        and one.write_by == layers[0].write_by
        and not one.config.get("post_encoder_scale", bool, False)
        and not one.config.get("divide_cross_layer", bool, False)
        for position, one in enumerate(layers)
    )


def _check(one: Layer, n: int, d: int, kind: np.dtype, reach: int) -> None:
    """Refuse what our weights cannot hold; afterwards every name in the file is known."""
    file = one.file
    if one.targets > reach:
        raise InputError(f"{file.path}: it writes to {one.targets} layers, but {reach} from it on are here")
    file.ignore("W_dec", "b_dec", "W_skip", "in_norm", "out_norm")
    for name in file.names:
        stem = name.split(".")[0]
        if stem in ("post_enc", "post_encs") and file.take(name, (n,), kind).any():
            raise InputError(
                f"{file.path}: {name} adds to activations that are not zero, which no weights can hold; expected zeros"
            )
        if stem == "W_skips" and name != "W_skips.0" and file.take(name, (d, d), kind).any():
            raise InputError(f"{file.path}: {name} is a skip into another layer, which is not supported")
        if stem in ("W_decs", "b_decs", "W_skips", "post_enc_scale", "post_enc_scales", "encoder"):
            file.ignore(name)
    file.finish(("W_skip", "in_norm", "out_norm"))


def _share(layers: list[Layer], source: int, target: int) -> float:
    """What the program multiplies what an earlier layer writes by."""
    if source == target or not layers[target].config.get("divide_cross_layer", bool, False):
        return 1.0
    here = sum(target - s < max(layers[s].targets, 1) for s in range(target + 1))
    return 1.0 / max(1, here - 1)


def _scales(one: Layer, offset: int, n: int, kind: np.dtype) -> np.ndarray | None:
    """``[N, 1]``, what activations are multiplied by before they are written ``offset`` layers on."""
    for name in (f"post_enc_scales.{offset}", "post_enc_scale"):
        if one.config.get("post_encoder_scale", bool, False) and name in one.file.names:
            note("post_enc_scale is folded into the decoders: activations are those before it")
            return one.file.take(name, (n,), kind)[:, None]
    return None


def _row(
    layers: list[Layer], index: int, n: int, d: int, kind: np.dtype, centre: bool
) -> dict[str, np.ndarray]:
    """Biases and skip of one layer, what earlier layers add to its bias included."""
    one = layers[index]
    row = {"b_enc": one.file.take("encoder.bias", (n,), kind), "b_dec": np.zeros(d, kind)}
    for source in range(index + 1):
        name, offset = f"b_decs.{index - source}", index - source
        file = layers[source].file
        if name not in file.names:
            if offset:
                continue
            name = "b_dec"
        row["b_dec"] = row["b_dec"] + file.take(name, (d,), kind) * kind.type(_share(layers, source, index))
    if not centre and not one.config.get("transcode", bool, False):
        row["b_enc"] = row["b_enc"] - one.file.take("encoder.weight", (n, d), kind) @ row["b_dec"]
    row["b_dec"] = (row["b_dec"] / one.write_by).astype(kind)
    if one.config.get("skip_connection", bool, False):
        name = "W_skips.0" if "W_skips.0" in one.file.names else "W_skip"
        row["W_skip"] = (one.file.take(name, (d, d), kind) * (one.read_by / one.write_by)).astype(kind)
    return row


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "clt":
        return f"it is for the kind 'clt' here (sparsify's format has the others), not {config.kind!r}"
    if config.activation not in CHOOSING:
        return f"it has no activation {config.activation!r}"
    if config.ranked:
        return "it has nothing for ranked = True"
    if config.d_write is not None:
        return f"it has nothing for d_write = {config.d_write}"
    if (config.read_site, config.write_site) != ("mlp_in", "mlp_out_raw"):
        return f"it has no hookpoint that reads {config.read_site} and writes {config.write_site}"
    return None


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write one folder a layer into ``folder``, which must exist. Tied decoders stay so.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    stored = tensors.host(params, dtype)
    kind, n, d = stored["b_enc"].dtype, config.n_features, config.d_model
    for index in range(config.n_layers):
        targets = config.n_layers - index
        values = {"encoder.weight": stored["W_enc"][index], "encoder.bias": stored["b_enc"][index]}
        if config.tied:
            values["W_dec"] = stored["W_dec"][index]
        for offset in range(targets):
            if not config.tied:
                values[f"W_decs.{offset}"] = stored["W_dec"][index + offset][index]
            values[f"b_decs.{offset}"] = np.zeros(d, kind) if offset else stored["b_dec"][index]
            values[f"post_encs.{offset}"] = np.zeros(n, kind)
            if config.skip:
                values[f"W_skips.{offset}"] = np.zeros((d, d), kind) if offset else stored["W_skip"][index]
        inner = folder / HOOKPOINT.format(single.layer_of(config, index))
        inner.mkdir()
        tensors.write(inner / TENSORS, values)
        fields = {
            "activation": config.activation, "expansion_factor": 32, "normalize_decoder": False, "num_latents": n,
            "k": config.k, "multi_topk": False, "skip_connection": config.skip, "transcode": True,
            "n_targets": targets, "n_sources": index + 1, "normalize_io": False, "divide_cross_layer": False,
            "train_post_encoder": False, "post_encoder_scale": False, "per_source_tied": config.tied,
            "secondary_target_tied": False, "coalesce_topk": "none", "topk_coalesced": False, "d_in": d,
        }  # fmt: skip
        write_json(inner / CONFIG, fields)
    write_json(folder / RUN, {"model": config.model_name})
