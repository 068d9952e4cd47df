"""Weights declared once, rules and meshes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.parallel import DEFAULT_RULES, Weight, weights
from jaxinterp.parallel.hosts import start
from jaxinterp.parallel.mesh import make
from jaxinterp.parallel.weights import normal

TREE = {
    "a": Weight((8, 6), ("vocab", "width"), normal(1.0)),
    "b": (Weight((4,), ("mlp",), "ones"), Weight((2, 4), ("layers", "heads"))),
}


def test_every_view_comes_from_the_declaration() -> None:
    params = weights.initialise(TREE, key=jax.random.key(0), dtype=jnp.float32)
    abstract = weights.abstract(TREE, jnp.float32)
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, abstract)
    assert weights.size(TREE) == 60
    assert list(weights.leaves(TREE)) == ["a", "b.0", "b.1"]
    weights.check(TREE, params, "test")
    mesh = make(2, 4)
    placed = jax.device_put(params, weights.shardings(TREE, mesh))
    assert placed["a"].sharding.spec == jax.P("model", None)
    assert weights.abstract(TREE, jnp.float32, mesh)["b"][1].sharding.spec == jax.P(None, "model")


def test_a_weight_depends_on_its_own_path_only() -> None:
    one = weights.initialise(TREE, key=jax.random.key(0), dtype=jnp.float32)
    two = weights.initialise({"z": TREE["b"][0], "a": TREE["a"]}, key=jax.random.key(0), dtype=jnp.float32)
    assert np.array_equal(one["a"], two["a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": jnp.zeros((8, 5))}, r"'a' has shape \(8, 5\), expected \(8, 6\)"),
        ({"aa": jnp.zeros(1)}, "unknown weight 'aa'"),
        ({"a": None}, "'a' of shape .* is missing"),
    ],
)
def test_check_names_what_differs(change, message: str) -> None:
    params = {**weights.initialise(TREE, key=jax.random.key(0), dtype=jnp.float32), **change}
    with pytest.raises(InputError, match=message):
        weights.check(TREE, {k: v for k, v in params.items() if v is not None}, "file")


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (Weight((6, 6), ("vocab", "width")), "size 6 is not divisible by the mesh axis 'model' of size 4"),
        (Weight((8, 8), ("vocab", "heads")), "'vocab' and 'heads' both map to the mesh axis 'model'"),
        (Weight((8,), ("vocabulary",)), "no rule for the logical axis 'vocabulary' .did you mean vocab"),
    ],
)
def test_rules_refuse_what_cannot_be_placed(weight: Weight, message: str) -> None:
    with pytest.raises(InputError, match=message):
        weights.shardings({"w": weight}, make(2, 4))


def test_rules_can_be_changed_by_name_only() -> None:
    assert DEFAULT_RULES.replace(vocab=None).to_mesh["vocab"] is None
    with pytest.raises(InputError, match="did you mean heads"):
        DEFAULT_RULES.replace(headss="model")


def test_a_mesh_must_fit_the_devices() -> None:
    with pytest.raises(InputError, match="does not fit 8 devices"):
        make(4, 4)


def test_hosts_need_all_or_nothing() -> None:
    with pytest.raises(InputError, match="all of coordinator"):
        start("localhost:1234")
