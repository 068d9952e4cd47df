"""SAELens' and sparsify's files: what they wrote computes here what it computes there, and what we write comes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries.base import Dictionary
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from tests.dictionaries.format_tools import cut, edit, made, same_function

DATA = Path(__file__).parent / "data"
SAELENS = sorted(p.name for p in (DATA / "saelens").iterdir())
SPARSIFY = sorted(p.name for p in (DATA / "sparsify").iterdir())


def check(found: Dictionary, layer: int, answers: Path) -> None:
    """Activations and outputs of one layer are the peer's."""
    with np.load(answers) as file:
        x, acts, out = file["x"], file["acts"], file["out"]
    wide = np.broadcast_to(x, (found.config.n_layers, *x.shape))
    assert (acts != 0).any() and (acts == 0).any()
    np.testing.assert_allclose(found.encode(wide)[layer], acts, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.reconstruct(wide)[layer], out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SAELENS)
def test_saelens_own_files(name: str) -> None:
    found = load_dictionary(DATA / "saelens" / name)
    check(found, 0, DATA / "saelens" / name / "answers.npz")
    transcoder = "transcoder" in name
    expected = ("mlp_normalized", "mlp_out", (2,)) if transcoder else ("resid_post", "resid_post", (5,))
    assert (found.config.read_site, found.config.write_site, found.config.layers) == expected
    assert found.config.model_name == "gpt2-small"
    assert found.config.centre == (not transcoder and name != "standard_uncentred")


@pytest.mark.parametrize("name", SPARSIFY)
def test_sparsifys_own_files(name: str) -> None:
    found = load_dictionary(DATA / "sparsify" / name)
    assert found.config.layers == {"sae": (0, 3), "groupmax": (1,), "skip": (2,)}.get(name, (0, 1))
    for index, answers in enumerate(sorted((DATA / "sparsify" / name).glob("*/answers.npz"))):
        check(found, index, answers)
        check(load_dictionary(answers.parent), 0, answers)


@pytest.mark.parametrize("name", [n for n in SAELENS if "checkpoint" not in n and "rescaled" not in n])
def test_saelens_files_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    source = DATA / "saelens" / name
    save_dictionary(load_dictionary(source), tmp_path / "d", format="saelens")
    theirs, ours = (load_file(folder / "sae_weights.safetensors") for folder in (source, tmp_path / "d"))
    assert theirs.keys() == ours.keys()
    tolerance = 1e-6 if name == "topk_inference" else 0.0  # lengths of one, folded in once more
    for key in theirs:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=tolerance)
    values = [json.loads((folder / "cfg.json").read_text()) for folder in (source, tmp_path / "d")]
    for key in values[1].keys() - {"metadata", "rescale_acts_by_decoder_norm"}:
        assert values[0][key] == values[1][key]
    for key, value in values[1]["metadata"].items():
        assert values[0]["metadata"][key] == value


@pytest.mark.parametrize("name", ["sae", "groupmax", "transcoder", "skip_transcoder"])
def test_sparsifys_files_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    source = DATA / "sparsify" / name
    save_dictionary(load_dictionary(source), tmp_path / "d", format="sparsify")
    files = sorted(source.glob("*/sae.safetensors"))
    for theirs, ours in zip(files, sorted((tmp_path / "d").glob("*/sae.safetensors")), strict=True):
        one, two = load_file(theirs), load_file(ours)
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


SAE: dict[str, Any] = {"read_site": "resid_post", "write_site": "resid_post"}
ROUND: dict[str, tuple[str, Dictionary]] = {
    "ranked topk": ("saelens", made("plt", "topk", layers=1, ranked=True, centre=True, **SAE)),
    "uncentred gated": ("saelens", made("plt", "gated", layers=1, **SAE)),
    "jumprelu": ("saelens", made("plt", "jumprelu", layers=1, centre=True, scan="a/b", **SAE)),
    "skip transcoder": ("saelens", made("plt", "jumprelu", layers=1, skip=True, d_write=5)),
    "sparsify uncentred": ("sparsify", made("plt", "topk", **SAE)),
    "sparsify ranked": ("sparsify", made("plt", "groupmax", ranked=True, skip=True, centre=False, **SAE)),
    "sparsify transcoder": ("sparsify", made("plt", "topk", read_site="mlp_in", write_site="mlp_out_raw")),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND)
def test_what_we_write_does_the_same_when_read(tmp_path: Path, name: str) -> None:
    format, one = ROUND[name]
    save_dictionary(one, tmp_path / "d", format=format)
    found = load_dictionary(tmp_path / "d")
    same_function(one, found, activations=not one.config.ranked)
    assert (found.config.read_site, found.config.scan) == (one.config.read_site, one.config.scan)


def test_a_feature_without_a_decoder_never_wins_a_ranking(tmp_path: Path) -> None:
    one = made("plt", "topk", layers=1, ranked=True, **SAE)
    one.params["W_dec"] = one.params["W_dec"].at[0, 2].set(0.0)
    save_dictionary(one, tmp_path / "d", format="saelens")
    same_function(one, load_dictionary(tmp_path / "d"), activations=False)


@pytest.mark.parametrize(
    ("format", "one", "message"),
    [
        ("saelens", made("crosscoder"), "it holds one layer"),
        ("saelens", made("clt", layers=1), "it holds one layer"),
        ("saelens", made("plt", "topk", layers=1), "no activation 'topk' for transcoders"),
        ("saelens", made("plt", "groupmax", layers=1, **SAE), "no activation 'groupmax'"),
        (
            "saelens",
            made("plt", layers=1, write_site="attn_out_raw"),
            "nothing for write_site = attn_out_raw",
        ),
        ("sparsify", made("plt", "jumprelu"), "no activation 'jumprelu'"),
        ("sparsify", made("plt", "topk"), "no hookpoint that reads resid_mid and writes mlp_out"),
        ("sparsify", made("crosscoder", "topk"), "no kind 'crosscoder'"),
    ],
)
def test_what_they_cannot_say_is_named(tmp_path: Path, format: str, one: Dictionary, message: str) -> None:
    with pytest.raises(InputError, match=message):
        save_dictionary(one, tmp_path / "d", format=format)


def old(folder: Path, **fields: Any) -> None:
    """A config as SAELens wrote it before version 6."""
    values = {
        "hook_point": "blocks.7.hook_resid_pre", "hook_point_layer": 7, "hook_point_head_index": None, "d_in": 6,
        "d_sae": 10, "activation_fn_str": "relu", "normalize_activations": False, "model_name": "gpt2-small",
        "l1_coefficient": 8e-5, "use_ghost_grads": True, "dtype": "torch.float32", **fields,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(values))


def test_configs_before_version_six(tmp_path: Path) -> None:
    shutil.copytree(DATA / "saelens" / "standard", tmp_path / "d")
    old(tmp_path / "d")
    found = load_dictionary(tmp_path / "d")
    assert (found.config.read_site, found.config.layers, found.config.centre) == ("resid_pre", (7,), True)
    check(found, 0, tmp_path / "d" / "answers.npz")
    scale = np.arange(10, dtype=np.float32) / 4
    edit(tmp_path / "d" / "sae_weights.safetensors", lambda t: t.update(scaling_factor=scale))
    scaled = load_dictionary(tmp_path / "d")
    np.testing.assert_array_equal(scaled.params["W_dec"], found.params["W_dec"] * scale[None, :, None])


def test_top_k_before_version_six(tmp_path: Path) -> None:
    shutil.copytree(DATA / "saelens" / "topk", tmp_path / "d")
    old(tmp_path / "d", activation_fn_str="topk", activation_fn_kwargs={"k": 3}, hook_name="x")
    old(tmp_path / "d", activation_fn_str="topk", activation_fn_kwargs={"k": 3})
    check(load_dictionary(tmp_path / "d"), 0, tmp_path / "d" / "answers.npz")


def test_a_factor_beside_a_checkpoint_is_folded(tmp_path: Path) -> None:
    shutil.copytree(DATA / "saelens" / "standard", tmp_path / "d")
    plain = load_dictionary(tmp_path / "d")
    change(tmp_path / "d", normalize_activations="expected_average_only_in")
    with pytest.raises(InputError, match=r"no activation_scaler\.json"):
        load_dictionary(tmp_path / "d")
    (tmp_path / "d" / "activation_scaler.json").write_text('{"scaling_factor": 2.5}')
    found = load_dictionary(tmp_path / "d")
    x = np.random.default_rng(3).normal(size=(1, 5, 6)).astype(np.float32)
    np.testing.assert_allclose(found.encode(x), plain.encode(x * np.float32(2.5)), atol=1e-5)
    np.testing.assert_allclose(found.reconstruct(x), plain.reconstruct(x * np.float32(2.5)) / 2.5, atol=1e-5)


def test_a_log_threshold_and_a_negative_one(tmp_path: Path) -> None:
    shutil.copytree(DATA / "saelens" / "jumprelu", tmp_path / "d")
    weights = tmp_path / "d" / "sae_weights.safetensors"
    edit(weights, lambda t: t.update(log_threshold=np.log(t.pop("threshold"))))
    check(load_dictionary(tmp_path / "d"), 0, tmp_path / "d" / "answers.npz")
    edit(weights, lambda t: t.update(threshold=-np.exp(t.pop("log_threshold"))))
    assert (load_dictionary(tmp_path / "d").params["threshold"] == 0).all()


def change(folder: Path, **fields: Any) -> None:
    values = {**json.loads((folder / "cfg.json").read_text()), **fields}
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in values.items() if v != "leave out"}))


def weights(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda d: edit(next(d.rglob("sa*.safetensors")), change)


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "architecture": ("saelens/standard", lambda d: change(d, architecture="temporal"), "architecture is 'temporal'"),
    "no architecture": ("saelens/topk", lambda d: change(d, architecture="leave out"), "'architecture' is missing"),
    "unknown field": ("saelens/topk", lambda d: change(d, kk=3), "unknown field 'kk'"),
    "no k": ("saelens/topk", lambda d: change(d, k="leave out"), "'k' is missing"),
    "k not whole": ("saelens/topk", lambda d: change(d, k=2.5), "k is 2.5, expected a whole number"),
    "whitening": (
        "saelens/topk", lambda d: change(d, normalize_activations="covariance_whitening"), "no weights can hold",
    ),
    "no hook": ("saelens/topk", lambda d: change(d, metadata={}), "metadata.hook_name is None"),
    "other hook": (
        "saelens/topk", lambda d: change(d, metadata={"hook_name": "blocks.1.mlp.hook_post"}), "expected a hook of a",
    ),
    "head": (
        "saelens/topk", lambda d: change(d, metadata={"hook_name": "blocks.1.attn.hook_q", "hook_head_index": 1}),
        "of a single head",
    ),
    "width": ("saelens/gated", lambda d: change(d, d_in=7), r"W_enc has shape \(6, 10\), expected \(7, 10\)"),
    "missing": ("saelens/gated", weights(lambda t: t.pop("r_mag")), "'r_mag' is missing"),
    "extra": ("saelens/standard", weights(lambda t: t.update(W_skp=t["b_dec"])), "unknown tensor 'W_skp'"),
    "integer": (
        "saelens/standard", weights(lambda t: t.update(b_dec=t["b_dec"].astype(np.int64))), "b_dec is of type I64",
    ),
    "cut": ("saelens/jumprelu", lambda d: cut(d / "sae_weights.safetensors"), "not a whole safetensors"),
    "not JSON": ("saelens/topk", lambda d: (d / "cfg.json").write_text("{"), "cfg.json is not JSON"),
    "a list": ("saelens/topk", lambda d: (d / "cfg.json").write_text("[]"), "expected fields, found list"),
    "signed": ("sparsify/skip", lambda d: change(d / "layers.2", signed=True), "signed is true"),
    "sparsify field": ("sparsify/skip", lambda d: change(d / "layers.2", kk=1), "unknown field 'kk'"),
    "sparsify extra": (
        "sparsify/skip", lambda d: change(d / "layers.2", skip_connection=False), "unknown tensor 'W_skip'",
    ),
    "hookpoint": ("sparsify/skip", lambda d: (d / "layers.2").rename(d / "lm_head"), "the hookpoint .* is 'lm_head'"),
    "unlike": ("sparsify/sae", lambda d: change(d / "layers.3", k=2), r"layers 0 and 3 differ in k \(3, 2\)"),
    "sparsify shape": (
        "sparsify/sae", lambda d: change(d / "layers.3", num_latents=11),
        r"encoder.weight has shape \(10, 6\), expected \(11, 6\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path: Path, fault: str) -> None:
    source, damage, message = FAULTS[fault]
    shutil.copytree(DATA / source, tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)
