"""What is kept of a stream is what a look at everything would keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.dashboards import histogram
from jaxinterp.interpret import pairs, texts
from jaxinterp.interpret.config import DashboardConfig
from jaxinterp.interpret.reading import NEXT
from jaxinterp.interpret.tally import BlockTexts, Tally
from tests.interpret import plainly

CONFIG = DashboardConfig(tokens=1, top=3, quantiles=2, in_quantile=2, before=3, after=2, coactive=0)


def counted(a: np.ndarray, text: plainly.Text, block: int, config: DashboardConfig = CONFIG) -> Tally:
    """Activations ``[S, T, N]`` taken in blocks of sequences."""
    tally = Tally(0, a.shape[2], config)
    for begin in range(0, len(a), block):
        here = slice(begin, begin + block)
        tokens, documents = text.tokens[here], texts.runs(text.segments[here])
        each = documents + np.arange(len(tokens))[:, None] * tokens.shape[1]
        known = BlockTexts(
            begin * tokens.shape[1], each.reshape(-1), texts.hashes(tokens, documents, config.before, NEXT).reshape(-1),
            text.use[here].reshape(-1), np.zeros(tokens.size, bool),
        )  # fmt: skip
        tally.take(*pairs.from_dense(a[here].reshape(-1, a.shape[2])), known)
    return tally


def some(seed: int, sequences: int, length: int, words: int, levels: int) -> tuple[np.ndarray, plainly.Text]:
    """Few words and few levels, so that texts and activations come again; some features dead, one always active."""
    random = np.random.default_rng(seed)
    tokens = random.integers(0, words, (sequences, length))
    segments = np.sort(random.integers(0, 3, (sequences, length)), axis=1)
    # Activations that follow from the token and the one before, as far as the document goes.
    table = (
        random.integers(0, levels, (words, words + 1, 4)) * random.integers(0, 2, (words, words + 1, 4)) / 4
    )
    before = np.where(np.diff(segments, axis=1, prepend=-1) == 0, np.roll(tokens, 1, axis=1), words)
    a = table[tokens, before].astype(np.float32)
    a[:, :, 1] = 0
    a[:, :, 2] = 0.5 + tokens / 8
    use = random.random((sequences, length)) < 0.9
    return a, plainly.Text(tokens, segments, use)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(2, 9),
    st.integers(1, 4),
)
def test_top_is_exact(seed: int, sequences: int, length: int, words: int, levels: int, block: int) -> None:
    a, text = some(seed, sequences, length, words, levels)
    tally = counted(a, text, block)
    for feature in range(a.shape[2]):
        wanted = plainly.top(plainly.peaks(a[:, :, feature], text, 3, 2), 3)
        best = tally.top
        order = np.lexsort((best.place[feature], best.rank[feature]))
        order = order[best.place[feature, order] >= 0]
        assert best.place[feature, order].tolist() == [one["place"] for one in wanted]
        assert best.value[feature, order].tolist() == [one["value"] for one in wanted]
        for slot, one in zip(order, wanted, strict=True):
            begin = 3 - one["at"]
            window = best.window[feature, slot]
            assert window[begin : begin + len(one["values"])].tolist() == one["values"]
            assert not window[:begin].any() and not window[begin + len(one["values"]) :].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 4))
def test_sample_counts_are_exact_and_blocks_do_not_matter(seed: int, sequences: int, block: int) -> None:
    a, text = some(seed, sequences, 7, 3, 5)
    tally, whole = counted(a, text, block), counted(a, text, sequences)
    for feature in range(a.shape[2]):
        every = {
            one["place"]: one for one in plainly.texts(plainly.peaks(a[:, :, feature], text, 3, 2))
        }  # fmt: skip
        kept = tally.sample.place[feature] >= 0
        assert kept.sum() == min(4, len(every))
        for place, repeats in zip(
            tally.sample.place[feature, kept], tally.sample.repeats[feature, kept], strict=True
        ):
            assert every[int(place)]["repeats"] == repeats
        assert set(tally.sample.place[feature]) == set(whole.sample.place[feature])
    assert (tally.counts == whole.counts).all()
    assert tally.seen == text.use.sum()


def test_repeats_of_the_top_where_the_window_holds_all_that_decides() -> None:
    tokens = np.tile([[1, 2, 3, 4]], (50, 1))
    a = np.zeros((50, 4, 4), np.float32)
    a[:, 2, 0] = 1.5
    text = plainly.Text(tokens, np.zeros_like(tokens), np.ones(tokens.shape, bool))
    tally = counted(a, text, 8)
    assert tally.top.repeats[0].tolist() == [50, 0, 0]
    assert tally.sample.repeats[0].max() == 50
    assert tally.top.place[0, 0] == 2


def test_the_sample_is_fair() -> None:
    """Of 400 texts 4 are kept by each of 300 features: every text about as often, whatever its activation."""
    random = np.random.default_rng(0)
    tokens = np.arange(400)[:, None] * np.array([[1, 0]]) + np.array([[0, 1]])
    a = np.repeat(random.random((400, 2, 1)).astype(np.float32) + 0.1, 300, axis=2)
    a[:, 1] = 0
    text = plainly.Text(tokens, np.zeros_like(tokens), np.ones(tokens.shape, bool))
    tally = counted(a, text, 100)
    times = np.bincount(tally.sample.place.reshape(-1) // 2, minlength=400)
    assert times.sum() == 1200
    # Sums of 40 texts each are 120 on average with a deviation of 10.4.
    assert np.abs(times.reshape(10, 40).sum(axis=1) - 120).max() < 50
    assert abs(np.corrcoef(times, a[:, 0, 0])[0, 1]) < 0.25


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(2.0**-15, 2.0**15, width=32), min_size=1, max_size=200))
def test_histogram_and_quantiles(values: list[float]) -> None:
    x = np.array(values, np.float32)
    counts = np.bincount(histogram.bins(x), minlength=histogram.BINS)
    wanted = plainly.histogram(x)
    assert {float(histogram.edges(i)): int(n) for i, n in enumerate(counts) if n} == wanted
    found = np.array(histogram.quantiles(counts, float(x.max())))
    assert (np.diff(found) >= 0).all() and found[-1] == pytest.approx(float(x.max()), rel=1e-6)
    # Each lies in the bin of the exact one, or at its edge; a bin is 1/16 of its octave's beginning wide.
    share = np.arange(1, 101) / 100
    assert all((x <= q * (1 + 1 / 15.9)).mean() >= p - 1e-9 for q, p in zip(found, share, strict=True))
    assert all((x < q * (1 - 1 / 15.9)).mean() <= p + 1e-9 for q, p in zip(found, share, strict=True))
    shown = histogram.shown(counts)
    assert shown is not None and sum(shown["counts"]) == len(x) and len(shown["counts"]) <= histogram.SHOWN
    assert shown["edges"][0] <= x.min() and x.max() < shown["edges"][-1]


def test_what_lies_outside_the_axis_is_counted_at_its_ends() -> None:
    tiny, huge = histogram.bins(np.array([1e-30, 1e30], np.float32))
    assert (tiny, huge) == (0, histogram.BINS - 1)
    assert histogram.quantiles(np.zeros(histogram.BINS), 0.0) is None
    assert histogram.shown(np.zeros(histogram.BINS)) is None


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_pairs_chosen_on_the_device_are_the_same(density: float) -> None:
    random = np.random.default_rng(1)
    a = (random.random((30, 20)) * (random.random((30, 20)) < density)).astype(np.float32)
    order = np.argsort(-a, axis=1)
    few = pairs.from_chosen(np.take_along_axis(a, order, axis=1), order)
    for one, other in zip(pairs.from_dense(a), few, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_text_has_the_same_number_and_others_have_not() -> None:
    random = np.random.default_rng(2)
    tokens = random.integers(0, 3, (40, 9))
    documents = texts.runs(np.sort(random.integers(0, 3, (40, 9)), axis=1))
    found = texts.hashes(tokens, documents, 3, 2)
    seen: dict[int, tuple[object, ...]] = {}
    for s in range(40):
        for t in range(9):
            window = [
                (d, int(tokens[s, t + d])) for d in range(-3, 3)
                if 0 <= t + d < 9 and documents[s, t + d] == documents[s, t]
            ]  # fmt: skip
            assert seen.setdefault(int(found[s, t]), tuple(window)) == tuple(window)
    assert len(seen) == len(set(seen.values()))


def test_a_document_that_comes_back_is_another() -> None:
    assert texts.runs(np.array([[5, 5, 7, 5], [1, 1, 1, 1]])).tolist() == [[0, 0, 1, 2], [0, 0, 0, 0]]
