"""Gemma Scope's files: laid out by hand as documented, computed by hand; and what we write comes back."""

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
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from tests.dictionaries.format_tools import cut, edit, made, same_function

D, F = 4, 7
X = np.random.default_rng(5).normal(size=(9, D)).astype(np.float32)


def numbers(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def first(seed: int = 0) -> dict[str, np.ndarray]:
    arrays = numbers(seed, W_enc=(D, F), W_dec=(F, D), b_enc=(F,), b_dec=(D,), threshold=(F,))
    return {**arrays, "threshold": abs(arrays["threshold"])}


def jump(a: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    h = x @ a["W_enc"] + a["b_enc"]
    return np.where(h > a["threshold"], np.maximum(h, 0), 0)


def put(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **arrays)
    return folder / "params.npz"


@pytest.mark.parametrize(
    ("repository", "sites", "model"),
    [
        ("gemma-scope-2b-pt-res", ("resid_post", "resid_post"), "google/gemma-2-2b"),
        ("models--google--gemma-scope-9b-it-mlp", ("mlp_out", "mlp_out"), "google/gemma-2-9b-it"),
        ("gemma-scope-27b-pt-att", ("attn_z", "attn_z"), "google/gemma-2-27b"),
        ("gemma-scope-2b-pt-transcoders", ("mlp_normalized", "mlp_out"), "google/gemma-2-2b"),
    ],
)
def test_the_first_scope(tmp_path: Path, repository: str, sites: tuple[str, str], model: str) -> None:
    a = first()
    file = put(tmp_path / repository / "layer_11" / "width_16k" / "average_l0_30", a)
    for source in (file, file.parent, tmp_path / repository):
        found = load_dictionary(source)
        config = found.config
        assert (config.read_site, config.write_site, config.layers, config.model_name) == (
            *sites,
            (11,),
            model,
        )
        acts = jump(a, X)
        np.testing.assert_allclose(found.encode(X[None])[0], acts, atol=1e-5)
        np.testing.assert_allclose(found.reconstruct(X[None])[0], acts @ a["W_dec"] + a["b_dec"], atol=1e-5)


def test_several_layers_are_one_dictionary_and_two_of_a_layer_are_not(tmp_path: Path) -> None:
    root = tmp_path / "gemma-scope-2b-pt-res"
    for layer in (2, 10):
        put(root / f"layer_{layer}" / "width_16k" / "average_l0_30", first(layer))
    found = load_dictionary(root)
    assert found.config.layers == (2, 10)
    np.testing.assert_array_equal(found.params["W_dec"][1], first(10)["W_dec"])
    put(root / "layer_10" / "width_16k" / "average_l0_90", first(1))
    with pytest.raises(InputError, match="several dictionaries of one layer"):
        load_dictionary(root)


def test_embeddings_are_scaled_as_the_first_layers_input_is(tmp_path: Path) -> None:
    a = first()
    names = {"W_enc": "w_enc", "W_dec": "w_dec"}
    stored = {names.get(k, k): v for k, v in a.items()}
    put(tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6", stored)
    found = load_dictionary(tmp_path)
    assert (found.config.read_site, found.config.layers) == ("resid_pre", (0,))
    root = D**0.5
    acts = jump(a, X / root)
    np.testing.assert_allclose(found.encode(X[None])[0], acts, atol=1e-5)
    np.testing.assert_allclose(
        found.reconstruct(X[None])[0], acts @ a["W_dec"] * root + a["b_dec"], atol=1e-5
    )


HOOKS = {
    "resid_post": ("model.layers.3.output", None, ("resid_post", "resid_post")),
    "attn_out": ("model.layers.3.self_attn.o_proj.input", None, ("attn_z", "attn_z")),
    "mlp_out": ("model.layers.3.post_feedforward_layernorm.output", None, ("mlp_out", "mlp_out")),
    "transcoder_all": (
        "model.layers.3.pre_feedforward_layernorm.output", "model.layers.3.post_feedforward_layernorm.output",
        ("mlp_in", "mlp_out"),
    ),
}  # fmt: skip


def second(seed: int, targets: int | None = None, affine: bool = False) -> dict[str, np.ndarray]:
    decoder = (F, D) if targets is None else (F, targets, D)
    a = numbers(seed, w_enc=(D, F), w_dec=decoder, b_enc=(F,), b_dec=(D,), threshold=(F,))
    a["threshold"] = abs(a["threshold"])
    return {**a, **(numbers(seed + 50, affine_skip_connection=(D, D)) if affine else {})}


def upper(a: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**a, "W_enc": a["w_enc"], "W_dec": a["w_dec"]}


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize("name", HOOKS)
def test_the_second_scope(tmp_path: Path, name: str, config: bool) -> None:
    affine = name == "transcoder_all"
    folder = tmp_path / name / f"layer_3_width_16k_l0_small{'_affine' if affine else ''}"
    folder.mkdir(parents=True)
    a = second(0, affine=affine)
    save_file(a, folder / "params.safetensors")
    read, write, sites = HOOKS[name]
    if config:
        values = {
            "architecture": "jump_relu",
            "model_name": "gemma-v3-1b",
            "hf_hook_point_in": read,
            "width": 7,
        }
        values |= {"hf_hook_point_out": write or read, **({"affine_connection": True} if affine else {})}
        (folder / "config.json").write_text(json.dumps(values))
    found = load_dictionary(folder)
    assert (found.config.read_site, found.config.write_site, found.config.layers) == (*sites, (3,))
    acts = jump(upper(a), X)
    out = acts @ a["w_dec"] + a["b_dec"] + (X @ a["affine_skip_connection"] if affine else 0)
    np.testing.assert_allclose(found.encode(X[None])[0], acts, atol=1e-5)
    np.testing.assert_allclose(found.reconstruct(X[None])[0], out, atol=1e-5)


@pytest.mark.parametrize(
    ("folder", "sites", "layers"),
    [
        ("clt/width_262k_l0_medium_affine", ("mlp_in", "mlp_out"), ()),
        ("crosscoder/layer_9_17_22_width_65k_l0_medium", ("resid_post", "resid_post"), (9, 17, 22)),
    ],
)
def test_several_layers_of_the_second_scope(
    tmp_path: Path, folder: str, sites: tuple[str, str], layers: tuple[int, ...]
) -> None:
    affine = "affine" in folder
    (tmp_path / folder).mkdir(parents=True)
    parts = [second(i, 3, affine) for i in range(3)]
    for i, a in enumerate(parts):
        save_file(a, tmp_path / folder / f"params_layer_{i}.safetensors")
    found = load_dictionary(tmp_path / folder)
    assert (found.config.kind, found.config.layers) == ("clt", layers)
    assert (found.config.read_site, found.config.write_site) == sites
    x = numbers(8, x=(3, 5, D))["x"]
    acts = [jump(upper(a), x[i]) for i, a in enumerate(parts)]
    for target in range(3):
        out = sum(acts[s] @ parts[s]["w_dec"][:, target] for s in range(target + 1)) + parts[target]["b_dec"]
        if affine:
            out = out + x[target] @ parts[target]["affine_skip_connection"]
        np.testing.assert_allclose(found.reconstruct(x)[target], out, atol=1e-5)


ROUND: dict[str, tuple[str, Dictionary]] = {
    "several layers": (
        "gemma-scope", made("plt", read_site="mlp_normalized", write_site="mlp_out", layers=3,
                            model_name="google/gemma-2-9b-it"),
    ),
    "att": ("gemma-scope", made("plt", layers=1, read_site="attn_z", write_site="attn_z")),
    "skip transcoder": ("gemma-scope-2", made("plt", layers=1, skip=True, read_site="mlp_in")),
    "clt": ("gemma-scope-2", made("clt", skip=True, read_site="mlp_in", model_name="google/gemma-3-1b-pt")),
    "wide clt": ("gemma-scope-2", made("clt", d_write=5)),
    "tied clt": ("gemma-scope-2", made("clt", tied=True, read_site="mlp_in")),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND)
def test_what_we_write_comes_back(tmp_path: Path, name: str) -> None:
    format, one = ROUND[name]
    save_dictionary(one, tmp_path / "d", format=format)
    found = load_dictionary(tmp_path / "d")
    same_function(one, found, 1e-6)
    for field in ("kind", "read_site", "write_site", "model_name", "skip", "d_write"):
        assert getattr(found.config, field) == getattr(one.config, field)
    save_dictionary(found, tmp_path / "e", format=format)
    for file in (p for p in (tmp_path / "d").rglob("*") if p.is_file()):
        assert file.read_bytes() == (tmp_path / "e" / file.relative_to(tmp_path / "d")).read_bytes()


def config(folder: Path, **fields: Any) -> None:
    values = {**json.loads((folder / "config.json").read_text()), **fields}
    (folder / "config.json").write_text(json.dumps(values))


def npz(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = next(folder.rglob("params.npz"))
        with np.load(file) as found:
            arrays = dict(found)
        change(arrays)
        np.savez(file, **arrays)

    return damage


FAULTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "folders": ("att", lambda d: next(d.iterdir()).rename(d / "x"), "expected a folder such as gemma-scope-2b-pt-res"),
    "missing": ("att", npz(lambda a: a.pop("threshold")), "'threshold' is missing"),
    "extra": ("att", npz(lambda a: a.update(scale=a["b_dec"])), "unknown tensor 'scale'"),
    "shape": ("att", npz(lambda a: a.update(b_dec=a["b_enc"])), r"b_dec has shape \(6,\), expected \(4,\)"),
    "type": ("att", npz(lambda a: a.update(b_dec=a["b_dec"].astype(int))), "b_dec is of type I64"),
    "objects": ("att", npz(lambda a: a.update(b_dec=np.array([{}] * 4))), "is not a whole npz file"),
    "cut": ("att", lambda d: cut(next(d.rglob("params.npz"))), "is not a whole npz file"),
    "garbage": ("att", lambda d: next(d.rglob("params.npz")).write_bytes(b"x" * 99), "is not a whole npz file"),
    "layer": ("clt", lambda d: (d / "params_layer_1.safetensors").unlink(), r"files for \[0, 2\], expected 0 to 2"),
    "hooks": ("clt", lambda d: config(d, hf_hook_point_in="model.norm"), "expected a layer or a part"),
    "architecture": ("clt", lambda d: config(d, architecture="topk"), "architecture is 'topk'"),
    "unlike layers": (
        "clt", lambda d: edit(d / "params_layer_1.safetensors", lambda t: t.update(w_dec=t["w_dec"][:, :2])),
        r"w_dec has shape \(6, 2, 4\), expected \(6, 3, 4\)",
    ),
    "no affine": (
        "clt", lambda d: edit(d / "params_layer_1.safetensors", lambda t: t.pop("affine_skip_connection")),
        "'affine_skip_connection' is missing",
    ),
    "no hooks": ("skip transcoder", lambda d: (d / "config.json").unlink(), "no folder above is named"),
    "cut one": ("skip transcoder", lambda d: cut(d / "params.safetensors"), "not a whole safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path: Path, fault: str) -> None:
    name, damage, message = FAULTS[fault]
    format, one = ROUND[name]
    save_dictionary(one, tmp_path / "d", format=format)
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)
