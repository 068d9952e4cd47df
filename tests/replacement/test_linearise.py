"""Jacobians of the live replacement model, and integrated gradients, against the model itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.replacement import model_sources, own_writes
from jaxinterp.replacement.linearise import linearise, path
from tests.replacement.combinations import Made, make
from tests.replacement.routes import PATTERN, close, derivative, dot, random_like, without_units

pytestmark = pytest.mark.usefixtures("x64")

CASES = [("complete", "live")]
SLOW = [
    *[(name, how) for name in ("heads-sae", "three", "clt-some") for how in ("live-norms", "live")],
    ("lines", "live-norms"), ("mlp-sae-some", "live-norms"), ("residual-tangent", "live"),
    ("residual-mid", "live"), ("mlp-sae", "live"), ("residual-constant", "live"),
]  # fmt: skip


def sources_of(made: Made) -> Any:
    return model_sources(made.operator, made.run, own_writes(made.operator, made.run))


@pytest.mark.parametrize(
    ("name", "how"), [*CASES, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]]
)
def test_jacobians_are_those_of_the_model(name: str, how: str) -> None:
    made = make(name)
    found = linearise(made.operator, sources_of(made), how)
    ((weight, operator),) = found
    assert weight == 1
    # The live replacement model with every error is the model.
    own = found.reads_at(1.0)
    close(own.final, made.run.final_norm[0])
    close(own.read, tuple(None if read is None else read[:, 0] for read in made.run.read))
    change = without_units(random_like(operator.in_structure, 1))
    bars = random_like(operator.out_structure, 3)
    forth = jax.jit(lambda operator, change: operator.apply(change))(operator, change)
    held = PATTERN if how == "live-norms" else ()
    close(forth, jax.jit(lambda change: derivative(made, change, held))(change))
    assert dot(forth, bars) == pytest.approx(dot(change, found.transpose(bars)), rel=1e-10)


def gap(made: Made, bars: Any, steps: int, how: str = "integrated", **path: Any) -> float:
    """How far effects are from adding up to the difference that the path makes."""
    found = linearise(made.operator, sources_of(made), how, steps=steps, **path)
    difference = jax.tree.map(jnp.subtract, found.reads_at(1.0), found.reads_at(0.0))
    effects = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found.effects(bars))])
    return abs(effects.sum() - dot(difference, bars)) / np.abs(effects).sum()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("complete", "integrated"),
        pytest.param("crosscoder", "integrated", marks=pytest.mark.slow),
        pytest.param("heads-sae", "integrated", marks=pytest.mark.slow),
        pytest.param("three", "integrated-norms", marks=pytest.mark.slow),
    ],
)
def test_integrated_effects_are_complete(name: str, how: str) -> None:
    made = make(name)
    bars = random_like(made.operator.out_structure, 3)
    gaps = [gap(made, bars, steps, how) for steps in (4, 16, 64)]
    assert gaps[2] < 1e-5
    assert gaps[2] < 1e-2 * min(gaps[:2])


@pytest.mark.slow
def test_integrated_effects_of_what_is_linear_are_exact() -> None:
    """One step does: frozen patterns and no norms leave nothing else than the last norm and what it reads."""
    made = make("three", pre_norms=False)
    bars = random_like(made.operator.out_structure, 3)
    assert gap(made, bars._replace(final=jnp.zeros_like(bars.final)), 1, "integrated-norms") < 1e-12
    assert gap(made, bars, 1, "integrated-norms") > 1e-3


def test_a_baseline_near_the_prompt() -> None:
    """A short path away from zero needs few steps, equally spaced."""
    made = make("complete")
    bars = random_like(made.operator.out_structure, 3)
    sources = sources_of(made)
    near = jax.tree.map(lambda a, b: a + 0.2 * b, sources, random_like(made.operator.in_structure, 5))
    gaps = [gap(made, bars, steps, power=1, baseline=near) for steps in (1, 8)]
    assert gaps[1] < 1e-6 < gaps[0]


@pytest.mark.parametrize(("steps", "power"), [(1, 1), (2, 4), (16, 4), (1, 4)])
def test_path_weights(steps: int, power: int) -> None:
    shares, weights = path(steps, power)
    assert sum(weights) == pytest.approx(1, abs=1e-14)
    assert np.all(np.diff([0, *shares, 1]) > 0)
    # Degree 1 in the share is degree 2 power - 1 in u, exact from power steps on.
    if steps >= power:
        assert np.dot(shares, weights) == pytest.approx(1 / 2)


def test_bad_input() -> None:
    made = make("complete")
    sources = sources_of(made)
    with pytest.raises(InputError, match=r"'life' \(did you mean live.*expected one of frozen"):
        linearise(made.operator, sources, "life")
    with pytest.raises(InputError, match="steps is 0 and power is 4"):
        linearise(made.operator, sources, "integrated", steps=0)
    with pytest.raises(InputError, match="only integrated ones have a baseline"):
        linearise(made.operator, sources, "live", baseline=sources)
