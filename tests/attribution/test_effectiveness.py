"""Effectiveness against the exact divergence, helpfulness against losses by other routes."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations.text import Batch, plain
from jaxinterp.attribution.effectiveness import effects, pruning_curve, sampled_effectiveness
from jaxinterp.attribution.global_weights import virtual_weights
from jaxinterp.attribution.removals import FAMILIES, Weights, weights_of, whole_features
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary
from jaxinterp.models import Model
from jaxinterp.models.sites import Edit
from jaxinterp.replacement import live
from tests.attribution.cases import random_dictionary
from tests.support import tiny_model

pytestmark = pytest.mark.usefixtures("x64")


def case(name: str = "clt", family: str = "llama") -> tuple[Model, Dictionary, Batch]:
    model = tiny_model(family, dtype="float64", n_layers=2, vocab_size=12)
    dictionary = random_dictionary(model, name, n_features=8)
    use = np.ones((2, 5), bool)
    use[1, 3] = False
    return model, dictionary, plain(np.random.default_rng(0).integers(0, 12, (2, 5)), use)


def some(weights: Weights, batch: Batch, count: int) -> Weights:
    """Some of each pair of layers; of tokens those that are there."""
    there = (weights.source_layer >= 0) | np.isin(weights.source, batch.tokens)
    pairs = list(zip(weights.source_layer, weights.target_layer, strict=True))
    rng = np.random.default_rng(3)
    chosen = [
        rng.choice([i for i, one in enumerate(pairs) if one == pair and there[i]], count, replace=False)
        for pair in sorted(set(pairs))
    ]
    return weights.take(np.concatenate(chosen))


def single(ends: Any, value: float) -> Weights:
    source_layer, source, target_layer, target = (np.array([n]) for n in ends)
    return Weights(source_layer, source, target_layer, target, np.array([value]))


def loss(logits: Any, batch: Batch) -> float:
    """The mean cross-entropy over predictions, in NumPy."""
    logits = np.asarray(logits)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    picked = np.take_along_axis(log_p[:, :-1], batch.tokens[:, 1:, None], axis=2)[..., 0]
    return float(-picked[batch.use[:, :-1] & batch.use[:, 1:]].mean())


@pytest.mark.parametrize("name", ["clt", pytest.param("skip-plt", marks=pytest.mark.slow)])
def test_fisher_is_the_second_order_of_the_divergence(name: str) -> None:
    """KL of the share ε over ε² effectiveness goes to one, its distance with ε."""
    model, dictionary, batch = case(name, "llama" if name == "clt" else "gpt2")
    every = weights_of(model, dictionary)
    assert {(s, t) for s, t in zip(every.source_layer, every.target_layer, strict=True)} == {
        (-1, 0), (-1, 1), (-1, 2), (0, 1), (0, 2), (1, 2)
    }  # fmt: skip
    features = whole_features(dictionary, {0: [1, 5], 1: [2]})
    weights = Weights(*(np.concatenate(pair) for pair in zip(some(every, batch, 4), features, strict=True)))
    found = [
        effects(model, dictionary, weights, [batch], share=share, fisher=share == 4e-3, chunk=32)
        for share in (4e-3, 2e-3)
    ]
    fisher, divergence = found[0].effectiveness, [one.divergence for one in found]
    matter = fisher > 1e-6
    assert np.count_nonzero(matter) >= 6
    off = [
        np.abs(d[matter] / (one.share**2 * fisher[matter]) - 1)
        for d, one in zip(divergence, found, strict=True)
    ]
    assert off[0].max() < 0.02 and (off[1] < 0.6 * off[0] + 2e-4).all()
    assert (divergence[0][~matter] < 1e-10).all()


def test_helpfulness_is_the_change_of_the_loss() -> None:
    """Of features: with their decoders zero. Of weights: with what the target then writes, or by hand on the logits."""
    model, dictionary, batch = case()
    params = dictionary.params

    def run(other: Dictionary = dictionary, **more: Any) -> Any:
        return live.forward(model.params, model.config, other, jnp.asarray(batch.tokens), **more)

    logits, sites = run(sites=("mlp_scale", "resid_mid", "mlp_out", "final_scale"))
    clean = loss(logits, batch)
    decoders = tuple(jnp.asarray(w) for w in params["W_dec"])
    without = tuple(w.at[0, 5].set(0.0) for w in decoders)
    alone = dataclasses.replace(dictionary, params={**params, "W_dec": without})
    got = effects(model, dictionary, whole_features(dictionary, {0: [5]}), [batch], fisher=False)
    assert (
        got.loss == pytest.approx(clean, abs=1e-12) and got.predictions == 6 and got.effectiveness.size == 0
    )
    assert got.helpfulness[0] == pytest.approx(loss(run(alone)[0], batch) - clean, abs=1e-12) != 0

    # A weight from layer 0 to layer 1, read at resid_mid (no norm): feature 3 fires otherwise, and writes otherwise.
    a = np.asarray(dictionary.encode(sites.resid_mid))
    h = np.asarray(sites.resid_mid[1]) @ np.asarray(params["W_enc"][1]).T + np.asarray(params["b_enc"][1])
    v = float(virtual_weights(model, dictionary).block(0, 1)[2, 3])
    changed = h[..., 3] - a[0][..., 2] * v
    after = np.where(changed > np.asarray(params["threshold"])[1, 3], changed, 0.0)
    out = np.asarray(sites.mlp_out[1]) + (after - a[1][..., 3])[..., None] * np.asarray(
        params["W_dec"][1][1, 3]
    )
    brute = loss(run(edits=[Edit("mlp_out", "replace", jnp.asarray(out), layer=1)])[0], batch) - clean
    one = single((0, 2, 1, 3), v)
    got = effects(model, dictionary, one, [batch], fisher=False)
    assert got.helpfulness[0] == pytest.approx(brute, abs=1e-12) != 0

    # To a logit, from a feature and from a token.
    scale = np.asarray(sites.final_scale)[..., 0]
    for weight, active in (
        ((1, 4, 2, 7), a[1][..., 4]),
        ((-1, int(batch.tokens[0, 1]), 2, 3), batch.tokens == batch.tokens[0, 1]),
    ):
        source = "tokens" if weight[0] < 0 else dictionary
        v = float(virtual_weights(model, source, "logits").block(max(weight[0], 0), 0)[weight[1], weight[3]])
        changed = np.asarray(logits).copy()
        changed[..., weight[3]] -= active * v / scale
        one = single(weight, v)
        got = effects(model, dictionary, one, [batch], fisher=False)
        assert got.helpfulness[0] == pytest.approx(loss(changed, batch) - clean, abs=1e-12) != 0


def test_read_through_a_norm() -> None:
    """Where the target reads after a norm, its denominator at the token divides the weight."""
    model, dictionary, batch = case("plt")
    logits, sites = live.forward(
        model.params, model.config, dictionary, jnp.asarray(batch.tokens),
        sites=("mlp_normalized", "mlp_out", "mlp_scale"),
    )  # fmt: skip
    token = int(batch.tokens[0, 0])
    v = np.asarray(virtual_weights(model, "tokens", dictionary).block(0, 1))[token]
    p = {name: np.asarray(value) for name, value in dictionary.params.items()}
    h = np.asarray(sites.mlp_normalized[1]) @ p["W_enc"][1].T + p["b_enc"][1]
    here = (batch.tokens == token)[..., None]
    old, new = (
        np.where(x > p["threshold"][1], x, 0.0) for x in (h, h - here * v / np.asarray(sites.mlp_scale[1]))
    )
    change = new - old
    j = int(np.argmax(np.abs(change).sum(axis=(0, 1))))
    out = np.asarray(sites.mlp_out[1]) + change[..., [j]] * p["W_dec"][1, j]
    edit = Edit("mlp_out", "replace", jnp.asarray(out), layer=1)
    edited, _ = live.forward(model.params, model.config, dictionary, jnp.asarray(batch.tokens), edits=[edit])
    one = single((-1, token, 1, j), float(v[j]))
    got = effects(model, dictionary, one, [batch], fisher=False)
    assert got.helpfulness[0] == pytest.approx(loss(edited, batch) - loss(logits, batch), abs=1e-12) != 0


def test_sampling_and_pruning() -> None:
    model, dictionary, batch = case()
    weights = some(weights_of(model, dictionary, at_least=0.02), batch, 4)
    found = effects(model, dictionary, weights, [batch, batch], chunk=10)
    draws = sampled_effectiveness(model, dictionary, weights, [batch], draws=400)
    strong = found.effectiveness > np.quantile(found.effectiveness, 0.75)
    np.testing.assert_allclose(draws[strong], found.effectiveness[strong], rtol=0.35)
    assert abs(draws.sum() / found.effectiveness.sum() - 1) < 0.1

    curve = pruning_curve(model, dictionary, weights, -found.helpfulness, [batch], (0, 1 / weights.number, 1))
    assert curve.removed == (0, 1, weights.number)
    # What helps most goes first: the loss changes by its helpfulness.
    np.testing.assert_allclose(curve.loss[:2], [found.loss, found.loss + found.helpfulness.max()], atol=1e-12)
    assert curve.loss[2] != curve.loss[1]
    for order in (found.effectiveness, np.abs(weights.value)):
        assert pruning_curve(model, dictionary, weights, order, [batch], (1.0,)).loss[0] == pytest.approx(
            curve.loss[2]
        )


def test_faults() -> None:
    model, dictionary, batch = case("plt")
    raw = random_dictionary(tiny_model("gemma2"), "raw-clt", dtype="float32")
    capped = tiny_model("gemma2")
    dyt = tiny_model("dyt")
    one = whole_features(dictionary, {0: [1]})
    stream = dataclasses.replace(dictionary.config, read_site="resid_pre", write_site="resid_pre")
    in_place = dataclasses.replace(dictionary, config=stream)
    faults: list[tuple[str, Any]] = [
        ("no family 'feature'", lambda: weights_of(model, dictionary, ["feature"])),
        ("no family of weights", lambda: weights_of(model, dictionary, [])),
        ("in place of all", lambda: weights_of(model, in_place)),
        ("the limit is 100", lambda: weights_of(model, dictionary, limit=100)),
        ("no feature 8 of layer 0", lambda: whole_features(dictionary, {0: [8]})),
        ("before a norm", lambda: weights_of(capped, raw)),
        ("softcap", lambda: weights_of(capped, random_dictionary(capped, "plt"))),
        ("Dynamic Tanh", lambda: weights_of(dyt, random_dictionary(dyt, "plt"))),
        ("no weights to measure", lambda: effects(model, dictionary, one.take(slice(0, 0)), [batch])),
        ("no token whose next", lambda: effects(model, dictionary, one, [])),
        ("a finite score of each", lambda: pruning_curve(model, dictionary, one, np.zeros(2), [batch])),
        ("numbers from 0 to 1", lambda: pruning_curve(model, dictionary, one, np.zeros(1), [batch], (1.5,))),
    ]
    for match, call in faults:
        with pytest.raises(InputError, match=match):
            call()
    assert set(FAMILIES) == {"token-feature", "feature-feature", "feature-logit", "token-logit"}
    assert jax.tree.leaves(one)[0].shape == (1,)
