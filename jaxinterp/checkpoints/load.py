"""One way in: whatever kind of model a path holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxinterp.checkpoints import bundled, huggingface, llama2c, native, orbax_folder, placing
from jaxinterp.checkpoints.llama2c_tokenizer import read_tokenizer
from jaxinterp.checkpoints.sentencepiece_tokenizer import read_sentencepiece
from jaxinterp.checkpoints.tokenizers import Tokenizer, check_size, read_tokenizer_json
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_json
from jaxinterp.core.letters import Tree
from jaxinterp.models.config import ModelConfig

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jaxinterp.models.model import Model
    from jaxinterp.parallel.rules import Rules

POCKET = "pocket"
_PICKLE = "a pickle, which is never executed; convert it to safetensors first"
_REFUSED = {
    b"PK\x03\x04": _PICKLE,
    **{bytes([0x80, protocol]): _PICKLE for protocol in range(2, 6)},
    b"GGUF": "a GGUF file, which is not supported; give the Hugging Face folder it was made from",
}


def load_model(
    path: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
    dtype: Any = "float32",
    mesh: Mesh | None = None,
    rules: Rules | None = None,
) -> Model:
    """Load a model: a Hugging Face folder, our own folder (safetensors or Orbax), a llama2.c ``.bin``, or ``"pocket"``.

    What a path holds is found out from its content, not its name.

    Args:
      path: a folder, a file, or ``"pocket"`` for the bundled model (``"./pocket"`` for a folder of that
        name).
      tokenizer: a tokenizer, or a ``tokenizer.json``, a SentencePiece ``tokenizer.model``, a llama2.c tokenizer
        ``.bin`` or a folder that holds one of them; None takes the one beside the model, if any.
      dtype: dtype of the parameters: float32, float64 (with 64-bit types on), bfloat16 or float16.
      mesh: devices to divide the parameters over; None puts them on the default device.
      rules: logical axes to mesh axes; None means `jaxinterp.parallel.DEFAULT_RULES`.

    Raises:
      InputError: nothing there, something unknown, or a file that does not fit; one line says what, where
        and what would be right.
    """
    from jaxinterp.models.model import Model

    name = str(path)
    place = bundled.path("model") if name == POCKET else Path(path)
    placing.as_dtype(dtype)
    if not place.exists():
        raise InputError(_missing(place))
    found: Tokenizer | None
    if place.is_dir():
        params, config, found = _folder(place, dtype, mesh, rules, given=tokenizer is not None)
    else:
        params, config, found = _file(place, dtype, mesh, rules, given=tokenizer is not None)
    if tokenizer is not None:
        found = given_tokenizer(tokenizer)
    check_size(found, config.vocab_size, place)
    label = POCKET if name == POCKET else (place.resolve().name if place.is_dir() else place.stem)
    return Model(params, config, tokenizer=found, name=label)


def _missing(place: Path) -> str:
    hint = ""
    if place.parent.is_dir():
        hint = near(place.name, (entry.name for entry in place.parent.iterdir()))
    return f"no model at {place}{hint}: give a local file or folder (nothing is downloaded) or {POCKET!r}"


Loaded = tuple[Tree, ModelConfig, "Tokenizer | None"]


def _folder(place: Path, dtype: Any, mesh: Mesh | None, rules: Rules | None, *, given: bool) -> Loaded:
    file = place / "config.json"
    if not file.is_file():
        inside = sorted(entry.name for entry in place.iterdir())
        if "_METADATA" in inside:
            raise InputError(
                f"{place} is an Orbax checkpoint without our config.json: jaxinterp.checkpoints.load_flax reads those "
                "of JAX Gemma and of MaxText's Llama"
            )
        raise InputError(
            f"{place} is not a model folder: it has no config.json but {', '.join(inside[:5]) or 'nothing'}"
        )
    content = read_json(file)
    if orbax_folder.is_orbax(content):
        params, config = orbax_folder.read_model(place, dtype, mesh, rules)
    elif native.is_native(content):
        params, config = native.read_model(place, dtype, mesh, rules)
    else:
        params, config = huggingface.read_model(place, dtype, mesh, rules)
    return params, config, None if given else native.read_tokenizer_files(place)


def _file(place: Path, dtype: Any, mesh: Mesh | None, rules: Rules | None, *, given: bool) -> Loaded:
    try:
        with place.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise InputError(f"cannot read {place}: {error.strerror or error}") from error
    for magic, what in _REFUSED.items():
        if head.startswith(magic):
            raise InputError(f"{place} is {what}")
    if place.suffix in (".safetensors", ".json") or head[8:9] == b"{" or head[:1] == b"{":
        raise InputError(f"{place} is one file of a model folder: give the folder {place.parent}")
    params, config = llama2c.read_model(place, dtype, mesh, rules)
    found = None
    if not given:
        for beside in (f"tok{config.vocab_size}.bin", "tokenizer.bin"):
            if place.with_name(beside).is_file() and place.name != beside:
                found = read_tokenizer(place.with_name(beside), config.vocab_size)
                break
    return params, config, found


def given_tokenizer(given: Tokenizer | str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer itself, or what a path holds: a file of any kind that is read, or a folder with one."""
    if not isinstance(given, str | os.PathLike):
        return given
    path = Path(given)
    if path.is_dir():
        found = native.read_tokenizer_files(path)
        if found is None:
            raise InputError(f"{path} holds no tokenizer.json, tokenizer.model or tokenizer.bin")
        return found
    if not path.is_file():
        raise InputError(
            f"no tokenizer at {path}: give a tokenizer.json, a SentencePiece .model or a llama2.c tokenizer .bin"
        )
    if path.suffix == ".json":
        return read_tokenizer_json(path)
    return read_sentencepiece(path) if path.suffix == ".model" else read_tokenizer(path)
