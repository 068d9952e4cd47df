"""A model as a llama2.c file with its tokenizer beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxinterp.checkpoints import llama2c, placing
from jaxinterp.checkpoints.export_huggingface import check_free
from jaxinterp.checkpoints.export_pairs import with_pairs
from jaxinterp.checkpoints.llama2c_tokenizer import Llama2cTokenizer, write_tokenizer
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths, unflatten
from jaxinterp.models.weights import declare
from jaxinterp.parallel import weights

if TYPE_CHECKING:
    from jaxinterp.models.model import Model


def export_llama2c(model: Model, path: str | os.PathLike[str]) -> None:
    """Write ``model`` as a llama2.c ``.bin`` (version 0, float32), its tokenizer beside it as ``tok<V>.bin``.

    Rotary pairs of halves (Hugging Face) become pairs of neighbours, which is the same computation. The rotary tables
    in the file are computed in float64 and rounded; those of other writers may differ from them in the last bits.

    Args:
      path: a new file. ``tok<V>.bin`` (V the vocabulary) may be there if it holds this very tokenizer.

    Raises:
      InputError: something about the model that this format cannot say, named with what it can; a tokenizer of another
        kind or size; a name that is taken.
    """
    path = Path(path)
    check_free(path)
    vocab = model.config.vocab_size
    beside = path.with_name(f"tok{vocab}.bin")
    _check_tokenizer(model.tokenizer, vocab, path, beside)
    weights.check(declare(model.config), model.params, f"model {model.name or 'to be exported'}")
    model = with_pairs(model, "adjacent")
    float32 = np.dtype(np.float32)
    leaves = {
        name: placing.cast(np.asarray(a), float32, f"the weight {name!r}") for name, a in paths(model.params)
    }
    llama2c.write_model(path, unflatten(leaves), model.config)
    if model.tokenizer is not None and not beside.exists():
        try:
            write_tokenizer(beside, model.tokenizer)
        except InputError:
            path.unlink()
            raise


def _check_tokenizer(tokenizer: object, vocab: int, path: Path, beside: Path) -> None:
    if tokenizer is None:
        return
    if not isinstance(tokenizer, Llama2cTokenizer):
        raise InputError(
            f"cannot write {path}: llama2.c has no form for a {type(tokenizer).__name__}; leave the tokenizer out"
        )
    if tokenizer.vocab_size != vocab:
        raise InputError(
            f"cannot write {path}: the tokenizer has {tokenizer.vocab_size} tokens, llama2.c wants as many as the "
            f"model's vocabulary of {vocab}"
        )
    if beside == path:
        raise InputError(f"cannot write {path}: that is the name of the tokenizer's file; give another one")
    if beside.exists() and beside.read_bytes() != tokenizer.to_bytes():
        raise InputError(f"cannot write {beside}: another tokenizer is in the way")
