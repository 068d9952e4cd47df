"""Formats whose programs are not on the package index: files laid out by hand as documented, computed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.dictionaries.formats import torch_files
from jaxinterp.dictionaries.load import load_dictionary
from tests.dictionaries.format_tools import cut, edit

N, D, L, ROWS = 7, 4, 3, 9
Arrays = dict[str, np.ndarray]


def normal(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def same(found: Dictionary, x: np.ndarray, acts: np.ndarray, out: np.ndarray) -> None:
    assert (acts != 0).any() and (acts == 0).any()
    np.testing.assert_allclose(found.encode(x), acts, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.reconstruct(x), out, rtol=1e-5, atol=1e-5)


LINEAR = {"encoder.weight": (N, D), "encoder.bias": (N,), "decoder.weight": (D, N), "decoder.bias": (D,)}


def llama_scope(folder: Path, distill: bool = False, **fields: Any) -> Arrays:
    """A transcoder with different lengths of what is read and written."""
    a = normal(LINEAR)
    values: dict[str, Any] = {
        "d_model": D, "hook_point_in": "blocks.8.ln2.hook_normalized", "hook_point_out": "blocks.8.hook_mlp_out",
        "norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": 8.0, "out": 0.5},
        "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "sparsity_include_decoder_norm": True,
        "act_fn": "jumprelu", "top_k": 50, **fields,
    }  # fmt: skip
    folder.mkdir()
    if distill:
        a["log_jumprelu_threshold"] = normal({"t": (N,)}, 3)["t"]
        (folder / "config.json").write_text(json.dumps({"expansion_factor": 8, **values}))
        save_file(a, folder / "sae_weights.safetensors")
        return a
    (folder / "checkpoints").mkdir()
    (folder / "hyperparams.json").write_text(json.dumps({"d_sae": N, "jump_relu_threshold": 0.3, **values}))
    save_file(a, folder / "checkpoints" / "final.safetensors")
    return a


def test_llama_scope_is_what_its_program_does_in_inference(tmp_path: Path) -> None:
    a = llama_scope(tmp_path / "d")
    found, x = load_dictionary(tmp_path / "d"), inputs(ROWS, D)
    by_in, by_out = D**0.5 / 8, D**0.5 / 0.5
    # Its own order: scales into biases and decoder, decoders to length one, the encoder times their length.
    decoder = a["decoder.weight"].T * by_in / by_out
    length = np.linalg.norm(decoder, axis=1)
    h = (x @ a["encoder.weight"].T + a["encoder.bias"] / by_in) * length
    acts = np.where(h > 0.3, h, 0)
    out = acts @ (decoder / length[:, None]) + a["decoder.bias"] / by_out
    assert (acts != np.maximum(h, 0)).any()
    same(found, x[None], (acts / length * by_in)[None], out[None])
    config = found.config
    assert (config.read_site, config.write_site, config.layers) == ("mlp_normalized", "mlp_out", (8,))
    assert config.model_name == "meta-llama/Llama-3.1-8B"


def test_llama_scope_as_saelens_folds_it(tmp_path: Path) -> None:
    a = llama_scope(
        tmp_path / "d", hook_point_in="blocks.8.hook_resid_post", hook_point_out="blocks.8.hook_resid_post",
        dataset_average_activation_norm={"in": 5.0, "out": 5.0}, sparsity_include_decoder_norm=False,
    )  # fmt: skip
    scale, x = D**0.5 / 5, inputs(ROWS, D)
    h = x * scale @ a["encoder.weight"].T + a["encoder.bias"]
    acts = np.where(h > 0.3 * scale, h, 0)
    out = (acts @ a["decoder.weight"].T + a["decoder.bias"]) / scale
    same(load_dictionary(tmp_path / "d"), x[None], acts[None], out[None])


@pytest.mark.parametrize(("threshold", "activation"), [(0.3, "jumprelu"), (0.0, "topk")])
def test_llama_scopes_top_k_becomes_jumprelu_with_a_threshold(
    tmp_path: Path, threshold: float, activation: str
) -> None:
    llama_scope(tmp_path / "d", act_fn="topk", top_k=2, jump_relu_threshold=threshold)
    config = load_dictionary(tmp_path / "d").config
    assert (config.activation, config.k, config.ranked) == (
        activation,
        2 * (activation == "topk"),
        activation == "topk",
    )


def test_r1_distill_has_a_threshold_a_feature(tmp_path: Path) -> None:
    place = {f"blocks.8.{name}": 6.0 for name in ("ln2.hook_normalized", "hook_mlp_out")}
    a = llama_scope(
        tmp_path / "d", True, dataset_average_activation_norm=place, sparsity_include_decoder_norm=False
    )
    scale, x = D**0.5 / 6, inputs(ROWS, D)
    h = x * scale @ a["encoder.weight"].T + a["encoder.bias"]
    acts = np.where(h > np.exp(a["log_jumprelu_threshold"]), h, 0)
    out = (acts @ a["decoder.weight"].T + a["decoder.bias"]) / scale
    same(load_dictionary(tmp_path / "d"), x[None], acts[None], out[None])


CLT_TRAINING: dict[str, Any] = {
    "activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": N, "k": 2,
    "multi_topk": False, "skip_connection": True, "transcode": True, "n_sources": 0, "normalize_io": True,
    "divide_cross_layer": True, "train_post_encoder": True, "post_encoder_scale": True, "per_source_tied": False,
    "coalesce_topk": "none", "topk_coalesced": False, "dtype": "none", "tp_output": True, "d_in": D,
}  # fmt: skip


def clt_training(root: Path, reach: tuple[int, ...] = (3, 1, 1), **fields: Any) -> list[Arrays]:
    """A folder a layer, with everything that can be folded; layer 1 writes itself only."""
    found = []
    for layer, targets in enumerate(reach):
        tied = fields.get("per_source_tied", False)
        shapes: dict[str, tuple[int, ...]] = {"encoder.weight": (N, D), "encoder.bias": (N,)}
        for j in range(targets):
            shapes |= {f"b_decs.{j}": (D,), f"post_enc_scales.{j}": (N,)}
            if not tied:
                shapes[f"W_decs.{j}"] = (N, D)
        shapes |= {"W_skips.0": (D, D), "in_norm": (1,), "out_norm": (1,)} | (
            {"W_dec": (N, D)} if tied else {}
        )
        a = normal(shapes, layer)
        a |= {name: abs(a[name]) + 1 for name in ("in_norm", "out_norm")}
        for j in range(targets):
            a[f"post_encs.{j}"] = np.zeros(N, np.float32)
            if j:
                a[f"W_skips.{j}"] = np.zeros((D, D), np.float32)
        # torch lists the first of each under two names.
        a |= {"b_dec": a["b_decs.0"], "W_skip": a["W_skips.0"]} | ({} if tied else {"W_dec": a["W_decs.0"]})
        inner = root / f"layers.{layer}.mlp"
        inner.mkdir(parents=True)
        save_file({name: value.copy() for name, value in a.items()}, inner / "sae.safetensors")
        (inner / "cfg.json").write_text(json.dumps({**CLT_TRAINING, "n_targets": targets, **fields}))
        found.append(a)
    return found


@pytest.mark.parametrize("tied", [False, True])
def test_clt_training(tmp_path: Path, tied: bool) -> None:
    reach = (3, 1, 1)
    layers = clt_training(tmp_path / "d", reach, per_source_tied=tied)
    (tmp_path / "d" / "config.json").write_text('{"model": "gpt2"}')
    x = inputs(L, ROWS, D)
    acts, out = np.zeros((L, ROWS, N), np.float32), np.zeros((L, ROWS, D), np.float32)
    for t, own in enumerate(layers):
        h = np.maximum(x[t] * (D**0.5 / own["in_norm"]) @ own["encoder.weight"].T + own["encoder.bias"], 0)
        acts[t] = np.where(h >= np.sort(h, axis=1)[:, -2:-1], h, 0)
        sources = [s for s in range(t + 1) if t - s < reach[s]]
        for s in sources:
            a, j = layers[s], t - s
            decoder = a["W_dec"] if tied else a[f"W_decs.{j}"]
            part = acts[s] * a[f"post_enc_scales.{j}"] @ decoder + a[f"b_decs.{j}"]
            if s == t:
                out[t] += part + x[t] * (D**0.5 / own["in_norm"]) @ own["W_skips.0"].T
            else:
                out[t] += part / max(1, len(sources) - 1)
        out[t] *= own["out_norm"] / D**0.5
    found = load_dictionary(tmp_path / "d")
    same(found, x, acts, out)
    config = found.config
    assert (config.kind, config.read_site, config.write_site) == ("clt", "mlp_in", "mlp_out_raw")
    assert config.model_name == "gpt2"


def test_clt_training_of_one_layer(tmp_path: Path) -> None:
    shapes = {
        "encoder.weight": (N, D),
        "encoder.bias": (N,),
        "W_dec": (N, D),
        "b_dec": (D,),
        "post_enc": (N,),
    }
    a = normal(shapes)
    a["post_enc"] *= 0
    place = tmp_path / "layers.0.mlp"
    place.mkdir()
    save_file(a, place / "sae.safetensors")
    fields = {"normalize_io": False, "post_encoder_scale": False, "skip_connection": False, "n_targets": 0}
    (place / "cfg.json").write_text(json.dumps({**CLT_TRAINING, **fields}))
    x = inputs(ROWS, D)
    h = np.maximum(x @ a["encoder.weight"].T + a["encoder.bias"], 0)
    acts = np.where(h >= np.sort(h, axis=1)[:, -2:-1], h, 0)
    found = load_dictionary(place)
    assert found.config.kind == "plt"
    same(found, x[None], acts[None], (acts @ a["W_dec"] + a["b_dec"])[None])


def crosslayer(folder: Path, tying: str = "none", torch: bool = False, **fields: Any) -> tuple[Arrays, Any]:
    keys = {"none": [f"{s}->{t}" for s in range(L) for t in range(s, L)]}.get(
        tying, [str(i) for i in range(L)]
    )
    shapes: dict[str, tuple[int, ...]] = {"theta_manager.log_threshold": (L, N)}
    for i in range(L):
        shapes |= {
            f"encoder_module.encoders.{i}.weight": (N, D),
            f"encoder_module.encoders.{i}.bias_param": (N,),
        }
    for key in keys:
        shapes |= {
            f"decoder_module.decoders.{key}.weight": (D, N),
            f"decoder_module.decoders.{key}.bias_param": (D,),
        }
    if tying != "none":
        shapes |= {f"decoder_module.feature_scale.{t}": (N,) for t in range(L)}
    a = normal(shapes)
    a["theta_manager.log_threshold"] -= 1
    for t in range(L if tying != "none" else 0):
        a[f"decoder_module.feature_offset.{t}"] = np.zeros(N, np.float32)
    rng = np.random.default_rng(8)
    stats = {
        str(i): {
            side: {"mean": rng.normal(size=D).tolist(), "std": (abs(rng.normal(size=D)) + 0.5).tolist()}
            for side in ("inputs", "targets")
        }
        for i in range(L)
    }
    folder.mkdir()
    values = {
        "num_features": N, "num_layers": L, "d_model": D, "model_name": "gpt2", "normalization_method": "mean_std",
        "activation_fn": "jumprelu", "decoder_tying": tying, "skip_connection": False,
        "tl_input_template": "blocks.{}.hook_resid_mid", "tl_output_template": "blocks.{}.hook_mlp_out", **fields,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(values))
    (folder / "norm_stats.json").write_text(json.dumps(stats))
    if torch:
        torch_files.write(folder / "clt_checkpoint_latest.pt", a)
    else:
        save_file(a, folder / "clt_checkpoint_100.safetensors")
    return a, stats


@pytest.mark.parametrize(
    ("tying", "torch"), [("none", False), ("none", True), ("per_source", False), ("per_target", False)]
)
def test_crosslayer_coding(tmp_path: Path, tying: str, torch: bool) -> None:
    a, stats = crosslayer(tmp_path / "d", tying, torch)
    x = inputs(L, ROWS, D)
    acts, out = np.zeros((L, ROWS, N)), np.zeros((L, ROWS, D))
    for t in range(L):
        mean, std = (np.array(stats[str(t)]["inputs"][k]) for k in ("mean", "std"))
        name = f"encoder_module.encoders.{t}"
        h = (x[t] - mean) / std @ a[f"{name}.weight"].T + a[f"{name}.bias_param"]
        acts[t] = np.where(h >= np.exp(a["theta_manager.log_threshold"][t]), h, 0)
        for s in range(t + 1):
            key = {"none": f"{s}->{t}", "per_source": str(s), "per_target": str(t)}[tying]
            scale = a.get(f"decoder_module.feature_scale.{t}", np.ones(N))
            out[t] += acts[s] * scale @ a[f"decoder_module.decoders.{key}.weight"].T
            if tying != "per_target" or s == t:
                out[t] += a[f"decoder_module.decoders.{key}.bias_param"]
        mean, std = (np.array(stats[str(t)]["targets"][k]) for k in ("mean", "std"))
        out[t] = out[t] * std + mean
    found = load_dictionary(tmp_path / "d")
    same(found, x, acts, out)
    assert (found.config.read_site, found.config.write_site) == ("resid_mid", "mlp_out")


def test_a_feature_is_active_from_the_threshold_on(tmp_path: Path) -> None:
    a, _ = crosslayer(tmp_path / "d", normalization_method="none")
    a["theta_manager.log_threshold"][:] = 0
    for i in range(L):
        a[f"encoder_module.encoders.{i}.weight"][:] = 0
        a[f"encoder_module.encoders.{i}.bias_param"][:] = [
            1,
            np.nextafter(np.float32(1), np.float32(0)),
            *[2] * (N - 2),
        ]
    save_file(a, tmp_path / "d" / "clt_checkpoint_latest.safetensors")
    acts = np.asarray(load_dictionary(tmp_path / "d").encode(inputs(L, 1, D)))
    assert (acts[:, 0, 0] == 1).all() and (acts[:, 0, 1] == 0).all() and (acts[:, 0, 2] == 2).all()


@pytest.mark.parametrize(
    ("file", "stem", "model"),
    [
        ("Llama-3.1-8B-Instruct-SAE-l19.pth", "encoder_linear", "meta-llama/Llama-3.1-8B-Instruct"),
        ("DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", "encoder", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    ],
)
def test_goodfires_layout(tmp_path: Path, file: str, stem: str, model: str) -> None:
    a, x = normal(LINEAR), inputs(ROWS, D)
    names = {name: name.replace("coder.", f"coder{stem.removeprefix('encoder')}.") for name in a}
    torch_files.write(tmp_path / file, {names[name]: value for name, value in a.items()})
    acts = np.maximum(x @ a["encoder.weight"].T + a["encoder.bias"], 0)
    found = load_dictionary(tmp_path / file)
    same(found, x[None], acts[None], (acts @ a["decoder.weight"].T + a["decoder.bias"])[None])
    assert (found.config.layers, found.config.model_name, found.config.read_site) == (
        (19,),
        model,
        "resid_post",
    )


def test_a_crosscoder_of_two_models(tmp_path: Path) -> None:
    a = normal({"W_enc": (2, D, N), "W_dec": (N, 2, D), "b_enc": (N,), "b_dec": (2, D)})
    torch_files.write(tmp_path / "0.pt", a)
    (tmp_path / "0_cfg.json").write_text(
        json.dumps({"hook_point": "blocks.14.hook_resid_pre", "dict_size": N})
    )
    x = inputs(2, ROWS, D)
    acts = np.maximum(np.einsum("mrd,mdn->rn", x, a["W_enc"]) + a["b_enc"], 0)
    out = np.einsum("rn,nmd->mrd", acts, a["W_dec"]) + a["b_dec"][:, None]
    same(load_dictionary(tmp_path / "0.pt"), x, acts[None], out)


def test_openais_top_k_normalises_each_row(tmp_path: Path) -> None:
    a = normal({"encoder.weight": (N, D), "decoder.weight": (D, N), "pre_bias": (D,), "latent_bias": (N,)})
    place = tmp_path / "resid_post_mlp_v5_32k" / "autoencoders"
    place.mkdir(parents=True)
    state = {"activation": "TopK", "activation_state_dict": {"k": 2, "postact_fn": "ReLU"}}
    torch_files.write(place / "8.pt", {**a, "stats_last_nonzero": np.zeros(N, np.int64), **state})
    x = 3 * inputs(ROWS, D) + 1
    mean, std = x.mean(axis=1, keepdims=True), x.std(axis=1, ddof=1, keepdims=True)
    h = ((x - mean) / (std + 1e-5) - a["pre_bias"]) @ a["encoder.weight"].T + a["latent_bias"]
    acts = np.where(h >= np.sort(h, axis=1)[:, -2:-1], np.maximum(h, 0), 0)
    out = (acts @ a["decoder.weight"].T + a["pre_bias"]) * std + mean
    for source in (place / "8.pt", tmp_path):
        found = load_dictionary(source)
        same(found, x[None], acts[None], out[None])
        assert (found.config.normalise_rows, found.config.centre, found.config.layers) == (
            "layer_norm",
            True,
            (8,),
        )


def config(file: str, **fields: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        place = folder / file
        place.write_text(json.dumps({**json.loads(place.read_text()), **fields}))

    return change


FINAL, SAE, CHECKPOINT = (
    "checkpoints/final.safetensors",
    "layers.0.mlp/sae.safetensors",
    "clt_checkpoint_100.safetensors",
)
CFG = "layers.0.mlp/cfg.json"
MAKE: dict[str, Callable[[Path], Any]] = {"llama": llama_scope, "eleuther": clt_training, "xlc": crosslayer}
FAULTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "llama activation": ("llama", config("hyperparams.json", act_fn="softplus"), "act_fn is 'softplus'"),
    "llama rows": (
        "llama", config("hyperparams.json", norm_activation="token-wise"), "norm_activation is 'token-wise'",
    ),
    "llama average": (
        "llama", config("hyperparams.json", dataset_average_activation_norm={"in": 0.0}), "expected a positive number"
    ),
    "llama layers": ("llama", config("hyperparams.json", hook_point_out="blocks.9.hook_mlp_out"), "writes layer 9"),
    "llama width": ("llama", config("hyperparams.json", d_model=5), "d_model is 5, the tensors have 4"),
    "llama glu": ("llama", config("hyperparams.json", use_glu_encoder=True), "use_glu_encoder is true"),
    "llama extra": ("llama", lambda d: edit(d / FINAL, lambda t: t.update(x=t["encoder.bias"])), "unknown tensor 'x'"),
    "llama cut": ("llama", lambda d: cut(d / FINAL), "not a whole safetensors"),
    "eleuther coalesced": ("eleuther", config(CFG, coalesce_topk="concat"), "coalesce_topk is 'concat'"),
    "eleuther batch": ("eleuther", config(CFG, activation="batchtopk"), "activation is 'batchtopk'"),
    "eleuther bias": (
        "eleuther", lambda d: edit(d / SAE, lambda t: t["post_encs.1"].__setitem__(0, 1)),
        "post_encs.1 adds to activations",
    ),
    "eleuther skip": (
        "eleuther", lambda d: edit(d / SAE, lambda t: t["W_skips.1"].__setitem__(0, 1)), "a skip into another layer"
    ),
    "eleuther reach": ("eleuther", config(CFG.replace("0", "2"), n_targets=2), "writes to 2 layers, but 1"),
    "eleuther k": ("eleuther", config(CFG, k=3), "layers.2.mlp and layers.0.mlp differ|layers.1.mlp and layers.0"),
    "eleuther extra": ("eleuther", lambda d: edit(d / SAE, lambda t: t.update(x=t["b_dec"])), "unknown tensor 'x'"),
    "eleuther missing": (
        "eleuther", lambda d: edit(d / SAE, lambda t: t.pop("encoder.bias")), "'encoder.bias' is missing",
    ),
    "xlc top-k": ("xlc", config("cfg.json", activation_fn="batchtopk"), "features of several layers or tokens compete"),
    "xlc tying": ("xlc", config("cfg.json", decoder_tying="all"), "decoder_tying is 'all'"),
    "xlc stats": ("xlc", lambda d: (d / "norm_stats.json").unlink(), "mean_std with norm_stats.json beside it"),
    "xlc short stats": ("xlc", config("cfg.json", d_model=5), "mean is not a list of 5|expected"),
    "xlc offset": (
        "xlc",
        lambda d: edit(d / CHECKPOINT, lambda t: t.update({"decoder_module.feature_offset.0": np.ones(N, np.float32)})),
        "feature_offset.0 adds to activations",
    ),
    "xlc shape": ("xlc", config("cfg.json", num_features=8), "expected"),
    "xlc extra": ("xlc", lambda d: edit(d / CHECKPOINT, lambda t: t.update(x=np.ones(1))), "unknown tensor 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path: Path, fault: str) -> None:
    which, damage, message = FAULTS[fault]
    MAKE[which](tmp_path / "d")
    load_dictionary(tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [{"k": 0, "postact_fn": "ReLU"}, {"k": 2, "postact_fn": "Identity"}, {}])
def test_openais_top_k_must_say_k(tmp_path: Path, state: dict[str, Any]) -> None:
    a = normal({"encoder.weight": (N, D), "decoder.weight": (D, N), "pre_bias": (D,), "latent_bias": (N,)})
    torch_files.write(tmp_path / "8.pt", {**a, "activation": "TopK", "activation_state_dict": state})
    with pytest.raises(InputError, match="activation_state_dict is"):
        load_dictionary(tmp_path / "8.pt")
