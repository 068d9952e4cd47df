"""Matching of features: a permutation is found again, chance gives uniform p-values, splits are counted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from jaxinterp.core.errors import InputError
from jaxinterp.dictionaries import Dictionary, DictionaryConfig
from jaxinterp.dictionaries.initialise import random
from jaxinterp.evaluation.matching import best, greedy, matching, one_to_one
from jaxinterp.evaluation.reconstruction import Rows
from jaxinterp.evaluation.similarity import Correlation, Cosine, _rotated, codes, decoders
from jaxinterp.evaluation.splitting import resolution, splitting


class Given:
    """Similarities from a matrix, to be matched."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix, self.shape = matrix, matrix.shape

    def block(self, start: int, stop: int) -> np.ndarray:
        return self.matrix[start:stop]


def rows(seed: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_a_permutation_is_found_again() -> None:
    a = rows(0, 60, 12)
    order = np.random.default_rng(1).permutation(60)
    b = 3.0 * a[order] + 0.01 * rows(2, 60, 12)
    found = matching(Cosine(a, b), draws=19, block=16)
    np.testing.assert_array_equal(order[found.best.partner], np.arange(60))
    np.testing.assert_array_equal(found.best.partner[order], np.arange(60))
    np.testing.assert_array_equal(found.best.back, order)
    assert found.best.score.min() > 0.999 and found.p.max() == 0.05
    for pairs in (one_to_one(Cosine(a, b)), greedy(Cosine(a, b), block=16)):
        np.testing.assert_array_equal(order[pairs.second], pairs.first)
    summary = found.to_dict()
    assert summary["above_null_99"] == 1.0 and summary["above"]["0.9"] == {
        "share": 1.0,
        "back": 1.0,
        "null": pytest.approx(0, abs=0.01),
    }


def test_blocks_do_not_change_what_is_best() -> None:
    a, b = rows(0, 23, 5), rows(1, 31, 5)
    matrix = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    for block in (4, 23):
        found = best(Cosine(a, b), block)
        np.testing.assert_array_equal(found.partner, matrix.argmax(1))
        np.testing.assert_array_equal(found.back, matrix.argmax(0))
        np.testing.assert_allclose(found.back_score, matrix.max(0), atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_one_to_one_matchings(n: int, others: int, seed: int, ties: bool) -> None:
    values = np.random.default_rng(seed).random((n, others))
    values = np.ceil(values * 3) / 3 if ties else values
    given = Given(values)
    exact = one_to_one(given)
    first, second = linear_sum_assignment(-values)
    assert exact.score.sum() == pytest.approx(values[first, second].sum())
    found = greedy(given, block=2)
    assert len(found.first) == len(set(found.second.tolist())) == min(n, others)
    left, expected = values.copy(), []
    for _ in range(min(n, others)):  # one by one, the first of equals
        i, j = np.unravel_index(left.argmax(), left.shape)
        expected.append((i, j))
        left[i], left[:, j] = -1, -1
    assert sorted(expected) == list(zip(found.first, found.second, strict=True))


def test_chance_gives_uniform_p_values() -> None:
    """Vectors, and sparse activations, that have nothing to do with each other."""
    random = np.random.default_rng(3)
    active = [random.random((300, 120)) * (random.random((300, 120)) < 0.1) for _ in range(2)]
    for similarity in (
        Cosine(rows(0, 400, 20), rows(1, 300, 20)),
        Correlation(*(sparse.csr_matrix(a) for a in active)),
    ):
        p = matching(similarity, draws=19).p
        counts = np.bincount(np.round(p * 20).astype(int), minlength=21)[1:]
        expected = len(p) / 20
        # Of 20 values each one twentieth; chi-squared with 19 degrees of freedom stays below 43.8 in 999 of 1000.
        assert ((counts - expected) ** 2 / expected).sum() < 43.8
        assert p.mean() == pytest.approx(0.525, abs=0.05)


def test_correlations_are_numpy_s() -> None:
    random = np.random.default_rng(0)
    a = random.random((50, 7)) * (random.random((50, 7)) < 0.4)
    b = random.random((50, 5)) * (random.random((50, 5)) < 0.4) + 0.3 * a[:, :5]
    a[:, 2], b[:, 1] = 0.7, 0
    found = Correlation(sparse.csr_matrix(a), sparse.csr_matrix(b))
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.nan_to_num(np.corrcoef(a.T, b.T)[:7, 7:])
    np.testing.assert_allclose(found.block(0, 7), expected, atol=1e-12)
    np.testing.assert_allclose(found.block(3, 5), expected[3:5], atol=1e-12)


@pytest.mark.parametrize("width", [6, 1500])
def test_the_null_of_vectors_is_a_rotation(width: int) -> None:
    vectors = rows(0, 8, width)
    turned = np.asarray(_rotated(jnp.asarray(vectors), jax.random.key(0)))
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, atol=2e-3 * width**0.5)
    if width > 1000:  # nothing is left of the old directions
        unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
        assert abs(turned[:, :width] @ unit.T).max() < 0.12 * np.linalg.norm(vectors, axis=1).max()


def plt(n: int, seed: int, **changes: object) -> Dictionary:
    config = DictionaryConfig("plt", 2, n, 6, activation="relu", **changes)  # type: ignore[arg-type]
    return Dictionary(random(config, jax.random.key(seed)), config, f"n{n}")


def test_splits_are_counted() -> None:
    coarse = np.eye(6, dtype=np.float32)[:4]
    fine = np.stack([coarse[0] + 0.1 * coarse[3], coarse[0] - 0.2 * coarse[1], coarse[2], -coarse[1]])
    found = splitting(Cosine(coarse, np.concatenate([fine, np.eye(6, dtype=np.float32)[5:]])))
    np.testing.assert_array_equal(found.parent, [0, 0, 2, -1, -1])
    np.testing.assert_array_equal(found.children, [2, 0, 1, 0])
    np.testing.assert_array_equal(found.of(0), [0, 1])
    figures = found.to_dict()
    assert (figures["covered"], figures["split"], figures["new"]) == (0.5, 0.25, 0.4)
    assert figures["children_of_covered"] == 1.5 and 0 <= figures["linked_by_chance"] <= 1


def test_the_resolution_knob() -> None:
    small = plt(8, 0)
    doubled = {
        name: jnp.concatenate([value, value], 1) for name, value in small.params.items() if name != "b_dec"
    }
    large = Dictionary(
        {**small.params, **doubled}, DictionaryConfig("plt", 2, 16, 6, activation="relu"), "n16"
    )
    (found,) = resolution([large, small], group=1)
    assert (found["from"], found["to"]) == ("n8", "n16")
    assert found["covered"] == found["split"] == 1.0 and found["new"] == 0.0
    with pytest.raises(InputError, match="n8 and n8 both have 8 features"):
        resolution([small, small])
    with pytest.raises(
        InputError, match="write_site is 'mlp_out' in one dictionary and 'resid_post' in another"
    ):
        resolution([small, plt(9, 1, write_site="resid_post")])
    with pytest.raises(InputError, match="1 dictionaries, expected at least two sizes"):
        resolution([small])


def test_decoders_are_joined_over_the_layers_they_write() -> None:
    config = DictionaryConfig("clt", 3, 5, 4, activation="relu")
    d = Dictionary(random(config, jax.random.key(0)), config)
    joined = decoders(d, 1)
    assert joined.shape == (5, 8)
    np.testing.assert_array_equal(joined[:, 4:], d.params["W_dec"][2][1])
    crosscoder = DictionaryConfig("crosscoder", 3, 5, 4, activation="relu")
    assert decoders(Dictionary(random(crosscoder, jax.random.key(0)), crosscoder), 0).shape == (5, 12)
    molt = DictionaryConfig("molt", 1, 2, 4, activation="relu", ranks=((2, 2),))
    with pytest.raises(InputError, match="writes no one direction"):
        decoders(Dictionary(random(molt, jax.random.key(0)), molt, "m"), 0)


def test_activations_of_used_tokens_become_sparse_columns() -> None:
    d = plt(8, 0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 6)), jnp.float32)
    use = np.random.default_rng(1).random((3, 4)) < 0.7
    zeros = np.zeros((3, 4), np.int32)
    found = codes(d, [Rows(x, x, use, zeros, zeros)])
    np.testing.assert_allclose(found[1].toarray(), np.asarray(d.encode(x))[1][use], atol=1e-6)


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(4, 3\) and \(4, 5\) are not of one space"):
        Cosine(rows(0, 4, 3), rows(0, 4, 5))
    with pytest.raises(InputError, match="the limit is 10, the greedy matching has none"):
        one_to_one(Cosine(rows(0, 11, 3), rows(0, 4, 3)), limit=10)
    with pytest.raises(InputError, match="activations on 4 and 5 tokens"):
        Correlation(sparse.csr_matrix((4, 2)), sparse.csr_matrix((5, 2)))
    with pytest.raises(InputError, match="0 draws"):
        matching(Cosine(rows(0, 4, 3), rows(0, 4, 3)), draws=0)
