"""The verb: computes, exports, shows; one line where something does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jaxinterp.cli.main import main
from jaxinterp.dashboards import open_features

TEXT = "jaxinterp.biology.pocket.mixture:batch"
RUN = [
    "--model",
    "pocket",
    "--dictionary",
    "pocket",
    "--text",
    TEXT,
    "--tokens-limit",
    "640",
    "--layers",
    "1,3",
]
RUN += ["--quiet"]


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["dashboards", *arguments]) == code
    out = capsys.readouterr()
    return out.err if code else out.out


def test_compute_export_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "it")
    planned: dict[str, Any] = json.loads(said(capsys, *RUN, "--out", out, "--dry-run", "--json"))
    assert planned["tokens"] == 640 and planned["features"] == 2048 and not (tmp_path / "it").exists()
    assert "640" in said(capsys, *RUN, "--out", out, "--dry-run")
    facts = json.loads(said(capsys, *RUN, "--out", out, "--json"))
    assert facts["tokens"] == 640 and "2048 features" in facts["mlp"]
    exports = []
    for layout in ("circuit-tracer", "circuit-tracer-json", "neuronpedia", "saedashboard"):
        exports += ["--export", layout, str(tmp_path / layout)]
    shown = json.loads(said(capsys, "--out", out, *exports, "--feature", "3/17", "--verify"))
    assert (shown["layer"], shown["index"]) == (3, 17)
    for layout in ("circuit-tracer", "circuit-tracer-json", "neuronpedia", "saedashboard"):
        back = open_features(tmp_path / layout).feature(3, 17)
        assert back is not None and back["top_logits"] == shown["top_logits"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--out", "missing"], "cannot read missing"),
        (["--out", "it", "--model", "pocket"], "both --model and --dictionary"),
        (["--out", "it", "--export", "excel", "x"], "expected one of circuit-tracer"),
        (["--out", "it", "--feature", "3"], "expected LAYER/INDEX"),
        ([*RUN, "--out", "it", "--layers", "9"], "no layer 9"),
        ([*RUN, "--out", "it", "--length", "65"], "context of 64"),
        ([*RUN, "--out", "it", "--text", "missing.txt"], "missing.txt"),
        ([*RUN, "--out", "it", "--tokens-limit", "0"], "tokens is 0"),
        ([*RUN, "--out", "it", "--top", "-1"], "top is -1"),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str],
    wanted: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    message = said(capsys, *arguments, code=2)
    assert wanted in message and message.count("\n") == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in said(capsys, *RUN, "--out", str(tmp_path / "file" / "it"), code=2)
