"""The command line as a person uses it: output, files, exit codes, bad input."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import jsonschema
import numpy as np
import pytest

from jaxinterp.checkpoints import save_model
from jaxinterp.cli.main import VERBS, main, parser
from jaxinterp.dictionaries import save_dictionary
from jaxinterp.graphs import load_graph
from tests.attribution.cases import random_dictionary
from tests.support import shared, tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A saved tiny model and a dictionary that fits."""
    root = tmp_path_factory.mktemp("cli")
    model = tiny_model("llama")
    save_model(model, root / "model")
    save_dictionary(random_dictionary(model, "clt", dtype="float32"), root / "clt")
    return str(root / "model"), str(root / "clt")


def trace_command(folders: tuple[str, str], *more: str) -> list[str]:
    return [
        "trace",
        "--model",
        folders[0],
        "--dictionary",
        folders[1],
        "--tokens",
        "7,3,19,3",
        "--quiet",
        *more,
    ]


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit) as stopped:
            parser().parse_args([verb, "--help"])
        assert stopped.value.code == 0
        assert "usage: jaxinterp " + verb in capsys.readouterr().out


def test_trace_prints_saves_and_reproduces(
    folders: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "graph.json"
    assert main(trace_command(folders, "--out", str(out))) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80 + len(str(out))
    for word in ("replacement", "completeness", "checks", "saved"):
        assert word in text
    first = out.read_bytes()
    assert main(trace_command(folders, "--out", str(out), "--json", "--lazy")) == 0
    assert out.read_bytes() == first
    facts = json.loads(capsys.readouterr().out)
    assert facts["checks"]["ok"]
    assert facts["convention"] == "paper"

    options = ["--model", folders[0], "--dictionary", folders[1]]
    assert main(["reproduce", str(out), *options]) == 0
    assert "identical" in capsys.readouterr().out
    changed = json.loads(first)
    changed["links"][0]["weight"] *= 1.5
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    assert main(["reproduce", str(tmp_path / "changed.json"), *options]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
def test_json_graphs_follow_neuronpedias_schema(
    folders: tuple[str, str], tmp_path: Path, convention: str
) -> None:
    schema = json.loads(shared("cases/graphs/schema/neuronpedia-graph-schema.json").read_text())
    out = tmp_path / "graph.json"
    assert main(trace_command(folders, "--out", str(out), "--convention", convention)) == 0
    graph = json.loads(out.read_text())
    jsonschema.validate(graph, schema)
    ids = [node["node_id"] for node in graph["nodes"]]
    assert len(set(ids)) == len(ids)
    assert all(node["jsNodeId"] == node["node_id"] for node in graph["nodes"])
    assert {end for link in graph["links"] for end in (link["source"], link["target"])} <= set(ids)
    targets = [node for node in graph["nodes"] if node["feature_type"] == "logit"]
    assert targets
    assert all("(p=" in node["clerp"] and node["token_prob"] > 0 for node in targets)


def test_thresholds_caps_and_conventions(folders: tuple[str, str], tmp_path: Path) -> None:
    out = str(tmp_path / "graph.jigraph")
    everything = ["--node-threshold", "1", "--edge-threshold", "1", "--out", out]
    assert main(trace_command(folders, *everything)) == 0
    whole = load_graph(out)
    assert (
        main(
            trace_command(folders, *everything, "--max-feature-nodes", "9", "--convention", "circuit-tracer")
        )
        == 0
    )
    small = load_graph(out)
    assert len(small) < len(whole)
    assert small.counts()["feature"] <= 9
    assert small.convention == "circuit-tracer"


def test_info(folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "graph.json")
    main(trace_command(folders, "--out", out))
    capsys.readouterr()
    for path, word in ((folders[0], "model"), (folders[1], "dictionary (clt)"), (out, "graph")):
        assert main(["info", path, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kind"] == word
        assert main(["info", path]) == 0
        assert word in capsys.readouterr().out


BAD = [
    (["--model", "nowhere"], "no model at nowhere"),
    (["--dictionary", "nowhere"], "no dictionary at nowhere"),
    (["--tokens", "1,99"], "token 99 at position 1 is outside the vocabulary of 40"),
    (["--tokens", " "], "empty"),
    (["--tokens", "one"], "whole numbers"),
    (["--tokens", ",".join(["1"] * 33)], "context of 32"),
    (["--max-feature-nodes", "0"], "max_feature_nodes is 0"),
    (["--node-threshold", "1.5"], "1.5"),
    (["--target", "99"], "outside the vocabulary"),
    (["--out", "nowhere/graph.json"], "no folder nowhere"),
    (["--out", "graph.txt"], ".json or .jigraph"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[" ".join(o)[:30] for o, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(
    folders: tuple[str, str], options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(trace_command(folders, *options)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert message in captured.err
    assert os.listdir(tmp_path) == []


def test_a_dictionary_that_does_not_fit(folders: tuple[str, str], tmp_path: Path, capsys) -> None:
    save_model(tiny_model("llama", n_layers=2), tmp_path / "model")
    assert (
        main(["trace", "--model", str(tmp_path / "model"), "--dictionary", folders[1], "--tokens", "1"]) == 2
    )
    assert "n_layers" in capsys.readouterr().err


def test_truncated_weights(folders: tuple[str, str], tmp_path: Path, capsys) -> None:
    save_model(tiny_model("llama"), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert (
        main(["trace", "--model", str(tmp_path / "model"), "--dictionary", folders[1], "--tokens", "1"]) == 2
    )
    error = capsys.readouterr().err
    assert "model.safetensors" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "content", ["", "[1, 2]", '{"nodes": 3}', '{"metadata": {}, "nodes": [], "links": []}']
)
def test_a_json_that_is_no_graph(content: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "x.json").write_text(content)
    for verb in ("info", "reproduce"):
        assert main([verb, str(tmp_path / "x.json")]) == 2
        error = capsys.readouterr().err
        assert "x.json" in error
        assert len(error.strip().splitlines()) == 1


def test_an_interrupt_is_not_a_traceback(folders, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxinterp.cli.trace.show", stop)
    assert main(trace_command(folders)) == 130
    assert "interrupted" in capsys.readouterr().err


def test_demo_shows_a_two_hop_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo.json"
    assert main(["demo", "--quiet", "--out", str(out)]) == 0
    assert "replacement" in capsys.readouterr().out
    assert main(["reproduce", str(out)]) == 0


def test_pocket_refuses_unknown_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quiet", "--prompt", "the capital of zanzibarland is"]) == 2
    assert "zanzibarland" in capsys.readouterr().err


def test_stories260k_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A random dictionary changes no prediction: the top target is the model's own."""
    from jaxinterp.checkpoints import load_model

    path = str(shared("data/stories260K.bin"))
    save_dictionary(random_dictionary(load_model(path), "skip-plt", dtype="float32"), tmp_path / "plt")
    prompt = "Lily was sad because she lost her toy. Her mom gave"
    code = main(
        [
            "trace",
            "--model",
            path,
            "--dictionary",
            str(tmp_path / "plt"),
            "--prompt",
            prompt,
            "--json",
            "--quiet",
        ]
    )
    assert code == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["targets"][0]["text"] == " her"
    assert facts["targets"][0]["probability"] == pytest.approx(0.884, abs=2e-3)
    assert facts["checks"]["ok"]
    assert np.isfinite(facts["scores"]["replacement"])


def test_jax_is_not_needed_for_help() -> None:
    assert jax  # imported here by the tests, not by the parser
    import subprocess
    import sys

    code = "import sys; from jaxinterp.cli.main import parser; parser(); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
