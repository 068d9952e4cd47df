"""The stateless permutation: a bijection, pure in its key, and without visible order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.activations.store_shuffle import Permutation
from jaxinterp.core.errors import InputError


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(-5, 5), st.integers(0, 3))
def test_every_number_comes_once(n: int, seed: int, epoch: int) -> None:
    out = Permutation(n, seed, epoch)(np.arange(n))
    assert sorted(out.tolist()) == list(range(n))


def test_numbers_do_not_depend_on_who_else_is_asked_for() -> None:
    permutation, numbers = Permutation(10**15, 3, 1), np.array([0, 17, 10**15 - 1, 123456789012345])
    together = permutation(numbers)
    assert together.tolist() == [int(Permutation(10**15, 3, 1)(np.array(n))) for n in numbers]
    assert len(set(together.tolist())) == 4
    assert together.max() < 10**15


def test_another_epoch_or_seed_is_another_order() -> None:
    base = Permutation(5000, 0, 0)(np.arange(5000))
    for key in ((0, 1), (1, 0), (1, 1)):
        other = Permutation(5000, *key)(np.arange(5000))
        assert (other == base).mean() < 0.005  # one in 5,000 is expected


def test_places_are_even_and_neighbours_part() -> None:
    """Chi-square of where tenths of the range go (81 degrees of freedom), and no memory from one number to the next."""
    n = 100_000
    out = Permutation(n, 7)(np.arange(n))
    table = np.histogram2d(np.arange(n), out, bins=10, range=[[0, n], [0, n]])[0]
    chi = ((table - n / 100) ** 2 / (n / 100)).sum()
    assert 40 < chi < 140
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(np.arange(n), out)[0, 1]) < 0.02
    steps = np.abs(np.diff(out))
    assert np.median(steps) == pytest.approx(
        (1 - 2**-0.5) * n, rel=0.03
    )  # that of independent uniform numbers


def test_the_order_is_the_same_for_ever() -> None:
    """Stores and checkpoints of a run that is resumed under a later version rely on it."""
    assert Permutation(20, 0, 0)(np.arange(20)).tolist() == ORDER


ORDER = [10, 17, 8, 11, 7, 4, 15, 2, 14, 18, 19, 13, 5, 12, 1, 16, 3, 6, 9, 0]


def test_numbers_outside_are_refused() -> None:
    for n in (0, 1 << 63):
        with pytest.raises(InputError, match="expected 1 to"):
            Permutation(n, 0)
    with pytest.raises(InputError, match="outside"):
        Permutation(5, 0)(np.array([5]))
