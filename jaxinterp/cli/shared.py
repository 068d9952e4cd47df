"""What several verbs need."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from jaxinterp.core.errors import InputError


def model_options(sub: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """``--model``, ``--dictionary`` (may be repeated), ``--tokenizer``."""
    note = f" (default: {default})" if default else ""
    sub.add_argument(
        "--model", default=default, required=default is None,
        help=f"Hugging Face folder, llama2.c .bin, our own folder, or 'pocket'{note}",
    )  # fmt: skip
    sub.add_argument(
        "--dictionary", action="append", default=None if default is None else [default], required=default is None,
        help=f"folder of a dictionary, 'pocket' (its CLT) or 'pocket-plt'{note}; repeated, one for each of several "
        "junctions (attention, MLP, residual stream)",
    )  # fmt: skip
    sub.add_argument(
        "--tokenizer",
        help="tokenizer.json, tokenizer.model or llama2.c tokenizer (default: beside the model)",
    )


def load(options: argparse.Namespace, dtype: str = "float32") -> tuple[Any, Any]:
    """The model and the dictionary that the options name, or a list of dictionaries where there are several."""
    from jaxinterp.checkpoints import load_model
    from jaxinterp.dictionaries import load_dictionary

    if dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    model = load_model(options.model, tokenizer=options.tokenizer, dtype=dtype)
    found: list[Any] = [
        load_dictionary(name, dtype=dtype, lazy=True)
        if getattr(options, "lazy", False)
        else load_dictionary(name, dtype=dtype)
        for name in options.dictionary
    ]
    return model, found[0] if len(found) == 1 else found


def integers(name: str, text: str) -> list[int]:
    """The whole numbers that the option ``name`` lists, separated by commas or blanks."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"{name} {text!r}: expected whole numbers separated by commas") from error


def check_out(path: str | None, endings: tuple[str, ...]) -> None:
    """Find out before the work, not after it, that a result cannot be written."""
    if path is None:
        return
    place = Path(path)
    if place.suffix.lower() not in endings:
        raise InputError(f"cannot write {path}: expected a name ending in {' or '.join(endings)}")
    if not place.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {place.parent}")
    from jaxinterp.core.files import atomic

    class _Probe(Exception):
        pass

    try:
        with atomic(place):
            raise _Probe  # the temporary file could be made; leave everything as it was
    except _Probe:
        return


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")
