"""Training batches from a store: every usable row once an epoch, pure in (seed, step), the stream's own if asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxinterp.activations import Stream, StreamConfig, make_source
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.store_stream import StoredConfig, StoredStream, open_store, stored_stream
from jaxinterp.core.errors import InputError
from tests.activations.store_cases import SITES, TEXT, make_store
from tests.activations.test_store import write
from tests.activations.test_text import documents, model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("stored") / "store")


@pytest.fixture
def many(tmp_path: Path) -> Store:
    """Ten chunks of four rows, of which 34 are used."""
    write(tmp_path / "many")
    return Store(tmp_path / "many")


def usable(first_tokens: bool = True) -> list[int]:
    """The usable rows of the tiny text, straight from its source."""
    found = []
    for index in range(10):
        made = documents(0, index, 8, 12)
        mask = (made["weights"] > 0) & (first_tokens | (made["positions"] > 0))
        found += (96 * index + np.flatnonzero(mask.reshape(-1))).tolist()
    return found


@pytest.mark.parametrize("order", ["window", "full", "stored"])
@pytest.mark.parametrize("first_tokens", [True, False])
def test_an_epoch_has_every_usable_row_once(store: Store, order: str, first_tokens: bool) -> None:
    for rows in (1, 16):
        found = StoredStream(
            store, SITES, rows=rows, seed=0, config=StoredConfig(order, 2), first_tokens=first_tokens
        )
        numbers = np.concatenate([found.row_numbers(i) for i in range(found.steps)]).tolist()
        expected = usable(first_tokens)
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(expected)
        assert len(expected) - len(numbers) < rows
        if order == "stored":
            assert numbers == expected[: len(numbers)]
        else:
            assert numbers != sorted(numbers)


@pytest.mark.parametrize("order", ["window", "full", "stored"])
def test_batches_are_the_rows_they_say(many: Store, order: str) -> None:
    found = stored_stream(many, ("resid_post", "mlp_in"), rows=5, seed=3, config=StoredConfig(order, 3))
    again = stored_stream(many, ("resid_post", "mlp_in"), rows=5, seed=3, config=StoredConfig(order, 3))
    assert isinstance(found, StoredStream) and isinstance(again, StoredStream)
    for step in (0, 1, 2, 5, 6, 14, 3):  # forwards, across epochs, and back
        y, x = found.batch(step)
        numbers = again.row_numbers(step)
        np.testing.assert_array_equal(x, many.read("mlp_in", numbers))
        np.testing.assert_array_equal(y, many.read("resid_post", numbers))


def test_epochs_and_seeds_have_their_own_orders(many: Store) -> None:
    for order in ("window", "full"):
        one, two = (
            StoredStream(many, ("mlp_in",), rows=34, seed=seed, config=StoredConfig(order, 3))
            for seed in (0, 1)
        )
        assert one.steps == 1
        orders = [one.row_numbers(0).tolist(), one.row_numbers(1).tolist(), two.row_numbers(0).tolist()]
        assert len({tuple(o) for o in orders}) == 3
        assert len({tuple(sorted(o)) for o in orders}) == 1


def test_a_window_mixes_its_chunks_and_each_is_read_once(
    many: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, int]] = []
    original = Store.start

    def start(store: Store, name: str, rows: slice, layers: object = None) -> object:
        reads.append((rows.start, rows.stop))
        return original(store, name, rows)

    monkeypatch.setattr(Store, "start", start)
    found = StoredStream(many, ("mlp_in",), rows=2, seed=0, config=StoredConfig("window", 5))
    chunks = [set((found.row_numbers(i) // 4).tolist()) for i in range(found.steps)]
    reads.clear()
    for step in range(found.steps):
        found.batch(step)
    assert sorted(reads) == [(4 * c, 4 * c + 4) for c in range(10)]
    ends = found._windows_of(0)[1]
    first = set().union(*chunks[: ends[0] // 2])
    assert len(first) == 5
    assert sum(len(c) == 2 for c in chunks) > len(chunks) / 2


def test_the_order_stream_gives_the_stream_s_own_batches(store: Store) -> None:
    """Same tokens, same order: bit for bit what a model in memory gives."""
    for changes in ({}, {"reuse": 2, "first_tokens": False}, {"shuffle": False}):
        settings = StreamConfig(**{"text_batches": 2, "microbatch": 4, **changes})
        live = Stream(model(), SITES, make_source(TEXT, model(), 0), rows=16, seed=5, config=settings)
        stored = stored_stream(store, SITES, rows=16, seed=5, config=StoredConfig("stream"), stream=settings)
        for step in (0, 1, 11, 12, 30, 5):
            for a, b in zip(live.batch(step), stored.batch(step), strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(live.pool(1)[1], stored.pool(1)[1])


def test_a_pool_is_a_sample_of_usable_rows(many: Store) -> None:
    for order in ("window", "full", "stored"):
        found = stored_stream(many, ("mlp_in", "resid_post"), rows=4, seed=0, config=StoredConfig(order, 3))
        (x, y), rows = found.pool(0)
        assert x.shape[1] == y.shape[1] == len(rows) >= 8
        whole = many.read("mlp_in", np.flatnonzero(np.arange(40) % 7))
        known = {whole[:, r].tobytes() for r in range(whole.shape[1])}
        assert all(np.asarray(x)[:, r].tobytes() in known for r in rows)


def test_a_cache_changes_no_row(store: Store) -> None:
    settings = StoredConfig("full", cache=16)
    cached = stored_stream(
        open_store(str(store.folder), model(), settings, SITES), SITES, rows=16, seed=0, config=settings
    )
    plain = stored_stream(store, SITES, rows=16, seed=0, config=StoredConfig("full"))
    for step in (3, 0, 3, 50):
        for a, b in zip(cached.batch(step), plain.batch(step), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="activations of another model"):
        open_store(str(store.folder), model(scale=2.0), settings, SITES)


def test_what_does_not_fit_is_refused(many: Store, store: Store) -> None:
    with pytest.raises(InputError, match="34 usable rows, fewer than a batch of 35"):
        stored_stream(many, ("mlp_in",), rows=35, seed=0)
    with pytest.raises(InputError, match="holds no site"):
        stored_stream(many, ("mlp_out",), rows=3, seed=0)
    with pytest.raises(InputError, match="order 'windows', expected one of"):
        StoredConfig("windows")
    with pytest.raises(InputError, match="10 text batches, which are not whole pools of 4"):
        stored_stream(store, SITES, rows=3, seed=0, config=StoredConfig("stream"))
