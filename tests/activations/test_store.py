"""A store gives back what went in, and every byte that is missing or wrong is found and named."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxinterp.activations import store_ledger
from jaxinterp.activations.collect import collect
from jaxinterp.activations.store_layout import Layout, Site, chunk_rows
from jaxinterp.activations.store_quantise import decode, encode
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.store_writer import StoreWriter, prepare
from jaxinterp.core.errors import InputError
from tests.activations.store_cases import config, content, make_store
from tests.activations.test_text import model
from tests.support import ROOT

LAYOUT = Layout((Site("mlp_in", (0, 1), 3), Site("resid_post", (1,), 5)), "float32", 40, 16, 4, 4, 8)


def values_of(layout: Layout, shard: int) -> dict[str, np.ndarray]:
    """Numbers for a shard that are a function of its rows only; some are zero."""
    begin, end = layout.span(shard)
    found = {}
    for info in layout.arrays():
        whole = np.random.default_rng(len(info.name)).normal(size=info.shape).astype(np.float32)
        whole[whole < -1] = 0
        here = (slice(None),) * info.rows_axis + (slice(begin, end),)
        found[info.name] = np.ascontiguousarray(whole[here]).astype(jnp.dtype(info.dtype))
    found["tokens"] = np.stack(
        [
            np.arange(begin, end),
            np.arange(begin, end) % 4,
            np.arange(begin, end) // 3,
            np.arange(begin, end) % 7 > 0,
        ],
        1,
    ).astype(np.int32)
    return found


def write(folder: Path, layout: Layout = LAYOUT, shards: list[int] | None = None) -> None:
    """Write some shards, or all of them and the final ledger."""
    lines = prepare(folder, layout, {"seed": 1})
    with StoreWriter(folder, layout) as writer:
        for shard in range(layout.shards) if shards is None else shards:
            if shard not in lines:
                writer.submit(shard, values_of(layout, shard))
    if shards is None:
        store_ledger.merge(folder, store_ledger.read(folder, layout))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write(tmp_path / "store")
    return tmp_path / "store"


def test_what_is_written_is_read(store: Path) -> None:
    found, whole = Store(store), [values_of(LAYOUT, s) for s in range(3)]
    for name, axis in (("mlp_in", 1), ("resid_post", 1)):
        expected = np.concatenate([w[f"sites/{name}"] for w in whole], axis=axis)
        assert (expected == 0).any()
        np.testing.assert_array_equal(found.read(name, slice(None)), expected)
        rows = np.array([39, 0, 17, 16, 15, 3, 17])
        np.testing.assert_array_equal(found.read(name, rows), expected[:, rows])
        np.testing.assert_array_equal(found.read(name, slice(10, 33)), expected[:, 10:33])
    np.testing.assert_array_equal(
        found.read("mlp_in", slice(5, 9), layers=[1]), found.read("mlp_in", slice(5, 9))[1:]
    )
    tokens = found.tokens(slice(14, 22))
    assert tokens.token.tolist() == list(range(14, 22))
    assert tokens.use.tolist() == [n % 7 > 0 for n in range(14, 22)]
    chunks = [found.usable(c) for c in range(10)]
    assert np.concatenate(chunks).tolist() == [n for n in range(40) if n % 7]
    later = np.concatenate([found.usable(c, first_tokens=False) for c in range(10)])
    assert later.tolist() == [n for n in range(40) if n % 7 and n % 4]
    assert [int(n) for n in found.used] == [len(c) for c in chunks]
    assert found.place(18) == (18, 4, 2, 6, 2, 18)
    ids, here = found.context(18)
    assert (ids.tolist(), here) == ([18, 19], 0)  # its document begins at row 18, its sequence ends at 19


def test_order_of_writing_does_not_matter(tmp_path: Path, store: Path) -> None:
    write(tmp_path / "b", shards=[2, 0])
    with pytest.raises(InputError, match="2 of 3 shards"):
        Store(tmp_path / "b")
    write(tmp_path / "b")
    assert content(tmp_path / "b") == content(store)


def test_other_programs_can_read_the_arrays(store: Path) -> None:
    """The metadata on disk describes the array: TensorStore opens it without ours."""
    import tensorstore as ts

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store / "sites/mlp_in") + "/"}}
    np.testing.assert_array_equal(
        ts.open(spec).result().read().result(), Store(store).read("mlp_in", slice(None))
    )


FILE = "sites/mlp_in/c.0.1.0"


def problem(folder: Path) -> str | None:
    """What opening and verifying a store says, None if all is well."""
    try:
        Store(folder).verify()
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", ["missing", "truncated", "grown", "empty"])
def test_a_shard_of_another_size_is_named(store: Path, fault: str, when: str) -> None:
    """Found when the store is opened; or, where it happens after that, by the read that touches it."""
    path = store / FILE
    opened = Store(store) if when == "after" else None
    if fault == "missing":
        path.unlink()
    elif fault == "grown":
        path.write_bytes(path.read_bytes() + b"x")
    else:
        os.truncate(path, 0 if fault == "empty" else path.stat().st_size - 7)
    with pytest.raises(InputError, match=f"shard 1 is damaged: {FILE} (is missing|has .* bytes)"):
        opened.read("mlp_in", slice(20, 24)) if opened else Store(store)
    if opened:
        assert opened.read("mlp_in", slice(0, 16)).shape == (2, 16, 3)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flips") / "store"
    write(folder)
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    name = data.draw(st.sampled_from(names))
    raw = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[place // 8] ^= 1 << place % 8
    (folder / name).write_bytes(raw)
    error = problem(folder)
    if error is not None:
        assert "/c." not in name or name in error
        return
    # What is not one of ours may be changed without harm, if the change means nothing.
    assert name.endswith("zarr.json"), name
    found = Store(folder).read("mlp_in", slice(0, 16))
    np.testing.assert_array_equal(found, values_of(LAYOUT, 0)["sites/mlp_in"])


def test_a_flipped_bit_is_an_error_when_it_is_read(store: Path) -> None:
    raw = bytearray((store / FILE).read_bytes())
    raw[30] ^= 4
    (store / FILE).write_bytes(raw)
    opened = Store(store)
    with pytest.raises(
        InputError, match=f"shard 1 is damaged: the bytes of {FILE} do not match their checksums"
    ):
        opened.read("mlp_in", slice(None))
    with pytest.raises(InputError, match="shard 1 is damaged"):
        opened.read("mlp_in", np.array([2, 16, 17]))


def test_a_whole_shard_in_the_wrong_place_is_found(store: Path) -> None:
    shutil.copy(store / "sites/mlp_in/c.0.0.0", store / FILE)
    for use in (Store.verify, lambda s: s.read("mlp_in", slice(16, 17))):
        with pytest.raises(
            InputError, match=f"shard 1 is damaged: {FILE} is not the file that the ledger knows"
        ):
            use(Store(store))


def test_damage_is_repaired_and_only_then(tmp_path: Path, store: Path) -> None:
    sound = content(store)
    raw = bytearray((store / FILE).read_bytes())
    raw[-1] ^= 1
    (store / FILE).write_bytes(raw)
    (store / "tokens/c.2.0").unlink()
    with pytest.raises(
        InputError, match=r"shard 2 is damaged: tokens/c.2.0 is missing; collect again with repair"
    ):
        prepare(store, LAYOUT, {"seed": 1})
    lines = prepare(store, LAYOUT, {"seed": 1}, repair=True)
    assert sorted(lines) == [0]
    assert not (store / FILE).exists()
    write(store)
    assert content(store) == sound


def test_another_store_or_folder_is_not_written_over(tmp_path: Path, store: Path) -> None:
    before = content(store)
    with pytest.raises(InputError, match=r"other settings \(seed: 1 there, 2 here\)"):
        prepare(store, LAYOUT, {"seed": 2})
    other = Layout(LAYOUT.sites, "int8", 40, 16, 4, 4, 8)
    with pytest.raises(InputError, match=r"\(layout.dtype: 'float32' there, 'int8' here\)"):
        prepare(store, other, {"seed": 1})
    assert content(store) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"not empty .it holds thesis.txt"):
        prepare(tmp_path / "mine", LAYOUT, {})
    with pytest.raises(InputError, match="cannot write the store"):
        prepare(tmp_path / "mine/thesis.txt", LAYOUT, {})


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path, store: Path) -> None:
    write(tmp_path / "b", shards=[1])
    ledger = store_ledger.part(tmp_path / "b", 0)
    half = store_ledger.Line(2, (4, 4), (4, 4), {}).text().encode()[:-9]
    ledger.write_bytes(ledger.read_bytes() + half)
    for name in (
        "sites/mlp_in/c.0.0.0", "sites/mlp_in/c.0.2.0.__lock", "tokens/c.0.0.__lock", ".store.json.abc.tmp", "notes.md",
    ):  # fmt: skip
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).write_bytes(b"half")
    write(tmp_path / "b")
    (tmp_path / "b/notes.md").unlink()
    assert content(tmp_path / "b") == content(store)


def test_a_damaged_ledger_is_named(store: Path) -> None:
    path = store / "ledger.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace('"shard": 1', '"shard": 0') + lines[2])
    with pytest.raises(InputError, match=r"ledger.jsonl, line 2 is damaged"):
        Store(store)
    path.write_text("".join(lines)[:-5])
    with pytest.raises(InputError, match="cut off after line 2"):
        Store(store)
    moved = store_ledger.Line(7, (4, 4, 4, 4), (4, 4, 4, 4), {}).text()
    path.write_text("".join(lines) + moved)
    with pytest.raises(InputError, match="line 4: shard 7, the store has 3"):
        Store(store)


def test_what_is_no_store_is_said(tmp_path: Path, store: Path) -> None:
    with pytest.raises(InputError, match=r"it has no store.json"):
        Store(tmp_path)
    header = json.loads((store / "store.json").read_text())
    header["layout"]["rows"] = 48
    (store / "store.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match="does not match its checksum"):
        Store(store)
    (store / "store.json").write_text('{"format": "jaxinterp.activations", "version": 9}')
    with pytest.raises(InputError, match="version 9, this version reads"):
        Store(store)


def test_rows_and_sites_that_are_not_there_are_refused(store: Path) -> None:
    opened = Store(store)
    with pytest.raises(InputError, match=r"no site 'mlp_inn' .did you mean mlp_in"):
        opened.read("mlp_inn", slice(0, 1))
    with pytest.raises(InputError, match="layer 0 of resid_post is not stored"):
        opened.read("resid_post", slice(0, 1), layers=[0])
    with pytest.raises(InputError, match="rows 0 to 39"):
        opened.read("mlp_in", np.array([40]))


def test_a_full_disk_loses_nothing_that_was_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger meets a full disk in the middle of a line: the shard does not count, those before it do."""
    original, calls = os.write, []

    def full(handle: int, data: bytes) -> int:
        calls.append(1)
        if len(calls) == 2:
            original(handle, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(handle, data)

    monkeypatch.setattr(store_ledger.os, "write", full)
    with pytest.raises(
        InputError, match=r"cannot write shard 1 .*: no space left on the disk; shards in its ledger"
    ):
        write(tmp_path / "store")
    monkeypatch.undo()
    assert sorted(store_ledger.read(tmp_path / "store", LAYOUT)) == [0]
    assert store_ledger.part(tmp_path / "store", 0).read_bytes().endswith(b"}\n")
    write(tmp_path / "store")
    write(tmp_path / "b")
    assert content(tmp_path / "store") == content(tmp_path / "b")


LIMITED = """
import resource, sys
from pathlib import Path
from tests.activations.test_store import LAYOUT, prepare, values_of
from jaxinterp.activations.store_writer import StoreWriter
from jaxinterp.core.errors import InputError
folder = Path(sys.argv[1])
prepare(folder, LAYOUT, {"seed": 1})
with StoreWriter(folder, LAYOUT) as writer:
    writer.submit(0, values_of(LAYOUT, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    with StoreWriter(folder, LAYOUT) as writer:
        writer.submit(1, values_of(LAYOUT, 1))
except InputError as error:
    print(error)
"""


def test_the_system_refusing_to_write_is_an_error(tmp_path: Path) -> None:
    """The kernel itself refuses, in TensorStore's own writes, in a process with a limit on the size of files."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "store")], capture_output=True, text=True, cwd=ROOT, check=True
    )  # fmt: skip
    assert "cannot write shard 1 of the store" in done.stdout
    assert "File too large" in done.stdout
    assert sorted(store_ledger.read(tmp_path / "store", LAYOUT)) == [0]
    write(tmp_path / "store")
    assert len(Store(tmp_path / "store").lines) == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-30, 1e-3, 1.0, 1e4]))
def test_int8_keeps_every_number_to_half_a_step(seed: int, size: float) -> None:
    x = (np.random.default_rng(seed).normal(size=(2, 5, 7)) * size).astype(np.float32)
    x[0, 1] = 0
    q, scale = map(np.asarray, encode(jnp.asarray(x), "int8"))
    assert (q.dtype, scale.shape) == (np.int8, (2, 5))
    back = decode(q, scale)
    assert (np.abs(back - x) <= 0.5001 * scale[..., None]).all()
    assert (back[0, 1] == 0).all()
    np.testing.assert_allclose(np.abs(back).max(axis=-1), np.abs(x).max(axis=-1), rtol=1e-6)


def test_each_dtype_comes_back_to_its_own_precision(tmp_path: Path) -> None:
    exact = make_store(tmp_path / "float32").read("mlp_in", slice(None))
    for dtype, tolerance in (("bfloat16", 2.0**-8), ("int8", 1 / 254)):
        stored = make_store(tmp_path / dtype, dtype=dtype)
        found = stored.read("mlp_in", slice(None))
        assert found.dtype == np.float32
        size = np.abs(exact) if dtype == "bfloat16" else np.abs(exact).max(axis=-1, keepdims=True)
        assert (np.abs(found - exact) <= tolerance * size * 1.0001).all()
        assert (found != exact).any()
        np.testing.assert_array_equal(stored.read("mlp_in", np.array([5, 77])), found[:, [5, 77]])


def test_chunks_divide_shards() -> None:
    assert chunk_rows(4096, 64, "float32") == 4096
    assert chunk_rows(1 << 16, 512, "float32") == 512
    assert chunk_rows(3 * 1000, 4096, "float32") == 60
    for rows in (7, 64 * 255, 999_983):
        assert rows % chunk_rows(rows, 768, "bfloat16") == 0


def test_two_collections_into_one_folder_are_refused(tmp_path: Path) -> None:
    from jaxinterp.activations.store_writer import Lock

    make_store(tmp_path / "store")
    lock = Lock(tmp_path / "store")
    try:
        with pytest.raises(InputError, match="is being written by another process"):
            collect(model(), config(), tmp_path / "store")
    finally:
        lock.release()
    collect(model(), config(), tmp_path / "store")
