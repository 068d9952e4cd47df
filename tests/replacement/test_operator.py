"""The frozen replacement model as a linear operator, by independent routes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.dictionaries import Dictionary
from jaxinterp.models import Model, forward
from jaxinterp.replacement import (
    ReplacementOperator,
    Run,
    freeze,
    live,
    make_operator,
    model_sources,
    own_writes,
    part_arrays,
    places,
)
from tests.attribution.cases import TOKENS, random_dictionary
from tests.support import EVERY, tiny_model

pytestmark = pytest.mark.usefixtures("x64")
TOKENS = jnp.asarray(TOKENS)[None]


def make(family: str, name: str) -> tuple[Model, Dictionary, Run, ReplacementOperator]:
    model = tiny_model(family, dtype="float64")
    dictionary = random_dictionary(model, name)
    where = places([dictionary], model.config)
    run = freeze(model.params, model.config, TOKENS, places=where)
    parts = part_arrays(where, [dictionary.params], model.config)
    operator = make_operator(model.params, model.config, run, where, parts)
    return model, dictionary, run, operator


def random_like(structure: object, seed: int) -> object:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), structure)


def dot(a: object, b: object) -> float:
    return float(sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)))


NAMES = ("plt", "skip-plt", "raw-clt")
FAST = (("gpt2", "skip-plt"), ("gemma2", "raw-clt"))
CASES = [
    pytest.param(family, name, marks=() if (family, name) in FAST else pytest.mark.slow)
    for family in EVERY
    for name in NAMES
]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_operator(family: str, name: str) -> None:
    _, _, run, operator = make(family, name)
    apply = jax.jit(lambda s: operator.apply(s))
    transpose = jax.jit(lambda r: operator.transpose(r))
    # Linear.
    one, two = random_like(operator.in_structure, 1), random_like(operator.in_structure, 2)
    mixed = jax.tree.map(lambda a, b: 2.0 * a - 3.0 * b, one, two)
    expected = jax.tree.map(lambda a, b: 2.0 * a - 3.0 * b, apply(one), apply(two))
    for got, want in zip(jax.tree.leaves(apply(mixed)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-11)
    # <apply x, y> = <x, transpose y>.
    reads = random_like(operator.out_structure, 3)
    assert dot(apply(one), reads) == pytest.approx(dot(one, transpose(reads)), rel=1e-11)
    # The same as linearising at any point and as reverse-mode differentiation.
    _, tangent = jax.linearize(operator.apply, two)
    for got, want in zip(jax.tree.leaves(tangent(one)), jax.tree.leaves(apply(one)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-11)
    _, pullback = jax.vjp(operator.apply, two)
    for got, want in zip(jax.tree.leaves(pullback(reads)[0]), jax.tree.leaves(transpose(reads)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-11)
    # The model's own sources give the model's own reads.
    again = apply(model_sources(operator, run, own_writes(operator, run)))
    np.testing.assert_allclose(again.read[0], run.read[0][:, 0], atol=1e-11)
    np.testing.assert_allclose(again.final, run.final_norm[0], atol=1e-11)


@pytest.mark.parametrize("name", ["plt", "skip-plt", "clt", "raw-clt"])
def test_live_replacement_by_hand(name: str) -> None:
    """Live replacement equals running layer by layer with each MLP output computed from all layers so far."""
    model, dictionary, *_ = make("gemma2", name)
    d = dictionary.config
    logits, found = live.forward(
        model.params, model.config, dictionary, TOKENS, sites=(d.read_site, d.write_site)
    )
    read = getattr(found, d.read_site)
    np.testing.assert_allclose(getattr(found, d.write_site), dictionary.reconstruct(read), atol=1e-11)
    clean, _ = forward(model.params, model.config, TOKENS)
    assert logits.shape == clean.shape
    assert float(jnp.abs(logits - clean).max()) > 1e-3
