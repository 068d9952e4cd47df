"""Llamascopium's files of mixtures of linear transforms, laid out by hand as its program writes them, and ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import initialise
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary

D, RANKS = 4, {"3": 2, "1": 4, "10": 1}
N = sum(RANKS.values())
WEIGHTS, THRESHOLD = "sae_weights.safetensors", "activation_function.log_jumprelu_threshold"
HOOKS = ("blocks.3.hook_resid_mid", "blocks.3.hook_mlp_out")


def put(folder: Path, **fields: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    values = {
        "sae_type": "molt", "d_model": D, "expansion_factor": N / D, "act_fn": "jumprelu", "top_k": 2,
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "use_decoder_bias": True,
        "hook_point_in": HOOKS[0], "hook_point_out": HOOKS[1], "rank_counts": RANKS, "dtype": "torch.float32", **fields,
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"W_E": (D, N), "b_E": (N,), "b_D": (D,)}
    for rank, count in RANKS.items():
        shapes |= {f"U_matrices.{rank}": (count, D, int(rank)), f"V_matrices.{rank}": (count, int(rank), D)}
    if values["act_fn"] == "jumprelu":
        shapes[THRESHOLD] = (N,)
    a = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    a |= {f"dataset_average_activation_norm.{h}": np.float32(v) for h, v in zip(HOOKS, (5, 3), strict=True)}
    folder.mkdir()
    save_file({name: np.asarray(value) for name, value in a.items()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(values))
    return a


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_a_scaled_molt(tmp_path: Path, activation: str) -> None:
    a = put(tmp_path / "d", act_fn=activation)
    found = load_dictionary(tmp_path / "d")
    assert found.config.ranks == ((1, 4), (3, 2), (10, 1)) and found.config.layers == (3,)
    x = np.random.default_rng(1).normal(size=(9, D)).astype(np.float32)
    scaled = x * 2 / 5
    maps = np.concatenate([a[f"U_matrices.{rank}"] @ a[f"V_matrices.{rank}"] for rank in (1, 3, 10)])
    size = np.sqrt((maps**2).sum((1, 2)))
    h = (scaled @ a["W_E"] + a["b_E"]) * size
    if activation == "topk":
        acts = np.where(h >= np.sort(h, axis=1)[:, -2:-1], np.maximum(h, 0), 0)
    else:
        acts = np.where(h > (np.exp(a[THRESHOLD]) if activation == "jumprelu" else 0), h, 0)
    acts = acts / size
    y = np.einsum("rn,nij,rj->ri", acts, maps, scaled) + a["b_D"]
    assert 0 < (acts > 0).mean() < 1
    np.testing.assert_allclose(found.encode(jnp.asarray(x)[None])[0], acts, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.reconstruct(jnp.asarray(x)[None])[0], y * 3 / 2, rtol=1e-4, atol=1e-4)


def test_what_we_write_comes_back(tmp_path: Path) -> None:
    config = DictionaryConfig(
        "molt", 1, 7, D, activation="topk", k=2, ranked=True, ranks=((1, 4), (3, 2), (10, 1)), layers=(2,)
    )
    d = Dictionary(initialise.random(config, jax.random.key(0)), config)
    save_dictionary(d, tmp_path / "d", format="llamascopium-molt")
    found = load_dictionary(tmp_path / "d")
    assert found.config == config and found.digest() == d.digest()
    assert {f"U_matrices.{rank}" for rank in (1, 3, 10)} < set(load_file(tmp_path / "d" / WEIGHTS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank_counts": {}}, "expected ranks and how many"),
        ({"rank_counts": {"x": 2}}, "expected ranks and how many"),
        ({"rank_counts": {"3": 2, "1": 5, "10": 1}}, r"U_matrices.1 has shape"),
        ({"rank_counts": {"3": 2, "1": 4}}, "W_E has shape|unknown tensor"),
        ({"act_fn": "softplus"}, "act_fn is 'softplus'"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    put(tmp_path / "d")
    path = tmp_path / "d" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(InputError, match=message):
        load_dictionary(tmp_path / "d")


def test_what_the_format_cannot_say_is_refused(tmp_path: Path) -> None:
    for changes, message in (
        ({"ranks": ((2, 4), (1, 3))}, "by rising rank"),
        ({"skip": True}, "nothing for skip"),
    ):
        config = DictionaryConfig("molt", 1, 7, D, activation="relu", **{"ranks": ((2, 7),), **changes})
        d = Dictionary(initialise.random(config, jax.random.key(0)), config)
        with pytest.raises(InputError, match=message):
            save_dictionary(d, tmp_path / "d", format="llamascopium-molt")
