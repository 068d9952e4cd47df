"""Replacement models of several parts as linear operators: I1, transposes, causality, what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.replacement import model_sources, own_writes
from tests.replacement.combinations import COMBINATIONS, Made, make

pytestmark = pytest.mark.usefixtures("x64")
TOLERANCE = 1e-10


def random_like(structure: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), structure)


def dot(a: Any, b: Any) -> float:
    return float(sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


def check(made: Made) -> None:
    operator, run = made.operator, made.run

    @jax.jit
    def everything(operator: Any, run: Any, one: Any, reads: Any) -> Any:
        again = operator.apply(model_sources(operator, run, own_writes(operator, run)))
        return again, operator.apply(one), operator.transpose(reads)

    one, bars = random_like(operator.in_structure, 1), random_like(operator.out_structure, 3)
    again, forth, back = everything(operator, run, one, bars)
    # I1: with errors the operator repeats the model.
    np.testing.assert_allclose(again.final, run.final_norm[0], atol=TOLERANCE)
    for read, own in zip(again.read, run.read, strict=True):
        assert (read is None) == (own is None)
        if read is not None:
            np.testing.assert_allclose(read, own[:, 0], atol=TOLERANCE)
    assert dot(forth, bars) == pytest.approx(dot(one, back), rel=TOLERANCE)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_combination(name: str) -> None:
    check(make(name))
