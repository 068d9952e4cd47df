"""Collection: the model's own values, the same bytes on any mesh and after any interruption, clear refusals."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations import TextConfig, make_source
from jaxinterp.activations.collect import CollectConfig, collect, plan, sites_of
from jaxinterp.activations.collect_loop import Interrupted
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.text import Source
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import DictionaryConfig
from jaxinterp.models.decoder import forward
from jaxinterp.parallel.mesh import make
from tests.activations.kill_worker import BATCHES
from tests.activations.store_cases import TEXT, config, content, make_store
from tests.activations.test_text import model
from tests.support import ROOT, tiny_model


def test_stored_rows_are_the_model_s_own(tmp_path: Path) -> None:
    """Every kind of site at once, some of chosen layers, against a plain forward pass."""
    sites = ("mlp_in", "embed", "resid_post@1,0", "mlp_scale", "attn_out@1", "final_norm")
    store = make_store(tmp_path / "store", sites=sites)
    for index in (0, 9):
        batch = make_source(TEXT, model(), 0).batch(index)
        _, found = forward(
            model().params, model().config, batch.tokens, sites=[s.partition("@")[0] for s in sites],
            segments=batch.segments, positions=batch.positions,
        )  # fmt: skip
        rows = slice(96 * index, 96 * index + 96)
        for site in sites:
            name, _, layers = site.partition("@")
            value = np.asarray(getattr(found, name))
            value = value[None] if value.ndim == 3 else value
            value = value[[int(n) for n in layers.split(",")]] if layers else value
            np.testing.assert_allclose(
                store.read(name, rows), value.reshape(len(value), 96, -1), atol=1e-5, err_msg=site
            )
        tokens = store.tokens(rows)
        for got, want in zip(tokens, (batch.tokens, batch.positions, batch.segments, batch.use), strict=True):
            np.testing.assert_array_equal(got, want.reshape(-1))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_any_number_of_devices_writes_the_same_bytes(tmp_path: Path, dtype: str) -> None:
    wanted = content(make_store(tmp_path / "1", dtype=dtype).folder)
    for devices in (2, 8):
        made = collect(model(), config(dtype=dtype), tmp_path / str(devices), mesh=make(devices))
        assert content(made.folder) == wanted


def test_a_model_divided_over_devices_gives_the_same_rows_to_rounding(tmp_path: Path) -> None:
    """Tensor parallel: sums in another order, so the store says so, and does not go on with another's."""
    divided = tiny_model("llama")
    text = TextConfig(source="tests.activations.test_text:documents", length=12, batch=8)
    settings = config(batches=3, shard_batches=1, sites=("mlp_in", "mlp_out"), text=text)
    whole = collect(divided, settings, tmp_path / "whole")
    made = collect(divided, settings, tmp_path / "divided", mesh=make(2, 2))
    for name in ("mlp_in", "mlp_out"):
        np.testing.assert_allclose(made.read(name, slice(None)), whole.read(name, slice(None)), atol=2e-5)
    with pytest.raises(InputError, match=r"other settings \(mesh.model: 2 there, None here\)"):
        collect(divided, settings, tmp_path / "divided", mesh=make(4))
    again = collect(divided, settings, tmp_path / "other", mesh=make(4, 2))
    assert content(again.folder) == content(made.folder)
    small = collect(divided, dataclasses.replace(settings, dtype="int8"), tmp_path / "int8", mesh=make(2, 2))
    exact, scale = made.read("mlp_in", slice(None)), np.abs(made.read("mlp_in", slice(None))).max(-1) / 127
    assert (np.abs(small.read("mlp_in", slice(None)) - exact) <= 0.51 * scale[..., None]).all()


class Stopping:
    """A text that raises a signal, or an error, when a batch is asked for."""

    def __init__(self, at: int, act: Any) -> None:
        self.source, self.at, self.act = make_source(TEXT, model(), 0), at, act

    def batch(self, index: int) -> Any:
        if index == self.at:
            self.act()
        return self.source.batch(index)

    def __call__(self) -> Source:
        return Source(self.batch, self.source.tokens)


def test_an_interrupted_collection_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = content(make_store(tmp_path / "whole").folder)
    for number, at in ((0, 1), (1, 4), (3, 9)):
        stop = Stopping(at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="the same command goes on") as caught:
            collect(model(), config(), tmp_path / "a", source=stop())
        assert caught.value.exit_code == 130
        with pytest.raises(InputError, match=f"is not finished: {number} of 4 shards"):
            Store(tmp_path / "a")
    assert content(make_store(tmp_path / "a").folder) == whole


def test_a_finished_store_is_left_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    before = {p: p.stat().st_mtime_ns for p in store.folder.rglob("*") if p.is_file()}

    def never() -> None:
        raise AssertionError("computed again")

    collect(model(), config(), store.folder, source=Stopping(5, never)())
    assert {p: p.stat().st_mtime_ns for p in store.folder.rglob("*") if p.is_file()} == before


def saved(folder: Path) -> int:
    """Shards that the ledger of an unfinished store knows."""
    path = folder / "ledger.00000.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_and_go_on(folder: Path, kills: int, seed: int) -> None:
    """Kill -9 at random moments of writing, as often as asked; every finished store is compared."""
    settings = config(batches=BATCHES, shard_batches=1)
    wanted = content(collect(model(), settings, folder / "whole").folder)
    random, done, number = np.random.default_rng(seed), 0, 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    while done < kills:
        store = folder / str(number)
        command = [sys.executable, str(Path(__file__).with_name("kill_worker.py")), str(store)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        # All shards may be saved already, and only the ledger not yet put together.
        target = random.integers(min(saved(store), BATCHES - 1), BATCHES)
        while saved(store) < target and process.poll() is None:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.03))
        process.kill()
        done += process.wait() == -signal.SIGKILL
        if (store / "ledger.jsonl").exists():
            number += 1
    for n in range(number + 1):
        store = collect(model(), settings, folder / str(n)).folder
        assert content(store) == wanted, f"store {n} of seed {seed}"
        assert len(Store(store).lines) == BATCHES


def test_killed_at_three_random_moments(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, 3, seed=int(time.time()))


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, 20, seed=int(time.time()))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    for changes, message in (
        ({"seed": 1}, "text.first_batch"),
        ({"dtype": "bfloat16"}, "layout.dtype: 'float32' there, 'bfloat16' here"),
        ({"sites": ("mlp_in",)}, "layout.sites"),
        ({"batches": 12}, "layout.rows: 960 there, 1152 here"),
        ({"microbatch": 2}, "collect.microbatch: 4 there, 2 here"),
    ):
        with pytest.raises(InputError, match=rf"other settings \({message}"):
            collect(model(), config(**changes), tmp_path / "store")
    with pytest.raises(InputError, match=r"other settings \(model.digest"):
        collect(model(scale=2.0), config(), tmp_path / "store")


def test_activations_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    broken = model()
    embedding = broken.params["embed"]["tokens"].at[7].set(jnp.nan)
    broken = dataclasses.replace(broken, params={**broken.params, "embed": {"tokens": embedding}})
    first = next(
        96 // 12 * i + int(rows[0]) for i in range(10)
        if len(rows := np.flatnonzero((make_source(TEXT, broken, 0).batch(i).tokens == 7).any(axis=1)))
    )  # fmt: skip
    with pytest.raises(InputError, match=f"mlp_in is not finite in sequence {first} of the text"):
        collect(broken, config(), tmp_path / "store")


def test_sites_that_cannot_be_stored_are_refused() -> None:
    for sites, message in (
        (("mlp_inn",), "no site 'mlp_inn' .did you mean mlp_in"),
        (("pattern",), "no row of fixed width"),
        (("mlp_in@2",), r"layers \(2,\) of mlp_in: each once, of 0 to 1"),
        (("mlp_in@1,1",), "each once"),
        (("mlp_in@x",), "expected layers as in mlp_in@0,3"),
        (("mlp_in", "mlp_in@0"), "named twice"),
    ):
        with pytest.raises(InputError, match=message):
            plan(model(), config(sites=sites))
    for changes, message in (
        ({"microbatch": 3}, "not whole blocks of microbatch 3"),
        ({"dtype": "float16"}, "dtype 'float16', expected one of"),
        ({"batches": 0}, "must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            config(**changes)


def test_one_pass_serves_several_dictionaries() -> None:
    sizes = {"n_layers": 2, "d_model": 8, "n_features": 4, "activation": "jumprelu"}
    configs = [
        DictionaryConfig(kind="plt", read_site=r, write_site=w, **sizes)
        for r, w in (("mlp_in", "mlp_out"), ("resid_mid", "mlp_out"))
    ]
    assert sites_of(configs) == ("mlp_in", "mlp_out", "resid_mid")


def test_shards_are_about_64_mib_each_and_whole_batches() -> None:
    large = tiny_model("llama", d_model=512, n_layers=8, vocab_size=64, context=1024)
    layout = plan(large, CollectConfig(400, text=TextConfig(length=1024, batch=4), microbatch=4))
    file = layout.shard_rows * 512 * 8 * 4
    assert 32 << 20 <= file <= 64 << 20
    assert layout.shard_rows % 4096 == 0
    assert layout.bytes_per_row() == 16 + 2 * 512 * 8 * 4


def test_a_flax_model_is_collected_by_its_own_names(tmp_path: Path) -> None:
    from flax import linen

    from jaxinterp.activations import flax_source

    class Tiny(linen.Module):
        @linen.compact
        def __call__(self, tokens: jax.Array) -> jax.Array:
            x = linen.Embed(31, 6, name="embed")(tokens)
            for layer in range(2):
                x = x + linen.Dense(6, name=f"mlp_{layer}")(linen.LayerNorm(name=f"norm_{layer}")(x))
            return x

    module = Tiny()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        variables = module.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
        source = flax_source(
            module, variables, sites={"read": "norm_{l}", "write": "mlp_{l}"}, vocab_size=31, context=32
        )
        np.save(tmp_path / "ids.npy", np.arange(500) % 31)
        text = TextConfig(source=str(tmp_path / "ids.npy"), length=12, batch=4, start=-1)
        settings = CollectConfig(3, ("mlp_in", "mlp_out"), text, microbatch=2)
        store = collect(source, settings, tmp_path / "one")
        batch = make_source(text, source, 0).batch(2)
        x, y = source.collect(batch.tokens, batch.segments, batch.positions, ("read", "write"))
        np.testing.assert_allclose(store.read("mlp_in", slice(96, 144)), x, atol=1e-6)
        np.testing.assert_allclose(store.read("mlp_out", slice(96, 144)), y, atol=1e-6)
        made = collect(source, settings, tmp_path / "four", mesh=make(4))
    assert content(made.folder) == content(store.folder)


@pytest.mark.slow
def test_int8_costs_a_trained_dictionary_less_than_a_thousandth(tmp_path: Path) -> None:
    """FVE (one minus the mean normalised error) of the bundled transcoder on the same tokens, stored in both ways."""
    from jaxinterp.activations.store_stream import StoredConfig, stored_stream
    from jaxinterp.checkpoints import load_model
    from jaxinterp.dictionaries import load_dictionary
    from jaxinterp.evaluation.reconstruction import reconstruction

    subject, dictionary = load_model("pocket"), load_dictionary("pocket")
    sites = (dictionary.config.read_site, dictionary.config.write_site)
    found = {}
    for dtype in ("float32", "int8"):
        settings = CollectConfig(2, sites, TextConfig(length=64, batch=64), seed=7, dtype=dtype)
        store = collect(subject, settings, tmp_path / dtype)
        stream = stored_stream(store, sites, rows=256, seed=0, config=StoredConfig("stored"))
        found[dtype] = reconstruction(dictionary, (stream.batch(i) for i in range(stream.steps))).mean_nmse
    assert found["float32"] < 0.2
    assert abs(found["int8"] - found["float32"]) <= 0.001
