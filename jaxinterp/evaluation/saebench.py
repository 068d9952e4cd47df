"""Figures in the layout of SAEBench's "core" evaluation, one file for each layer, under its names.

What the names mean here: every figure is over all rows of the evaluation at once. ``explained_variance`` is our FVE
(SAEBench averages ``1 - ‖y - ŷ‖² / ‖y - ȳ‖²`` over tokens, with the mean of each batch); ``mse`` sums over entries and
averages over rows (SAEBench divides once more by the tokens of a batch); ``ce_loss_score`` and ``kl_div_score`` are the
shares recovered of zero ablation, that layer alone replaced; ``relative_reconstruction_bias`` is ``Σ‖ŷ‖² / Σ y·ŷ``.
A figure that is not a number is -1, as theirs. The date is 0, because the same evaluation gives the same file.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array
from jaxinterp.dictionaries.base import Dictionary, kind_of
from jaxinterp.evaluation.dictionary import Measured
from jaxinterp.evaluation.matching import BLOCK
from jaxinterp.evaluation.similarity import Cosine
from jaxinterp.models.model import Model

DIGITS = 10


def core(
    measured: Measured, model: Model, dictionary: Dictionary, own: int, *, dataset: str = ""
) -> dict[str, Any]:
    """The core evaluation of the dictionary's layer ``own``.

    Args:
      measured: with each layer alone and zero ablation.
      model: what was evaluated on.
      dictionary: what was evaluated.
      own: number of the layer within the dictionary.
      dataset: a name for the text.

    Raises:
      InputError: cross-entropies that were not measured, or features without encoder or decoder vectors.
    """
    config, rows, language = dictionary.config, measured.rows, measured.language
    layer = config.layers[own] if config.layers else own
    if (
        language is None
        or ("zero", layer) not in language.effects
        or ("replaced", layer) not in language.effects
    ):
        raise InputError(
            "SAEBench's figures need each layer alone and zero ablation, measured with the model"
        )
    replaced, zero = language.effects["replaced", layer], language.effects["zero", layer]
    group = own if kind_of(config).groups(config) == config.n_layers else 0
    features = _features(measured, dictionary, own, group)
    fit, n = rows.fit, rows.rows
    metrics = {
        "model_behavior_preservation": {
            "kl_div_score": language.kl_recovered("zero", layer),
            "kl_div_with_ablation": zero.kl,
            "kl_div_with_sae": replaced.kl,
        },
        "model_performance_preservation": {
            "ce_loss_score": language.ce_recovered("zero", layer),
            "ce_loss_with_ablation": zero.ce,
            "ce_loss_with_sae": replaced.ce,
            "ce_loss_without_sae": language.clean,
        },
        "reconstruction_quality": {
            "explained_variance": rows.fve[own],
            "mse": fit.error[own] / n,
            "cossim": rows.cosine[own],
        },
        "shrinkage": {
            "l2_norm_in": fit.norm[own] / n,
            "l2_norm_out": fit.norm_out[own] / n,
            "l2_ratio": rows.norm_ratio[own],
            "relative_reconstruction_bias": rows.bias[own],
        },
        "sparsity": {"l0": rows.l0[group], "l1": rows.l1[group]},
        "token_stats": {
            "total_tokens_eval_reconstruction": language.tokens,
            "total_tokens_eval_sparsity_variance": n,
        },
        "misc_metrics": _misc(features),
    }
    length = measured.batches[0].tokens.shape[1] if measured.batches else 0
    release, identity = dictionary.name or "dictionary", f"{config.write_site}_layer_{layer}"
    settings = {
        "model_name": model.name,
        "batch_size_prompts": len(measured.batches[0].tokens) if measured.batches else 0,
        "n_eval_reconstruction_batches": len(measured.batches),
        "n_eval_sparsity_variance_batches": len(measured.batches),
        "exclude_special_tokens_from_reconstruction": not any(
            (batch.use & (batch.positions == 0)).any() for batch in measured.batches
        ),
        "dataset": dataset,
        "context_size": length,
        "compute_kl": True,
        "compute_ce_loss": True,
        "compute_l2_norms": True,
        "compute_sparsity_metrics": True,
        "compute_variance_metrics": True,
        "compute_featurewise_density_statistics": True,
        "compute_featurewise_weight_based_metrics": True,
        "llm_dtype": str(jnp.dtype(model.params["embed"]["tokens"].dtype)),
    }
    content = {
        "eval_type_id": "core",
        "eval_config": settings,
        "datetime_epoch_millis": 0,
        "eval_result_metrics": metrics,
        "eval_result_details": features,
        "sae_bench_commit_hash": "not run by SAEBench",
        "sae_lens_id": identity,
        "sae_lens_release_id": release,
        "sae_lens_version": None,
        "sae_cfg_dict": {
            **config.to_dict(),
            "hook_layer": layer,
            "d_sae": config.n_features,
            "d_in": config.d_model,
        },
        "eval_result_unstructured": {"made_by": "jaxinterp", "digest": dictionary.digest()},
    }
    content = _plain(content)
    identifier = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return {"eval_id": identifier, **content}


def file_name(result: dict[str, Any]) -> str:
    """The name that SAEBench gives a file of results."""
    name = f"{result['sae_lens_release_id']}_{result['sae_lens_id']}"
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name) + "_eval_results.json"


def _features(measured: Measured, dictionary: Dictionary, own: int, group: int) -> list[dict[str, Any]]:
    """The figures of every feature."""
    config, kind = dictionary.config, kind_of(dictionary.config)
    if kind.maps:
        raise InputError(
            f"SAEBench's figures need decoder vectors, and features of a {config.kind} have none"
        )
    every = jnp.arange(config.n_features)
    encoders = kind.encoder_rows(dictionary.params, config, own, every)
    decoders = kind.decoder_rows(dictionary.params, config, group, own, every)
    bias = dictionary.params["b_mag" if config.activation == "gated" else "b_enc"][group]
    fired, sequences = measured.rows.fired[group], measured.rows.sequences[group]
    columns = {
        "feature_density": measured.rows.density[group],
        "consistent_activation_heuristic": np.where(sequences > 0, fired / np.maximum(sequences, 1), np.nan),
        "encoder_bias": np.asarray(bias, np.float64),
        "encoder_norm": np.linalg.norm(np.asarray(encoders, np.float64), axis=1),
        "encoder_decoder_cosine_sim": _cosines(encoders, decoders),
        "max_encoder_cosine_sim": nearest(encoders),
        "max_decoder_cosine_sim": nearest(decoders),
    }
    rounded = {name: [round(float(v), DIGITS) for v in values] for name, values in columns.items()}
    return [
        {"index": i, **{name: values[i] for name, values in rounded.items()}}
        for i in range(config.n_features)
    ]


def nearest(vectors: Array) -> np.ndarray:
    """The largest cosine of each of ``vectors [N, D]`` with another one, [N]; -1 of a single vector."""
    similarity = Cosine(vectors, vectors)
    n = len(vectors)
    found = np.full(n, -1.0)
    for start in range(0, n, BLOCK):
        values = np.array(similarity.block(start, min(start + BLOCK, n)))
        values[np.arange(len(values)), start + np.arange(len(values))] = -1.0
        found[start : start + len(values)] = values.max(axis=1)
    return found


def _cosines(a: Array, b: Array) -> np.ndarray:
    if a.shape != b.shape:
        return np.full(len(a), np.nan)
    one, two = np.asarray(a, np.float64), np.asarray(b, np.float64)
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return np.where(length > 0, (one * two).sum(axis=1) / np.where(length > 0, length, 1.0), np.nan)


def _misc(features: list[dict[str, Any]]) -> dict[str, float]:
    density = np.array([f["feature_density"] for f in features])
    total = density.sum()

    def share(above: float) -> float:
        return float(density[density > above].sum() / total) if total else 0.0

    return {
        "average_max_encoder_cosine_sim": float(np.mean([f["max_encoder_cosine_sim"] for f in features])),
        "average_max_decoder_cosine_sim": float(np.mean([f["max_decoder_cosine_sim"] for f in features])),
        "frac_alive": float((density > 0).mean()),
        "freq_over_1_percent": float((density > 0.01).mean()),
        "freq_over_10_percent": float((density > 0.1).mean()),
        "normalized_freq_over_1_percent": share(0.01),
        "normalized_freq_over_10_percent": share(0.1),
    }


def _plain(value: Any) -> Any:
    """JSON values; -1 for what is not a number."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else -1
    return int(value) if isinstance(value, np.integer) else value
