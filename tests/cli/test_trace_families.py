"""Every tiny reference model, from its Hugging Face folder to a graph that reproduces, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxinterp.checkpoints import load_model
from jaxinterp.cli.main import main
from jaxinterp.dictionaries import save_dictionary
from jaxinterp.graphs import load_graph
from tests.attribution.cases import DICTIONARIES, random_dictionary
from tests.references import stored
from tests.support import shared

NAMES = stored.names() + stored.names(dynamic_tanh=True)
# Neighbouring cases get different dictionaries, so that each family meets several of them.
KIND = {name: sorted(DICTIONARIES)[i % len(DICTIONARIES)] for i, name in enumerate(NAMES)}
# One of each way of building a layer runs by default; the numbers of every case are compared in tests/models.
USUAL = (
    "dyt_gpt2", "llama3_gqa_long", "gpt2_odd_head_full_context", "gemma2_gqa", "gpt_oss_gqa_long",
    "deepseek_v3_groups", "mixtral_gqa",
)  # fmt: skip
assert set(USUAL) <= set(NAMES)


def traced(
    model: str, dictionary: str, prompt: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> dict:
    """Trace everything, check the graph, make it again; the printed facts."""
    options = ["--model", model, "--dictionary", dictionary]
    whole = ["--node-threshold", "1", "--edge-threshold", "1"]
    assert main(["trace", *options, *prompt, *whole, "--out", str(out), "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    facts = json.loads(printed.out)
    assert facts["checks"]["ok"], facts["checks"]
    graph = load_graph(out)
    checks = graph.checks()
    assert checks.ok, checks
    assert graph.counts()["feature"] > 0
    assert main(["reproduce", str(out), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "identical"
    return facts


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_reference_model(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = stored.case(name)
    folder = stored.write_folder(case, tmp_path / "model")
    model = load_model(folder)
    save_dictionary(random_dictionary(model, KIND[name], dtype="float32"), tmp_path / "dictionary")
    tokens = case.reference()["tokens"][0]
    facts = traced(
        str(folder), str(tmp_path / "dictionary"), ["--tokens", ",".join(map(str, tokens[:10]))],
        tmp_path / "graph.jigraph", capsys,
    )  # fmt: skip
    assert len(facts["tokens"]) == min(10, len(tokens))


def test_stories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(shared("data/stories260K.bin"))
    save_dictionary(random_dictionary(load_model(path), "clt", dtype="float32"), tmp_path / "clt")
    prompt = ["--prompt", "Lily was sad. Her mom gave"]
    facts = traced(path, str(tmp_path / "clt"), prompt, tmp_path / "graph.json", capsys)
    assert facts["tokens"][1]["text"] == " Lily"


@pytest.mark.parametrize("dictionary", ["pocket", "pocket-plt"])
def test_pocket(dictionary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = ["--prompt", "the capital of the state"]
    traced("pocket", dictionary, prompt, tmp_path / "graph.json", capsys)
