"""What is written comes back: every format, bit for bit where it says the same."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.dictionaries.formats import registry, torch_files
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from tests.dictionaries.format_tools import made, same_function

DATA = Path(__file__).parent / "data"
SAE = {"read_site": "resid_post", "write_site": "resid_post"}
MLP = {"read_site": "mlp_in", "write_site": "mlp_out_raw"}
FORGE = {"read_site": "mlp_normalized", "write_site": "mlp_out"}
QWEN = {**SAE, "model_name": "Qwen/Qwen3-1.7B-Base"}
EXACT: dict[str, tuple[str, Dictionary]] = {
    "dictionary-learning relu": ("dictionary-learning", made("plt", "relu", layers=1, centre=True, **SAE)),
    "dictionary-learning new": ("dictionary-learning", made("plt", "relu", layers=1, **SAE)),
    "dictionary-learning topk": ("dictionary-learning", made("plt", "topk", layers=1, centre=True, **SAE)),
    "dictionary-learning gated": ("dictionary-learning", made("plt", "gated", layers=1, centre=True, **SAE)),
    "dictionary-learning jumprelu": ("dictionary-learning", made("plt", layers=1, **SAE)),
    "dictionary-learning layers": ("dictionary-learning", made("plt", layers=3, **SAE)),
    "openai relu": ("openai", made("plt", "relu", layers=2, centre=True, **SAE)),
    "openai topk": ("openai", made("plt", "topk", layers=2, centre=True, normalise_rows="layer_norm", **SAE)),
    "qwen-scope": ("qwen-scope", made("plt", "topk", layers=2, n=1024, d=2, **QWEN)),
    "llama-scope relu": ("llama-scope", made("plt", "relu", layers=1)),
    "llama-scope topk": ("llama-scope", made("plt", "topk", layers=1, ranked=True)),
    "clt-training": ("clt-training", made("clt", "topk", skip=True, **MLP)),
    "clt-training tied": ("clt-training", made("clt", "groupmax", tied=True, **MLP)),
    "crosslayer-coding": ("crosslayer-coding", made("clt", "relu", skip=True)),
    "llamascopium crosscoder": ("llamascopium", made("crosscoder", "relu", **SAE)),
    "saelens layer norm": ("saelens", made("plt", "gated", layers=1, normalise_rows="layer_norm", **SAE)),
    "saelens length": ("saelens", made("plt", "topk", layers=1, normalise_rows="length", centre=True, **SAE)),
    "saelens layers": ("saelens", made("plt", "jumprelu", layers=3, **SAE)),
    "native rows": ("native", made("plt", "relu", normalise_rows="length", **SAE)),
}


@pytest.mark.parametrize("name", EXACT)
def test_bit_for_bit(tmp_path: Path, name: str) -> None:
    format, one = EXACT[name]
    save_dictionary(one, tmp_path / "d", format=format)
    again = load_dictionary(tmp_path / "d")
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(a, b)
    for field in (
        "kind",
        "activation",
        "k",
        "ranked",
        "centre",
        "tied",
        "normalise_rows",
        "read_site",
        "write_site",
    ):
        assert getattr(one.config, field) == getattr(again.config, field), field
    # And the same dictionary gives the same files.
    save_dictionary(again, tmp_path / "e", format=format)
    files = sorted(p.relative_to(tmp_path / "d") for p in (tmp_path / "d").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "e") for p in (tmp_path / "e").rglob("*") if p.is_file())
    for file in (f for f in files if f.suffix != ".json"):
        assert (tmp_path / "d" / file).read_bytes() == (tmp_path / "e" / file).read_bytes()


CHANGED: dict[str, tuple[str, Dictionary]] = {
    "dictionary-learning topk": (
        "dictionary-learning",
        made("plt", "topk", layers=1, ranked=True, centre=True, **SAE),
    ),
    "dictionary-learning uncentred": ("dictionary-learning", made("plt", "topk", layers=1, **SAE)),
    "dictionary-learning gated": ("dictionary-learning", made("plt", "gated", layers=1, **SAE)),
    "dictionary-learning jumprelu": ("dictionary-learning", made("plt", layers=1, centre=True, **SAE)),
    "openai": ("openai", made("plt", "relu", layers=1, **SAE)),
    "qwen-scope": (
        "qwen-scope",
        made("plt", "topk", layers=1, n=1024, d=2, centre=True, ranked=True, **QWEN),
    ),
    "llama-scope": ("llama-scope", made("plt", layers=1)),
    "crosslayer-coding": ("crosslayer-coding", made("clt")),
    "crosslayer-coding tied": ("crosslayer-coding", made("clt", tied=True)),
    "llamascopium shared": ("llamascopium", made("crosscoder", "relu", shared=2, **SAE)),
    "sparsify gated": ("sparsify", made("plt", "topk", ranked=True, **SAE)),
}


@pytest.mark.parametrize("name", CHANGED)
def test_the_same_function(tmp_path: Path, name: str) -> None:
    format, one = CHANGED[name]
    save_dictionary(one, tmp_path / "d", format=format)
    # Where lengths are folded in, activations are multiplied by them.
    same_function(one, load_dictionary(tmp_path / "d"), 2e-5, activations=not one.config.ranked)


def test_one_threshold_is_batch_top_k(tmp_path: Path) -> None:
    one = made("plt", layers=1, centre=True, **SAE)
    one.params["threshold"] = jax.numpy.full_like(one.params["threshold"], 0.25)
    save_dictionary(one, tmp_path / "d", format="dictionary-learning")
    assert set(torch_files.read(tmp_path / "d" / "ae.pt")) >= {"encoder.weight", "k", "threshold"}
    assert (
        load_dictionary(tmp_path / "d").digest() == one.digest()
        or same_function(one, load_dictionary(tmp_path / "d")) is None
    )


def test_every_format_that_is_written_is_tried() -> None:
    from tests.dictionaries import test_formats_peers

    tried = {format for format, _ in (*EXACT.values(), *CHANGED.values(), *test_formats_peers.ROUND.values())}
    elsewhere = {
        "circuit-tracer",
        "clt-forge",
        "gemma-scope",
        "gemma-scope-2",
        "llamascopium-lorsa",
        "llamascopium-molt",
    }
    assert {f.name for f in registry.FORMATS.values() if f.write is not None} <= tried | elsewhere


REFUSED: list[tuple[str, Dictionary, str]] = [
    ("dictionary-learning", made("plt", layers=1), "nothing that reads resid_mid and writes mlp_out"),
    ("dictionary-learning", made("plt", "groupmax", layers=1, **SAE), "no activation 'groupmax'"),
    ("dictionary-learning", made("clt", layers=1), "it holds one layer"),
    ("openai", made("plt", "topk", layers=1, **SAE), "topk with normalise_rows = layer_norm, not topk with none"),
    ("openai", made("plt", "jumprelu", layers=1, **SAE), "not jumprelu"),
    ("qwen-scope", made("plt", "topk", layers=1, **QWEN), "not a multiple of"),
    ("qwen-scope", made("plt", "topk", layers=1, n=1024, **SAE), "models of Qwen/, not of one without a name"),
    ("qwen-scope", made("plt", "relu", layers=1, **SAE), "with topk only"),
    ("llama-scope", made("plt", layers=1, skip=True), "nothing for skip = True"),
    ("llama-scope", made("plt", "gated", layers=1), "no activation 'gated'"),
    ("clt-training", made("clt", "jumprelu", **MLP), "no activation 'jumprelu'"),
    ("clt-training", made("clt", "topk"), "no hookpoint that reads resid_mid"),
    ("clt-training", made("plt", "topk", **MLP), "sparsify's format has the others"),
    ("crosslayer-coding", made("clt", "topk"), "not 'clt' with 'topk'"),
    ("crosslayer-coding", made("clt", "relu", skip=True, tied=True), "skips of tied decoders"),
    ("llamascopium", made("crosscoder", "jumprelu", **SAE), "crosscoders with relu"),
    ("sparsify", made("plt", "topk", normalise_rows="length", **SAE), "nothing for normalise_rows = length"),
    ("gemma-scope", made("plt", normalise_rows="length", **SAE), "nothing for normalise_rows = length"),
    ("torch-file", made("plt", "relu", layers=1, **SAE), "torch-file is only read"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "one", "message"), REFUSED)
def test_what_a_format_cannot_say_is_named(
    tmp_path: Path, format: str, one: Dictionary, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save_dictionary(one, tmp_path / "d", format=format)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("format", ["saelens", "dictionary-learning", "gemma-scope"])
def test_a_threshold_below_zero_is_refused_where_activations_are_rectified(
    tmp_path: Path, format: str
) -> None:
    one = made("plt", layers=1, **SAE)
    one.params["threshold"] = one.params["threshold"] - 1
    with pytest.raises(InputError, match="below zero"):
        save_dictionary(one, tmp_path / "d", format=format)


VALUES: dict[str, Any] = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(6, dtype=np.float16).reshape(2, 3).T,
    "c": np.array(3, np.int32), "d": np.array([True, False]), "e": {"k": 5, "name": "ReLU", "x": 0.5}, "f": "é" * 300,
    "g": np.zeros((0, 3), np.float64), "h": 1 << 40,
}  # fmt: skip


def test_torch_files_come_back(tmp_path: Path) -> None:
    import ml_dtypes

    values = {**VALUES, "i": np.ones(3, ml_dtypes.bfloat16)}
    torch_files.write(tmp_path / "x.pt", values)
    found = torch_files.read(tmp_path / "x.pt")
    assert found.keys() == values.keys() and torch_files.peek(tmp_path / "x.pt") == tuple(values)
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value
    before = (tmp_path / "x.pt").read_bytes()
    torch_files.write(tmp_path / "x.pt", values)
    assert (tmp_path / "x.pt").read_bytes() == before


def test_torch_reads_what_is_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch_files.write(tmp_path / "x.pt", VALUES)
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    for name, value in VALUES.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[name].numpy(), value)
        else:
            assert found[name] == value


def test_the_pickle_is_the_least_there_is(tmp_path: Path) -> None:
    import pickletools

    torch_files.write(tmp_path / "x.pt", VALUES)
    with zipfile.ZipFile(io.BytesIO((tmp_path / "x.pt").read_bytes())) as archive:
        assert archive.testzip() is None
        code = archive.read("x/data.pkl")
    named = {str(argument) for opcode, argument, _ in pickletools.genops(code) if opcode.name == "GLOBAL"}
    assert named <= {
        "torch._utils _rebuild_tensor_v2", "collections OrderedDict", "torch FloatStorage", "torch HalfStorage",
        "torch IntStorage", "torch BoolStorage", "torch DoubleStorage",
    }  # fmt: skip


CIRCUIT_TRACER = sorted(p.name for p in (DATA / "circuit_tracer").iterdir())


@pytest.mark.parametrize("name", CIRCUIT_TRACER)
def test_circuit_tracers_own_files(tmp_path: Path, name: str) -> None:
    source = DATA / "circuit_tracer" / name
    found = load_dictionary(source)
    with np.load(source / "answers.npz") as file:
        x, acts, out = file["x"], file["acts"], file["out"]
    # Its top-k keeps the largest even where they are negative, ours where they are positive.
    rows = (acts >= 0).all(axis=2)
    assert (acts != 0).any() and rows.mean() > 0.5
    np.testing.assert_allclose(np.asarray(found.encode(x))[rows], acts[rows], rtol=1e-5, atol=1e-5)
    whole = rows if found.config.kind == "plt" else np.broadcast_to(rows.all(axis=0), rows.shape)
    np.testing.assert_allclose(np.asarray(found.reconstruct(x))[whole], out[whole], rtol=1e-5, atol=1e-5)
    save_dictionary(found, tmp_path / "d", format="circuit-tracer")
    for file in source.glob("*.safetensors"):
        from safetensors.numpy import load_file

        theirs, ours = load_file(file), load_file(tmp_path / "d" / file.name)
        assert theirs.keys() == ours.keys()
        for key in theirs:
            np.testing.assert_array_equal(theirs[key], ours[key])
