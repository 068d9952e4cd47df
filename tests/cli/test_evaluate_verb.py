"""``jaxinterp evaluate``: a table, a record, SAEBench's files; what is wrong is one line."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxinterp.checkpoints import save_model
from jaxinterp.cli.main import main
from jaxinterp.dictionaries import Dictionary, DictionaryConfig, save_dictionary
from jaxinterp.dictionaries.initialise import random
from tests.support import tiny_model

COUNT, LENGTH = 12, 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an autoencoder of one layer without a layer's number, a transcoder of all, one of another width; ids."""
    place = tmp_path_factory.mktemp("evaluate")
    model = tiny_model("llama", n_layers=2)
    save_model(model, place / "model")
    for name, changes in (
        ("sae", {"n_layers": 1, "read_site": "resid_post", "write_site": "resid_post"}),
        ("plt", {"n_layers": 2, "read_site": "mlp_in"}),
        ("wide", {"n_layers": 2, "d_model": 12}),
    ):
        settings = {"kind": "plt", "n_features": 10, "d_model": 16, "activation": "relu", **changes}
        config = DictionaryConfig(**settings)  # type: ignore[arg-type]
        save_dictionary(Dictionary(random(config, jax.random.key(0)), config), place / name, format="native")
    np.save(place / "ids.npy", np.random.default_rng(0).integers(0, 40, (COUNT, LENGTH)))
    return place


def words(folder: Path, name: str, *more: str) -> list[str]:
    given = ["--model", str(folder / "model"), "--text", str(folder / "ids.npy"), "--length", str(LENGTH)]
    return ["evaluate", str(folder / name), *given, *more]


def test_a_table_a_record_and_saebench_s_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, results = tmp_path / "figures.json", tmp_path / "results"
    command = words(
        folder, "sae", "--layers", "1", "--tokens", "100", "--out", str(out), "--saebench", str(results)
    )
    assert main(command) == 0
    printed = capsys.readouterr().out
    record = json.loads(out.read_text())
    assert f"{record['figures']['fve'][0]:.4f}" in printed and "against mean ablation" in printed
    assert record["dictionary"]["layers"] == [1] and record["text"]["tokens"] == 100
    assert "jacobian" not in record  # there is no MLP between these sites
    (path,) = results.iterdir()
    result = json.loads(path.read_text())
    assert path.name == "sae_resid_post_layer_1_eval_results.json" and result["eval_type_id"] == "core"
    score = result["eval_result_metrics"]["model_performance_preservation"]["ce_loss_score"]
    assert score == record["figures"]["each_layer"][0]["zero"]["ce_recovered"]
    # The same again is the same, byte for byte.
    before = out.read_bytes(), path.read_bytes()
    assert main([*command, "--json"]) == 0
    assert (out.read_bytes(), path.read_bytes()) == before
    assert json.loads(capsys.readouterr().out) == record


def test_what_is_wrong_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.npy").write_bytes(b"")
    for command, message in (
        (words(folder, "wide"), "wide does not fit the model: it reads resid_mid of width 12"),
        (words(folder, "sae"), "made for layers: 1, the model has 2 (n_layers), and it does not say which"),
        (words(folder, "sae", "--layers", "1,2"), "sae has 1 layers, not 2 as given"),
        (words(folder, "sae", "--layers", "5"), "made for layer 5, the model has layers 0 to 1"),
        (words(folder, "sae", "--layers", "x"), "--layers 'x': expected whole numbers"),
        (words(folder, "plt", "--tokens", "109"), "has 108 different usable tokens, fewer than the 109 asked for"),
        (words(folder, "plt", "--tokens", "0"), "tokens is 0, expected at least 1"),
        (words(folder, "nothing"), "no dictionary at"),
        (words(folder, "plt", "--quick", "--saebench", "x"), "leave --quick out"),
        (words(folder, "plt", "--against-model", "pocket"), "give that, too"),
        (words(folder, "plt", "--out", "x.txt"), "expected a name ending in .json"),
        (["evaluate", str(folder / "plt")], "give --model, and --text if not the model's own; or --store"),
        (["evaluate", str(folder / "plt"), "--model", str(folder / "model"), "--text", str(tmp_path / "none.txt")],
         "none.txt"),
        (["evaluate", str(folder / "plt"), "--model", str(folder / "model"), "--text", str(tmp_path / "empty.npy")],
         "empty.npy is no readable .npy array"),
        (["evaluate", str(folder / "plt"), "--store", str(tmp_path)], "store"),
    ):  # fmt: skip
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
