"""Experts that each device computes for itself: values, gradients, blocks of tokens, weights that stay in place."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.models import experts
from jaxinterp.models.expert_parallel import STACKS, OnMesh
from jaxinterp.models.experts import Experts
from jaxinterp.models.mlp import product
from jaxinterp.parallel import DEFAULT_RULES
from jaxinterp.parallel.mesh import make, parse

CONFIG = Experts(8, 2, 4, bias=True)
WIDTHS = DEFAULT_RULES.replace(experts="expert", expert_width="model")


def weights_and_input(dtype: str) -> tuple[dict[str, Any], Any]:
    rng = np.random.default_rng(0)
    shapes = {
        "router": (6, 8), "gate": (8, 6, 4), "up": (8, 6, 4), "down": (8, 4, 6), "gate_bias": (8, 4), "up_bias": (8, 4),
        "down_bias": (8, 6),
    }  # fmt: skip
    w = {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
    return w, jnp.asarray(rng.normal(size=(8, 3, 6)), dtype)


def value(w: Any, x: Any, dispatch: Any) -> Any:
    out = experts.apply(w, CONFIG, x, partial(product, "silu"), dispatch, jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.sin(out)), out


def on(text: str, rules: Any, block: int) -> OnMesh:
    sizes = parse(text)
    return OnMesh(make(sizes["data"], sizes["model"], expert=sizes["expert"]), rules, block)


@pytest.mark.parametrize(
    ("text", "rules", "block"),
    [
        ("data=2,expert=2,model=2", DEFAULT_RULES, 5),
        pytest.param("data=1,expert=1,model=2", DEFAULT_RULES, 4096, marks=pytest.mark.slow),
        pytest.param("data=2,expert=2,model=2", WIDTHS, 12, marks=pytest.mark.slow),
        pytest.param(
            "data=2,expert=2,model=2", DEFAULT_RULES.replace(batch="data"), 4096, marks=pytest.mark.slow
        ),
        ("data=2,expert=1,model=4", DEFAULT_RULES.replace(experts=("data", "model")), 4096),
    ],
)
def test_values_and_gradients_are_those_of_one_device(text: str, rules: Any, block: int, x64: None) -> None:
    w, x = weights_and_input("float64")
    differentiate = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    want = jax.jit(partial(differentiate, dispatch="dense"))(w, x)
    got = jax.jit(partial(differentiate, dispatch=on(text, rules, block)))(w, x)
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)


def test_stacks_of_experts_are_not_gathered() -> None:
    """The compiled program holds a device's own experts, and no array as large as a stack of all."""
    w, x = weights_and_input("float32")
    dispatch = on("data=2,expert=2,model=2", DEFAULT_RULES, 4096)
    mesh = dispatch.mesh
    placed = {
        name: jax.device_put(v, jax.NamedSharding(mesh, DEFAULT_RULES.spec(STACKS[name], v.shape, mesh)))
        for name, v in w.items()
        if name in STACKS
    }
    placed["router"] = jax.device_put(w["router"], jax.NamedSharding(mesh, jax.P()))
    rows = jax.device_put(x, jax.NamedSharding(mesh, jax.P(("data", "expert"))))
    whole = re.compile(r"f32\[8,(?:6,4|4,6)\]|f32\[(?:6,8,4|4,8,6)\]")

    text = jax.jit(lambda w, x: value(w, x, dispatch)[1]).lower(placed, rows).compile().as_text()
    assert "f32[2,6,4]" in text
    assert not whole.search(text)


def test_what_does_not_fit_is_named() -> None:
    w, x = weights_and_input("float32")
    with pytest.raises(InputError, match=r"the input of experts: axis 'batch' of size 3 .* of size 4"):
        jax.eval_shape(partial(value, dispatch=on("data=2,expert=2,model=2", DEFAULT_RULES, 1)), w, x[:3])
    with pytest.raises(InputError, match=r"gate: axis 'experts' of size 8 .* of size 3"):
        mesh = make(1, 3, devices=jax.devices()[:3])
        jax.eval_shape(partial(value, dispatch=OnMesh(mesh)), w, x)
    with pytest.raises(InputError, match="dispatch is 'spread', expected one of sparse, dense"):
        jax.eval_shape(partial(value, dispatch="spread"), w, x)
