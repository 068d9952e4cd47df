"""Runs on meshes: every kind as on one device, restored on another mesh, and what does not fit is refused."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.models.model import Model
from jaxinterp.parallel.mesh import make
from jaxinterp.training import api, dictionary, metrics, resample, train
from jaxinterp.training import dictionary as D
from jaxinterp.training.loop import run
from tests.training import tiny_run
from tests.training.test_dictionary import LAYER, MODEL, OTHERS, TANH, data, setting

NEVER = resample.ResampleConfig(every=0)
SAE = D.DictionarySpec("plt", 48, centre=True, read_site="resid_post", write_site="resid_post")
CROSS = D.DictionarySpec("crosscoder", 48, read_site="resid_post", write_site="resid_post")
PLT, CLT = (D.DictionarySpec(kind, 48) for kind in ("plt", "clt"))
TOP, POOLED, RELU = OTHERS[0], OTHERS[1], OTHERS[3]
FEW = [(SAE, TOP), (CLT, TANH)]
MORE = [
    (spec, sparsity)
    for spec in (SAE, PLT, CLT, CROSS)
    for sparsity in (TOP, POOLED, RELU, TANH, LAYER)
    if (spec, sparsity) not in FEW
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make(tmp_path_factory.mktemp("meshes"))


@pytest.mark.parametrize(
    ("spec", "sparsity"),
    [*FEW, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
    ids=lambda v: getattr(v, "method", "sae" if v is SAE else getattr(v, "kind", "")),
)
def test_features_and_rows_divided_train_as_on_one_device(spec: Any, sparsity: Any, x64: None) -> None:
    """In float64: Adam divides tiny gradients by their own size, which blows float32 rounding up."""
    run_, _ = setting(sparsity, resample=NEVER)
    run_ = D.dataclasses.replace(run_, dictionary=spec)
    config = D.dictionary_config(run_, Model({}, MODEL, None, "m"))
    batch = tuple(leaf.astype(jnp.float64) for leaf in data())
    one = jax.jit(partial(D.init, run_, config))(jax.random.key(0), *batch)
    # The first biases put some rows' pre-activations at 0 but for rounding: active or not as the sum is ordered.
    bias = one["params"]["b_enc"]
    one["params"]["b_enc"] = bias + 1e-4 * jax.random.normal(jax.random.key(1), bias.shape, bias.dtype)
    mesh = make(2, 4)
    states, rows = D._shardings(config, mesh, jax.eval_shape(lambda: one))
    eight = jax.device_put(one, states)
    assert len(eight["params"]["b_enc"].sharding.device_set) == 8
    assert not eight["params"]["b_enc"].sharding.is_fully_replicated
    step = jax.jit(partial(D.step, run_, config))
    spread = jax.jit(partial(D.step, run_, config, mesh=mesh), out_shardings=(states, None))
    for _ in range(3):
        one, first = step(one, batch)
        eight, second = spread(eight, jax.device_put(batch, rows))
    np.testing.assert_allclose(first["loss"], second["loss"], rtol=1e-10)
    for a, b in zip(jax.tree.leaves(one["params"]), jax.tree.leaves(eight["params"]), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-10)


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in metrics.read(out / "metrics.jsonl") if "loss" in line}


def restored(folder: Path, before: Any, meshes: dict[str, Any], sparsity: dict[str, Any]) -> None:
    """Train on one mesh, go on from its middle on others: the loss stays within 1e-6 of the original's."""
    path = tiny_run.config(
        folder, steps=12, sparsity=sparsity, loop={"log_every": 1, "checkpoint_every": 6, "keep": 9}
    )
    name, config, loop = api.load(path)

    def go(out: Path, mesh: Any) -> None:
        task = dictionary.task(config, mesh=mesh)._replace(finish=None)
        run(task, steps=12, out=out, seed=0, loop=loop, quiet=True, mesh=mesh)

    shutil.rmtree(folder / "whole", ignore_errors=True)
    go(folder / "whole", before)
    wanted = losses(folder / "whole")
    for name, mesh in meshes.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(folder / "whole", folder / name)
        shutil.rmtree(folder / name / "checkpoints" / "12")
        go(folder / name, mesh)
        found = losses(folder / name)
        assert found.keys() == wanted.keys()
        for step, loss in wanted.items():
            assert abs(found[step] - loss) <= 1e-6, (name, step, loss, found[step])


def test_a_run_goes_on_from_one_device_on_data_and_features(folder: Path) -> None:
    restored(
        folder,
        None,
        {"both": make(2, 2)},
        {"method": "layer-threshold", "l0": 4, "pre_activation": 0, "threshold": 1.0},
    )


@pytest.mark.slow
def test_runs_go_on_on_other_meshes(folder: Path) -> None:
    top = {"method": "top-k", "l0": 4, "pre_activation": 0}
    restored(folder, None, {"four": make(4)}, top)
    restored(folder, make(4), {"features": make(1, 4), "one": None}, top)
    restored(folder, make(8), {"two": make(2)}, {"method": "l1", "coefficient": 0.01})


def test_meshes_that_do_not_fit_are_refused(folder: Path) -> None:
    for changes, mesh, message in (
        ({"batch": 60}, make(8), "a batch of 60 rows is not divisible by the mesh axis data of size 8"),
        ({"accumulate": 4, "batch": 16}, make(8), "a batch of 16 rows of 4 parts"),
        ({"dictionary": {"kind": "plt", "n_features": 30}}, make(1, 4), "of size 30 is not divisible"),
        ({"reduce": "exact"}, make(2, 2), "the mesh has model=2"),
    ):
        path = tiny_run.config(folder, "bad", **changes)
        with pytest.raises(InputError, match=message):
            train(path, out=folder / "bad", quiet=True, mesh=mesh)
        assert not (folder / "bad" / "checkpoints").exists()
