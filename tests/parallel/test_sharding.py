"""Every family under every way of dividing it over a mesh gives the numbers that one device gives."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.models import declare, forward
from jaxinterp.models.expert_parallel import OnMesh
from jaxinterp.parallel import DEFAULT_RULES, Rules, weights
from jaxinterp.parallel.mesh import make, parse
from tests.support import EVERY, tiny_model

MESHES = (
    "data=2", "model=2", "expert=2", "data=4", "model=4", "expert=4", "data=2,model=2", "data=8", "model=8",
    "expert=8", "data=2,model=4", "data=4,model=2", "expert=2,model=4", "data=2,expert=2,model=2",
)  # fmt: skip
RULES = {
    "default": DEFAULT_RULES,
    # Each expert is divided over the model axis, and whole experts over the expert axis.
    "expert_width": DEFAULT_RULES.replace(experts="expert", expert_width="model"),
    # Every weight is divided over the axes of the batch too, and gathered where it is used.
    "width": DEFAULT_RULES.replace(width=("data", "expert"), experts="model"),
    # Attention whole on every device.
    "heads": DEFAULT_RULES.replace(heads=None, kv_heads=None),
    # What latent attention compresses to, too.
    "rank": DEFAULT_RULES.replace(rank="model"),
    # The batch over the data axis alone: devices along the expert axis repeat attention.
    "batch": DEFAULT_RULES.replace(batch="data"),
}
TOKENS = np.random.default_rng(0).integers(0, 40, size=(8, 8))


def wide(family: str, dtype: str) -> Any:
    """The tiny model of a family with eight heads. One whose key/value heads are fewer keeps them few."""
    return tiny_model(family, dtype=dtype, n_heads=8, **({"n_kv_heads": 8} if family == "latent" else {}))


def plan(mesh: Any, rules: Rules) -> OnMesh:
    """Experts on a mesh, in blocks of tokens that do not divide their number."""
    return OnMesh(mesh, rules, block=7)


def run(model: Any, mesh: Any, rules: Rules, **options: Any) -> tuple[Any, Any]:
    """Logits of a model on a mesh, and its parameters there."""
    params = jax.device_put(model.params, weights.shardings(declare(model.config), mesh, rules))
    spec = rules.spec(("batch", "position"), TOKENS.shape, mesh, "tokens")
    tokens = jax.device_put(jnp.asarray(TOKENS), jax.NamedSharding(mesh, spec))
    return jax.jit(lambda p, t: forward(p, model.config, t, **options))(params, tokens), params


@functools.cache
def alone(family: str, dtype: str) -> np.ndarray:
    """Logits on one device."""
    model = wide(family, dtype)
    return np.asarray(jax.jit(lambda p: forward(p, model.config, jnp.asarray(TOKENS))[0])(model.params))


def compare(family: str, text: str, name: str, dtype: str, capfd: Any) -> None:
    model = wide(family, dtype)
    sizes = parse(text)
    mesh = make(sizes.get("data", 1), sizes.get("model", 1), expert=sizes.get("expert", 1))
    rules = weights.fitting(declare(model.config), mesh, RULES[name])
    want = alone(family, dtype)
    capfd.readouterr()
    (logits, _), params = run(model, mesh, rules, dispatch=plan(mesh, rules))
    assert "rematerialization" not in "".join(capfd.readouterr())
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert np.abs(np.asarray(logits) - want).max() <= tolerance * np.abs(want).max()
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(params))
    assert held == weights.bytes_per_device(declare(model.config), dtype, mesh, rules)
    if "model" in mesh.shape and name == "default":
        layer = params["layers"]["o"]
        assert layer.addressable_shards[0].data.shape[1] == 8 // mesh.shape["model"]
    split = mesh.shape.get("data", 1) * (1 if name == "batch" else mesh.shape.get("expert", 1))
    assert logits.addressable_shards[0].data.shape[0] == 8 // split


@pytest.mark.parametrize(
    ("family", "text"), [*((family, "data=2,expert=2,model=2") for family in EVERY), ("gemma2", "model=4")]
)
def test_a_mesh_gives_what_one_device_gives(family: str, text: str, x64: None, capfd: Any) -> None:
    compare(family, text, "default", "float64", capfd)


@pytest.mark.parametrize("name", [name for name in RULES if name != "default"])
def test_experts_under_every_rule(name: str, x64: None, capfd: Any) -> None:
    compare("experts", "data=2,expert=2,model=2", name, "float64", capfd)


@pytest.mark.parametrize("dispatch", ["sparse", "dense"])
def test_experts_left_to_the_compiler(dispatch: str, x64: None) -> None:
    model = wide("experts", "float64")
    mesh = make(2, 2, expert=2)
    (logits, _), _ = run(model, mesh, DEFAULT_RULES, dispatch=dispatch)
    np.testing.assert_allclose(logits, alone("experts", "float64"), atol=1e-12)


@pytest.mark.parametrize("family", ["llama", "experts"])
def test_float32(family: str, capfd: Any) -> None:
    compare(family, "data=2,expert=2,model=2", "default", "float32", capfd)


PRODUCT = [(text, "default") for text in MESHES]
PRODUCT += [
    (text, name)
    for text in ("data=4,model=2", "data=2,expert=2,model=2")
    for name in RULES
    if name != "default"
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("text", "name"), PRODUCT)
@pytest.mark.parametrize("family", EVERY)
def test_every_family_mesh_and_rule(family: str, text: str, name: str, x64: None, capfd: Any) -> None:
    compare(family, text, name, "float64", capfd)
    compare(family, text, name, "float32", capfd)
