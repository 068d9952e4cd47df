"""Steps of training compiled ahead of time: on this machine's devices what stays where, and the table of docs/scale.md.

The long tests need libtpu and are skipped, with the reason, without it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jaxinterp.activations.ahead import compile_collection
from jaxinterp.checkpoints.shapes import shape
from jaxinterp.cli.main import main
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import kind_of
from jaxinterp.models import declare
from jaxinterp.parallel import aot, weights
from jaxinterp.parallel.mesh import make
from jaxinterp.training import ahead
from jaxinterp.training.api import load
from jaxinterp.training.dictionary_specs import DictionaryRun, DictionarySpec, StartConfig, dictionary_config
from jaxinterp.training.dictionary_step import init, step
from jaxinterp.training.optimiser import OptimiserConfig
from jaxinterp.training.resample import ResampleConfig
from jaxinterp.training.sparsity.base import SparsityConfig
from tests.support import ROOT, tiny_config

PODS = ROOT / "configs" / "pod"
needs_libtpu = pytest.mark.skipif(aot.available() is not None, reason=str(aot.available()))
LAYERS, WIDTH, FEATURES, ROWS, WINNERS = 2, 16, 128, 32, 2
TINY: Any = SimpleNamespace(n_layers=LAYERS, d_model=WIDTH)


def a_run(kind: str, **settings: Any) -> DictionaryRun:
    sparsity = SparsityConfig() if kind == "clt" else SparsityConfig(method="top-k", l0=WINNERS)
    return DictionaryRun(
        model="", steps=100, batch=ROWS, dictionary=DictionarySpec(kind=kind, n_features=FEATURES), sparsity=sparsity,
        optimiser=OptimiserConfig(warmup=1), resample=ResampleConfig(every=0),
        **{"start": StartConfig(method="random", rate=None, rows=ROWS), **settings},
    )  # fmt: skip


def sites(dtype: Any = np.float64) -> tuple[Any, Any]:
    numbers = np.random.default_rng(0).normal(size=(2, LAYERS, ROWS, WIDTH)).astype(dtype)
    return numbers[0], numbers[1]


@pytest.mark.parametrize(("kind", "data", "model"), [("clt", 1, 8), ("plt", 2, 4)])
def test_a_divided_step_is_the_step_of_one_device(kind: str, data: int, model: int) -> None:
    with jax.enable_x64(True):
        run = a_run(kind, accumulate=2)
        given = ahead.abstract(run, TINY, mesh := make(data, model))
        x, y = sites()
        state = jax.jit(partial(init, run, given.config))(jax.random.key(0), x, y)
        alone, figures = jax.jit(partial(step, run, given.config))(state, (x, y))
        divided = jax.jit(partial(step, run, given.config, mesh=mesh), out_shardings=(given.shardings, None))
        rows = given.batch[0].sharding
        batch = jax.device_put(x, rows), jax.device_put(y, rows)
        there, found = divided(jax.device_put(state, given.shardings), batch)
        for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(there), strict=True):
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found["loss"], figures["loss"], rtol=1e-10)
        encoder = there["params"]["W_enc"]
        assert encoder.sharding.shard_shape(encoder.shape) == (LAYERS, FEATURES // model, WIDTH)


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_no_weight_and_no_pre_activations_move(kind: str) -> None:
    """The state is donated and divided; a chip collects the rows of one layer, or all chips' candidates, at most."""
    run = a_run(kind)
    mesh = make(1, 8)
    report = ahead.compile_step(run, TINY, mesh)
    config = ahead.abstract(run, TINY, mesh).config
    declared = kind_of(config).declare(config)
    assert report.memory is not None
    state = 3 * weights.bytes_per_device(declared, "float32", mesh)
    batch = 2 * LAYERS * ROWS * WIDTH * 4 // 8
    small = 4 * LAYERS * FEATURES * 4 + 1024  # statistics of features, scales, the step
    assert state + batch <= report.memory.arguments <= state + batch + small
    assert state <= report.memory.aliased <= report.memory.arguments
    rows, candidates = ROWS * WIDTH * 4, LAYERS * ROWS * 8 * WINNERS * 4
    assert rows <= report.gathered <= (rows if kind == "clt" else candidates)
    assert max(rows, candidates) < min(FEATURES * WIDTH * 4, ROWS * FEATURES * 4)
    assert report.collectives["all-gather"] >= 1
    assert not set(report.collectives) & {"all-to-all", "collective-permute"}


@pytest.mark.parametrize("method", ["random", "data-points"])
def test_a_state_starts_where_it_belongs(method: str) -> None:
    run = a_run("clt", start=StartConfig(method=method, rate=None if method == "random" else 0.1, rows=ROWS))
    mesh = make(1, 8)
    report = ahead.compile_init(run, TINY, mesh)
    config = ahead.abstract(run, TINY, mesh).config
    whole = 3 * 4 * weights.size(kind_of(config).declare(config))
    assert report.memory is not None
    assert report.memory.outputs < whole / 4


def test_what_cannot_be_compiled_is_named(tmp_path: Path, capsys: Any) -> None:
    run = dataclasses.replace(a_run("clt"), dictionary=DictionarySpec(n_features=60))
    with pytest.raises(
        InputError, match="axis 'features' of size 60 is not divisible by the mesh axis 'model'"
    ):
        ahead.abstract(run, TINY, make(1, 8))
    config = tmp_path / "c.yaml"
    config.write_text("task: dictionary\nmodel: gpt2\nsteps: 3\ndictionaries: {a: {}, b: {}}\n")
    for arguments, message in (
        (["--train", str(config)], "only the training of one dictionary"),
        (["--model", "llama-3.1-8b", "--mesh", "model=4", "steps=3"], "'steps=3' changes a configuration"),
        (["--model", "llama-3.1-8b"], "--model and --mesh are needed"),
    ):
        assert main(["aot", "--topology", "v5e:2x2", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


def test_collection_holds_the_weights_and_a_block() -> None:
    """What `jaxinterp collect` runs, compiled without weights: its arguments are they, divided, and the tokens.

    What makes logits is not among them.
    """
    config = tiny_config("llama", n_kv_heads=4)
    mesh = make(2, 4)
    report = compile_collection(config, mesh, block=2, length=8, dtype="float32", stored="float32")
    assert report.memory is not None
    tokens = 3 * 2 * 8 * 4
    whole = weights.bytes_per_device(declare(config), "float32", mesh) + tokens
    logits = 40 * 16 * 4 // 4 + 16 * 4
    assert whole - logits <= report.memory.arguments <= whole - logits + 16 * 4
    recorded = 2 * 3 * 4 * 8 * 16 * 4 // 8
    assert recorded <= report.memory.outputs < 1.1 * recorded + 64
    with pytest.raises(InputError, match="longer than the model's context of 32"):
        compile_collection(config, mesh, block=2, length=33)


def table(columns: int) -> list[list[str]]:
    """The rows of docs/scale.md with so many cells whose third or second is a slice and first a file of configs/pod."""
    lines = (ROOT / "docs" / "scale.md").read_text().splitlines()
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [row for row in cells if len(row) == columns and (PODS / f"{row[0]}.yaml").exists()]


def configured(row: list[str]) -> DictionaryRun:
    """What a row of the table was compiled for."""
    _, run, _ = load(PODS / f"{row[0]}.yaml", row[1].split())
    return run


def test_the_table_of_training_adds_up() -> None:
    """Floors by arithmetic: 16 bytes a parameter over all devices."""
    rows = table(11)
    assert {row[0] for row in rows} >= {"clt-gemma-2-2b", "sae-llama-3.1-8b"}
    for row in rows:
        run, (chips, floor, peak, available) = configured(row), (float(row[i]) for i in (3, 5, 8, 9))
        devices = int(chips) * (2 if row[2].startswith("tpu7x") else 1)
        assert aot.chips(row[2]) == chips
        assert run.batch // run.accumulate == int(row[4])
        subject: Any = ahead.Subject(shape(run.model))
        there: Any = jax.sharding.AbstractMesh((1, devices), ("data", "model"))
        least = ahead.floor(dictionary_config(run, subject), there) / aot.GIB
        assert least == pytest.approx(floor, abs=0.01)
        assert floor < peak < available


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize("row", table(11), ids=lambda row: f"{row[0]} {row[2]}")
def test_the_table_of_training_is_true(row: list[str]) -> None:
    run = configured(row)
    facts = ahead.study(run, shape(run.model), row[2])
    assert facts["fits"], facts
    # Compilers of other versions plan a little differently.
    assert facts["arguments_gib"] == pytest.approx(float(row[6]), rel=0.01, abs=0.01)
    assert facts["peak_gib"] == pytest.approx(float(row[8]), rel=0.1)
    assert facts["gathered_gib"] < 0.25
