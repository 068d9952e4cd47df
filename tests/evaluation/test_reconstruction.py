"""Figures of reconstruction against plain numpy; digits that large means must not cost; histograms by hand."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.activations.text import Batch, Source, plain
from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.initialise import random
from jaxinterp.evaluation.density import histogram
from jaxinterp.evaluation.moments import Moments
from jaxinterp.evaluation.reconstruction import Rows, reconstruction
from jaxinterp.evaluation.text import take


def plt(**changes: object) -> Dictionary:
    config = DictionaryConfig("plt", 2, 12, 6, activation="relu", **changes)  # type: ignore[arg-type]
    params = random(config, jax.random.key(3), jnp.float64)
    return Dictionary({**params, "b_enc": params["b_enc"].at[0, 5].set(-99.0)}, config)


def test_every_figure_is_its_definition(x64: None) -> None:
    d, numbers = plt(), np.random.default_rng(0)
    x, y = numbers.normal(2.0, 1.0, (2, 2, 5, 4, 6))
    y[:, 0, 0] = 0  # a row of length zero: no ratio, no cosine
    use = numbers.random((5, 4)) < 0.8
    use[0, 0], use[3] = True, False
    zeros = np.zeros((5, 4), np.int32)
    pieces = [slice(0, 2), slice(2, 5)]
    found = reconstruction(
        d, [Rows(jnp.asarray(x[:, p]), jnp.asarray(y[:, p]), use[p], zeros[p], zeros[p]) for p in pieces]
    )
    a = np.asarray(d.encode(jnp.asarray(x)))[:, use]
    guess, true = np.asarray(d.reconstruct(jnp.asarray(x)))[:, use], y[:, use]
    rows = int(use.sum())
    error, spread = ((true - guess) ** 2).sum((1, 2)), ((true - true.mean(1, keepdims=True)) ** 2).sum((1, 2))
    assert found.rows == rows
    np.testing.assert_allclose(found.fve, 1 - error / spread, rtol=1e-12)
    assert 1 - found.pooled_nmse == pytest.approx(1 - error.sum() / spread.sum(), rel=1e-12)
    long, out = np.linalg.norm(true, axis=2), np.linalg.norm(guess, axis=2)
    some = long > 0
    assert not some.all()
    cosine = np.where(some, (true * guess).sum(2) / np.where(some, long * out, 1), 0)
    np.testing.assert_allclose(found.cosine, cosine.mean(1), rtol=1e-12)
    for layer in range(2):
        own = some[layer]
        assert found.norm_ratio[layer] == pytest.approx((out[layer][own] / long[layer][own]).mean())
        relative = np.linalg.norm(true - guess, axis=2)[layer][own] / long[layer][own]
        assert found.relative_error[layer] == pytest.approx(relative.mean())
    np.testing.assert_allclose(found.bias, (guess**2).sum((1, 2)) / (true * guess).sum((1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.l0, (a != 0).sum(2).mean(1))
    np.testing.assert_allclose(found.l1, a.sum(2).mean(1), rtol=1e-12)
    np.testing.assert_array_equal(found.fired, (a != 0).sum(1))
    np.testing.assert_allclose(found.mean, true.mean(1), rtol=1e-12)
    grid = np.where(use[None, :, :, None], np.asarray(d.encode(jnp.asarray(x))), 0)
    np.testing.assert_array_equal(found.sequences, (grid != 0).any(2).sum(1))
    assert found.dead == pytest.approx((found.fired == 0).mean()) and found.dead > 0
    assert found.dense(0.5) == pytest.approx((found.density > 0.5).mean())
    figures = found.to_dict()
    assert figures["pooled_fve"] == pytest.approx(1 - figures["pooled_nmse"])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_large_mean_costs_no_digits(sizes: list[int], seed: int) -> None:
    """Against exact rational numbers, where Σy² - (Σy)²/n has no digit left."""
    numbers = np.random.default_rng(seed)
    parts = [1e9 + numbers.integers(-8, 9, (1, size, 2)) / 4 for size in sizes]
    found = Moments()
    for part in parts:
        found.add(part)
    every = np.concatenate(parts, axis=1)[0]
    exact = Fraction(0)
    for column in every.T:
        values = [Fraction(float(v)) for v in column]
        mean = sum(values) / len(values)
        exact += sum(((v - mean) ** 2 for v in values), Fraction(0))
    assert found.rows == len(every)
    assert found.spread[0] == pytest.approx(float(exact), rel=1e-6, abs=1e-5)
    np.testing.assert_allclose(found.mean[0], every.mean(axis=0), rtol=1e-15)


def test_histograms_say_where_their_bins_are() -> None:
    fired = np.array([[0, 1, 1, 10, 100, 1000, 0, 178], [0, 0, 0, 0, 0, 0, 0, 999]])
    found = histogram(fired, 1000)
    assert found.edges[0] == -3 and found.edges[-1] == 0 and len(found.edges) == 13
    np.testing.assert_allclose(np.diff(found.edges), 0.25)
    by_hand = np.zeros((2, 12), int)
    by_hand[0, 0], by_hand[0, 4], by_hand[0, 8] = 2, 1, 1  # densities of 0.001, 0.01 and 0.1 lie on edges
    by_hand[0, 9], by_hand[0, 11], by_hand[1, 11] = 1, 1, 1  # 0.178 = 10^-0.7496
    np.testing.assert_array_equal(found.counts, by_hand)
    np.testing.assert_array_equal(found.dead, [2, 7])
    assert (found.counts.sum(1) + found.dead == 8).all()


def test_what_does_not_vary_has_no_fraction_of_variance(x64: None) -> None:
    x = jnp.ones((2, 7, 6))
    figures = reconstruction(plt(), [(x, x)]).to_dict()
    assert figures["fve"] == [None, None] and figures["pooled_nmse"] is None


def test_numbers_that_are_not_finite_are_named(x64: None) -> None:
    x = np.ones((2, 7, 6))
    y = x.copy()
    y[1, 3, 2] = np.nan
    with pytest.raises(InputError, match="the values to reconstruct of layer 8 are not all finite"):
        reconstruction(plt(layers=(4, 8)), [(jnp.asarray(x), jnp.asarray(y))])
    x[0, 0, 0] = np.inf
    with pytest.raises(InputError, match="the reconstructions of layer 0 are not all finite"):
        reconstruction(plt(), [(jnp.asarray(x), jnp.ones((2, 7, 6)))])


def short_text(rows: int) -> Source:
    """As many different sequences of five, again and again."""

    def batch(index: int) -> Batch:
        return plain(np.arange(15).reshape(3, 5) + 15 * (index % max(1, rows // 3)))

    return Source(batch, 15)


def test_text_that_is_too_short_is_refused() -> None:
    assert sum(int(b.use.sum()) for b in take(short_text(6), 28, distinct=True)) == 28
    with pytest.raises(
        InputError, match="the text has 30 different usable tokens, fewer than the 31 asked for"
    ):
        take(short_text(6), 31, distinct=True)
    assert sum(int(b.use.sum()) for b in take(short_text(6), 31)) == 31
    later = take(short_text(6), 24, first_tokens=False, distinct=True)
    assert not any(b.use[:, 0].any() for b in later)
    nothing = Source(lambda index: plain(np.ones((1, 4)), np.zeros((1, 4), bool)), 4)
    with pytest.raises(InputError, match="no usable token"):
        take(nothing, 5)
    with pytest.raises(InputError, match="0 tokens, expected at least 1"):
        take(short_text(6), 0)
