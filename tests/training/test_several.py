"""Several dictionaries in one run: the bytes of runs of their own, one checkpoint, a folder each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxinterp.activations import Stream
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import load_dictionary, save_dictionary
from jaxinterp.training import api, dictionary, metrics, train
from jaxinterp.training.loop import run
from jaxinterp.training.several import member_runs
from tests.training import tiny_run

TWO = {
    "few": {"sparsity.l0": 2, "dictionary": {"n_features": 16}},
    "sae": {"dictionary": {"read_site": "resid_post", "write_site": "resid_post"}, "seed": 3},
}

SITES = ("mlp_normalized", "mlp_out", "resid_post")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make(tmp_path_factory.mktemp("several"))


def saved(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "checkpoints").glob("*") if p.name.isdigit())


def test_several_dictionaries_come_out_as_from_runs_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[tuple[str, ...]] = []
    original = Stream.__init__

    def init(stream: Any, model: Any, sites: tuple[str, ...], *rest: Any, **named: Any) -> None:
        collected.append(sites)
        original(stream, model, sites, *rest, **named)

    monkeypatch.setattr(Stream, "__init__", init)
    path = tiny_run.config(folder, dictionaries=TWO)
    out = train(path, out=folder / "both", quiet=True)
    # Each site once, although the autoencoder reads and writes the same.
    assert collected == [SITES]
    assert saved(out) == ["12", "8"]
    rows = metrics.read(out / "metrics.jsonl")
    _, config, loop = api.load(path)
    for member, own in member_runs(config).items():
        # The text and its order have the run's seed, weights the dictionary's; the same sites come out of the model.
        model = dictionary.load_subject(own.model)
        stream = dictionary.make_stream(config, model, SITES)
        read, write = (SITES.index(getattr(own.dictionary, site)) for site in ("read_site", "write_site"))
        task = dictionary.task(own, model, dictionary.Sites(stream, read, write))
        alone = folder / f"alone-{member}"
        state = run(task._replace(finish=None), steps=12, out=alone, seed=own.seed, loop=loop, quiet=True)
        found = load_dictionary(out / member / "dictionary")
        made = dictionary.to_dictionary(own, dictionary.dictionary_config(own, model), state)
        save_dictionary(made, alone / "dictionary", "float32")
        assert found.digest() == load_dictionary(alone / "dictionary").digest()
        mine = [line for line in metrics.read(alone / "metrics.jsonl") if "loss" in line]
        assert len(mine) == 6
        for line, both in zip(mine, rows, strict=False):
            line.pop("cpu_seconds")
            assert {
                f"{member}/{key}": value for key, value in line.items() if key != "step"
            }.items() <= both.items()
        assert (out / member / "dictionary" / "card.json").exists()
        assert rows[-1]["final"][member]["rows"] == 64


def test_settings_of_several_are_checked(folder: Path) -> None:
    for changes, message in (
        ({"a": {"batch": 8}}, "a: batch is the same for all dictionaries"),
        ({"a/b": {}}, "a name is a folder of the run"),
        ({"a": {"sparsity": {"lO": 3}}}, "a: sparsity: unknown field 'lO'"),
        ({"a": {"sparsity.l0": 3.5}}, "needs a whole number"),
        ({"a": 3}, "a is 3, expected fields"),
        ({"a": {"dictionary.kind": "lorsa"}}, "a lorsa is trained in a run of its own"),
    ):
        with pytest.raises(InputError, match=message):
            train(tiny_run.config(folder, "bad", dictionaries=changes), out=folder / "bad", quiet=True)
        assert not (folder / "bad" / "checkpoints").exists()


def test_a_loss_that_is_not_finite_names_dictionary_and_part() -> None:
    from jaxinterp.training.loop import not_finite

    good = {"few/loss": np.float32(1), "few/_parts": np.ones(4)}
    bad = {"sae/loss": np.float32("nan"), "sae/_parts": np.array([1.0, np.inf, 2.0, np.nan])}
    assert not_finite(7, good) == ""
    assert not_finite(7, good | bad) == "the loss of sae of step 7 is not finite (part 2, 4 of its 4)"
    assert not_finite(7, {"loss": jax.numpy.inf, "_parts": np.ones(1)}) == "the loss of step 7 is not finite"
