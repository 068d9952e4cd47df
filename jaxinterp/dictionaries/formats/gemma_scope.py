"""Gemma Scope 1: ``.../layer_{l}/width_{w}/average_l0_{n}/params.npz``, JumpReLU in float32.

Nothing inside says what is read: the folders above do. A repository's name ends in res, mlp, att or transcoders, and
``layer_{l}`` or ``embedding`` lies below it. The weights of the dictionary of embeddings are for embeddings without
Gemma's factor sqrt(D), which the first layer's input has: ``W_enc`` is divided and ``W_dec`` multiplied by it here, and
``b_dec`` left as it is, all as SAELens does.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.files import atomic
from jaxinterp.dictionaries.config import DictionaryConfig
from jaxinterp.dictionaries.formats import single, tensors
from jaxinterp.dictionaries.formats.notes import note

NAME = "gemma-scope"
FILE = "params.npz"
SITES = {
    "res": ("resid_post", "resid_post"),
    "mlp": ("mlp_out", "mlp_out"),
    "att": ("attn_z", "attn_z"),
    "transcoders": ("mlp_normalized", "mlp_out"),
}
_REPOSITORY = re.compile(r".*gemma-scope(?:-([\d.]+b)-(pt|it))?-(res|mlp|att|transcoders)")
_LAYER = re.compile(r"layer_(\d+)")
_DEPTHS = tuple("*/" * depth + FILE for depth in range(5))
_NAMES = {"w_enc": "W_enc", "w_dec": "W_dec"}


def recognises(path: Path) -> bool:
    """Whether ``path`` is such a file, or a folder with one in it."""
    return path.name == FILE if path.is_file() else any(any(path.glob(pattern)) for pattern in _DEPTHS)


def read(path: Path, dtype: Any = "float32") -> tuple[DictionaryConfig, dict[str, Any]]:
    """The config and the parameters (numpy arrays of ``dtype``) of one file, or of a folder with one a layer.

    Raises:
      InputError: folders that do not say what is read, several dictionaries of a layer, a missing, unknown or wrong
        array, or a damaged file.
    """
    files = [path] if path.is_file() else sorted(file for pattern in _DEPTHS for file in path.glob(pattern))
    places = [_place(file) for file in files]
    layers = [layer for _, _, layer, _ in places]
    if len(set(layers)) != len(layers):
        raise InputError(
            f"{path}: several dictionaries of one layer (layers {sorted(layers)}); name one of them"
        )
    parts = [_one(file, place, np.dtype(dtype)) for file, place in zip(files, places, strict=True)]
    return single.stack(parts, path)


def _place(file: Path) -> tuple[str, tuple[str, str], int, bool]:
    """Model, sites, layer, and whether it is of embeddings, from the folders' names."""
    names = file.absolute().parts[:-1]
    repositories = [match for name in names if (match := _REPOSITORY.fullmatch(name))]
    layers = [int(match.group(1)) for name in names if (match := _LAYER.fullmatch(name))]
    if not repositories or not (layers or "embedding" in names):
        raise InputError(
            f"{file}: nothing in it says what it reads, and its folders neither; expected a folder such as "
            "gemma-scope-2b-pt-res and in it layer_5 or embedding"
        )
    size, tuning, which = repositories[-1].groups()
    model = "" if size is None else f"google/gemma-2-{size}" + ("-it" if tuning == "it" else "")
    if not layers:
        return model, ("resid_pre", "resid_pre"), 0, True
    return model, SITES[which], layers[-1], False


def _one(file: Path, place: tuple[str, tuple[str, str], int, bool], dtype: np.dtype) -> Any:
    model, sites, layer, embeddings = place
    with reading(file) as found:
        arrays = take(found.renamed(_NAMES), dtype)
    if embeddings:
        note("embeddings: the encoder is divided and the decoder multiplied by sqrt(D)")
        root = float(arrays["W_enc"].shape[1]) ** 0.5
        arrays |= {
            "W_enc": (arrays["W_enc"] / root).astype(dtype),
            "W_dec": (arrays["W_dec"] * root).astype(dtype),
        }
    return single.build(arrays, "jumprelu", sites, layer, model_name=model)


def take(file: tensors.Reader, dtype: np.dtype) -> single.Arrays:
    """W_enc [D, N], W_dec [N, D'], b_enc, b_dec and threshold in our orientation; nothing else may be there."""
    d, n = file.sizes("W_enc", ("width", "features"))
    out = file.sizes("W_dec", ("features", "width"))[1]
    arrays = {
        "W_enc": file.take("W_enc", (d, n), dtype).T,
        "W_dec": file.take("W_dec", (n, out), dtype),
        "b_enc": file.take("b_enc", (n,), dtype),
        "b_dec": file.take("b_dec", (out,), dtype),
        "threshold": single.rectified(file.take("threshold", (n,), dtype)),
    }
    file.finish()
    return arrays


@contextmanager
def reading(path: Path) -> Iterator[tensors.Reader]:
    """Open an npz file, without pickles.

    Raises:
      InputError: it is missing, truncated, or no npz file.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as found:
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise InputError(f"{path} is not a whole npz file: it holds a single array")
            yield tensors.Reader(path, tensors.Arrays(_shapes(path) if tensors.shapes_only() else found))
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a whole npz file: {line}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _shapes(path: Path) -> dict[str, np.ndarray]:
    """What stands for the arrays of an npz file, from their headers."""
    found: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                version = np.lib.format.read_magic(stream)
                header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = header(stream)
            found[name.removesuffix(".npy")] = tensors.placeholder(shape, dtype)
    return found


def refuses(config: DictionaryConfig) -> str | None:
    """Why a dictionary cannot be written in this format, or None."""
    if config.kind != "plt" or config.activation != "jumprelu":
        return f"it has the kind 'plt' with jumprelu only, not {config.kind!r} with {config.activation!r}"
    if (config.read_site, config.write_site) not in SITES.values():
        return f"it has nothing that reads {config.read_site} and writes {config.write_site}"
    if config.skip or config.centre:
        return f"it has nothing for {'skip' if config.skip else 'centre'} = True"
    return single.refuses_rows(config)


def write(folder: Path, config: DictionaryConfig, params: dict[str, Any], dtype: Any = "float32") -> None:
    """Write one file a layer, below folders that say what is read; ``folder`` must exist.

    Raises:
      InputError: a value that ``dtype`` cannot hold.
    """
    single.check_rectified(params, NAME)
    which = next(name for name, sites in SITES.items() if sites == (config.read_site, config.write_site))
    model = re.fullmatch(r"google/gemma-2-([\d.]+b)(-it)?", config.model_name)
    named = f"-{model.group(1)}-{'it' if model.group(2) else 'pt'}" if model else ""
    for index in range(config.n_layers):
        stored = tensors.host(single.layer_arrays(params, index), dtype)
        active = f"layer_{single.layer_of(config, index)}/width_{config.n_features}/average_l0_0"
        inner = folder / f"gemma-scope{named}-{which}" / active
        inner.mkdir(parents=True)
        with atomic(inner / FILE) as temporary, temporary.open("wb") as stream:
            stored["W_enc"] = np.ascontiguousarray(stored["W_enc"].T)
            np.savez(stream, **dict(sorted(stored.items())))
