"""Other programs' cross-layer transcoders, laid out by hand as documented, and what we write in their formats."""

from __future__ import annotations

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

L, F, D = 3, 6, 4


def forge(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Numbers as in the file, an input, and what the program computes of it."""
    rng = np.random.default_rng(0)
    shapes = {
        "W_enc": (L, D, F),
        "b_enc": (L, F),
        "W_dec": (6, F, D),
        "b_dec": (6, D),
        "log_threshold": (L, F),
    }
    a = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for side in ("in", "out"):
        a[f"estimated_norm_scaling_factor_{side}"] = rng.uniform(0.5, 2, L).astype(np.float32)
    folder.mkdir()
    save_file({**a, "feature_count": np.zeros((L, F), np.int64)}, folder / "clt_weights.safetensors")
    (folder / "clt_cfg.json").write_text('{"model_name": "gpt2", "context_size": 16}')
    x = rng.normal(size=(L, 8, D)).astype(np.float32)
    out, pair = np.zeros_like(x), 0
    for source in range(L):
        h = (
            x[source] * a["estimated_norm_scaling_factor_in"][source] @ a["W_enc"][source]
            + a["b_enc"][source]
        )
        acts = h * (h > np.exp(a["log_threshold"][source]))
        for target in range(source, L):
            out[target] += acts @ a["W_dec"][pair] + a["b_dec"][pair]
            pair += 1
    return a, x, out / a["estimated_norm_scaling_factor_out"][:, None, None]


def test_clt_forge(tmp_path: Path) -> None:
    _, x, out = forge(tmp_path / "d")
    found = load_dictionary(tmp_path / "d")
    assert (found.config.kind, found.config.model_name) == ("clt", "gpt2")
    np.testing.assert_allclose(found.reconstruct(x), out, rtol=1e-5, atol=1e-5)


ROUND: dict[str, tuple[str, Dictionary]] = {
    "forge": ("clt-forge", made("clt", read_site="mlp_normalized", write_site="mlp_out", model_name="gpt2")),
    "forge tied": ("clt-forge", made("clt", tied=True, d_write=5, read_site="mlp_normalized")),
}


@pytest.mark.parametrize("name", ROUND)
def test_what_we_write_comes_back(tmp_path: Path, name: str) -> None:
    format, one = ROUND[name]
    save_dictionary(one, tmp_path / "d", format=format)
    found = load_dictionary(tmp_path / "d")
    same_function(one, found, 1e-5)
    assert found.config.model_name == one.config.model_name


WEIGHTS = "clt_weights.safetensors"
FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pairs": (
        lambda d: edit(d / WEIGHTS, lambda t: t.update(W_dec=t["W_dec"][:5])),
        r"W_dec has shape \(5, 6, 4\), expected \(6, 6, 4\)",
    ),
    "missing": (lambda d: edit(d / WEIGHTS, lambda t: t.pop("log_threshold")), "'log_threshold' is missing"),
    "extra": (lambda d: edit(d / WEIGHTS, lambda t: t.update(W_sk=t["b_enc"])), "unknown tensor 'W_sk'"),
    "flat": (
        lambda d: edit(d / WEIGHTS, lambda t: t.update(W_enc=t["b_enc"])),
        r"expected \(layers, width, features",
    ),
    "factor": (
        lambda d: edit(
            d / WEIGHTS, lambda t: t.update(estimated_norm_scaling_factor_in=np.zeros(3, np.float32))
        ),
        "a scaling factor is not positive",
    ),
    "pieces": (lambda d: (d / WEIGHTS).rename(d / f"rank0_{WEIGHTS}"), "weights are in pieces"),
    "cut": (lambda d: cut(d / WEIGHTS), "not a whole safetensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    forge(tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as caught:
        load_dictionary(tmp_path / "d")
    assert "\n" not in str(caught.value)


def test_what_it_cannot_say_is_named(tmp_path: Path) -> None:
    one = made("clt", read_site="mlp_normalized")
    one.params["threshold"] = one.params["threshold"].at[0, 0].set(0.0)
    with pytest.raises(InputError, match="a threshold is not positive"):
        save_dictionary(one, tmp_path / "d", format="clt-forge")
    for other in (made("clt"), made("plt"), made("clt", skip=True, read_site="mlp_normalized")):
        with pytest.raises(InputError, match="native can"):
            save_dictionary(other, tmp_path / "d", format="clt-forge")
