"""One form turned into another, through the command line where a person would use it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

from jaxinterp.checkpoints import (
    convert,
    export_huggingface,
    export_llama2c,
    load_model,
    orbax_folder,
    read_tokenizer_json,
    save_model,
)
from jaxinterp.checkpoints.llama2c_tokenizer import write_tokenizer
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import paths
from jaxinterp.models import Model, forward
from jaxinterp.models.weights import declare
from jaxinterp.parallel import mesh as meshes
from jaxinterp.parallel import weights
from tests.checkpoints.test_llama2c import small_tokenizer
from tests.references import stored
from tests.support import EVERY, ROOT, shared, tiny_model

TOKENIZERS = ROOT / "tests" / "references" / "data" / "tokenizers"


def small(**changes: object) -> Model:
    """A tiny model that llama2.c can hold, with a tokenizer."""
    model = tiny_model("llama", rope_pairs="adjacent", vocab_size=274, **changes)
    return dataclasses.replace(model, tokenizer=small_tokenizer())


def test_llama2c_to_huggingface_and_back(tmp_path: Path) -> None:
    for tied in (True, False):
        place = tmp_path / str(tied)
        place.mkdir()
        model = small(tied=tied)
        export_llama2c(model, place / "m.bin")
        assert load_model(place / "m.bin").tokenizer == model.tokenizer
        convert(place / "m.bin", place / "hf", "huggingface")
        between = load_model(place / "hf")
        assert between.config == dataclasses.replace(model.config, rope_pairs="half")
        assert between.tokenizer == model.tokenizer
        convert(place / "hf", place / "again.bin", "llama2c")
        assert (place / "again.bin").read_bytes() == (place / "m.bin").read_bytes()
        names = sorted(path.name for path in place.iterdir())
        assert names == ["again.bin", "hf", "m.bin", "tok274.bin"]


def test_stories260k_to_huggingface_and_back(tmp_path: Path) -> None:
    source = shared("data/stories260K.bin")
    model = load_model(source)
    convert(source, tmp_path / "hf", "huggingface")
    other = load_model(tmp_path / "hf")
    tokens = jnp.asarray([model.tokenizer.encode("Once upon a time, there was a little girl named Lily.")])
    assert other.tokenizer == model.tokenizer
    logits = [np.asarray(forward(m.params, m.config, tokens)[0]) for m in (model, other)]
    assert np.abs(logits[0] - logits[1]).max() <= 1e-5 * np.abs(logits[0]).max()
    convert(tmp_path / "hf", tmp_path / "again.bin", "llama2c")
    before, after = source.read_bytes(), (tmp_path / "again.bin").read_bytes()
    # Another program computed the rotary tables, which come last, in float32.
    tables = 2 * 4 * model.config.context * model.config.d_head // 2
    assert len(before) == len(after) and before[:-tables] == after[:-tables]
    both = [np.frombuffer(data[-tables:], "<f4") for data in (before, after)]
    assert np.abs(both[0] - both[1]).max() < 1e-5
    assert (tmp_path / "tok512.bin").read_bytes() == shared("data/tok512.bin").read_bytes()


def test_what_llama2c_cannot_hold(tmp_path: Path) -> None:
    model, out = small(), tmp_path / "m.bin"
    with pytest.raises(InputError, match=r"cannot hold a model with norm_eps 0\.001, only 1e-05"):
        export_llama2c(small(norm_eps=1e-3), out)
    with pytest.raises(InputError, match=r"llama2\.c has no form for a JsonTokenizer"):
        text = read_tokenizer_json(TOKENIZERS / "metaspace" / "tokenizer.json")
        export_llama2c(dataclasses.replace(model, tokenizer=text), out)
    with pytest.raises(InputError, match=r"has 274 tokens, .* vocabulary of 275"):
        bigger = tiny_model("llama", rope_pairs="adjacent", vocab_size=275)
        export_llama2c(dataclasses.replace(bigger, tokenizer=small_tokenizer()), out)
    with pytest.raises(InputError, match="name of the tokenizer's file"):
        export_llama2c(model, tmp_path / "tok274.bin")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tok274.bin").write_bytes(b"another")
    with pytest.raises(InputError, match=r"tok274\.bin: another tokenizer is in the way"):
        export_llama2c(model, out)
    assert not out.exists()
    write_tokenizer(tmp_path / "tok274.bin", small_tokenizer())
    export_llama2c(model, out)
    with pytest.raises(InputError, match=r"m\.bin: a file is in the way"):
        export_llama2c(model, out)


@pytest.mark.parametrize("family", EVERY)
def test_orbax_round_trip(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    orbax_folder.save(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert again.config == model.config and again.digest() == model.digest()


def test_orbax_folders_are_checkpoints_of_orbax(tmp_path: Path) -> None:
    """Orbax alone reads what we write; on a mesh we read it divided; dtypes are kept and cast on load."""
    model = tiny_model("llama")
    orbax_folder.save(model, tmp_path / "m", dtype="bfloat16")
    with ocp.StandardCheckpointer() as reader:
        theirs = reader.restore((tmp_path / "m" / "params").resolve())
    rounded = model.astype("bfloat16")
    for (name, ours), (other, leaf) in zip(paths(rounded.params), paths(theirs), strict=True):
        assert (
            name == other
            and leaf.dtype == jnp.bfloat16
            and np.array_equal(np.asarray(leaf), np.asarray(ours))
        )
    mesh = meshes.make(data=4, model=2)
    loaded = load_model(tmp_path / "m", mesh=mesh)
    expected = dict(paths(weights.shardings(declare(model.config), mesh)))
    for name, leaf in paths(loaded.params):
        assert leaf.dtype == jnp.float32 and leaf.sharding == expected[name], name
    assert loaded.digest() == rounded.astype("float32").digest()


def test_damaged_orbax_folders(tmp_path: Path) -> None:
    model = tiny_model("llama")
    orbax_folder.save(model, tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    content = json.loads(file.read_text())

    def expect(message: str, **changes: object) -> None:
        file.write_text(json.dumps({**content, **changes}))
        with pytest.raises(InputError, match=message):
            load_model(tmp_path / "m")

    expect(r"version is 2, this program reads 1", version=2)
    expect(r"unknown field 'extra'", extra=1)
    expect(r"field 'config' is missing", config=None)
    expect(
        r"'embed\.tokens' has shape \(40, 16\), expected \(41, 16\)",
        config={**content["config"], "vocab_size": 41},
    )
    expect(r"lacks the weight 'layers\.k_bias'", config={**content["config"], "qkv_bias": True})
    expect(r"unknown weight 'unembed'", config={**content["config"], "tied": True})
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="64-bit"):
        load_model(tmp_path / "m", dtype="float64")
    params = model.params
    params["layers"]["q"] = params["layers"]["q"].at[0, 0, 0, 0].set(1e6)
    orbax_folder.save(model, tmp_path / "large")
    with pytest.raises(InputError, match=r"'layers\.q' holds numbers that are not finite in float16"):
        load_model(tmp_path / "large", dtype="float16")
    for damaged in ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"):
        data = tmp_path / "m" / "params" / damaged
        data.write_bytes(data.read_bytes()[:7])
        with pytest.raises(InputError, match=r"params cannot be read: "):
            load_model(tmp_path / "m")
    for data in sorted((tmp_path / "m" / "params").rglob("*"), reverse=True):
        data.unlink() if data.is_file() else data.rmdir()
    (tmp_path / "m" / "params").rmdir()
    with pytest.raises(InputError, match="lacks the Orbax checkpoint params"):
        load_model(tmp_path / "m")


def test_round_and_round_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """huggingface → orbax → native → huggingface ends where it began, bit for bit."""
    case = stored.case("qwen2_gqa_tied")
    source = stored.write_folder(case, tmp_path / "a")
    steps = (("a", "b", "orbax"), ("b", "c", "native"), ("c", "d", "huggingface"))
    for start, end, form in steps:
        assert main(["convert", str(tmp_path / start), str(tmp_path / end), "--to", form]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and all("parameters in float32, without a tokenizer" in line for line in out)
    assert "huggingface (qwen2)" in out[-1]
    found = safetensors.numpy.load_file(tmp_path / "d" / "model.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in case.tensors().items()
    }
    assert load_model(tmp_path / "d").config == load_model(source).config


def test_options_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_llama2c(small(), tmp_path / "m.bin")
    command = [
        "convert",
        str(tmp_path / "m.bin"),
        str(tmp_path / "hf"),
        "--to",
        "huggingface",
        "--family",
        "mistral",
    ]
    more = ["--dtype", "bfloat16", "--shard-bytes", "5000", "--no-tokenizer", "--json"]
    assert main([*command, *more]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {
        "form": "huggingface", "out": str(tmp_path / "hf"), "family": "mistral",
        "parameters": small().config.n_params(), "dtype": "bfloat16", "tokenizer": False,
    }  # fmt: skip
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 2
    assert not (tmp_path / "hf" / "tokenizer.bin").exists()
    # The dtype of a source in safetensors is kept; a tokenizer can be given.
    again = ["convert", str(tmp_path / "hf"), str(tmp_path / "n"), "--to", "native"]
    assert main([*again, "--tokenizer", str(tmp_path / "tok274.bin"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "bfloat16"
    assert load_model(tmp_path / "n").tokenizer == small_tokenizer()


def test_what_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tiny_model("llama", gated=False), tmp_path / "odd")
    export_huggingface(tiny_model("llama"), tmp_path / "hf")
    (tmp_path / "notes.txt").write_text("mine")
    before = sorted(path.name for path in tmp_path.rglob("*"))

    def refused(message: str, source: str, out: str, *more: str) -> None:
        assert main(["convert", str(tmp_path / source), str(tmp_path / out), *more]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and message in said.err, said.err
        assert sorted(path.name for path in tmp_path.rglob("*")) == before

    refused("no form 'hugingface' (did you mean huggingface?)", "hf", "x", "--to", "hugingface")
    refused("nearest is llama, which cannot have gated False", "odd", "x", "--to", "huggingface")
    refused("'lama' is no family", "hf", "x", "--to", "huggingface", "--family", "lama")
    refused("a family is of Hugging Face folders", "hf", "x", "--to", "native", "--family", "llama")
    refused("does not fit its family: gpt2", "hf", "x", "--to", "huggingface", "--family", "gpt2")
    refused("no storage dtype 'float8'", "hf", "x", "--to", "native", "--dtype", "float8")
    refused("llama2.c files are float32, not float16", "hf", "x", "--to", "llama2c", "--dtype", "float16")
    refused("the folder is in the way", "hf", "odd", "--to", "native")
    refused("a file is in the way", "hf", "notes.txt", "--to", "orbax")
    refused("no model at", "nothing", "x", "--to", "native")
    refused("expected at least 1", "hf", "x", "--to", "huggingface", "--shard-bytes", "0")
    refused("cannot hold a model with gated False", "odd", "x", "--to", "llama2c")


def test_pocket_can_be_taken_out(tmp_path: Path) -> None:
    facts = convert("pocket", tmp_path / "m", "orbax", dtype="float32")
    assert facts["tokenizer"]
    source, again = load_model("pocket"), load_model(tmp_path / "m")
    assert again.digest() == source.digest() and again.tokenizer == source.tokenizer
    assert jax.tree.structure(again.params) == jax.tree.structure(source.params)
