"""Llamascopium's files of low-rank sparse attention, laid out by hand as its program writes them, and what we write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import initialise
from jaxinterp.dictionaries.attention import Attention
from jaxinterp.dictionaries.base import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.load import load_dictionary, save_dictionary
from jaxinterp.models.rotary import RopeScaling

N, D, Q, E, T = 6, 4, 2, 4, 5
WEIGHTS, THRESHOLD = "sae_weights.safetensors", "activation_function.log_jumprelu_threshold"
HOOKS = ("blocks.3.ln1.hook_normalized", "blocks.3.hook_attn_out")


def put(folder: Path, **fields: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "W_Q": (Q, D, E), "W_K": (Q, D, E), "b_Q": (Q, E), "b_K": (Q, E), "W_V": (N, D), "W_O": (N, D), "b_V": (N,),
        "b_D": (D,),
    }  # fmt: skip
    values = {
        "sae_type": "lorsa", "d_model": D, "expansion_factor": N / D, "act_fn": "jumprelu", "top_k": 2,
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True, "use_decoder_bias": True,
        "hook_point_in": HOOKS[0], "hook_point_out": HOOKS[1], "n_qk_heads": Q, "d_qk_head": E, "n_ctx": 16,
        "positional_embedding_type": "rotary", "rotary_dim": E, "rotary_base": 100, "rotary_adjacent_pairs": False,
        "rotary_scale": 1, "use_NTK_by_parts_rope": False, "attn_scale": 3.0, "use_post_qk_ln": True,
        "normalization_type": "RMS", "eps": 1e-3, "dtype": "torch.float32", **fields,
    }  # fmt: skip
    if values["use_post_qk_ln"]:
        shapes |= {"ln_q.w": (Q, E), "ln_k.w": (Q, E)}
    if values["act_fn"] == "jumprelu":
        shapes[THRESHOLD] = (N,)
    a = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    a |= {f"dataset_average_activation_norm.{h}": np.float32(v) for h, v in zip(HOOKS, (5, 3), strict=True)}
    a |= {
        "mask": np.tri(16, dtype=bool),
        "rotary_sin": np.ones((16, E), np.float32),
        "IGNORE": np.float32(-9),
    }
    folder.mkdir()
    save_file({name: np.asarray(value) for name, value in a.items()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(values))
    return a


def theirs(a: dict[str, np.ndarray], x: np.ndarray, activation: str) -> tuple[np.ndarray, np.ndarray]:
    """Activations [T, N] and output [T, D] of raw sites ``x [T, D]``, as the program computes them, in float64."""
    a = {name: np.asarray(value, np.float64) for name, value in a.items()}
    x = x * np.sqrt(D) / 5
    z = np.zeros((T, N))
    rate = 1 / 100 ** (np.arange(E // 2) / (E / 2))
    for q in range(Q):
        sides = []
        for side in ("Q", "K"):
            v = x @ a[f"W_{side}"][q] + a[f"b_{side}"][q]
            v = v / np.sqrt((v**2).mean(-1, keepdims=True) + 1e-3) * a[f"ln_{side.lower()}.w"][q]
            angle = np.arange(T)[:, None] * np.tile(rate, 2)[None]
            flip = np.concatenate([-v[:, E // 2 :], v[:, : E // 2]], axis=1)
            sides.append(v * np.cos(angle) + flip * np.sin(angle))
        scores = np.where(np.tri(T, dtype=bool), sides[0] @ sides[1].T / 3.0, -np.inf)
        pattern = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        own = slice(q * N // Q, (q + 1) * N // Q)
        z[:, own] = pattern @ (x @ a["W_V"][own].T + a["b_V"][own])
    length = np.linalg.norm(a["W_O"], axis=1)
    h = z * length
    if activation == "topk":
        acts = np.where(h >= np.sort(h, axis=1)[:, -2:-1], np.maximum(h, 0), 0)
    else:
        acts = np.where(h > (np.exp(a[THRESHOLD]) if activation == "jumprelu" else 0), h, 0)
    acts = acts / length
    return acts, (acts @ a["W_O"] + a["b_D"]) * 3 / np.sqrt(D)


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
def test_a_scaled_lorsa(tmp_path: Path, activation: str) -> None:
    a = put(tmp_path / "d", act_fn=activation)
    found = load_dictionary(tmp_path / "d")
    config = found.config
    assert (config.read_site, config.write_site, config.layers) == ("attn_normalized", "attn_out", (3,))
    x = np.random.default_rng(1).normal(size=(T, D)).astype(np.float32)
    acts, y = theirs(a, x, activation)
    assert 0 < (acts > 0).mean() < 1
    np.testing.assert_allclose(found.encode(jnp.asarray(x)[None])[0], acts, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.reconstruct(jnp.asarray(x)[None])[0], y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "attention",
    [
        Attention(Q, E, qk_norm="rms", scale=0.7, rope_pairs="adjacent", rope_width=2, rope_base=5e4),
        Attention(Q, E, rope_base=None),
        Attention(Q, E, rope_scaling=RopeScaling("llama3", 8.0, 64, low=1.0, high=4.0)),
    ],
    ids=["normed", "still", "llama3"],
)
def test_what_we_write_comes_back(tmp_path: Path, attention: Attention) -> None:
    import jax

    config = DictionaryConfig(
        "lorsa", 1, N, D, activation="topk", k=2, ranked=True, read_site="attn_normalized", write_site="attn_out",
        layers=(2,), attention=attention,
    )  # fmt: skip
    params = initialise.random(config, jax.random.key(0))
    save_dictionary(Dictionary(params, config), tmp_path / "d", format="llamascopium-lorsa")
    found = load_dictionary(tmp_path / "d")
    assert found.config == config
    assert all(np.array_equal(found.params[name], value) for name, value in params.items())
    names = set(load_file(tmp_path / "d" / WEIGHTS))
    assert names >= {"W_Q", "W_K", "b_Q", "b_K", "W_V", "W_O", "b_V", "b_D"}
    assert ("ln_q.w" in names) == (attention.qk_norm == "rms")


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act_fn": "softplus"}, "act_fn is 'softplus'"),
        ({"positional_embedding_type": "alibi"}, "expected rotary or none"),
        ({"normalization_type": "LN"}, "normalization_type is 'LN', expected RMS"),
        ({"rotary_scale": 2}, "rotary_scale is 2"),
        ({"hook_point_out": "blocks.4.hook_attn_out"}, "read layer 3 and write layer 4"),
        ({"hook_point_in": "blocks.3.attn.hook_q"}, "expected a hook of a layer"),
        ({"norm_activation": "token-wise"}, "which no weights can hold"),
        ({"n_qk_heads": 3}, "W_Q has shape"),
        ({"attn_scale": -1.0}, "expected a positive number"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    put(tmp_path / "d")
    edit(tmp_path / "d", lambda values: values.update(changes))
    with pytest.raises(InputError, match=message):
        load_dictionary(tmp_path / "d")


def test_what_the_format_cannot_say_is_refused(tmp_path: Path) -> None:
    for changes, message in (
        ({"attention": Attention(Q, E, softcap=5.0)}, "nothing for a softcap"),
        ({"read_site": "attn_in"}, "nothing for read_site = attn_in"),
        ({"n_layers": 2, "layers": (0, 1)}, "one layer of a lorsa"),
    ):
        fields: dict[str, Any] = {"n_layers": 1, "layers": (0,), "read_site": "attn_normalized", **changes}
        fields = {"attention": Attention(Q, E), **fields}
        config = DictionaryConfig(
            "lorsa", n_features=N, d_model=D, activation="relu", write_site="attn_out", **fields
        )
        with pytest.raises(InputError, match=message):
            save_dictionary(Dictionary(_zeros(config), config), tmp_path / "d", format="llamascopium-lorsa")


def _zeros(config: DictionaryConfig) -> dict[str, Any]:
    import jax

    return initialise.random(config, jax.random.key(0))
