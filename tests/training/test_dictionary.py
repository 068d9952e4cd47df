"""Training dictionaries: it learns, controls sparsity, restarts dead features, resumes, spreads over devices."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jaxinterp.checkpoints.native import save_model
from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import digest
from jaxinterp.dictionaries import kind_of, load_dictionary
from jaxinterp.evaluation.reconstruction import reconstruction
from jaxinterp.models.config import ModelConfig
from jaxinterp.models.model import Model
from jaxinterp.models.weights import declare
from jaxinterp.parallel.mesh import make
from jaxinterp.parallel.weights import initialise
from jaxinterp.training import dictionary as D
from jaxinterp.training import resample, train
from jaxinterp.training.metrics import read
from jaxinterp.training.objective import ObjectiveConfig
from jaxinterp.training.optimiser import OptimiserConfig, schedule
from jaxinterp.training.sparsity import make_gate
from jaxinterp.training.sparsity.base import Pass, SparsityConfig
from tests.training.steps import compiled

MODEL = ModelConfig(
    vocab_size=23, d_model=8, n_layers=2, n_heads=2, n_kv_heads=2, d_head=4, d_mlp=24, context=32
)
LAYER = SparsityConfig("layer-threshold", l0=4.0, start_l0=8.0, threshold=1.0, pre_activation=0.0)
TANH = SparsityConfig("straight-through", coefficient=0.03, threshold=0.3, scale=1.0)
OTHERS = (
    SparsityConfig("top-k", l0=4, start_l0=8),
    SparsityConfig("batch-top-k", l0=4, rate=0.1),
    SparsityConfig("group-max", l0=6),
    SparsityConfig("l1", coefficient=0.01),
    SparsityConfig("gated", coefficient=0.01),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model on disk and a configuration for it."""
    out = tmp_path_factory.mktemp("run")
    params = initialise(declare(MODEL), key=jax.random.key(0), dtype=jnp.float32)
    params["layers"]["down"] = 4.0 * params["layers"]["down"]
    save_model(Model(params, MODEL, None, "tiny"), out / "model")
    config = {
        "task": "dictionary", "model": str(out / "model"), "steps": 60, "batch": 64,
        "dictionary": {"kind": "clt", "n_features": 32},
        "text": {"start": 1, "length": 16, "batch": 16},
        "stream": {"text_batches": 4}, "start": {"rate": 0.2, "decoder": 0.2},
        "sparsity": {"method": "layer-threshold", "l0": 5, "start_l0": 8, "pre_activation": 0, "threshold": 1.0},
        "optimiser": {"warmup": 10}, "held_out": {"tokens": 512, "validation_tokens": 256},
        "loop": {"log_every": 20, "evaluate_every": 40, "checkpoint_every": 20},
    }  # fmt: skip
    (out / "c.yaml").write_text(yaml.safe_dump(config))
    return out


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    return train(folder / "c.yaml", [], folder / "out", quiet=True)


def test_training_writes_a_dictionary_its_card_and_metrics(trained: Path) -> None:
    found = load_dictionary(trained / "dictionary")
    card = json.loads((trained / "dictionary" / "card.json").read_text())
    assert card["dictionary"]["digest"] == found.digest()
    assert card["held_out"]["rows"] == 512
    lines = read(trained / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [20, 40, 60]
    assert [line["step"] for line in lines if "evaluation" in line] == [40]
    final = lines[-1]["final"]
    assert final["mean_nmse"] == card["held_out"]["mean_nmse"] < 0.5
    assert final["mean_l0"] == pytest.approx(5, abs=1.5)
    np.testing.assert_allclose(
        kind_of(found.config).decoder_norms(found.params, found.config), 1.0, rtol=1e-4
    )
    assert yaml.safe_load((trained / "config.yaml").read_text())["resample"]["every"] == 50


def test_an_interrupted_run_writes_the_same_bytes(folder: Path, trained: Path) -> None:
    out = folder / "parts"
    # A run that ends early, as after a kill: its checkpoints are those of the long run.
    _run_to(folder, out, 20)
    train(folder / "c.yaml", [], out, quiet=True)
    for file in sorted((trained / "dictionary").glob("*")):
        assert file.read_bytes() == (out / "dictionary" / file.name).read_bytes(), file.name


def _run_to(folder: Path, out: Path, stop: int) -> None:
    """Train towards the configuration's end, but be stopped after ``stop`` steps."""
    from jaxinterp.training import api
    from jaxinterp.training.loop import run

    name, config, loop = api.load(folder / "c.yaml")
    out.mkdir(exist_ok=True)
    (out / "config.yaml").write_text(yaml.safe_dump(api.resolved(name, config, loop)))
    task = D.task(config)._replace(finish=None)
    run(task, steps=stop, out=out, seed=config.seed, loop=loop, quiet=True)


def test_another_configuration_in_the_same_folder_is_refused(folder: Path, trained: Path) -> None:
    with pytest.raises(
        InputError, match=r"another configuration .optimiser.learning_rate: 0.01 there, 0.5 here"
    ):
        train(folder / "c.yaml", ["optimiser.learning_rate=0.5"], trained, quiet=True)


def test_bad_settings_are_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    for override, message in (
        ("sparsity.method=tanh", "expected one of straight-through, layer-threshold"),
        ("sparsity.l0=null", "needs a target"),
        ("model=nowhere", "nowhere"),
        ("dictionary.kind=ctl", "did you mean clt"),
        ("text.length=64", "longer than the model's context of 32"),
        ("batch=0", "must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            train(folder / "c.yaml", [override], tmp_path / "out", quiet=True)
        assert not (tmp_path / "out" / "checkpoints").exists()


def data(rows: int = 256) -> tuple[jax.Array, jax.Array]:
    """Two layers of sparse features, read and written through random directions."""
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jnp.maximum(jax.random.normal(keys[0], (2, rows, 24)) - 1.2, 0.0)
    read, write = (jax.random.normal(k, (2, 24, 8)) for k in keys[1:3])
    x = jnp.einsum("lrn,lnd->lrd", hidden, read) + 0.5
    return x, jnp.cumsum(jnp.einsum("lrn,lnd->lrd", hidden, write), axis=0) - 2.0


def setting(sparsity: SparsityConfig, kind: str = "clt", **changes: Any) -> tuple[D.DictionaryRun, Any]:
    run = D.DictionaryRun(
        "m", 200, batch=256, sparsity=sparsity, dictionary=D.DictionarySpec(kind, 48),
        start=D.StartConfig(rate=0.15, decoder=0.3), **{"optimiser": OptimiserConfig(warmup=5), **changes},
    )  # fmt: skip
    config = D.dictionary_config(run, Model({}, MODEL, None, "m"))
    return run, config


def advance(run: D.DictionaryRun, config: Any, steps: int) -> tuple[Any, list[dict[str, Any]]]:
    batch = data()
    init, step = compiled(run, config)
    state = init(jax.random.key(0), *batch)
    history = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        history.append(jax.device_get(metrics))
    return state, history


@pytest.mark.parametrize(
    ("kind", "sparsity"),
    [
        ("clt", LAYER),
        ("plt", TANH),
        pytest.param("plt", LAYER, marks=pytest.mark.slow),
        pytest.param("clt", TANH, marks=pytest.mark.slow),
    ],
    ids=lambda v: getattr(v, "method", v),
)
def test_it_learns_and_the_folded_dictionary_does_what_was_trained(
    kind: str, sparsity: SparsityConfig
) -> None:
    run, config = setting(sparsity, kind)
    state, history = advance(run, config, 120)
    assert history[-1]["nmse"] < 0.6 * history[0]["nmse"]
    x, y = data()
    found = reconstruction(D.to_dictionary(run, config, state), [(x, y)])
    state, metrics = compiled(run, config)[1](state, (x, y))
    np.testing.assert_allclose(found.nmse, metrics["nmse_layers"], rtol=1e-3)
    np.testing.assert_allclose(found.l0, metrics["l0_layers"], rtol=1e-2)


def test_the_layer_threshold_meets_its_target() -> None:
    run, config = setting(LAYER)
    _, history = advance(run, config, 200)
    np.testing.assert_allclose(history[-1]["l0_layers"], 4.0, rtol=0.1)
    assert history[20]["l0"] > 6.0


def test_the_straight_through_controller_meets_its_target() -> None:
    run, config = setting(dataclasses.replace(TANH, l0=2.0, start_l0=8.0, rate=0.1))
    run = dataclasses.replace(run, steps=400)
    _, history = advance(run, config, 400)
    np.testing.assert_allclose(history[-1]["l0_layers"], 2.0, rtol=0.1)
    assert all(np.isfinite(value).all() for line in history for value in line.values())
    # It does not fall below on the way: what was silenced would not come back.
    assert min(line["l0"] for line in history) > 0.85 * 2.0


@pytest.mark.parametrize("sparsity", [LAYER, dataclasses.replace(TANH, l0=3.0, start_l0=8.0, rate=0.1)])
def test_a_pooled_target_is_met_by_the_mean_and_shared_out_by_worth(sparsity: SparsityConfig) -> None:
    run, config = setting(dataclasses.replace(sparsity, pooled=True), "plt")
    run = dataclasses.replace(run, steps=400)
    state, history = advance(run, config, 400)
    np.testing.assert_allclose(history[-1]["l0"], sparsity.l0, rtol=0.1)
    for value in state["control"].values():
        assert len(np.unique(value)) == 1
    # The second layer's target adds up both layers' directions: its features are worth more.
    one, two = history[-1]["l0_layers"]
    assert abs(one - two) > 0.1 * sparsity.l0


def test_a_pooled_target_where_features_compete_is_refused() -> None:
    with pytest.raises(InputError, match="compete within a layer"):
        make_gate(SparsityConfig(method="top-k", l0=4, pooled=True))
    with pytest.raises(InputError, match="is of each layer"):
        make_gate(SparsityConfig(penalty="quadratic", l0=4, pooled=True))


def test_the_coefficient_answers_to_distance_and_movement() -> None:
    sparsity = dataclasses.replace(TANH, l0=4.0, start_l0=16.0, anneal=0.5, rate=0.1, damping=2.0)
    gate = make_gate(sparsity)
    first = {"coefficient": jnp.full((4,), 0.03), "log_l0": jnp.full((4,), jnp.nan)}
    l0 = jnp.array([5.0, 4.0, 3.0, 99.0])
    late = gate.update(first, l0, {}, jnp.float32(0.5))
    off = np.clip(np.log([1.25, 1.0, 0.75, 24.75]), -1, 1)
    np.testing.assert_allclose(late["coefficient"], 0.03 * np.exp(0.1 * off), rtol=1e-5)
    # Where L0 stands at its target but came from above, the coefficient falls.
    falling = {"coefficient": jnp.full((4,), 0.03), "log_l0": jnp.full((4,), np.log(8.0))}
    fallen = gate.update(falling, jnp.full((4,), 4.0), {}, jnp.float32(1.0))
    np.testing.assert_allclose(fallen["coefficient"], 0.03 * np.exp(2.0 * 0.1 * np.log(0.5)), rtol=1e-5)
    # Half way through the annealing the target is the geometric mean of its ends.
    early = gate.update(first, jnp.full((4,), 8.0), {}, jnp.float32(0.25))
    np.testing.assert_allclose(early["coefficient"], 0.03, rtol=1e-5)
    free = make_gate(TANH).update(first, jnp.full((4,), 8.0), {}, jnp.float32(0.25))
    np.testing.assert_array_equal(free["coefficient"], first["coefficient"])


def test_more_sparsity_gives_fewer_active_features_and_the_ramp_starts_at_nothing() -> None:
    ends = []
    for coefficient in (TANH.coefficient, 0.3):
        run, config = setting(dataclasses.replace(TANH, coefficient=coefficient), "plt")
        _, history = advance(run, config, 100)
        assert history[0]["sparsity"] == 0.0
        assert all(np.isfinite(value).all() for line in history for value in line.values())
        ends.append(history[-1]["l0"])
    assert ends[1] < 0.7 * ends[0]


@pytest.mark.parametrize("sparsity", [LAYER, TANH, *OTHERS], ids=lambda s: s.method)
def test_the_gates_agree_with_the_finished_dictionary(sparsity: SparsityConfig) -> None:
    run, config = setting(sparsity, "plt")
    state, _ = advance(run, config, 3)
    gate, kind = make_gate(sparsity), kind_of(config)
    x, y = data()
    x = x * state["scales"]["read"][:, None, None]
    norms = kind.decoder_norms(state["params"], config)
    h = kind.pre_activations(state["params"], config, x)
    given = Pass(
        state["params"],
        config,
        norms,
        state["control"],
        h,
        x,
        y,
        jnp.zeros(norms.shape, bool),
        jnp.float32(1.0),
        8.0,
    )
    a = gate.apply(given).a
    plain = gate.plain(state["params"], norms, state["control"])
    finished = kind.encode(plain, config, x)
    if sparsity.method == "batch-top-k":  # whose threshold is that of other batches
        assert (np.asarray(a != 0) != np.asarray(finished != 0)).mean() < 0.05
    else:
        np.testing.assert_allclose(a, finished, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "sparsity"),
    [
        *(("plt", sparsity) for sparsity in OTHERS),
        ("clt", OTHERS[0]),
        *(pytest.param("clt", sparsity, marks=pytest.mark.slow) for sparsity in OTHERS[1:]),
    ],
    ids=lambda v: getattr(v, "method", v),
)
def test_other_ways_learn_too(kind: str, sparsity: SparsityConfig) -> None:
    run, config = setting(sparsity, kind)
    state, history = advance(run, config, 120)
    assert history[-1]["nmse"] < 0.7 * history[0]["nmse"]
    assert all(np.isfinite(value).all() for line in history for value in line.values())
    found = reconstruction(D.to_dictionary(run, config, state), [data()])
    _, metrics = compiled(run, config)[1](state, data())
    np.testing.assert_allclose(found.nmse, metrics["nmse_layers"], rtol=0.1)
    np.testing.assert_allclose(found.l0, metrics["l0_layers"], rtol=0.1)
    if sparsity.l0:
        assert 0.8 * sparsity.l0 < min(found.l0) and max(found.l0) < 1.15 * sparsity.l0


@pytest.mark.parametrize(
    "spec",
    [
        D.DictionarySpec("plt", 48, centre=True, read_site="resid_post", write_site="resid_post"),
        D.DictionarySpec("clt", 48, tied=True),
        D.DictionarySpec("crosscoder", 48, read_site="resid_post", write_site="resid_post"),
        D.DictionarySpec("crosscoder", 48, shared=8, read_site="resid_post", write_site="resid_post"),
    ],
    ids=["sae", "tied", "crosscoder", "shared"],
)
def test_other_kinds_learn_too(spec: D.DictionarySpec) -> None:
    run, _ = setting(dataclasses.replace(OTHERS[0]), resample=resample.ResampleConfig(every=0))
    run = dataclasses.replace(
        run, dictionary=spec, objective=ObjectiveConfig(nesting=(8, 24), auxiliary=0.03)
    )
    config = D.dictionary_config(run, Model({}, MODEL, None, "m"))
    state, history = advance(run, config, 120)
    assert history[-1]["nmse"] < 0.8 * history[0]["nmse"]
    x, y = data()
    found = reconstruction(D.to_dictionary(run, config, state), [(x, y)])
    _, metrics = compiled(run, config)[1](state, (x, y))
    if not spec.shared:  # whose layers have one scale, so that the loss does not weigh them by their variance
        np.testing.assert_allclose(found.nmse, metrics["nmse_layers"], rtol=1e-2)
    else:
        assert max(found.nmse) < 0.5


def test_dead_features_are_restarted_and_fire() -> None:
    run, config = setting(LAYER, resample=resample.ResampleConfig(dead_after=5, every=10, at_most=0.2))
    batch = data()
    init, step = compiled(run, config)
    state = init(jax.random.key(0), *batch)
    dead = jnp.zeros((2, 48), bool).at[:, ::3].set(True)
    state["params"]["b_enc"] = jnp.where(dead, -1e3, state["params"]["b_enc"])
    shares = []
    for _ in range(40):
        state, metrics = step(state, batch)
        shares.append(float(metrics["dead"]))
    assert shares[9] >= 0.3
    assert shares[-1] < 0.1


def test_a_restart_touches_only_the_dead() -> None:
    run, config = setting(LAYER)
    state, _ = advance(run, config, 2)
    which = jnp.zeros((2, 48), bool).at[0, 3].set(True).at[1, 40].set(True)
    x, y = data()
    gate = make_gate(LAYER)
    new = resample.restart(
        run.resample, config, state["params"], which, key=jax.random.key(0), x=x, residual=y,
        thresholds=lambda p, n: gate.thresholds(p, n, state["control"]),
    )  # fmt: skip
    moments = resample.forget(config, state["optimiser"], which)
    kind = kind_of(config)
    np.testing.assert_array_equal(new["W_enc"][~which], state["params"]["W_enc"][~which])
    assert (new["W_enc"][which] != state["params"]["W_enc"][which]).all()
    for s, t in kind.writes(config):
        rows = [kind.decoder_rows(p, config, s, t, jnp.arange(48)) for p in (new, state["params"])]
        changed = (np.asarray(rows[0]) != np.asarray(rows[1])).any(-1)
        np.testing.assert_array_equal(changed, which[s])
    mu = moments[1].mu
    assert not mu["W_enc"][which].any() and mu["W_enc"][~which].all(axis=-1).mean() > 0.5


def test_only_so_many_are_restarted_at_once_and_those_dead_for_longest() -> None:
    stats = {"last": jnp.array([[9, 1, 5, 2, 8, 9, 9, 9, 9, 9], [9, 9, 9, 9, 9, 9, 9, 9, 9, 9]], jnp.int32)}
    config = resample.ResampleConfig(dead_after=4, at_most=0.2)
    which = resample.longest_dead(config, stats, jnp.asarray(10))
    assert np.flatnonzero(which[0]).tolist() == [1, 3]
    assert not which[1].any()


def test_restarted_features_take_different_rows() -> None:
    which = jnp.arange(40) % 2 == 0
    weight = jnp.where(jnp.arange(64) < 20, 1.0, 1e-9)
    rows = np.asarray(resample._draw(jax.random.key(0), weight, which))[np.asarray(which)]
    assert sorted(rows.tolist()) == list(range(20))


def test_statistics_of_activity() -> None:
    stats = resample.init(1, 3, jnp.float32)
    a = jnp.array([[[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]]])
    stats = resample.update(stats, resample.density(a), jnp.asarray(7), decay=0.5)
    assert stats["density"].tolist() == [[0.5, 0.25, 0.0]]
    assert stats["last"].tolist() == [[7, 7, 0]]
    which = resample.dead(resample.ResampleConfig(dead_after=5), stats, jnp.asarray(9))
    assert which.tolist() == [[False, False, True]]


@pytest.mark.parametrize("kind", [pytest.param("plt", marks=pytest.mark.slow), "clt"])
def test_eight_devices_train_as_one(kind: str, x64: None) -> None:
    """In float64: Adam divides tiny gradients by their own size, which blows float32 rounding up."""
    run, config = setting(LAYER, kind)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), data())
    one = jax.jit(partial(D.init, run, config))(jax.random.key(0), *batch)
    mesh = make(4, 2)
    states, batches = D._shardings(config, mesh, jax.eval_shape(lambda: one))
    eight = jax.device_put(one, states)
    assert len(eight["params"]["W_enc"].sharding.device_set) == 8
    assert eight["optimiser"][1].mu["W_enc"].sharding.spec == states["params"]["W_enc"].spec
    step = jax.jit(partial(D.step, run, config))
    spread = jax.jit(partial(D.step, run, config), out_shardings=(states, None))
    for _ in range(3):
        one, first = step(one, batch)
        eight, second = spread(eight, jax.device_put(batch, batches))
    assert one["params"]["W_enc"].dtype == jnp.float64
    np.testing.assert_allclose(first["loss"], second["loss"], rtol=1e-10)
    for a, b in zip(jax.tree.leaves(one["params"]), jax.tree.leaves(eight["params"]), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-9)


@pytest.mark.slow
def test_training_over_a_mesh_by_the_one_call(folder: Path, trained: Path) -> None:
    eight = train(folder / "c.yaml", [], folder / "eight", quiet=True, mesh=make(8))
    losses = [
        [line["loss"] for line in read(out / "metrics.jsonl") if "loss" in line] for out in (trained, eight)
    ]
    assert len(losses[0]) == 3
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_run_starts_the_same_from_the_same_seed() -> None:
    run, config = setting(TANH)
    start = compiled(run, config)[0]
    starts = [digest(start(jax.random.key(k), *data())["params"]) for k in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]


def test_the_learning_rate_rises_stays_and_falls() -> None:
    rate = schedule(OptimiserConfig(learning_rate=2.0, warmup=10, decay=0.2), 100)
    values = [float(rate(i)) for i in range(101)]
    assert values[0] == pytest.approx(0.2) and values[9] == pytest.approx(2.0)
    assert all(v == pytest.approx(2.0) for v in values[10:80])
    assert values[90] == pytest.approx(1.0) and values[100] == pytest.approx(0.0)
