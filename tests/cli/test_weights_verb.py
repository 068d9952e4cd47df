"""``jaxinterp weights`` and ``jaxinterp operands``: what they print is what the library finds; faults are one line."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution.global_weights import virtual_weights
from jaxinterp.checkpoints import save_model
from jaxinterp.cli.main import main
from jaxinterp.dictionaries import Dictionary, DictionaryConfig, load_dictionary, save_dictionary
from jaxinterp.dictionaries.initialise import random
from jaxinterp.models import Model, forward
from tests.support import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three layers, a transcoder of each, and rows of token ids."""
    place = tmp_path_factory.mktemp("weights")
    save_model(model(), place / "model")
    config = DictionaryConfig("plt", 3, 10, 16, activation="relu", read_site="mlp_in")
    save_dictionary(Dictionary(random(config, jax.random.key(0)), config), place / "plt", format="native")
    np.save(place / "ids.npy", np.random.default_rng(0).integers(0, 40, (12, 8)))
    return place


def model() -> Model:
    return tiny_model("llama")


def words(folder: Path, *more: str) -> list[str]:
    given = ["--model", str(folder / "model"), "--dictionary", str(folder / "plt")]
    return ["weights", *given, "--text", str(folder / "ids.npy"), "--length", "8", *more]


def test_virtual(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(folder, "--feature", "1/4", "--top", "3", "--lazy", "--json")) == 0
    (found,) = json.loads(capsys.readouterr().out)
    dictionary = load_dictionary(folder / "plt")
    block = np.asarray(virtual_weights(model(), dictionary).block(0, 1))[:, 4]
    best = np.argsort(-np.abs(block), kind="stable")[:3]
    assert [(one["layer"], one["feature"]) for one in found["inputs"]] == [(0, int(i)) for i in best]
    np.testing.assert_allclose([one["weight"] for one in found["inputs"]], block[best], rtol=1e-5)
    assert all(one["layer"] == 2 for one in found["outputs"])
    assert [len(found[name]) for name in ("tokens", "outputs", "logits")] == [3, 3, 3]
    assert main(words(folder, "--feature", "1/4", "--feature", "0/2", "--through", "1.2")) == 0
    shown = capsys.readouterr().out
    assert "feature 1/4, virtual weights" in shown and "reads tokens" in shown


def test_expected(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted for one feature, for all pairs into a file, and gone on with from half of the text: all the same."""
    common = ("--feature", "1/4", "--kind", "era", "--top", "4", "--json")
    assert main(words(folder, *common, "--tokens", "512")) == 0
    (alone,) = json.loads(capsys.readouterr().out)
    kept = ("--counter", str(tmp_path / "all.npz"))
    for tokens in ("256", "512"):
        assert main(words(folder, *common, *kept, "--tokens", tokens)) == 0
        (found,) = json.loads(capsys.readouterr().out)
    assert main(words(folder, *common, *kept)) == 0
    assert json.loads(capsys.readouterr().out) == [found]
    for name in ("inputs", "outputs"):
        for one, other in zip(alone[name], found[name], strict=True):
            assert (one["layer"], one["feature"]) == (other["layer"], other["feature"])
            assert one["weight"] == pytest.approx(other["weight"], rel=1e-5)
    # By hand: one batch of 32 rows, twice; every row of the file comes equally often but for what is left over.
    from jaxinterp.activations import TextConfig, make_source

    source = make_source(TextConfig(source=str(folder / "ids.npy"), length=8, batch=32), model(), 1)
    tokens = np.concatenate([source.batch(i).tokens for i in range(2)])
    _, sites = forward(model().params, model().config, jnp.asarray(tokens), sites=("mlp_in",))
    dictionary = load_dictionary(folder / "plt")
    a = np.asarray(dictionary.encode(sites.mlp_in)).reshape(3, -1, 10)
    v = np.asarray(virtual_weights(model(), dictionary).block(0, 1))[:, 4]
    era = (a[0] * (a[1][:, [4]] > 0)).mean(axis=0) * v
    best = found["inputs"][0]
    assert best["feature"] == int(np.argmax(np.abs(era)))
    assert best["weight"] == pytest.approx(float(era[best["feature"]]), rel=1e-4)


def test_operands_of_the_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It adds numbers written digit by digit: at "=" it says the first digit of the sum."""
    out = tmp_path / "plots.npz"
    given = [
        "--model",
        "pocket",
        "--dictionary",
        "pocket",
        "--template",
        "{a} + {b} =",
        "--digits",
        "--quiet",
    ]
    ranges = ["--a", "40:44", "--b", "30:34", "--min-prompts", "4", "--batch", "16"]
    answers = ["--answers", "70:80"]
    assert main(["operands", *given, *ranges, *answers, "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predicted"] == [{"token": found["predicted"][0]["token"], "text": "7", "prompts": 16}]
    with np.load(out) as arrays:
        assert arrays["grids"].shape == (len(found["features"]), 4, 4)
        assert ((arrays["grids"] > 0).sum(axis=(1, 2)) >= 4).all()
        assert arrays["output_weights"].shape == (len(found["features"]), 10)
        # All answers begin with the digit that is predicted.
        assert set(arrays["answer_tokens"].tolist()) == {found["predicted"][0]["token"]}
        first = found["features"][0]
        assert arrays["features"][0].tolist() == [first["layer"], first["feature"]]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--feature", "3/x"], "expected LAYER/NUMBER"),
        (["--feature", "3/1"], "has no layer 3"),
        (["--feature", "0/10"], "has 0 to 9 in a layer"),
        (["--feature", "0/1", "--kind", "era"], "give --tokens"),
        (["--feature", "0/1", "--kind", "era", "--counter", "none.npz"], "there is no counter none.npz"),
        (["--feature", "0/1", "--mean-norms"], "give --tokens"),
        (["--feature", "0/1", "--through", "1"], "expected LAYER.HEAD"),
        (["--feature", "0/1", "--through", "1.0", "--kind", "era", "--tokens", "9"], "at the same token"),
        (["--feature", "0/1", "--top", "0"], "at least 1"),
    ],
)
def test_faults(folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    assert main(words(folder, *more)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_faults_of_operands(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["operands", "--model", "pocket", "--dictionary", "pocket", "--template"]
    for more, said in (
        (["{a} + 1 ="], "no place for both operands"),
        (["{a} + {b} =", "--a", "5"], "expected FROM:TO"),
        (["{a} + {b} =", "--a", "5:6"], "at least two numbers"),
        (["{a} plus {b} ="], "outside the vocabulary"),
        (["{a} + {b} =", "--answers", "0:9"], "give --out"),
    ):
        assert main([*given, *more]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
