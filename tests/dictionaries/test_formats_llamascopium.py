"""Llamascopium's files, laid out by hand as documented, and what we write in its format."""

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

F, D = 7, 4
WEIGHTS = "sae_weights.safetensors"
THRESHOLD = "activation_function.log_jumprelu_threshold"


def put(folder: Path, **fields: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"W_E": (D, F), "b_E": (F,), "W_D": (F, D), "b_D": (D,)}
    a = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    values = {
        "sae_type": "sae", "d_model": D, "expansion_factor": F / D, "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True, "hook_point_in": "blocks.3.hook_resid_mid",
        "hook_point_out": "blocks.3.hook_mlp_out", "apply_decoder_bias_to_pre_encoder": True, **fields,
    }  # fmt: skip
    if values["act_fn"] == "jumprelu":
        a[THRESHOLD] = rng.normal(size=F).astype(np.float32)
    a |= {
        f"dataset_average_activation_norm.{values[f'hook_point_{s}']}": np.float32(v)
        for s, v in (("in", 5), ("out", 3))
    }
    folder.mkdir()
    save_file({name: np.asarray(value) for name, value in a.items()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(values))
    return a


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_a_scaled_transcoder(tmp_path: Path, activation: str) -> None:
    a = put(tmp_path / "d", act_fn=activation, top_k=2)
    found = load_dictionary(tmp_path / "d")
    x = np.random.default_rng(1).normal(size=(9, D)).astype(np.float32)
    length = np.linalg.norm(a["W_D"], axis=1)
    h = ((x * 2 / 5 - a["b_D"]) @ a["W_E"] + a["b_E"]) * length
    if activation == "topk":
        acts = np.where(h >= np.sort(h, axis=1)[:, -2:-1], np.maximum(h, 0), 0)
    else:
        acts = np.where(h > (np.exp(a[THRESHOLD]) if activation == "jumprelu" else 0), h, 0)
    acts = acts / length
    np.testing.assert_allclose(found.encode(x[None])[0], acts, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        found.reconstruct(x[None])[0], (acts @ a["W_D"] + a["b_D"]) * 3 / 2, rtol=1e-5, atol=1e-5
    )
    assert (found.config.read_site, found.config.write_site, found.config.layers) == (
        "resid_mid",
        "mlp_out",
        (3,),
    )


ROUND: dict[str, Dictionary] = {
    "ranked": made("plt", "topk", layers=1, ranked=True, read_site="resid_post", write_site="resid_post"),
    "jumprelu": made("plt", layers=1),
    "clt": made("clt"),
    "tied": made("clt", "relu", tied=True),
}


@pytest.mark.parametrize("name", ROUND)
def test_what_we_write_comes_back(tmp_path: Path, name: str) -> None:
    save_dictionary(ROUND[name], tmp_path / "d", format="llamascopium")
    same_function(ROUND[name], load_dictionary(tmp_path / "d"), 1e-5)


def config(folder: Path, **fields: Any) -> None:
    values = {**json.loads((folder / "config.json").read_text()), **fields}
    (folder / "config.json").write_text(json.dumps(values))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "type": (lambda d: config(d, sae_type="mixcoder"), "sae_type is 'mixcoder'"),
    "activation": (lambda d: config(d, act_fn="softplus"), "act_fn is 'softplus'"),
    "rows": (lambda d: config(d, norm_activation="token-wise"), "norm_activation is 'token-wise'"),
    "glu": (lambda d: config(d, use_glu_encoder=True), "use_glu_encoder is true"),
    "hook": (lambda d: config(d, hook_point_in="x"), "a hook point is 'x'"),
    "layers": (lambda d: config(d, hook_point_out="blocks.4.hook_mlp_out"), "different layers"),
    "average": (
        lambda d: edit(
            d / WEIGHTS, lambda t: t.pop("dataset_average_activation_norm.blocks.3.hook_resid_mid")
        ),
        "hook_resid_mid' is missing",
    ),
    "shape": (
        lambda d: edit(d / WEIGHTS, lambda t: t.update(b_E=t["b_D"])),
        r"b_E has shape \(4,\), expected \(7,\)",
    ),
    "extra": (lambda d: edit(d / WEIGHTS, lambda t: t.update(b_X=t["b_D"])), "unknown tensor 'b_X'"),
    "cut": (lambda d: cut(d / WEIGHTS), "not a whole safetensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    put(tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)
