"""Our own format, and which format a dictionary is written in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from tests.dictionaries.format_tools import cut, edit, made

EVERY: dict[str, Dictionary] = {
    "topk ranked plt": made("plt", "topk", ranked=True, skip=True, read_site="mlp_in"),
    "groupmax plt": made("plt", "groupmax"),
    "gated sae": made("plt", "gated", centre=True, read_site="attn_z", write_site="attn_z"),
    "tied clt": made("clt", tied=True, skip=True),
    "wide clt": made("clt", "relu", d_write=5, skip=True),
    "topk clt": made("clt", "topk"),
    "crosscoder": made("crosscoder", shared=2, read_site="resid_post", write_site="resid_post"),
    "ranked crosscoder": made("crosscoder", "topk", ranked=True),
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_every_kind_keeps_every_byte(tmp_path: Path, name: str) -> None:
    one = EVERY[name]
    save_dictionary(one, tmp_path / "d", format="native")
    found = load_dictionary(tmp_path / "d")
    assert found.config == one.config
    assert found.digest() == one.digest()
    save_dictionary(found, tmp_path / "e", format="native")
    for file in (tmp_path / "d").iterdir():
        assert file.read_bytes() == (tmp_path / "e" / file.name).read_bytes()


def test_half_precision_on_disk(tmp_path: Path) -> None:
    one = made("clt")
    save_dictionary(one, tmp_path / "d", "bfloat16", "native")
    found = load_dictionary(tmp_path / "d")
    np.testing.assert_array_equal(
        found.params["W_enc"], one.params["W_enc"].astype("bfloat16").astype("float32")
    )


def test_a_model_layer_is_kept(tmp_path: Path) -> None:
    one = made("plt", layers=2)
    one = dataclasses.replace(one, config=dataclasses.replace(one.config, layers=(3, 11)))
    save_dictionary(one, tmp_path / "d")
    assert load_dictionary(tmp_path / "d").config.layers == (3, 11)


@pytest.mark.parametrize(
    ("one", "file"),
    [
        (made("plt"), "config.yaml"),
        (made("clt", "relu", skip=True), "config.yaml"),
        (made("plt", "topk"), "config.yaml"),
        (made("clt", "topk"), "config.json"),
        (made("plt", "topk", ranked=True), "config.json"),
        (made("plt", "groupmax"), "config.json"),
        (made("plt", "gated"), "config.json"),
        (made("clt", tied=True), "config.json"),
        (made("plt", d_write=5), "config.json"),
        (made("plt", read_site="resid_post", write_site="resid_post", centre=True), "config.json"),
        (made("crosscoder"), "config.json"),
    ],
)
def test_circuit_tracers_format_where_it_can_say_everything_and_ours_elsewhere(
    tmp_path: Path, one: Dictionary, file: str
) -> None:
    save_dictionary(one, tmp_path / "d")
    assert (tmp_path / "d" / file).is_file()
    found = load_dictionary(tmp_path / "d")
    assert found.config == one.config and found.digest() == one.digest()


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (made("plt", "topk", ranked=True), "nothing for ranked"),
        (made("plt", "groupmax"), "no activation 'groupmax'"),
        (made("plt", "gated"), "no activation 'gated'"),
        (made("plt", centre=True), "nothing for centre"),
        (made("clt", tied=True), "nothing for tied"),
        (made("crosscoder"), "no kind 'crosscoder'"),
    ],
)
def test_what_circuit_tracers_format_cannot_say_is_named(
    tmp_path: Path, one: Dictionary, message: str
) -> None:
    with pytest.raises(InputError, match=f"{message}.*; native can"):
        save_dictionary(one, tmp_path / "d", format="circuit-tracer")
    assert not list(tmp_path.iterdir())


def test_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected one of native"):
        save_dictionary(made("plt"), tmp_path / "d", format="nativ")
    with pytest.raises(InputError, match="expected one of native"):
        load_dictionary(tmp_path, format="nativ")
    with pytest.raises(InputError, match=r"no config\.yaml"):
        load_dictionary(tmp_path)


def _config(folder: Path, **changes: Any) -> None:
    values = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v != "leave out"}))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), "cannot read .*config.json"),
    "another program's": (lambda d: _config(d, format="x"), "format is 'x'"),
    "a list": (lambda d: (d / "config.json").write_text("[]"), "format is 'list'"),
    "a later version": (lambda d: _config(d, version=2), "version is 2, this program reads 1"),
    "unknown field": (lambda d: _config(d, skp=True), "unknown field 'skp' .did you mean skip"),
    "missing field": (lambda d: _config(d, d_model="leave out"), "'d_model' is missing"),
    "text for a number": (lambda d: _config(d, n_features="6"), "n_features is '6'"),
    "number for a truth value": (lambda d: _config(d, skip=1), "skip is 1, expected true or false"),
    "number for text": (lambda d: _config(d, scan=1), "scan is 1, expected text"),
    "layers not numbers": (lambda d: _config(d, layers=["a", 1, 2]), "layers holds 'a'"),
    "missing target": (
        lambda d: edit(d / "dictionary.safetensors", lambda t: t.pop("W_dec.2")), "'W_dec.2' is missing",
    ),
    "unknown tensor": (
        lambda d: edit(d / "dictionary.safetensors", lambda t: t.update(W_dec3=t["b_enc"])), "unknown tensor 'W_dec3'",
    ),
    "wrong shape": (
        lambda d: edit(d / "dictionary.safetensors", lambda t: t.update(b_enc=t["b_dec"])),
        r"b_enc has shape \(3, 4\), expected \(3, 6\)",
    ),
    "whole numbers": (
        lambda d: edit(d / "dictionary.safetensors", lambda t: t.update(b_dec=t["b_dec"].astype(np.int32))),
        "b_dec is of type I32",
    ),
    "truncated": (lambda d: cut(d / "dictionary.safetensors"), "not a whole safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    save_dictionary(made("clt"), tmp_path / "d", format="native")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)
