"""From any format into any other, and what a file is without reading all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.convert import convert, describe, only
from jaxinterp.dictionaries.formats import registry
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from tests.dictionaries.format_tools import made, same_function
from tests.dictionaries.test_formats_written import CHANGED, EXACT

DATA = Path(__file__).parent / "data"
SAE = {"read_site": "resid_post", "write_site": "resid_post"}


def test_from_one_program_to_the_next(tmp_path: Path) -> None:
    """An autoencoder goes round every format that has such and does the same in each."""
    source = DATA / "saelens" / "standard"
    first = load_dictionary(source)
    before: Any = source
    for format in ("dictionary-learning", "native", "openai", "saelens"):
        facts = convert(before, tmp_path / format, format)
        assert (facts["format"], facts["kind"], facts["features"], facts["notes"]) == (format, "plt", 10, [])
        before = tmp_path / format
        again = load_dictionary(before)
        np.testing.assert_array_equal(again.params["W_enc"], first.params["W_enc"])
        same_function(first, again)


NOTES: list[tuple[str, str, str]] = [
    ("saelens/topk_rescaled", "native", "decoder lengths are folded into the encoder"),
    ("saelens/batchtopk_checkpoint", "native", "batch top-k becomes JumpReLU with the one threshold 0.7"),
    ("made", "dictionary-learning", "the encoder bias takes what the decoder bias takes off the input"),
    ("torch/JumpReluAutoEncoder", "llamascopium", "thresholds are stored as logarithms, which changes"),
    ("circuit_tracer/plt_topk", "circuit-tracer", "that program's top-k keeps the k largest even where"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "format", "note"), NOTES)
def test_what_changes_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, format: str, note: str
) -> None:
    path = DATA / source
    if source == "made":
        path = tmp_path / "s"
        save_dictionary(made("plt", layers=1, centre=True, **SAE), path, format="native")
    assert main(["convert", str(path), str(tmp_path / "d"), "--format", format]) == 0
    said = capsys.readouterr().out
    assert note in said and f"{format} (from " in said
    load_dictionary(tmp_path / "d")


def test_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made("plt", "topk", layers=3, **SAE)
    save_dictionary(one, tmp_path / "s", format="native")
    command = ["convert", str(tmp_path / "s"), str(tmp_path / "d"), "--format", "sparsify"]
    assert main([*command, "--layers", "0,2", "--dtype", "bfloat16", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["layers"], facts["dtype"], facts["source_format"]) == ([0, 2], "bfloat16", "native")
    assert facts["notes"][-1] == "values are rounded to bfloat16"
    again = load_dictionary(tmp_path / "d")
    np.testing.assert_allclose(again.params["W_enc"], np.asarray(one.params["W_enc"])[[0, 2]], rtol=1e-2)
    assert main(["convert", str(tmp_path / "s"), str(tmp_path / "e"), "--format", "auto"]) == 0
    assert "native (from native)" in capsys.readouterr().out


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_dictionary(made("plt", layers=3, **SAE), tmp_path / "s", format="native")
    save_dictionary(made("clt"), tmp_path / "clt")
    before = sorted(str(p) for p in tmp_path.rglob("*"))

    def refused(message: str, *more: str, source: str = "s", out: str = "d") -> None:
        assert main(["convert", str(tmp_path / source), str(tmp_path / out), *more]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and message in said.err, said.err
        assert sorted(str(p) for p in tmp_path.rglob("*")) == before

    refused("one of --to (a model) and --format (a dictionary) is needed")
    refused("one of --to", "--to", "native", "--format", "native")
    refused("--layers is of dictionaries", "--to", "native", "--layers", "1")
    refused("is there already", "--format", "native", out="clt")
    refused("expected one of native", "--format", "nativ")
    refused("layers are '1;2'", "--format", "native", "--layers", "1;2")
    refused("there is no layer 7; there are 0, 1, 2", "--format", "native", "--layers", "0-1,7")
    refused("those of a clt write together", "--format", "native", "--layers", "0", source="clt")
    refused("no dictionary at", "--format", "native", source="nothing")
    refused("it holds one layer", "--format", "saelens", source="clt")


def test_a_range_that_is_too_long() -> None:
    with pytest.raises(InputError, match="too many"):
        only(made("plt"), "0-999999999999")


@pytest.mark.parametrize("name", [*EXACT, *CHANGED])
def test_description_reads_no_matrix(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    format, one = (EXACT | CHANGED)[name]
    save_dictionary(one, tmp_path / "d", format=format)
    whole = load_dictionary(tmp_path / "d")

    def big(values: Any) -> Any:
        assert np.ndim(values) < 2, "a matrix was read"
        return values

    from jaxinterp.dictionaries.formats import mapped, tensors

    if not one.config.skip:
        for backend in (tensors._Safetensors, mapped.Mapped):
            values = backend.values
            monkeypatch.setattr(
                backend,
                "values",
                lambda self, n, rows=None, v=values: v(self, n, rows) if rows else big(v(self, n, rows)),
            )
    found, config = registry.describe(tmp_path / "d")
    assert config == whole.config and found.name == format


@pytest.mark.parametrize(
    "path", ["saelens/topk", "torch/GatedAutoEncoder", "sparsify/sae", "circuit_tracer/clt_relu"]
)
def test_info(capsys: pytest.CaptureFixture[str], path: str) -> None:
    assert main(["info", str(DATA / path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    whole = load_dictionary(DATA / path)
    assert facts["digest"] == whole.digest() and facts["kind"] == f"dictionary ({whole.config.kind})"
    assert facts["n_features"] == 10 and facts["format"] and facts["parameters"] > 0
    without = json.loads(json.dumps(describe(DATA / path, digest=False)))
    assert without == {name: value for name, value in facts.items() if name != "digest"}


def test_info_of_a_folder_by_layers(tmp_path: Path) -> None:
    save_dictionary(made("plt", layers=3, **SAE), tmp_path / "d", format="saelens")
    facts = describe(tmp_path / "d")
    assert (facts["format"], facts["n_layers"], facts["layers"]) == ("saelens", 3, [0, 1, 2])
    with pytest.raises(InputError, match="no dictionary at"):
        describe(tmp_path / "x")
