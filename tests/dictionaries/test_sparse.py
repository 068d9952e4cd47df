"""Sparse code beside dense activations: the same values and gradients for every kind, and what overflows is counted."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.core.letters import Array, Tree
from jaxinterp.dictionaries import sparse, sparse_choose, sparse_rows
from jaxinterp.dictionaries.base import Dictionary, kind_of
from tests.dictionaries.test_every_kind import ACTIVATIONS, STRUCTURES, L, N, inputs, make
from tests.support import normal

pytestmark = pytest.mark.usefixtures("x64")

BOTH = [
    ("plt", "relu"), ("skip-plt", "jumprelu"), ("sae", "topk-ranked"), ("clt", "jumprelu"), ("clt", "topk"),
    ("tied-clt", "groupmax"), ("crosscoder", "topk-ranked"), ("shared-crosscoder", "gated"),
]  # fmt: skip
assert {s for s, _ in BOTH} == set(STRUCTURES) and {a for _, a in BOTH} == set(ACTIVATIONS)


def loss_of(d: Dictionary, x: Array, sparsely: bool, params: Tree) -> Array:
    """A smooth function of reconstruction and activations."""
    kind = kind_of(d.config)
    if sparsely:
        code = sparse.encode(params, d.config, x, N)
        y, a = sparse.decode(params, d.config, code, x), sparse.to_dense(code, N)
    else:
        a = kind.encode(params, d.config, x)
        y = kind.decode(params, d.config, a, x)
    weights = jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)
    return jnp.sum(jnp.sin(y)) + jnp.sum(weights * a * a)


@pytest.mark.parametrize(("structure", "activation"), BOTH)
def test_values_and_gradients_are_those_of_dense_activations(structure: str, activation: str) -> None:
    d, x = make(structure, activation), inputs(7)
    dense = jax.jit(jax.value_and_grad(partial(loss_of, d, x, False)))(d.params)
    found = jax.jit(jax.value_and_grad(partial(loss_of, d, x, True)))(d.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, dense)
    assert any(np.abs(leaf).max() > 0.01 for leaf in jax.tree.leaves(dense[1]))


@pytest.mark.parametrize(
    ("structure", "activation"),
    [
        ("clt", "jumprelu"),
        pytest.param("sae", "topk", marks=pytest.mark.slow),
        pytest.param("shared-crosscoder", "gated", marks=pytest.mark.slow),
    ],
)
def test_gradients_are_finite_differences(structure: str, activation: str) -> None:
    d, x = make(structure, activation), inputs(5)
    value = jax.jit(jax.value_and_grad(partial(loss_of, d, x, True)))
    gradient = value(d.params)[1]
    for name, leaf in d.params.items():
        if name == "threshold":
            continue
        first = isinstance(leaf, tuple)
        array, slope = (leaf[-1], gradient[name][-1]) if first else (leaf, gradient[name])
        direction = normal(3, array.shape)

        def moved(
            step: float, name: str = name, leaf: Any = leaf, first: bool = first, way: Array = direction
        ) -> Any:
            new = (*leaf[:-1], leaf[-1] + step * way) if first else leaf + step * way
            return value({**d.params, name: new})[0]

        step = 1e-6
        numeric = (moved(step) - moved(-step)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(slope * direction), numeric, rtol=2e-6, atol=1e-7)


def test_batch_axes_vmap_and_gradients_to_the_input() -> None:
    d, x = make("clt", "topk"), inputs(4, 3)
    both = [jax.jit(jax.grad(lambda x, s=s: loss_of(d, x, s, d.params)))(x) for s in (False, True)]
    np.testing.assert_allclose(*both, atol=1e-12)

    def one(x: Array) -> Array:
        return sparse.decode(d.params, d.config, sparse.encode(d.params, d.config, x), x)

    by_row = jax.vmap(jax.vmap(one, in_axes=1, out_axes=1), in_axes=2, out_axes=2)
    np.testing.assert_allclose(jax.jit(by_row)(x), jax.jit(one)(x), atol=1e-12)
    np.testing.assert_allclose(jax.jit(one)(x), d.reconstruct(x), atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "gated"])
def test_what_does_not_fit_is_counted(activation: str) -> None:
    d, x = make("plt", activation), inputs(9)
    a = d.encode(x)
    for code in (sparse.encode(d.params, d.config, x, 3), sparse.from_dense(a, 3)):
        kept = np.asarray(sparse.to_dense(code, N))
        assert ((kept == a) | (kept == 0)).all()
        missing = np.asarray((a != 0) & (kept == 0)).sum(axis=(1, 2))
        assert missing.sum() > 0
        if activation != "gated":  # of which the gate is counted
            np.testing.assert_array_equal(code.lost, missing)
    whole = sparse.encode(d.params, d.config, x, N)
    assert not whole.lost.any()
    np.testing.assert_allclose(sparse.density(whole, N), jnp.mean(a != 0, axis=1), atol=1e-12)
    np.testing.assert_allclose(sparse.to_dense(sparse.within(whole, 5), N)[..., :5], a[..., :5], atol=1e-12)
    assert not sparse.to_dense(sparse.within(whole, 5), N)[..., 5:].any()


def test_there_is_no_code_without_a_capacity() -> None:
    d = make("plt", "relu")
    with pytest.raises(InputError, match="capacity"):
        sparse.encode(d.params, d.config, inputs(2))
    with pytest.raises(InputError, match="lorsa"):
        sparse.check(SimpleNamespace(kind="lorsa"), sparse.KINDS)  # type: ignore[arg-type]


def test_rows_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    d, x = make("shared-crosscoder", "topk-ranked"), inputs(11)
    whole = sparse.encode(d.params, d.config, x)
    monkeypatch.setattr(sparse_choose, "BYTES", 4 * N * 8)  # pieces of 4 rows, the last one padded
    for one, other in zip(whole, sparse.encode(d.params, d.config, x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(st.integers(0, 2**31), st.integers(1, 20))
def test_the_largest_in_two_steps_are_the_largest(seed: int, levels: int) -> None:
    """Ties included: of equals the first ones."""
    values = np.random.default_rng(seed).integers(1, levels + 1, (3, 8192)).astype(np.float32)
    for k in (1, 5, 33):
        ours, theirs = sparse_choose.largest(jnp.asarray(values), k), jax.lax.top_k(jnp.asarray(values), k)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("rows", "slots", "n", "width"),
    [(40, 3, 7, 16), (300, 19, 5, 3), (1, 1, 1, 1), pytest.param(6, 8, 50, 32, marks=pytest.mark.slow)],
)
def test_products_of_few_entries_are_products(rows: int, slots: int, n: int, width: int) -> None:
    rng = np.random.default_rng(0)
    indices = jnp.asarray(rng.integers(0, n + 1, (rows, slots)))
    if rows == 300:
        indices = indices.at[:, 0].set(2)  # an entry in every row, many sums of one column
    values = jnp.where(indices < n, jnp.asarray(rng.normal(size=(rows, slots))), 0.0)
    matrix = np.zeros((rows, n + 1))
    np.add.at(matrix, (np.arange(rows)[:, None], np.asarray(indices)), np.asarray(values))
    matrix = matrix[:, :n]
    w, y = jnp.asarray(rng.normal(size=(n, width))), jnp.asarray(rng.normal(size=(rows, width)))
    close = partial(np.testing.assert_allclose, atol=1e-11)
    close(sparse_rows.gather_sum(w, indices, values), matrix @ w)
    close(sparse_rows.scatter_sum(indices, values, y, n), matrix.T @ y)
    dots = np.concatenate([np.asarray(y @ w.T), np.zeros((rows, 1))], axis=1)
    close(sparse_rows.row_dots(w, indices, y), np.take_along_axis(dots, np.asarray(indices), axis=1))
    elsewhere = jnp.where(indices < n, sparse_rows._gathered_dots(w, indices.T, y).T, 0.0)  # than on a CPU
    close(elsewhere, np.take_along_axis(dots, np.asarray(indices), axis=1))

    def chained(w: Array, values: Array, y: Array) -> Array:
        """Every product and, through `jax.grad`, every derivative."""
        summed = sparse_rows.gather_sum(w, indices, values)
        back = sparse_rows.scatter_sum(indices, sparse_rows.row_dots(w, indices, y), summed, n)
        return jnp.sum(jnp.sin(back))

    def written_out(w: Array, values: Array, y: Array) -> Array:
        used = (indices < n).astype(w.dtype)
        rows_of = w[jnp.minimum(indices, n - 1)] * used[:, :, None]
        summed = jnp.sum(values[:, :, None] * rows_of, axis=1)
        dots = jnp.sum(rows_of * y[:, None, :], axis=2)
        back = jnp.zeros_like(w).at[indices].add(dots[:, :, None] * summed[:, None, :], mode="drop")
        return jnp.sum(jnp.sin(back))

    arguments = (w, values, y)
    for one, other in zip(
        *(jax.jit(jax.grad(way, (0, 1, 2)))(*arguments) for way in (chained, written_out)), strict=True
    ):
        close(jnp.where(indices < n, one, 0.0) if one.shape == indices.shape else one,
              jnp.where(indices < n, other, 0.0) if other.shape == indices.shape else other)  # fmt: skip


def test_many_slots_are_sorted_in_two_numbers() -> None:
    """Where slot and column do not fit one number of 32 bits."""
    indices = jnp.asarray(np.random.default_rng(0).integers(0, 9, (64, 4)))
    plain = sparse_rows.by_column(indices, 9)
    huge = sparse_rows.by_column(indices, 2**26)
    np.testing.assert_array_equal(plain.slots, huge.slots)
    np.testing.assert_array_equal(plain.starts[:9], huge.starts[:9])
    assert L == 3
