"""Replacing and taking away, against forward passes edited by hand; figures against their definitions in numpy."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations.text import Batch, plain
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.initialise import random
from jaxinterp.evaluation import LanguageConfig, language
from jaxinterp.models.decoder import forward
from jaxinterp.models.sites import Edit
from jaxinterp.replacement import live
from tests.evaluation.tiny import LENGTH, dictionary, text
from tests.support import tiny_model


def sums(logits: Any, clean: Any, batch: Batch) -> tuple[float, float, float]:
    """Cross-entropy, KL(clean ‖ logits) and agreement, token by token in numpy."""
    p, q = (np.asarray(v, np.float64) for v in (clean, logits))
    p, q = (v - np.log(np.exp(v).sum(-1, keepdims=True)) for v in (p, q))
    ce, kl, same = [], [], []
    for row, tokens in enumerate(batch.tokens):
        for t in range(LENGTH - 1):
            if batch.use[row, t] and batch.use[row, t + 1]:
                ce.append(-q[row, t, tokens[t + 1]])
                kl.append((np.exp(p[row, t]) * (p[row, t] - q[row, t])).sum())
                same.append(p[row, t].argmax() == q[row, t].argmax())
    return float(np.mean(ce)), float(np.mean(kl)), float(np.mean(same))


def test_every_effect_is_that_of_a_forward_pass_edited_by_hand(x64: None) -> None:
    model = tiny_model("llama", dtype="float64", n_layers=2)
    d, batch = dictionary(model, "clt"), text(model)
    batch = batch._replace(use=batch.use & (np.arange(LENGTH)[None] != 3))
    tokens = jnp.asarray(batch.tokens)
    clean, found = forward(model.params, model.config, tokens, sites=("mlp_in", "mlp_out"))
    predicted = d.reconstruct(found.mlp_in)
    used = np.asarray(found.mlp_out)[:, batch.use]
    mean = jnp.broadcast_to(jnp.asarray(used.mean(1))[:, None, None], found.mlp_out.shape)
    figures = language(model, d, [batch], LanguageConfig(ablations=("zero", "mean"), each_layer=True))
    values = {"zero": jnp.zeros_like(mean), "mean": mean, "replaced": predicted}
    for (name, layer), effect in figures.effects.items():
        if layer is None and name == "replaced":
            logits, _ = live.forward(model.params, model.config, d, tokens)
        else:
            chosen = range(2) if layer is None else (layer,)
            edits = [Edit("mlp_out", "replace", values[name][l], layer=l) for l in chosen]
            logits, _ = forward(model.params, model.config, tokens, edits=edits)
        ce, kl, same = sums(logits, clean, batch)
        assert effect.ce == pytest.approx(ce, abs=1e-12), (name, layer)
        assert effect.kl == pytest.approx(kl, abs=1e-12), (name, layer)
        assert effect.agreement == same
    assert len(figures.effects) == 9
    zero, replaced = figures.effects["zero", 1], figures.effects["replaced", 1]
    assert figures.ce_recovered("zero", 1) == pytest.approx(
        (zero.ce - replaced.ce) / (zero.ce - figures.clean)
    )
    assert figures.kl_recovered("zero", 1) == pytest.approx(1 - replaced.kl / zero.kl)
    assert figures.to_dict()["each_layer"][1]["mean"]["ce"] == figures.effects["mean", 1].ce


def test_a_perfect_dictionary_recovers_all_and_the_mean_none(x64: None) -> None:
    model = tiny_model("gpt2", dtype="float64", n_layers=2)
    d = dictionary(model, read_site="resid_post", write_site="resid_post", layers=(1,))
    eye = jnp.eye(model.config.d_model)
    both = {"W_enc": jnp.concatenate([eye, -eye])[None], "W_dec": jnp.concatenate([eye, -eye])[None]}
    config = dataclasses.replace(d.config, n_features=2 * model.config.d_model)
    zeros = {"b_enc": jnp.zeros((1, config.n_features)), "b_dec": jnp.zeros((1, config.d_model))}
    settings = LanguageConfig(ablations=("zero", "mean"), each_layer=True)
    found = language(model, Dictionary(both | zeros, config), [text(model)], settings)
    assert found.gap == pytest.approx(0, abs=1e-12)
    assert found.effects["replaced", None].kl == pytest.approx(0, abs=1e-12)
    for ablation in ("zero", "mean"):
        assert found.ce_recovered(ablation) == pytest.approx(1)
        assert found.kl_recovered(ablation, 1) == pytest.approx(1)
    # A dictionary without features writes its bias: with the site's mean there it is the mean ablation.
    _, values = forward(model.params, model.config, jnp.asarray(text(model).tokens), sites=("resid_post",))
    mean = values.resid_post[1].mean((0, 1))
    none = jax.tree.map(jnp.zeros_like, both) | zeros | {"b_dec": mean[None]}
    found = language(model, Dictionary(none, config), [text(model)], settings)
    assert found.ce_recovered("mean") == pytest.approx(0, abs=1e-9)
    assert found.effects["replaced", None].kl == pytest.approx(found.effects["mean", None].kl, abs=1e-12)


def test_confident_agreement_counts_what_it_says(x64: None) -> None:
    model = tiny_model("llama", dtype="float64", n_layers=2)
    d = dictionary(model)
    tokens = np.random.default_rng(4).integers(0, 40, (6, LENGTH))
    for t in range(1, LENGTH):  # mostly the model's own best guess, so that it is often right
        logits, _ = forward(model.params, model.config, jnp.asarray(tokens))
        tokens[:4, t] = np.asarray(logits[:4, t - 1].argmax(-1))
    batch = plain(tokens)
    p = np.asarray(jax.nn.softmax(forward(model.params, model.config, jnp.asarray(tokens))[0]))
    q = np.asarray(live.forward(model.params, model.config, d, jnp.asarray(tokens))[0])
    share = np.bincount(tokens.reshape(-1), minlength=40) / tokens.size
    limit = float(np.sort(p.max(-1).reshape(-1))[24])
    largest = float(np.sort(share)[-3])
    for max_frequency in (None, largest):
        kept = same = 0
        for row in range(6):
            for t in range(LENGTH - 1):
                right = p[row, t].argmax() == tokens[row, t + 1] and p[row, t].max() < limit
                if right and (max_frequency is None or share[tokens[row, t + 1]] <= max_frequency):
                    kept += 1
                    same += int(q[row, t].argmax() == tokens[row, t + 1])
        assert kept
        found = language(model, d, [batch], LanguageConfig(confidence=limit, max_frequency=max_frequency))
        assert found.confident == kept
        assert found.effects["replaced", None].confident_agreement == pytest.approx(same / kept)


def test_first_tokens_can_be_left_alone(x64: None) -> None:
    model = tiny_model("llama", dtype="float64", n_layers=2)
    d, batch = dictionary(model), text(model)
    tokens = jnp.asarray(batch.tokens)
    found = language(
        model, d, [batch], LanguageConfig(ablations=("zero",), each_layer=True, first_tokens=False)
    )
    assert found.tokens == 3 * (LENGTH - 2)
    _, values = forward(model.params, model.config, tokens, sites=("mlp_out",))
    kept = jnp.zeros_like(values.mlp_out).at[:, :, 0].set(values.mlp_out[:, :, 0])
    clean, _ = forward(model.params, model.config, tokens)
    logits, _ = forward(
        model.params, model.config, tokens, edits=[Edit("mlp_out", "replace", kept, per_layer=True)]
    )
    rest = batch._replace(use=batch.use & (batch.positions > 0))
    assert found.effects["zero", None].ce == pytest.approx(sums(logits, clean, rest)[0], abs=1e-12)


def test_features_that_read_all_layers_replace_from_the_unchanged_run(x64: None) -> None:
    model = tiny_model("llama", dtype="float64", n_layers=2)
    d = dictionary(model, "crosscoder", read_site="resid_post", write_site="resid_post")
    batch = text(model)
    found = language(model, d, [batch])
    assert not found.live and found.to_dict()["replaced_from"] == "the unchanged run"
    tokens = jnp.asarray(batch.tokens)
    clean, values = forward(model.params, model.config, tokens, sites=("resid_post",))
    logits, _ = forward(
        model.params, model.config, tokens,
        edits=[Edit("resid_post", "replace", d.reconstruct(values.resid_post), per_layer=True)],
    )  # fmt: skip
    assert found.replaced == pytest.approx(sums(logits, clean, batch)[0], abs=1e-12)
    with pytest.raises(InputError, match="its features read every layer"):
        live.forward(model.params, model.config, d, tokens)


def test_figures_do_not_depend_on_how_sequences_are_cut(x64: None) -> None:
    model = tiny_model("llama", dtype="float64", n_layers=2)
    d, batch = dictionary(model), text(model, 5)
    batch = batch._replace(use=batch.use & (np.arange(LENGTH)[None] < [[8], [3], [8], [5], [2]]))
    settings = LanguageConfig(ablations=("mean",), max_frequency=0.1)
    whole = language(model, d, [batch], settings)
    parts = [Batch(*(a[i : i + 1] for a in batch)) for i in range(5)]
    cut = language(model, d, parts, settings)
    assert cut.tokens == whole.tokens == 7 + 2 + 7 + 4 + 1
    assert cut.effects["mean", None].ce == pytest.approx(whole.effects["mean", None].ce, abs=1e-12)
    assert cut.replaced == pytest.approx(whole.replaced, abs=1e-12)


def test_wrong_requests_are_refused() -> None:
    model = tiny_model("llama", n_layers=2)
    with pytest.raises(InputError, match="ablation 'nought'"):
        LanguageConfig(ablations=("nought",))
    with pytest.raises(InputError, match="confidence is 0"):
        LanguageConfig(confidence=0)
    config = DictionaryConfig("plt", 2, 4, 16, read_site="resid_post", write_site="resid_mid")
    d = Dictionary(random(config, jax.random.key(0)), config, "odd")
    with pytest.raises(InputError, match="odd cannot replace values as they come: it reads resid_post"):
        live.forward(model.params, model.config, d, jnp.zeros((1, 4), jnp.int32))
    good = dataclasses.replace(config, read_site="mlp_in", write_site="mlp_out")
    with pytest.raises(InputError, match=r"a mean of shape \(2, 3\), expected \(2, 16\)"):
        language(
            model, Dictionary(random(good, jax.random.key(0)), good), [text(model)],
            LanguageConfig(ablations=("mean",)), mean=np.zeros((2, 3)),
        )  # fmt: skip
