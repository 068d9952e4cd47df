"""A transcoder of |x|: its true features, the feature of a repeated data point, and Jacobian matching against it."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig
from jaxinterp.evaluation.absolute_value import AbsoluteValue, faithfulness
from jaxinterp.models.decoder import forward
from jaxinterp.training import jacobian
from jaxinterp.training.dictionary_specs import DictionarySpec, dictionary_config
from jaxinterp.training.dictionary_step import init, step
from jaxinterp.training.optimiser import OptimiserConfig
from tests.benchmarks.bench_faithfulness import SETTINGS, measure, transcoder
from tests.support import tiny_model

TOY = AbsoluteValue()


def by_hand(extra: int = 0) -> Dictionary:
    """The true transcoder, ``relu(x) + relu(-x)``; ``extra`` features for p take over what is written there."""
    eye, p = np.eye(20), np.asarray(TOY.point())
    config = DictionaryConfig("plt", 1, 40 + extra, 20, activation="relu")
    reads, writes, bias = np.concatenate([eye, -eye]), np.concatenate([eye, eye]), np.zeros(40)
    if extra:
        reads = np.concatenate([reads, np.tile(p, (extra, 1))])
        writes = np.concatenate([writes, np.tile(p / extra, (extra, 1))])
        reads[:3, :3] = 2 * np.eye(3) - 1  # the first three stay silent on p
        bias = np.concatenate([bias, np.full(extra, -2.0)])
    params = {"W_enc": reads[None], "W_dec": writes[None], "b_enc": bias[None], "b_dec": np.zeros((1, 20))}
    return Dictionary(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params), config)


def test_rows_are_sparse_signed_and_repeat_the_point() -> None:
    data = dataclasses.replace(TOY, repeated=0.25)
    x = np.asarray(data.batch(3, 20_000))[0]
    again = (x == np.asarray(data.point())).all(1)
    assert again.mean() == pytest.approx(0.25, abs=0.02)
    rest = x[~again]
    assert (rest != 0).mean() == pytest.approx(0.1, abs=0.005)
    assert rest.min() < -0.99 and rest.max() > 0.99 and abs(rest.mean()) < 0.01
    with pytest.raises(InputError, match=r"together 21 must be in 1\.\.20"):
        AbsoluteValue(together=21)


def test_features_are_counted_in_transcoders_made_by_hand() -> None:
    true = faithfulness(by_hand(), TOY)
    assert (true.clean, true.point, true.share) == (40, (), 0.0)
    x = TOY.batch(0, 200)
    np.testing.assert_allclose(by_hand().reconstruct(x), TOY.target(x), atol=1e-6)
    with_one = faithfulness(by_hand(1), TOY)
    assert (with_one.clean, with_one.point) == (37, (40,))
    assert with_one.share == pytest.approx(1.0)


def test_the_trainer_matches_the_jacobian_of_a_models_mlps() -> None:
    model = tiny_model("gemma2")
    run = dataclasses.replace(
        transcoder(SETTINGS["Jacobian matching"], 60), normalise=True, optimiser=OptimiserConfig(warmup=5),
        dictionary=DictionarySpec("plt", 32, skip=True, read_site="resid_mid", write_site="mlp_out"),
    )  # fmt: skip
    config = dictionary_config(run, model)
    told = jacobian.wanted(0.2, 0.1, config, model)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 40, (16, 16)))
    sites = forward(model.params, model.config, tokens, sites=("resid_mid", "mlp_out"))[1]
    batch: Any = tuple(site.reshape(3, 256, 16) for site in (sites.resid_mid, sites.mlp_out))
    state = init(run, config, jax.random.key(0), *batch)
    advance = jax.jit(partial(step, run, config, **told))
    terms = []
    for _ in range(60):
        state, metrics = advance(state, batch)
        terms.append(float(metrics["jacobian"]))
    assert np.mean(terms[-10:]) < 0.85 * np.mean(terms[:10])
    assert jacobian.wanted(0.0, 0.0, config, model) == {}
    with pytest.raises(InputError, match="needs a model of this library"):
        jacobian.wanted(0.2, 0.0, config, object())


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_the_published_direction_over_five_seeds(name: str) -> None:
    """The table of docs/measurements.md."""
    found = [measure(SETTINGS[name], seed)[0] for seed in range(5)]
    clean = sorted(one.clean for one in found)
    with_point = sum(bool(one.point) for one in found)
    if name in ("50 features", "100 features, p in 5 %", "Jacobian matching"):
        assert clean[1] >= 38 and with_point == 0
    elif name == "100 features, p in 20 %":
        assert with_point >= 3
        assert all(one.share > 0.95 for one in found if one.point)
    elif name == "50 features, p in 20 %":
        assert with_point == 0
    else:
        assert clean[-1] < 38
