"""Gradients in parts, in a fixed order, and of sixteen-bit products."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.core.trees import digest
from jaxinterp.parallel.mesh import make
from jaxinterp.training import dictionary as D
from jaxinterp.training import gradient, resample, sixteen
from jaxinterp.training.objective import objective
from jaxinterp.training.sparsity import make_gate
from tests.training.test_dictionary import LAYER, OTHERS, TANH, data, setting

NEVER = resample.ResampleConfig(every=0)
RESTARTS = resample.ResampleConfig(dead_after=1, every=2, at_most=0.2)


def test_parts_add_up_to_the_gradient_of_the_whole_batch(x64: None) -> None:
    """In float64, where every term is a mean over rows."""
    run, config = setting(TANH)
    x, y = (leaf.astype(jnp.float64) for leaf in data())
    state = jax.jit(partial(D.init, run, config))(jax.random.key(0), x, y)
    gate, none = make_gate(TANH), jnp.zeros((2, 48), bool)

    def value(params: Any, x: Any, y: Any) -> Any:
        return objective(
            run.objective, gate, config, params, state["control"], x, y, dead=none, progress=jnp.float64(0.5)
        )

    @jax.jit
    def both(params: Any) -> Any:
        return gradient.whole(value, params, x, y), gradient.in_parts(4, True, value, params, x, y)

    (whole, found), (parts, others) = both(state["params"])
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert jnp.abs(a).max() > 0
        np.testing.assert_allclose(a, b, atol=1e-13)
    for name in ("total", "error", "share", "residual"):
        np.testing.assert_allclose(getattr(found, name), getattr(others, name), atol=1e-12)
    np.testing.assert_allclose(others.losses.mean(), found.total, rtol=1e-12)
    assert others.losses.shape == (4,) and len(set(np.asarray(others.losses).tolist())) == 4


def exact(
    sparsity: Any, kind: str, devices: tuple[int, ...], steps: int, **changes: Any
) -> set[tuple[str, str]]:
    """Digests of state and figures after so many steps, of all numbers of devices."""
    run, config = setting(sparsity, kind, reduce="exact", **changes)
    batch, found = data(), set()
    first = jax.jit(partial(D.init, run, config))(jax.random.key(0), *batch)
    for count in devices:
        mesh, state, place = None, first, lambda leaves: leaves
        step = partial(D.step, run, config)
        if count > 1:
            mesh = make(count)
            states, rows = D._shardings(config, mesh, jax.eval_shape(lambda: first))
            state, place = jax.device_put(first, states), partial(jax.device_put, device=rows)
            compiled = jax.jit(partial(step, mesh=mesh), out_shardings=(states, None))
        else:
            compiled = jax.jit(step)
        figures = []
        for index in range(steps):
            order = np.random.default_rng(index).permutation(256)
            state, values = compiled(state, place(tuple(v[:, order] for v in batch)))
            figures.append(jax.device_get(values))
        found.add((digest(jax.device_get(state)), digest(figures)))
        assert digest(jax.device_get(state["params"])) != digest(first["params"])
    return found


def test_exact_sums_have_the_same_bytes_on_any_number_of_devices() -> None:
    """Batch top-k, whose rows compete within each of the eight parts, with restarts of dead features."""
    assert len(exact(OTHERS[1], "plt", (1, 8), 4, resample=RESTARTS)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sparsity", "kind", "changes"),
    [
        (OTHERS[1], "plt", {"resample": RESTARTS}),
        (LAYER, "clt", {"accumulate": 2, "resample": RESTARTS}),
        (TANH, "clt", {"compute": "bfloat16", "resample": NEVER}),
        (OTHERS[0], "clt", {"resample": NEVER}),
    ],
    ids=["restarts", "restarts-in-parts", "sixteen-bits", "top-k"],
)
def test_exact_sums_on_1_2_4_and_8_devices(sparsity: Any, kind: str, changes: dict[str, Any]) -> None:
    assert len(exact(sparsity, kind, (1, 2, 4, 8), 20, **changes)) == 1


def test_what_exact_sums_cannot_do_is_refused() -> None:
    for mesh, rows, parts, message in (
        (make(2, 2), 64, 1, "the mesh has model=2"),
        (make(3), 64, 1, "which data=3 does not divide"),
        (make(2), 60, 1, "a batch divisible by 8, not 60 rows"),
        (None, 64, 3, "by 8 × accumulate=3"),
    ):
        with pytest.raises(InputError, match=message):
            gradient.check_exact(mesh, rows, parts)
    for changes, message in (
        ({"reduce": "sum"}, "reduce is 'sum', expected psum or exact"),
        ({"compute": "float16"}, "compute is 'float16'"),
        ({"accumulate": 3}, "accumulate is 3, which must divide the batch of 256"),
        ({"accumulate": 0}, "accumulate is 0"),
    ):
        with pytest.raises(InputError, match=message):
            setting(LAYER, **changes)


def rounded(value: Any) -> np.ndarray:
    return np.asarray(jnp.asarray(value).astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize("spec", ["l...d,lnd->l...n", "...n,nd->...d", "l...n,lnd->l...d", "nd,dv->nv"])
def test_sixteen_bit_products_round_factors_and_nothing_else(spec: str) -> None:
    letters = dict(zip("lrdnv", (2, 3, 4, 5, 6), strict=True))
    inputs, out = spec.replace("...", "r").split("->")
    random = np.random.default_rng(0)
    a, b = (random.normal(size=[letters[c] for c in part]).astype(np.float32) for part in inputs.split(","))
    with sixteen.products("bfloat16"):
        from jaxinterp.core.precision import einsum

        found, pull = jax.vjp(lambda a, b: einsum(spec, a, b), jnp.asarray(a), jnp.asarray(b))
    cotangent = random.normal(size=found.shape).astype(np.float32)
    to_a, to_b = pull(jnp.asarray(cotangent))
    low = [rounded(v) for v in (a, b, cotangent)]
    assert found.dtype == to_a.dtype == to_b.dtype == jnp.float32
    np.testing.assert_allclose(found, np.einsum(f"{inputs}->{out}", *low[:2]), rtol=1e-5, atol=1e-5)
    exact = jax.vjp(
        lambda a, b: jnp.einsum(spec, a, b, precision="highest"), *(jnp.asarray(v) for v in low[:2])
    )[1]
    for mine, wanted in zip((to_a, to_b), exact(jnp.asarray(low[2])), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)
    assert np.abs(found - np.einsum(f"{inputs}->{out}", a, b)).max() > 1e-4


def test_sixteen_bit_training_is_nearly_as_good() -> None:
    ends = {}
    for compute in ("float32", "bfloat16"):
        run, config = setting(OTHERS[0], "plt", compute=compute, resample=NEVER)
        batch = data()
        state = jax.jit(partial(D.init, run, config))(jax.random.key(0), *batch)
        step = jax.jit(partial(D.step, run, config))
        for _ in range(100):
            state, values = step(state, batch)
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32"), jnp.dtype("int32")}
        ends[compute] = float(values["nmse"])
    assert ends["bfloat16"] == pytest.approx(ends["float32"], rel=0.05)
    assert ends["bfloat16"] != ends["float32"]
