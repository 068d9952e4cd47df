"""One form of a model turned into another."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from jaxinterp.checkpoints import native, orbax_folder
from jaxinterp.checkpoints.export_huggingface import SHARD_BYTES, check_free, export_huggingface
from jaxinterp.checkpoints.export_llama2c import export_llama2c
from jaxinterp.checkpoints.families import FAMILIES
from jaxinterp.checkpoints.huggingface import Store
from jaxinterp.checkpoints.load import POCKET, load_model
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.files import read_json

FORMS = ("huggingface", "native", "llama2c", "orbax")
_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str,
    *,
    family: str | None = None,
    dtype: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    with_tokenizer: bool = True,
    max_shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Read a model and write it in another form, whole or not at all.

    Args:
      source: whatever `load_model` takes.
      out: a new file (llama2c) or a new or empty folder.
      to: one of `FORMS`.
      family: for huggingface, the ``model_type`` to write; None keeps that of a Hugging Face source and otherwise takes
        the first that can express the model.
      dtype: storage dtype (float16, bfloat16, float32; llama2c is always float32); None keeps the one dtype of a source
        in safetensors, float32 where there are several and for the other forms.
      tokenizer: as for `load_model`.
      with_tokenizer: whether to write the tokenizer.
      max_shard_bytes: for huggingface, see `export_huggingface`.

    Returns:
      facts as JSON values: ``form``, ``out``, ``family`` (huggingface), ``parameters``, ``dtype``, ``tokenizer``.

    Raises:
      InputError: one line that says what cannot be read, expressed or written.
    """
    if to not in FORMS:
        raise InputError(f"no form {to!r}{near(to, FORMS)}: give one of {', '.join(FORMS)}")
    if family is not None and to != "huggingface":
        raise InputError(f"a family is of Hugging Face folders, not of {to}: leave it out")
    if dtype is not None and dtype not in _DTYPES.values():
        raise InputError(
            f"no storage dtype {dtype!r}{near(dtype, _DTYPES.values())}: give one of {', '.join(_DTYPES.values())}"
        )
    if to == "llama2c" and dtype not in (None, "float32"):
        raise InputError(f"llama2.c files are float32, not {dtype}: leave the dtype out")
    check_free(Path(out))
    kept = _stored_dtype(source)
    model = load_model(source, tokenizer=tokenizer, dtype=kept)
    if not with_tokenizer:
        model = dataclasses.replace(model, tokenizer=None)
    chosen = "float32" if to == "llama2c" else dtype or kept
    facts: dict[str, Any] = {"form": to, "out": str(out)}
    if to == "huggingface":
        family = _family(source) if family is None else family
        facts["family"] = export_huggingface(
            model, out, family=family, dtype=chosen, max_shard_bytes=max_shard_bytes
        )
    elif to == "native":
        native.save_model(model, out, dtype=chosen)
    elif to == "orbax":
        orbax_folder.save(model, out, dtype=chosen)
    else:
        export_llama2c(model, out)
    return {
        **facts, "parameters": model.config.n_params(), "dtype": chosen, "tokenizer": model.tokenizer is not None,
    }  # fmt: skip


def _stored_dtype(source: str | os.PathLike[str]) -> str:
    """The dtype that holds every tensor of ``source``: its own where it has one, else float32.

    The numbers of MXFP4 (bytes) are bfloat16's; those of fp8 with float32 factors have more digits.
    """
    folder = Path(source)
    if str(source) == POCKET or not (folder / "config.json").is_file():
        return "float32"
    try:
        store = Store(folder)
    except InputError:
        return "float32"  # what is wrong with it, or what other form it has, is for `load_model` to say
    codes = {file.entries[name].dtype for name, file in store.files.items()}
    codes = {"BF16" if code == "U8" else code for code in codes}
    return _DTYPES.get(codes.pop(), "float32") if len(codes) == 1 else "float32"


def _family(source: str | os.PathLike[str]) -> str | None:
    """The family of a Hugging Face source, None where it is of another form or of a family that is only read."""
    file = Path(source) / "config.json"
    if str(source) == POCKET or not file.is_file():
        return None
    content = read_json(file)
    kind = content.get("model_type") if isinstance(content, dict) else None
    return kind if kind in FAMILIES and FAMILIES[kind].export is not None else None
