"""Targets of every sort, several prompts and contrasts, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxinterp.attribution.contrast import load_contrast
from jaxinterp.checkpoints import save_model
from jaxinterp.cli.main import main
from jaxinterp.dictionaries import save_dictionary
from jaxinterp.graphs import load_graph
from tests.attribution.cases import of_config
from tests.graphs.graph_examples import random_graph
from tests.replacement.combinations import COMBINATIONS, dictionary
from tests.support import tiny_model

QUESTION = "the capital of the state containing"


@pytest.fixture(scope="module")
def question() -> list[str]:
    """Two questions for pocket that differ in the city, each with its answer last."""
    from jaxinterp.biology.pocket import demo_prompt
    from jaxinterp.checkpoints import load_model

    model = load_model("pocket")
    prompt = demo_prompt()
    words = prompt.split()
    ids = model.tokenizer.encode(prompt)
    other = next(
        text
        for token in range(model.tokenizer.vocab_size - 1, 0, -1)
        if (text := model.tokenizer.text(token)).isalpha() and token not in ids
    )
    return [prompt, " ".join([*words[:-2], other, words[-1]]), words[0], other]


def command(*more: str) -> list[str]:
    return ["trace", "--model", "pocket", "--dictionary", "pocket", "--quiet", *more]


def test_every_sort_is_traced_and_reproduced(
    question: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "probe.npy", np.linspace(-1, 1, 128))
    words = [question[2], question[3]]
    (tmp_path / "more.json").write_text(json.dumps([{"sort": "salient", "position": 2, "at_most": 1}]))
    targets = [
        words[0],
        f"{words[0]}@-2",
        f"{words[0]} - {words[1]}",
        "feature:2/5@3",
        f"direction:{tmp_path}/probe.npy",
        str(tmp_path / "more.json"),
    ]
    out = tmp_path / "graph.json"
    said = [part for target in targets for part in ("--target", target)]
    said += ["--completion", f" {words[1]}", "--out", str(out), "--json"]
    assert main(command("--prompt", question[0], *said)) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["checks"]["ok"]
    assert [t["text"].split("@")[0] for t in facts["targets"]][:5] == [
        words[0], words[0], f"{words[0]} - {words[1]}", "feature 2/5", "probe",
    ]  # fmt: skip
    assert facts["targets"][-1]["text"].startswith(words[1])
    assert len(load_graph(out).targets) == 7
    assert main(["reproduce", str(out)]) == 0
    assert "identical" in capsys.readouterr().out


def test_two_prompts_and_their_contrast(
    question: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(question[:2]) + "\n\n")
    out = tmp_path / "graph.jigraph"
    said = ["--prompts", str(tmp_path / "prompts.txt"), "--target", f"{question[2]} - {question[3]}"]
    assert main(command(*said, "--contrast", "--out", str(out))) == 0
    text = capsys.readouterr().out
    assert (
        text.index("Prompt 1 of 2") < text.index("Prompt 2 of 2") < text.index("A is prompt 1, B is prompt 2")
    )
    assert [load_graph(tmp_path / f"graph-{n}.jigraph").prompt for n in (1, 2)] == question[:2]
    found = load_contrast(tmp_path / "graph-contrast.json")
    assert abs(found.remainder()) < 1e-4 * np.abs(found.effects).sum()
    assert found.table(width=100).splitlines()[0] in text
    assert main(command(*said, "--contrast", "tokens", "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(facts["prompts"]) == 2 and facts["contrast"]["format"] == "jaxinterp-contrast"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "a", "--contrast"], "--contrast compares two prompts, 1 given"),
        (["--prompt", "a", "--prompt", "b", "--contrast"], "give --target"),
        (["--prompt", "a", "--target", "feature:1"], "feature:LAYER/FEATURE@POSITION"),
        (["--prompt", "a", "--target", "none.json"], "cannot read none.json"),
        (["--prompts", "none.txt"], "cannot read none.txt"),
        (["--prompts", "empty.txt"], "no prompts in it"),
        (["--prompts", "bad.json"], "expected a JSON list of texts and lists of token ids"),
        (["--prompts", "ids.json"], "prompt 2 of 2: token 99999"),
        (["--tokens", "1,2", "--target", "feature:99/1"], "no features at layer 99; there is mlp"),
        (["--tokens", "1,2", "--target", "3@5"], "outside the prompt of 2 tokens"),
        (["--tokens", "1,2", "--completion", "x"], "--completion 'x': expected whole numbers"),
        (["--tokens", "1,2", "--out", "missing/g.json"], "no folder missing"),
    ],
)
def test_bad_input(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n \n")
    Path("bad.json").write_text('["a", 1]')
    Path("ids.json").write_text("[[1, 2], [99999]]")
    assert main(command(*options)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err and len(captured.err.strip().splitlines()) == 1


def test_graphs_of_newer_versions_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = random_graph(1)
    for ending in ("json", "jigraph"):
        graph.save(tmp_path / f"g.{ending}")
    newer = json.loads((tmp_path / "g.json").read_text())
    newer["jaxinterp"]["version"] = 99
    (tmp_path / "g.json").write_text(json.dumps(newer))
    data = bytearray((tmp_path / "g.jigraph").read_bytes())
    data[8:12] = (99).to_bytes(4, "little")
    (tmp_path / "g.jigraph").write_bytes(data)
    for ending in ("json", "jigraph"):
        assert (
            main(["reproduce", str(tmp_path / f"g.{ending}"), "--model", "pocket", "--dictionary", "pocket"])
            == 2
        )
        error = capsys.readouterr().err
        assert "99" in error and "this jaxinterp reads" in error and len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_several_dictionaries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs, _, family = COMBINATIONS["residual-mid"]
    model = tiny_model(family)
    save_model(model, tmp_path / "model")
    named = []
    for i, spec in enumerate(specs):
        with jax.enable_x64(True):
            config = dictionary(model, spec, i).config
        save_dictionary(of_config(config, f"part-{i}", dtype="float32", seed=i), tmp_path / str(i))
        named.append(["--dictionary", str(tmp_path / str(i))])
    out, given = tmp_path / "graph.json", ["--model", str(tmp_path / "model")]
    said = ["--tokens", "1,2,3,4", "--target", "feature:residual/1/3@2", "--target", "7", "--quiet", "--json"]
    assert main(["trace", *given, *named[0], *named[1], *said, "--out", str(out)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["checks"]["ok"] and facts["targets"][0]["text"] == "residual feature 1/3@2"
    assert main(["reproduce", str(out), *given, *named[1], *named[0]]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["reproduce", str(out), *given, *named[1]]) == 2
    error = capsys.readouterr().err
    assert "the dictionary is another" in error and "there is no part 'residual'" in error
