"""Everything at once: the record, SAEBench's layout, a store in place of a model, two dictionaries side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.activations import Store
from jaxinterp.activations.collect import CollectConfig, collect
from jaxinterp.activations.text import Source, TextConfig, plain
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.initialise import random
from jaxinterp.evaluation.applying import at_layers, check_fit
from jaxinterp.evaluation.full import FullConfig, full
from jaxinterp.evaluation.language import LanguageConfig
from jaxinterp.evaluation.report import report
from jaxinterp.evaluation.saebench import core, file_name, nearest
from jaxinterp.models.model import Model
from tests.support import tiny_model

KEYS = {
    "model_behavior_preservation": {"kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"},
    "model_performance_preservation": {
        "ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae",
    },
    "reconstruction_quality": {"explained_variance", "mse", "cossim"},
    "shrinkage": {"l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"},
    "sparsity": {"l0", "l1"},
    "token_stats": {"total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"},
    "misc_metrics": {
        "average_max_encoder_cosine_sim", "average_max_decoder_cosine_sim", "frac_alive", "freq_over_1_percent",
        "freq_over_10_percent", "normalized_freq_over_1_percent", "normalized_freq_over_10_percent",
    },
}  # fmt: skip
FEATURE = {
    "index", "feature_density", "consistent_activation_heuristic", "encoder_bias", "encoder_norm",
    "encoder_decoder_cosine_sim", "max_encoder_cosine_sim", "max_decoder_cosine_sim",
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("llama", n_layers=2)


def source(model: Model, seed: int = 0) -> Source:
    def batch(index: int) -> Any:
        draw = np.random.default_rng([seed, index])
        return plain(draw.integers(0, model.config.vocab_size, (4, 8)))

    return Source(batch, 32)


def dictionary(n: int = 12, seed: int = 1, **changes: Any) -> Dictionary:
    settings = {"read_site": "mlp_in", "write_site": "mlp_out", "activation": "relu", **changes}
    config = DictionaryConfig("plt", 2, n, 16, **settings)
    return Dictionary(random(config, jax.random.key(seed)), config, f"d{n}")


@pytest.fixture(scope="module")
def everything(model: Model) -> Any:
    d = dictionary()
    other = dictionary(20, 2)
    decoders = (
        other.params["W_dec"].at[:, :12].set(d.params["W_dec"]).at[:, 12:14].set(d.params["W_dec"][:, :2])
    )
    other = dataclasses.replace(other, params={**other.params, "W_dec": decoders})
    config = FullConfig(tokens=90, microbatch=4, jacobian=6, draws=3, features=True, dense_above=0.3)
    return d, full(d, config, model=model, source=source(model), against=(model, other))


def test_the_record_has_every_figure_and_is_json(everything: Any) -> None:
    d, (record, measured) = everything
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again["dictionary"]["digest"] == d.digest() and again["text"]["tokens"] == 90
    figures = again["figures"]
    for name in ("fve", "nmse", "cosine", "relative_error", "norm_ratio", "l0", "l1"):
        assert len(figures[name]) == 2 and figures[f"mean_{name}"] == pytest.approx(np.mean(figures[name]))
    for name in ("zero", "mean"):
        assert set(figures[name]) == {"ce", "kl", "ce_recovered", "kl_recovered"}
    assert [entry["layer"] for entry in figures["each_layer"]] == [0, 1]
    assert len(again["jacobian"]["jacobian_cosine"]) == 2
    assert np.shape(again["features"]["density"]) == (2, 12)
    assert figures["dense"] == pytest.approx((np.array(again["features"]["density"]) > 0.3).mean())
    counts = np.array(again["density"]["counts"])
    assert (counts.sum(1) + again["density"]["dead"] == 12).all()
    assert sum(int(b.use.sum()) for b in measured.batches) == 90


def test_two_dictionaries_side_by_side(everything: Any) -> None:
    _, (record, _) = everything
    for entry in record["against"]["layers"]:
        assert entry["decoders"]["mean_best"] == pytest.approx(1, abs=1e-5)
        assert entry["decoders"]["one_to_one"] == {
            "method": "exact", "pairs": 12, "mean": pytest.approx(1, abs=1e-5), "above_0.7": 1.0
        }  # fmt: skip
        assert entry["splitting"]["coarse"] == "d12" and entry["splitting"]["covered"] == 1.0
        assert entry["splitting"]["split"] >= 2 / 12
        assert 0 < entry["activations"]["mean_best"] < 1


def test_the_report_is_a_table(everything: Any) -> None:
    _, (record, _) = everything
    text = report(record)
    assert "CE/zero" in text and "Jacobian" in text and "against d20:" in text
    assert f"{record['figures']['fve'][1]:.4f}" in text
    assert max(len(line) for line in text.splitlines()) < 140
    small = {
        **record,
        "figures": {k: v for k, v in record["figures"].items() if k not in ("ce_clean", "each_layer")},
    }
    del small["against"], small["jacobian"]
    assert "cross-entropy" not in report(small)


def test_saebench_s_layout(everything: Any, model: Model) -> None:
    d, (record, measured) = everything
    result = core(measured, model, d, 1, dataset="random")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {name: set(values) for name, values in result["eval_result_metrics"].items()} == KEYS
    assert len(result["eval_result_details"]) == 12
    assert all(set(feature) == FEATURE for feature in result["eval_result_details"])
    metrics, alone = result["eval_result_metrics"], record["figures"]["each_layer"][1]
    assert metrics["reconstruction_quality"]["explained_variance"] == record["figures"]["fve"][1]
    preserved = metrics["model_performance_preservation"]
    assert preserved["ce_loss_score"] == alone["zero"]["ce_recovered"]
    score = (preserved["ce_loss_with_ablation"] - preserved["ce_loss_with_sae"]) / (
        preserved["ce_loss_with_ablation"] - preserved["ce_loss_without_sae"]
    )
    assert preserved["ce_loss_score"] == pytest.approx(score)
    feature = result["eval_result_details"][3]
    encoder, decoder = (np.asarray(d.params[name], np.float64)[1, 3] for name in ("W_enc", "W_dec"))
    cosine = encoder @ decoder / np.linalg.norm(encoder) / np.linalg.norm(decoder)
    assert feature["encoder_decoder_cosine_sim"] == pytest.approx(cosine, abs=1e-6)
    assert feature["encoder_norm"] == pytest.approx(np.linalg.norm(encoder), rel=1e-6)
    assert feature["feature_density"] == pytest.approx(measured.rows.fired[1, 3] / 90)
    assert file_name(result) == "d12_mlp_out_layer_1_eval_results.json"
    assert core(measured, model, d, 1, dataset="random") == result
    none = measured._replace(language=None)
    with pytest.raises(InputError, match="need each layer alone and zero ablation"):
        core(none, model, d, 0)


def test_the_nearest_other_vector() -> None:
    vectors = jnp.asarray([[1.0, 0], [2, 0], [0, 3], [1, 1]])
    np.testing.assert_allclose(nearest(vectors), [1, 1, 0.5**0.5, 0.5**0.5], atol=1e-6)
    assert nearest(vectors[:1]) == [-1.0]


def test_a_store_in_place_of_the_model(model: Model, tmp_path: Path, everything: Any) -> None:
    d, (record, _) = everything
    text = TextConfig(length=8, batch=4)
    settings = CollectConfig(sites=("mlp_in", "mlp_out"), batches=4, text=text, microbatch=4)
    collect(model, settings, tmp_path / "store", source=source(model))
    store = Store(tmp_path / "store")
    config = FullConfig(tokens=90, microbatch=3, language=LanguageConfig())
    alone, _ = full(d, config, store=store)
    assert alone["figures"]["fve"] == pytest.approx(record["figures"]["fve"], rel=1e-5)
    assert alone["figures"]["l0"] == record["figures"]["l0"]
    assert "ce_clean" not in alone["figures"] and alone["model"] is None
    both, _ = full(d, config, store=store, model=model)
    assert both["figures"]["ce_replaced"] == pytest.approx(record["figures"]["ce_replaced"], rel=1e-6)
    assert both["text"]["digest"] == record["text"]["digest"]
    with pytest.raises(InputError, match="128 usable tokens, fewer than the 129 asked for"):
        full(d, FullConfig(tokens=129), store=store)
    with pytest.raises(InputError, match="activations of another model"):
        full(d, config, store=store, model=tiny_model("llama", n_layers=2, seed=1))
    with pytest.raises(InputError, match="no site 'resid_mid'"):
        full(dictionary(read_site="resid_mid"), config, store=store)


def test_what_does_not_fit_is_named(model: Model) -> None:
    wide = DictionaryConfig("plt", 2, 4, 12, read_site="mlp_in")
    with pytest.raises(InputError, match="it reads mlp_in of width 12, which in the model has 16"):
        check_fit(Dictionary(random(wide, jax.random.key(0)), wide, "wide"), model.config)
    z = tiny_model("gemma2").config  # 4 heads of 6
    narrow = DictionaryConfig("plt", 1, 4, 16, read_site="attn_z", write_site="attn_z", layers=(1,))
    with pytest.raises(InputError, match="attn_z of width 16, which in the model has 24"):
        check_fit(Dictionary(random(narrow, jax.random.key(0)), narrow), z)
    with pytest.raises(InputError, match="made for layer 2, the model has layers 0 to 1"):
        check_fit(at_layers(dictionary(), (0, 2)), model.config)
    assert check_fit(at_layers(dictionary(), (1, 0)), model.config) == (1, 0)
    with pytest.raises(InputError, match="d12 has 2 layers, not 1 as given"):
        at_layers(dictionary(), (0,))
    one = DictionaryConfig("plt", 1, 4, 16)
    with pytest.raises(InputError, match="made for layers: 1, the model has 2"):
        check_fit(Dictionary(random(one, jax.random.key(0)), one), model.config)
    with pytest.raises(InputError, match="give a model and text, or a store"):
        full(dictionary())
    other = tiny_model("llama", n_layers=2, vocab_size=41)
    with pytest.raises(InputError, match="vocabularies of 40 and 41"):
        full(
            dictionary(), FullConfig(tokens=20, language=LanguageConfig(), jacobian=0), model=model,
            source=source(model), against=(other, dictionary()),
        )  # fmt: skip


def test_models_are_compared_by_activations_only(model: Model) -> None:
    config = FullConfig(tokens=60, language=LanguageConfig(), jacobian=0, draws=2)
    other = tiny_model("llama", n_layers=2, seed=1)
    record, _ = full(
        dictionary(), config, model=model, source=source(model), against=(other, dictionary(9, 5))
    )
    found = record["against"]
    assert found["decoders_not_compared"] == "different models"
    assert all("decoders" not in entry and "splitting" not in entry for entry in found["layers"])
