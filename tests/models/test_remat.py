"""Gradients that compute layers again instead of keeping them: the same numbers with less memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.models import forward
from jaxinterp.models.decoder import REMATS
from tests.support import tiny_model

TOKENS = np.random.default_rng(0).integers(0, 40, size=(4, 16))


def gradient(config: Any, remat: str, unroll: bool = False) -> Any:
    tokens = jnp.asarray(TOKENS)

    def loss(params: Any) -> Any:
        return jnp.mean(forward(params, config, tokens, remat=remat, unroll=unroll)[0] ** 2)

    return jax.jit(jax.grad(loss))


@pytest.mark.parametrize(
    ("family", "unroll"),
    [
        ("llama", False),
        pytest.param("experts", False, marks=pytest.mark.slow),
        pytest.param("gemma2", True, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_the_same_and_take_less_memory(family: str, unroll: bool, x64: None) -> None:
    model = tiny_model(family, dtype="float64", n_layers=6, windows=())
    compiled = {
        remat: gradient(model.config, remat, unroll).lower(model.params).compile() for remat in REMATS
    }
    results = {remat: run(model.params) for remat, run in compiled.items()}
    for remat in ("dots", "full"):
        for one, two in zip(jax.tree.leaves(results[remat]), jax.tree.leaves(results["none"]), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-12)
    memory = {remat: run.memory_analysis().temp_size_in_bytes for remat, run in compiled.items()}
    if not unroll:  # XLA's CPU compiler merges what is computed again where there is no loop
        assert memory["full"] < memory["dots"] < memory["none"]


def test_an_unknown_way_is_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(
        InputError, match=r"remat is 'ful' .did you mean full.*, expected one of none, dots, full"
    ):
        gradient(model.config, "ful")(model.params)
