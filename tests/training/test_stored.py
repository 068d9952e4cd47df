"""Training from a store: the stream's own run byte for byte if asked, exact resume, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jaxinterp.activations.collect import CollectConfig, collect
from jaxinterp.activations.text import TextConfig
from jaxinterp.checkpoints import load_model, save_model
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import load_dictionary
from jaxinterp.training import train
from tests.support import tiny_model

TEXT = {"length": 16, "batch": 16, "start": -1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, token ids, and a store of six text batches."""
    place = tmp_path_factory.mktemp("stored")
    save_model(tiny_model("llama"), place / "model")
    np.save(place / "ids.npy", np.random.default_rng(0).integers(0, 40, 4000))
    text = TextConfig(source=str(place / "ids.npy"), **TEXT)
    config = CollectConfig(6, ("mlp_normalized", "mlp_out"), text, shard_batches=2)
    collect(load_model(place / "model"), config, place / "store")
    return place


def write(folder: Path, name: str, **changes: Any) -> Path:
    config = {
        "task": "dictionary", "model": str(folder / "model"), "steps": 30, "batch": 64,
        "dictionary": {"kind": "clt", "n_features": 24},
        "text": {**TEXT, "source": str(folder / "ids.npy"), "limit": 6},
        "stream": {"text_batches": 2}, "start": {"rate": 0.2, "decoder": 0.2},
        "sparsity": {"method": "layer-threshold", "l0": 5, "start_l0": 8, "pre_activation": 0, "threshold": 1.0},
        "optimiser": {"warmup": 5}, "held_out": {"tokens": 256, "validation_tokens": 256},
        "loop": {"log_every": 10, "checkpoint_every": 10}, **changes,
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder / f"{name}.yaml"


def test_a_store_in_the_stream_s_order_trains_the_same_dictionary(folder: Path) -> None:
    """Same tokens, same order, same values: the trained weights have the same bytes."""
    live = train(write(folder, "live"), out=folder / "live", quiet=True)
    stored = train(
        write(folder, "a", store=str(folder / "store"), stored={"order": "stream"}),
        out=folder / "a",
        quiet=True,
    )
    digests = [load_dictionary(out / "dictionary").digest() for out in (live, stored)]
    assert digests[0] == digests[1]
    card = json.loads((stored / "dictionary/card.json").read_text())
    assert len(card["recipe"]["store"]) == 64
    assert str(folder) not in json.dumps(card["recipe"]["store"])
    assert "store" not in json.loads((live / "dictionary/card.json").read_text())["recipe"]


@pytest.mark.slow
def test_a_shuffled_store_trains_and_resumes_to_the_same_bytes(folder: Path) -> None:
    config = write(folder, "b", store=str(folder / "store"), stored={"window": 2})
    whole = train(config, out=folder / "whole", quiet=True)
    parts = folder / "parts"
    from jaxinterp.training.loop import Interrupted

    with pytest.raises(Interrupted):
        interrupted(config, parts, 13)
    train(config, out=parts, quiet=True)
    assert load_dictionary(parts / "dictionary").digest() == load_dictionary(whole / "dictionary").digest()
    figures = json.loads((whole / "dictionary/card.json").read_text())["held_out"]
    assert figures["mean_nmse"] < 1


def interrupted(config: Path, out: Path, step: int) -> None:
    """Train until a signal comes at ``step``."""
    import os
    import signal

    from jaxinterp.activations.store_stream import StoredStream

    original = StoredStream.batch

    def batch(stream: StoredStream, number: int) -> Any:
        if number == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(stream, number)

    patch = pytest.MonkeyPatch()
    patch.setattr(StoredStream, "batch", batch)
    try:
        train(config, out=out, quiet=True)
    finally:
        patch.undo()


def test_stores_that_do_not_fit_are_refused(folder: Path) -> None:
    other = tiny_model("llama", seed=1)
    save_model(other, folder / "other")
    text = TextConfig(source=str(folder / "ids.npy"), **TEXT)
    collect(
        load_model(folder / "model"), CollectConfig(1, ("mlp_normalized@1", "mlp_out"), text), folder / "one"
    )
    for changes, message in (
        ({"model": str(folder / "other")}, "activations of another model"),
        ({"store": str(folder / "nothing")}, "no store of activations"),
        ({"store": str(folder / "one")}, r"has layers \(1,\) of mlp_normalized, and the model has 3"),
        ({"dictionary": {"kind": "plt", "n_features": 8, "read_site": "mlp_in"}}, "holds no site 'mlp_in'"),
        ({"batch": 2000}, "fewer than a batch of 2000"),
    ):
        config = write(folder, "c", **{"store": str(folder / "store"), **changes})
        with pytest.raises(InputError, match=message):
            train(config, out=folder / "refused", quiet=True)
