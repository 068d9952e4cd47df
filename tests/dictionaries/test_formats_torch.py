"""Files of torch without torch: dictionary_learning, OpenAI, Qwen Scope; and files that are not what they say."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.formats import torch_files
from jaxinterp.dictionaries.load import load_dictionary
from tests.dictionaries.format_tools import cut

DATA = Path(__file__).parent / "data" / "torch"
LEARNED = sorted(p.parent.name for p in DATA.glob("*/ae.pt"))
SINGLE = {
    "openai/resid_post_mlp/autoencoders/8.pt": (8, "gpt2", True),
    "qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_3/layer7.sae.pt": (7, "Qwen/Qwen3-1.7B-Base", False),
}


def check(source: Path, answers: Path) -> Any:
    found = load_dictionary(source)
    with np.load(answers) as file:
        x, acts, out = file["x"], file["acts"], file["out"]
    assert (acts != 0).any() and (acts == 0).any()
    np.testing.assert_allclose(found.encode(x[None])[0], acts, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.reconstruct(x[None])[0], out, rtol=1e-5, atol=1e-5)
    return found.config


@pytest.mark.parametrize("name", LEARNED)
def test_dictionary_learning(name: str) -> None:
    config = check(DATA / name, DATA / name / "answers.npz")
    assert (config.read_site, config.layers, config.model_name) == (
        "resid_post",
        (4,),
        "EleutherAI/pythia-70m",
    )
    check(DATA / name / "ae.pt", DATA / name / "answers.npz")


def test_there_are_all_classes() -> None:
    assert len(LEARNED) == 7


@pytest.mark.parametrize("name", SINGLE)
def test_single_files(name: str) -> None:
    config = check(DATA / name, (DATA / name).with_name("answers.npz"))
    assert (*config.layers, config.model_name, config.centre) == SINGLE[name]


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def rewrite(
    path: Path, change: Callable[[dict[str, bytes]], object], compression: int = zipfile.ZIP_STORED
) -> None:
    """Change the entries of a zip file."""
    with zipfile.ZipFile(path) as archive:
        entries = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"ae/{name}", data)


def swap(old: bytes, new: bytes) -> Callable[[dict[str, bytes]], object]:
    def change(entries: dict[str, bytes]) -> None:
        assert old in entries["data.pkl"]
        entries["data.pkl"] = entries["data.pkl"].replace(old, new)

    return change


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code": (lambda p: rewrite(p, lambda e: e.update({"data.pkl": pickle.dumps({"a": Evil()})})), "posix.mkdir"),
    "builtins": (
        lambda p: rewrite(p, swap(b"ctorch._utils\n_rebuild_tensor_v2", b"cbuiltins\neval")), "builtins.eval",
    ),
    "not a dict": (lambda p: rewrite(p, lambda e: e.update({"data.pkl": pickle.dumps([1])})), "found list"),
    "cut pickle": (lambda p: rewrite(p, lambda e: e.update({"data.pkl": e["data.pkl"][:-40]})), "file of plain"),
    "random pickle": (lambda p: rewrite(p, lambda e: e.update({"data.pkl": b"\x80\x02hq."})), "file of plain"),
    "no pickle": (lambda p: rewrite(p, lambda e: e.pop("data.pkl")), "it has 0 data.pkl"),
    "missing buffer": (lambda p: rewrite(p, lambda e: e.pop("data/0")), "the buffer .*data/0 is missing"),
    "short buffer": (
        lambda p: rewrite(p, lambda e: e.update({"data/0": e["data/0"][:-4]})), "has 236 bytes, expected 240",
    ),
    "compressed": (lambda p: rewrite(p, lambda e: None, zipfile.ZIP_DEFLATED), "has 240 bytes, expected 240"),
    "beyond the buffer": (lambda p: rewrite(p, swap(b"K\nK\x06\x86", b"K\xffK\x06\x86")), "larger than its buffer"),
    "byte order": (lambda p: rewrite(p, lambda e: e.update(byteorder=b"big")), "byte order is not little"),
    "cut": (cut, "not a whole torch file"),
    "old": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "not a zip file of torch 1.6"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_are_no_plain_tensors(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    damage, message = FAULTS[fault]
    shutil.copytree(DATA / "AutoEncoder", tmp_path / "d")
    damage(tmp_path / "d" / "ae.pt")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


def test_what_a_pickle_sets_does_not_outlive_it() -> None:
    # BUILD on the function that makes state dicts.
    evil = b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("ae/data.pkl", evil)
    before = dict(vars(torch_files))
    path = Path("x.pt")
    with zipfile.ZipFile(stream) as archive:
        torch_files._Unpickler(path, archive).load()
    assert vars(torch_files) == before and not hasattr(dict, "a")


def trainer(folder: Path, **fields: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["trainer"].update(fields)
    (folder / "config.json").write_text(json.dumps(values))


CONFIG_FAULTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "class": ("AutoEncoder", lambda d: trainer(d, dict_class="CrossCoder"), "dict_class is 'CrossCoder'"),
    "wrong class": ("AutoEncoder", lambda d: trainer(d, dict_class="BatchTopKSAE"), "'b_dec' is missing"),
    "width": (
        "AutoEncoder",
        lambda d: trainer(d, activation_dim=7),
        r"encoder.weight has shape \(10, 6\), expected",
    ),
    "submodule": ("AutoEncoder", lambda d: trainer(d, submodule_name=None), "submodule_name is None"),
    "layer": (
        "AutoEncoder",
        lambda d: trainer(d, layer=5),
        "submodule_name is 'resid_post_layer_4' and layer 5",
    ),
    "no config": ("AutoEncoder", lambda d: (d / "config.json").unlink(), r"no config\.json beside it"),
    "k": (
        "AutoEncoderTopK",
        lambda d: trainer(d, dict_size="ten"),
        "dict_size is 'ten', expected a whole number",
    ),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_config_faults(tmp_path: Path, fault: str) -> None:
    name, damage, message = CONFIG_FAULTS[fault]
    shutil.copytree(DATA / name, tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message):
        load_dictionary(tmp_path / "d")


def test_a_single_file_whose_path_says_nothing(tmp_path: Path) -> None:
    for name, message in zip(SINGLE, ("what it reads", "how many features"), strict=True):
        shutil.copy(DATA / name, tmp_path / "x.pt")
        with pytest.raises(InputError, match=message):
            load_dictionary(tmp_path / "x.pt")
