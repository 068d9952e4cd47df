"""Graphs under other linearisations than the frozen one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.attribution import Direction, reproduce, trace
from jaxinterp.core.errors import InputError
from jaxinterp.graphs.kinds import EMBEDDING
from jaxinterp.replacement import agreement
from tests.attribution.cases import TOKENS
from tests.replacement.combinations import Made, make
from tests.replacement.routes import PATTERN, derivative

pytestmark = pytest.mark.usefixtures("x64")


def graph_of(made: Made, **settings: Any) -> Any:
    vector = np.random.default_rng(2).normal(size=made.model.config.d_model)
    return trace(
        made.model, made.dictionaries, TOKENS, targets=[Direction(vector, "a direction")], **settings
    ), vector


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("complete", "live"),
        *[pytest.param("three", h, marks=pytest.mark.slow) for h in ("live", "live-norms")],
    ],
)
def test_edges_are_derivatives_of_the_model(name: str, how: str) -> None:
    """The edge from a token's embedding is what a small change along it does to the target in the model itself."""
    made = make(name)
    graph, vector = graph_of(made, linearisation=how)
    (row,) = graph.matrix()[graph.targets]
    tokens = np.flatnonzero(graph.nodes["kind"] == EMBEDDING)
    none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), made.operator.in_structure)
    held = PATTERN if how == "live-norms" else ()
    moved = jax.jit(lambda change: derivative(made, change, held).final[-1])
    learned = 0 if made.operator.positions is None else made.operator.positions
    embed = made.run.embed[0] - learned
    for position in (0, 2, len(TOKENS) - 1):
        change = none._replace(embed=none.embed.at[position].set(embed[position]))
        assert row[tokens[position]] == pytest.approx(float(moved(change) @ vector), rel=1e-9, abs=1e-12)
    assert graph.checks().ok
    assert graph.nodes["constant"][graph.targets[0]] != 0


def test_integrated_edges_leave_nothing() -> None:
    made = make("complete")
    frozen, _ = graph_of(made)
    same, _ = graph_of(made, linearisation="frozen", steps=3)
    assert np.array_equal(same.weights, frozen.weights) and same.provenance == frozen.provenance
    found = [graph_of(made, linearisation="integrated", steps=steps)[0] for steps in (4, 32)]
    sizes = np.abs(frozen.nodes["value"]) + 1
    left = [np.nanmax(np.abs(g.nodes["constant"] - frozen.nodes["constant"]) / sizes) for g in found]
    assert left[1] < 1e-3 < left[0]
    assert found[1].checks().ok
    # Edges between the same features, which are others.
    assert 0.5 < np.median(agreement(frozen, found[1]).cosine) < 0.999
    assert reproduce(found[1], made.model, made.dictionaries).outcome == "identical"


def test_bad_input() -> None:
    made = make("complete")
    with pytest.raises(InputError, match="linearisation is 'linear'"):
        graph_of(made, linearisation="linear")
