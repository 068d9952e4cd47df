"""Atomic files, digests, progress, operation counts."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinterp.core import files, flops, trees
from jaxinterp.core.errors import InputError, near
from jaxinterp.core.progress import Progress


class TestFiles:
    def test_replaces_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        files.write_text(path, "old")
        files.write_text(path, "new")
        assert path.read_text() == "new"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        with pytest.raises(RuntimeError), files.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["file"]

    def test_a_full_disk_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Path, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match="No space left"):
            files.write_text(tmp_path / "file", "text")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("place", ["missing/file", "."])
    def test_unwritable(self, tmp_path: Path, place: str) -> None:
        with pytest.raises(InputError, match="cannot write"):
            files.write_text(tmp_path / place, "text")

    def test_folder_replaces_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "folder"
        for name in ("one", "two"):
            with files.atomic_folder(target) as temporary:
                (temporary / name).write_text(name)
        assert os.listdir(target) == ["two"]
        with pytest.raises(RuntimeError), files.atomic_folder(target) as temporary:
            (temporary / "three").write_text("")
            raise RuntimeError
        assert os.listdir(target) == ["two"]
        assert os.listdir(tmp_path) == ["folder"]

    @pytest.mark.parametrize(
        ("data", "message"), [(b"{", "line 1"), (b"\xff", "UTF-8"), (b"[" * 100_000, "nested|JSON")]
    )
    def test_broken_json(self, tmp_path: Path, data: bytes, message: str) -> None:
        (tmp_path / "x.json").write_bytes(data)
        with pytest.raises(InputError, match=message):
            files.read_json(tmp_path / "x.json")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="No such file"):
            files.read_json(tmp_path / "none.json")

    def test_nan_is_not_json(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            files.write_json(tmp_path / "x.json", float("nan"))


def test_digest_sees_names_dtypes_shapes_and_bytes() -> None:
    base = {"a": np.arange(6, dtype=np.float32), "b": (np.zeros(2), np.ones(2))}
    same = {"b": (np.zeros(2), np.ones(2)), "a": jnp.arange(6, dtype=jnp.float32)}
    assert trees.digest(base) == trees.digest(same)
    others = [
        {**base, "a": base["a"].reshape(2, 3)},
        {**base, "a": base["a"].astype(np.float64)},
        {"c": base["a"], "b": base["b"]},
        {**base, "a": base["a"] + np.float32(1e-6)},
        {**base, "b": base["b"][::-1]},
    ]
    assert len({trees.digest(x) for x in [base, *others]}) == 6


def test_unflatten_inverts_paths() -> None:
    tree = {"a": {"b": 1, "c": {"d": 2}}}
    assert trees.unflatten(dict(trees.paths(tree))) == tree


def test_near_names() -> None:
    assert near("hidden_sise", ["hidden_size", "layers"]) == " (did you mean hidden_size?)"
    assert near("zzz", ["hidden_size"]) == ""


def test_flops_count_loop_bodies_every_time() -> None:
    x = jax.ShapeDtypeStruct((4, 8), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 8, 8), jnp.float32)

    def scanned(x, w):
        return jax.lax.scan(lambda c, m: (c @ m, None), x, w)[0]

    assert flops.count(scanned, x, w) == 3 * 2 * 4 * 8 * 8
    assert flops.count(jax.jit(scanned), x, w) == 3 * 2 * 4 * 8 * 8
    assert flops.count(jax.vmap(lambda x: x @ jnp.ones((8, 2))), x) == 2 * 4 * 8 * 2


def test_progress_reports_rate_and_time_left() -> None:
    stream = io.StringIO()
    progress = Progress("train", 100, unit="steps", every=0, stream=stream)
    progress.begin(40)
    progress.advance(10, "loss 1.0")
    progress.close()
    assert "train  50/100" in stream.getvalue()
    assert "left" in stream.getvalue()
    quiet = io.StringIO()
    Progress("x", quiet=True, every=0, stream=quiet).advance()
    assert quiet.getvalue() == ""


def test_core_and_graphs_do_not_import_jax() -> None:
    code = (
        "import pkgutil, importlib, sys, jaxinterp.core, jaxinterp.graphs\n"
        "for m in pkgutil.iter_modules(jaxinterp.core.__path__): importlib.import_module('jaxinterp.core.' + m.name)\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_digest_does_not_change_when_a_config_gains_a_field() -> None:
    @dataclasses.dataclass(frozen=True)
    class Old:
        width: int
        kind: str = "a"

        def to_dict(self) -> dict[str, Any]:
            return dataclasses.asdict(self)

    @dataclasses.dataclass(frozen=True)
    class New(Old):
        added: float = 1.0

    weights = {"w": np.arange(3.0)}
    old = trees.digest_with_config(Old(4), weights)
    assert trees.digest_with_config(New(4), weights) == old
    different = (New(5), New(4, "b"), New(4, added=2.0))
    assert len({trees.digest_with_config(config, weights) for config in different} | {old}) == 4
