"""The stream: right values, every row once, pure in (seed, step), the same on a mesh."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxinterp.activations import Stream, StreamConfig, TextConfig, make_source
from jaxinterp.core.errors import InputError
from jaxinterp.models.decoder import forward
from jaxinterp.parallel.mesh import make
from tests.activations.test_text import CONFIG, documents, model

SITES = ("mlp_in", "mlp_out")
TEXT = TextConfig(source="tests.activations.test_text:documents", length=12, batch=8)


def stream(seed: int = 0, text: TextConfig = TEXT, mesh: object = None, **changes: object) -> Stream:
    m = model()
    config = StreamConfig(**{"text_batches": 2, "microbatch": 8, **changes})
    return Stream(m, SITES, make_source(text, m, seed), rows=16, seed=seed, config=config, mesh=mesh)


def rows(values: jax.Array) -> list[bytes]:
    """Every row of ``[L, R, D]`` as bytes, to be compared and sorted."""
    return [np.asarray(values)[:, r].tobytes() for r in range(values.shape[1])]


def reference(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both sites of text batch ``index`` by a plain forward pass, rows flattened, and which are used."""
    made = documents(0, index, 8, 12)
    _, found = forward(
        model().params,
        CONFIG,
        made["tokens"],
        sites=SITES,
        segments=made["segments"],
        positions=made["positions"],
    )
    x, y = (np.asarray(getattr(found, site)).reshape(2, -1, 8) for site in SITES)
    return x, y, made["weights"].reshape(-1) > 0


def test_without_shuffle_rows_are_the_model_s_own_in_order() -> None:
    s = stream(shuffle=False)
    got = [np.concatenate([np.asarray(s.batch(i)[site]) for i in range(12)], axis=1) for site in range(2)]
    for site in range(2):
        parts = [reference(index)[site][:, reference(index)[2]] for index in range(2)]
        expected = np.concatenate(parts, axis=1)
        np.testing.assert_allclose(got[site][:, : expected.shape[1]], expected, atol=1e-6)


def test_shuffled_rows_are_the_same_rows_and_stay_in_pairs() -> None:
    plain, shuffled = stream(shuffle=False), stream()
    both = [[s.batch(i) for i in range(12)] for s in (plain, shuffled)]
    used = int(sum(reference(i)[2].sum() for i in range(2)))
    joined = [
        rows(np.concatenate([np.concatenate([np.asarray(v) for v in b], axis=2) for b in batches], axis=1))
        for batches in both
    ]
    assert sorted(joined[0][:used]) == sorted(joined[1][:used])
    assert joined[0][:used] != joined[1][:used]


def test_a_batch_depends_on_seed_and_step_only() -> None:
    one, two = stream(reuse=2), stream(reuse=2)
    later = {step: rows(two.batch(step)[0]) for step in (30, 3, 17)}
    for step in range(31):
        got = rows(one.batch(step)[0])
        if step in later:
            assert got == later[step]
    assert rows(stream(seed=1).batch(3)[0]) != later[3]


def test_a_pool_is_gone_through_again_in_another_order() -> None:
    s = stream(reuse=2)
    first, second = ([rows(s.batch(i)[0]) for i in range(k, k + 12)] for k in (0, 12))
    assert first != second
    assert {r for one in first for r in one} == {r for one in second for r in one}


def test_pools_of_a_limited_text_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import jaxinterp.activations.stream as module

    calls = []
    original = module.activations
    monkeypatch.setattr(module, "activations", lambda *a: calls.append(1) or original(*a))
    text = TextConfig(source=TEXT.source, length=12, batch=8, limit=4)
    kept, dropped = stream(text=text, keep=2), stream(text=text)
    a = [rows(kept.batch(i)[0]) for i in range(36)]
    assert len(calls) == 4
    assert a == [rows(dropped.batch(i)[0]) for i in range(36)]
    assert a[:12] != a[24:]


def test_first_tokens_can_be_left_out() -> None:
    s = stream(first_tokens=False, shuffle=False)
    made = documents(0, 0, 8, 12)
    keep = (made["weights"].reshape(-1) > 0) & (made["positions"].reshape(-1) > 0)
    expected = reference(0)[0][:, keep][:, :16]
    np.testing.assert_allclose(s.batch(0)[0], expected, atol=1e-6)


def test_eight_devices_give_the_same_rows_as_one() -> None:
    one, eight = stream(), stream(mesh=make(8))
    for step in (0, 13):
        for a, b in zip(one.batch(step), eight.batch(step), strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5)


def nothing_used(seed: int, step: int, batch: int, length: int) -> dict:
    return {**documents(seed, step, batch, length), "weights": np.zeros((batch, length))}


def test_text_without_a_usable_token_is_refused() -> None:
    text = TextConfig(source=f"{__name__}:nothing_used", length=12, batch=8)
    with pytest.raises(InputError, match="no usable token"):
        stream(text=text).batch(0)
