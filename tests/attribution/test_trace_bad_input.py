"""What can be wrong with a trace, or at the edge of what is right: it works, or one line says why not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import estimate, reproduce, trace
from jaxinterp.checkpoints import save_model
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig, save_dictionary
from jaxinterp.graphs import load_graph
from jaxinterp.graphs.kinds import FEATURE, TARGET
from jaxinterp.models import Model
from tests.attribution.cases import TOKENS, of_config, random_dictionary
from tests.support import tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def clt(model: Model) -> Dictionary:
    return random_dictionary(model, "clt", dtype="float32")


def silent(dictionary: Dictionary) -> Dictionary:
    """The same with no active feature, ever."""
    params = {**dictionary.params, "b_enc": jnp.full_like(dictionary.params["b_enc"], -1e6)}
    return dataclasses.replace(dictionary, params=params)


def poisoned(dictionary: Dictionary, name: str, layer: int) -> Dictionary:
    """The same with a NaN in one layer's part of a parameter."""
    leaf = dictionary.params[name]
    if isinstance(leaf, tuple):  # decoders into each layer
        changed: Any = tuple(x.at[0].set(np.nan) if i == layer else x for i, x in enumerate(leaf))
    else:
        changed = leaf.at[layer].set(np.nan)
    return dataclasses.replace(dictionary, params={**dictionary.params, name: changed})


def folders(tmp_path: Path, model: Model, dictionary: Dictionary) -> list[str]:
    save_model(model, tmp_path / "model")
    save_dictionary(dictionary, tmp_path / "dictionary")
    return [
        "trace", "--quiet", "--model", str(tmp_path / "model"), "--dictionary", str(tmp_path / "dictionary"),
    ]  # fmt: skip


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What a verb that refuses says on stderr: one line, exit code 2."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
@pytest.mark.parametrize("cap", [None, 5])
def test_no_active_features(model: Model, clt: Dictionary, convention: str, cap: int | None) -> None:
    graph = trace(model, silent(clt), TOKENS, convention=convention, max_feature_nodes=cap)
    assert not (graph.nodes["kind"] == FEATURE).any()
    assert (graph.nodes["kind"] == TARGET).any()
    assert graph.checks().ok
    assert len(graph.prune()) <= len(graph)
    assert 0 <= graph.scores().replacement <= 1
    said = estimate(model, silent(clt), TOKENS, convention=convention, max_feature_nodes=cap, rate=1e9)
    assert (said.active, said.features, said.nodes) == (0, 0, len(graph))


@pytest.mark.parametrize("convention", ["paper", "circuit-tracer"])
def test_one_token(model: Model, clt: Dictionary, convention: str) -> None:
    graph = trace(model, clt, TOKENS[:1], convention=convention)
    assert graph.checks().ok
    assert set(graph.nodes["position"].tolist()) == {0}
    assert (graph.nodes["kind"] == FEATURE).any() == (convention == "paper")
    said = estimate(model, clt, TOKENS[:1], convention=convention, rate=1e9)
    assert said.nodes == len(graph)


def test_one_layer() -> None:
    model = tiny_model("llama", n_layers=1)
    graph = trace(model, random_dictionary(model, "clt", dtype="float32"), TOKENS)
    assert graph.checks().ok
    assert set(graph.nodes["layer"][graph.nodes["kind"] == FEATURE].tolist()) == {0}


@pytest.mark.parametrize(
    ("prompt", "changes", "message"),
    [
        ([], {}, "empty"),
        (TOKENS, {"max_feature_nodes": 0}, "max_feature_nodes is 0, at least 1"),
        (range(40), {}, "context of 32, by 8"),
        (TOKENS, {"memory_budget": 1000}, r"over the budget .*(fits|fit)$"),
    ],
)
def test_refused_in_one_line(
    model: Model, clt: Dictionary, prompt: Any, changes: dict[str, Any], message: str
) -> None:
    for make in (trace, estimate):
        with pytest.raises(InputError, match=message) as caught:
            make(model, clt, list(prompt), **changes)
        assert "\n" not in str(caught.value)


def test_a_prompt_past_memory_says_how_many_tokens_fit(model: Model, clt: Dictionary) -> None:
    budget = 150_000
    with pytest.raises(InputError, match=r"GiB over the budget .* up to \d+ tokens fit") as caught:
        trace(model, clt, [1] * 32, memory_budget=budget)
    fits = int(str(caught.value).split("up to ")[1].split()[0])
    assert 0 < fits < 32
    with pytest.raises(
        InputError, match=r"no cap fits|max_feature_nodes"
    ):  # the prompt does, its rows do not
        trace(model, clt, [1] * fits, memory_budget=budget)


def test_a_dictionary_of_other_sites(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DictionaryConfig(
        "plt", model.config.n_layers, 8, model.config.d_model, "relu", read_site="resid_post", write_site="mlp_out"
    )  # fmt: skip
    other = of_config(config, "other", dtype="float32")
    message = "writes mlp_out and reads resid_post, expected to read one of"
    with pytest.raises(InputError, match=message):
        trace(model, other, TOKENS)
    command = folders(tmp_path, model, other)
    assert message in one_line(capsys, [*command, "--tokens", "1,2"])
    assert message in one_line(capsys, [*command, "--tokens", "1,2", "--dry-run"])


def test_weights_that_are_not_finite(model: Model, clt: Dictionary) -> None:
    layers = {**model.params["layers"]}
    layers["o"] = layers["o"].at[1, 0].set(np.nan)
    broken = dataclasses.replace(model, params={**model.params, "layers": layers})
    with pytest.raises(InputError, match=r"not finite: layers\.o of layer 1"):
        trace(broken, clt, TOKENS)
    for name, message in (
        ("W_enc", "layer 1: a pre-activation"),
        ("W_dec", "writes into layer 1"),
        ("b_dec", "decoder bias .* of layer 1"),
    ):
        with pytest.raises(InputError, match=rf"random-clt.*{message}.* is not finite"):
            trace(model, poisoned(clt, name, 1), TOKENS)


def test_the_command_line(
    model: Model, clt: Dictionary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same from files: a graph without features is saved, shown and made again; the rest is refused."""
    command = folders(tmp_path, model, silent(clt))
    out = tmp_path / "graph.json"
    assert main([*command, "--tokens", "7", "--out", str(out), "--node-threshold", "1"]) == 0
    assert "logit-mean" in capsys.readouterr().out
    assert reproduce(load_graph(out), model, silent(clt)).outcome == "identical"
    assert "the prompt is empty" in one_line(capsys, [*command, "--tokens", ""])
    assert "max_feature_nodes is 0" in one_line(
        capsys, [*command, "--tokens", "7", "--max-feature-nodes", "0"]
    )
    assert "by 8" in one_line(capsys, [*command, "--tokens", " ".join("1" * 40)])


def test_files_of_a_newer_version(
    model: Model, clt: Dictionary, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = trace(model, silent(clt), TOKENS[:1])
    native, own = tmp_path / "graph.jigraph", tmp_path / "graph.json"
    graph.save(native)
    graph.save(own)
    whole = bytearray(native.read_bytes())
    whole[8] = 99
    native.write_bytes(whole)
    plain = json.loads(own.read_text())
    key = next(key for key in ("jaxinterp", *plain) if "version" in plain.get(key, ()))
    plain[key]["version"] = 99
    own.write_text(json.dumps(plain))
    for path in (native, own):
        with pytest.raises(InputError, match=r"version.* 99.*reads"):
            load_graph(path)
        said = one_line(capsys, ["heads", str(path), "--model", "pocket", "--dictionary", "pocket"])
        assert "99" in said
