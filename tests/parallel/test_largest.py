"""The largest of values that are divided over a mesh: one device's choice, and nothing large is gathered."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.dictionaries.activations import batch_top_k, top_k
from jaxinterp.parallel import largest, placement
from jaxinterp.parallel.mesh import make

K = 5


def choices(h: Any, keep: Any) -> Any:
    """What features keep, three ways, and the (values, numbers) of a row's best."""
    few = h[:, :, :16]
    return (
        top_k(h, K), top_k(h, K, keep=keep), top_k(few, 12), batch_top_k(h, K * h.shape[1]),
        batch_top_k(h, K * h.shape[1], keep=keep * h.shape[1]), largest.top_k(h, K, recall=0.9),
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [(8, 1), (1, 8), (2, 4)])
def test_the_choice_is_that_of_one_device_and_pre_activations_stay_where_they_are(
    sizes: tuple[int, int],
) -> None:
    h = jax.random.normal(jax.random.key(0), (2, 64, 128))
    h = h.at[0, 0].set(-1.0).at[1, 3, 7:].set(0.0)
    keep = jnp.asarray(3, jnp.int32)
    wanted = jax.jit(choices)(h, keep)
    mesh = make(*sizes)
    spread = jax.NamedSharding(mesh, jax.P(None, "data", "model"))

    def on_mesh(h: Any, keep: Any) -> Any:
        with placement.placed(mesh):
            return choices(h, keep)

    compiled = jax.jit(on_mesh).lower(jax.device_put(h, spread), keep).compile()
    found = compiled(jax.device_put(h, spread), keep)
    jax.tree.map(np.testing.assert_array_equal, found[:5], wanted[:5])
    # Equal values come in any order.
    np.testing.assert_array_equal(found[5][0], wanted[5][0])
    np.testing.assert_array_equal(np.take_along_axis(np.asarray(h), np.asarray(found[5][1]), -1), found[5][0])
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather\(", compiled.as_text())
    sizes_gathered = [int(np.prod([int(n) for n in shape.split(",") if n])) for shape in gathered]
    assert all(size <= 2 * 64 * 8 * K for size in sizes_gathered), gathered
    assert h.size > 2 * 64 * 8 * K


def test_all_positive_values_win_where_they_are_few(x64: None) -> None:
    values = jnp.asarray([[[3.0, -1.0, 0.0], [0.5, 2.0, 2.0]]])
    for count, chosen in (
        (1, [3.0]),
        (2, [3.0, 2.0, 2.0]),
        (4, [3.0, 2.0, 2.0, 0.5]),
        (6, [3.0, 2.0, 2.0, 0.5]),
    ):
        mask = np.asarray(largest.winners_of_all(values, count))
        assert sorted(np.asarray(values)[mask].tolist(), reverse=True) == chosen
