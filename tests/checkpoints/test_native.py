"""Our own model folders: same bytes, every dtype, tokenizers, meshes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxinterp.checkpoints import load_model, read_tokenizer_json, save_model
from jaxinterp.checkpoints import tensors as tensor_files
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths
from jaxinterp.models.weights import declare
from jaxinterp.parallel import mesh as meshes
from jaxinterp.parallel import weights
from tests.support import EVERY, ROOT, tiny_model

TOKENIZERS = ROOT / "tests" / "references" / "data" / "tokenizers"


@pytest.mark.parametrize("family", EVERY)
def test_round_trip(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert loaded.config == model.config
    assert loaded.digest() == model.digest()
    assert loaded.name == "m" and loaded.tokenizer is None
    save_model(loaded, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
def test_storage_dtypes(tmp_path: Path, stored: str) -> None:
    model = tiny_model("gpt2")
    save_model(model, tmp_path / "m", dtype=stored)
    loaded = load_model(tmp_path / "m")
    for (name, ours), (_, original) in zip(paths(loaded.params), paths(model.params), strict=True):
        assert ours.dtype == jnp.float32
        assert np.array_equal(np.asarray(ours), np.asarray(original.astype(stored).astype(jnp.float32))), name
    assert load_model(tmp_path / "m", dtype="bfloat16").params["embed"]["tokens"].dtype == jnp.bfloat16


def test_float64_survives(tmp_path: Path) -> None:
    with jax.enable_x64(True):
        model = tiny_model("llama", dtype="float64")
        save_model(model, tmp_path / "m")
        assert load_model(tmp_path / "m", dtype="float64").digest() == model.digest()
    with pytest.raises(InputError, match="64-bit"):
        load_model(tmp_path / "m", dtype="float64")


def test_our_files_are_safetensors_files(tmp_path: Path) -> None:
    """The reference implementation of the format reads what we write, and the other way round."""
    model = tiny_model("gemma2")
    save_model(model, tmp_path / "m", dtype="bfloat16")
    theirs = safetensors.numpy.load_file(tmp_path / "m" / "model.safetensors")
    assert set(theirs) == {name for name, _ in paths(model.params)}
    safetensors.numpy.save_file(theirs, tmp_path / "copy.safetensors")
    ours = tensor_files.TensorFile(tmp_path / "copy.safetensors")
    for name, array in theirs.items():
        assert np.array_equal(ours.read(name), array)
        assert np.array_equal(ours.read(name, (slice(1, 2),)), array[1:2])


def test_divided_over_a_mesh(tmp_path: Path) -> None:
    model = tiny_model("llama")
    save_model(model, tmp_path / "m")
    mesh = meshes.make(data=4, model=2)
    loaded = load_model(tmp_path / "m", mesh=mesh)
    expected = dict(paths(weights.shardings(declare(model.config), mesh)))
    for name, leaf in paths(loaded.params):
        assert leaf.sharding == expected[name], name
    assert loaded.params["layers"]["q"].addressable_shards[0].data.shape == (3, 16, 2, 4)
    assert loaded.digest() == model.digest()


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
def test_tokenizer_travels_with_the_model(tmp_path: Path, kind: str) -> None:
    tokenizer = read_tokenizer_json(TOKENIZERS / kind / "tokenizer.json")
    model = dataclasses.replace(tiny_model("llama", vocab_size=400), tokenizer=tokenizer)
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m").tokenizer
    assert again == tokenizer and hash(again) == hash(tokenizer)
    assert again.encode("old map") == tokenizer.encode("old map")
    assert (again.bos, again.eos) == (tokenizer.bos, tokenizer.eos)


def test_saving_replaces_a_model_but_nothing_else(tmp_path: Path) -> None:
    save_model(tiny_model("llama"), tmp_path / "m")
    other = tiny_model("llama", seed=1)
    save_model(other, tmp_path / "m")
    assert load_model(tmp_path / "m").digest() == other.digest()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not a model of ours"):
        save_model(other, tmp_path / "notes")
    (tmp_path / "notes" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="not a model of ours"):
        save_model(other, tmp_path / "notes")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "notes"]


def test_numbers_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.params["layers"]["down"] = model.params["layers"]["down"].at[0, 0, 0].set(1e6)
    with pytest.raises(InputError, match=r"layers\.down.*1e\+06, too large for float16"):
        save_model(model, tmp_path / "m", dtype="float16")
    assert not (tmp_path / "m").exists()
