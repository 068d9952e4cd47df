"""The sparse way through a step: the loss, what was found and every gradient of the dense way; when it is taken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import initialise, sparse
from jaxinterp.dictionaries.base import DictionaryConfig, kind_of
from jaxinterp.training import few
from jaxinterp.training.configs import parse
from jaxinterp.training.objective import ObjectiveConfig, objective
from jaxinterp.training.sparsity.base import SparsityConfig, make_gate

L, R, N, D = 2, 9, 32, 6
WIDE = SparsityConfig("top-k", l0=3, start_l0=6, pre_activation=0.0)


def run(sparsity: SparsityConfig, terms: ObjectiveConfig, kind: str, **spec: Any) -> tuple[Any, Any, Any]:
    gate = make_gate(sparsity)
    config = gate.config(DictionaryConfig(kind, L, N, D, activation="relu", **spec))
    params = initialise.random(config, jax.random.key(0), jnp.float64)
    x, y = jax.random.normal(jax.random.key(1), (2, L, R, D))
    groups = kind_of(config).groups(config)
    dead = jax.random.bernoulli(jax.random.key(2), 0.4, (groups, N))

    def loss(params: Any) -> Any:
        # A quarter of the run: between 6 and 3 features are kept.
        return objective(terms, gate, config, params, {}, x, y, dead=dead, progress=jnp.asarray(0.25))

    (total, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return total, found, gradient


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("sparsity", "kind", "spec", "more"),
    [
        (WIDE, "clt", {"skip": True}, {"auxiliary": 0.5, "auxiliary_k": 4, "nesting": (8, 16)}),
        (WIDE, "crosscoder", {}, {"auxiliary": 0.5, "auxiliary_unit": "residual", "auxiliary_ranked": False}),
        (
            SparsityConfig("group-max", l0=4, pre_activation=0.0),
            "plt",
            {"centre": True},
            {"reconstruction": "variance"},
        ),
    ],
)
def test_both_ways_are_the_same(sparsity: SparsityConfig, kind: str, spec: Any, more: Any) -> None:
    dense, found = (run(sparsity, ObjectiveConfig(sparse=s, **more), kind, **spec) for s in (False, True))
    assert isinstance(found[1].a, sparse.Code) and not isinstance(dense[1].a, sparse.Code)
    pairs = [(found[0], dense[0]), (sparse.to_dense(found[1].a, N), dense[1].a)]
    pairs += [
        (getattr(found[1], name), getattr(dense[1], name)) for name in ("share", "residual", "error", "terms")
    ]
    for one, other in [*pairs, (found[2], dense[2])]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), one, other)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found[2]))


def test_when_it_is_taken() -> None:
    config = DictionaryConfig("plt", 1, 4096, 8, activation="topk", k=32)
    gate, x = make_gate(SparsityConfig("top-k", l0=32, pre_activation=0.0)).few, jnp.zeros((1, 4, 8))
    assert few.wins("auto", gate, config, x, "")
    assert not few.wins(False, gate, config, x, "")
    dense = make_gate(SparsityConfig("top-k", l0=2048, pre_activation=0.0)).few
    assert not few.wins("auto", dense, config, x, "") and few.wins(True, dense, config, x, "")
    penalised = make_gate(SparsityConfig("top-k", l0=32)).few
    for refused, why in ((penalised, "pre_activation"), (None, "method of sparsity")):
        assert not few.wins("auto", refused, config, x, "")
        with pytest.raises(InputError, match=why):
            few.wins(True, refused, config, x, "")
    with pytest.raises(InputError, match="Jacobian"):
        few.wins(True, gate, config, x, "Jacobian matching needs all pre-activations")


def test_rows_over_a_mesh_go_the_dense_way() -> None:
    config = DictionaryConfig("plt", 1, 4096, 8, activation="topk", k=32)
    gate = make_gate(SparsityConfig("top-k", l0=32, pre_activation=0.0)).few
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.P(None, "data"))
    answers = []

    def body(x: jax.Array) -> jax.Array:
        answers.append(few.wins("auto", gate, config, x, ""))
        return x

    x = jax.ShapeDtypeStruct((1, 16, 8), jnp.float32, sharding=rows)
    jax.jit(body).lower(x)
    jax.jit(jax.shard_map(body, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec)).lower(x)
    assert answers == [False, True]  # as one program; as each device's own


def test_config() -> None:
    assert parse(ObjectiveConfig, {"sparse": False}, "objective").sparse is False
    assert parse(ObjectiveConfig, {"sparse": "auto"}, "objective").sparse == "auto"
    with pytest.raises(InputError, match="sparse is 'yes'"):
        parse(ObjectiveConfig, {"sparse": "yes"}, "objective")
