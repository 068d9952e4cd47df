"""Weights declared once, rules and meshes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.models import declare
from jaxinterp.parallel import DEFAULT_RULES, Weight, weights
from jaxinterp.parallel.hosts import start
from jaxinterp.parallel.mesh import describe, make, parse
from jaxinterp.parallel.weights import normal
from tests.support import EVERY, tiny_config

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


def test_a_rule_may_name_several_mesh_axes() -> None:
    mesh = make(2, 2, expert=2)
    rules = DEFAULT_RULES.replace(vocab=("data", "model"))
    placed = weights.shardings({"w": Weight((8, 6), ("vocab", "width"))}, mesh, rules)
    assert placed["w"].spec == jax.P(("data", "model"), None)
    assert placed["w"].shard_shape((8, 6)) == (2, 6)
    # On a mesh without one of the axes the others remain.
    assert rules.spec(("vocab",), (8,), make(4, 2, expert=1)) == jax.P(("data", "model"))
    assert DEFAULT_RULES.spec(("experts",), (8,), make(1, 8)) == jax.P("model")
    with pytest.raises(InputError, match=r"w: axis 'vocab' of size 6 is .* axes 'data' × 'model' of size 4"):
        weights.shardings({"w": Weight((6, 6), ("vocab", "width"))}, mesh, rules)
    with pytest.raises(InputError, match="'vocab' and 'heads' both map to the mesh axis 'model'"):
        weights.shardings({"w": Weight((8, 8), ("vocab", "heads"))}, mesh, rules)


def test_an_unknown_mesh_axis_is_named() -> None:
    with pytest.raises(
        InputError, match=r"w: the rule for 'vocab' .* 'modell' .did you mean model.*data, model"
    ):
        weights.shardings({"w": TREE["a"]}, make(2, 4), DEFAULT_RULES.replace(vocab="modell"))


def test_rules_that_fit_keep_whole_what_does_not_divide() -> None:
    mesh = make(2, 2, expert=2)
    tree = {
        "k": Weight((3, 4), ("kv_heads", "width")), "q": Weight((8, 4), ("heads", "width")),
        "x": Weight((6, 4), ("experts", "width")),
    }  # fmt: skip
    with pytest.raises(InputError, match="k: axis 'kv_heads' of size 3 is not divisible"):
        weights.shardings(tree, mesh)
    rules = weights.fitting(tree, mesh)
    assert rules.to_mesh["kv_heads"] is None
    assert rules.to_mesh["heads"] == "model"
    assert rules.to_mesh["experts"] == ("expert",)
    assert weights.bytes_per_device(tree, "float32", mesh, rules) == 4 * (12 + 16 + 12)
    assert hash(rules) == hash(weights.fitting(tree, mesh))
    assert rules == weights.fitting(tree, mesh)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=2,modle=4", r"no axis .modle. .did you mean model..; axes are data, expert, model"),
        ("data=2,data=4", "the axis 'data' is given twice"),
        ("data=two", "the size of 'data' is 'two', expected a positive whole number"),
        ("model=0", "the size of 'model' is '0'"),
        ("", "no axis ''"),
    ],
)
def test_a_mesh_in_words(text: str, message: str) -> None:
    assert parse("expert=2, model=4") == {"expert": 2, "model": 4}
    assert describe(make(2, 2, expert=2)) == "data=2,expert=2,model=2"
    with pytest.raises(InputError, match=message):
        parse(text)


@pytest.mark.parametrize("family", EVERY)
def test_a_weight_that_a_mesh_does_not_divide_is_named(family: str) -> None:
    """Three devices divide none of the heads: one line with the weight, its size and the mesh's."""
    mesh = make(1, 3, devices=jax.devices()[:3])
    with pytest.raises(InputError, match=r"^[a-z_.]+: axis '\w+' of size \d+ is not .* 'model' of size 3$"):
        weights.shardings(declare(tiny_config(family)), mesh)


def test_rules_in_words() -> None:
    rules = DEFAULT_RULES.changed("kv_heads=none, rank=model,batch=data+expert")
    assert rules == DEFAULT_RULES.replace(kv_heads=None, rank="model", batch=("data", "expert"))
    assert DEFAULT_RULES.changed("") == DEFAULT_RULES
    with pytest.raises(InputError, match=r"no logical axis 'kvheads' .did you mean kv_heads"):
        DEFAULT_RULES.changed("kvheads=model")
    with pytest.raises(InputError, match="'heads' is no change, expected axis=mesh axis"):
        DEFAULT_RULES.changed("heads")


def test_rules_can_be_changed_by_name_only() -> None:
    assert DEFAULT_RULES.replace(vocab=None).to_mesh["vocab"] is None
    with pytest.raises(InputError, match="did you mean heads"):
        DEFAULT_RULES.replace(headss="model")


def test_a_mesh_must_fit_the_devices() -> None:
    for sizes, message in (
        ({"data": 4, "model": 4}, "data=4 × model=4 does not fit 8 devices"),
        ({"data": 2, "model": 2, "expert": 4}, "data=2 × expert=4 × model=2 does not fit 8 devices"),
        ({"data": 0}, "data=0"),
        ({"expert": -1}, "expert=-1"),
    ):
        with pytest.raises(InputError, match=message):
            make(**sizes)


def test_hosts_need_all_or_nothing() -> None:
    with pytest.raises(InputError, match="all of coordinator"):
        start("localhost:1234")
