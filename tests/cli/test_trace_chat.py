"""A message through a model's chat template to a graph, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxinterp.checkpoints import chat, load_model, save_model
from jaxinterp.checkpoints.sentencepiece_tokenizer import read_sentencepiece
from jaxinterp.cli.main import main
from jaxinterp.dictionaries import save_dictionary
from jaxinterp.graphs import load_graph
from tests.attribution.cases import random_dictionary
from tests.support import ROOT, tiny_model

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<user>{{ m.role }} {{ m.content }}\n{% endfor %}"
    "{% if date %}{{ strftime_now('%Y') }}{% endif %}{% if add_generation_prompt %}<user>{% endif %}"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with a SentencePiece tokenizer and a chat template, and a dictionary."""
    root = tmp_path_factory.mktemp("chat")
    model = tiny_model("llama", vocab_size=430, context=64)
    tokens = ROOT / "tests" / "references" / "data" / "tokenizers" / "sentencepiece_llama"
    tokenizer = read_sentencepiece(tokens / "tokenizer.model")
    save_model(type(model)(model.params, model.config, tokenizer=tokenizer), root / "model")
    (root / "model" / "chat_template.jinja").write_text(TEMPLATE)
    save_dictionary(random_dictionary(model, "clt", dtype="float32"), root / "clt")
    return root / "model", root / "clt"


def command(folders: tuple[Path, Path], *more: str) -> list[str]:
    return ["trace", "--model", str(folders[0]), "--dictionary", str(folders[1]), "--quiet", *more]


def test_a_chat(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "graph.json"
    said = ["--chat", "--prompt", "the sea", "--system", "the map", "--reply", " the"]
    assert main(command(folders, *said, "--out", str(out), "--json")) == 0
    assert json.loads(capsys.readouterr().out)["checks"]["ok"]
    messages = [{"role": "system", "content": "the map"}, {"role": "user", "content": "the sea"}]
    model = load_model(folders[0])
    expected = chat(model, messages, reply=" the")
    ids = [int(i) for i in load_graph(out).token_ids]
    assert ids == expected.ids and ids.count(model.tokenizer.bos) == 1
    assert model.tokenizer.decode(ids).endswith("<user> the")
    assert main(["reproduce", str(out), "--model", str(folders[0]), "--dictionary", str(folders[1])]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chat", "--tokens", "1"], "--chat writes a message given as --prompt"),
        (["--prompt", "the", "--reply", "a"], "--reply is for prompts written as a chat"),
        (["--chat", "--prompt", " "], "the message is empty"),
        (["--chat", "--prompt", "the", "--date", "now"], "now is 'now', expected a date"),
        (["--prompt", "the sea", "--target", "<ss>"], "'<ss>' is not one token"),
    ],
)
def test_bad_input(
    folders: tuple[Path, Path], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folders, *options)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_model_without_a_template(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(folders[0])
    bare = tiny_model("llama", vocab_size=430, context=64)
    save_model(bare, tmp_path / "bare")
    assert main(command((tmp_path / "bare", folders[1]), "--chat", "--prompt", "the")) == 2
    assert "has no tokenizer" in capsys.readouterr().err
    (folders[0] / "chat_template.jinja").rename(tmp_path / "kept")
    try:
        assert main(command(folders, "--chat", "--prompt", "the")) == 2
    finally:
        (tmp_path / "kept").rename(folders[0] / "chat_template.jinja")
    assert "has no chat template" in capsys.readouterr().err
    assert model.tokenizer.templates == {"default": TEMPLATE}
