"""Where compiled programs are kept, and that a process after the first is quick."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from jaxinterp.core.compiled import FOLDER, cache_folder, keep_compiled

QUICK = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A process that has not imported jax, with nothing set but a cache folder of the user's."""
    found = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", found)
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setattr(sys, "platform", "linux")
    return found


def test_below_the_users_cache(environment: dict[str, str], tmp_path: Path) -> None:
    place = keep_compiled()
    assert place == cache_folder()
    assert place.is_dir()
    assert place.parent == tmp_path / "cache" / "jaxinterp"
    assert environment[FOLDER] == str(place)
    assert float(environment[QUICK]) == 0
    environment["XDG_CACHE_HOME"] = "relative"  # of no meaning, says its specification
    assert cache_folder().parent == tmp_path / ".cache" / "jaxinterp"


@pytest.mark.parametrize(("given", "place"), [("elsewhere", Path("elsewhere")), ("", None)])
def test_what_the_user_set_stands(environment: dict[str, str], given: str, place: Path | None) -> None:
    environment[FOLDER] = given
    before = dict(environment)
    assert keep_compiled() == place
    assert environment == before


def test_thresholds_that_the_user_set_stand(environment: dict[str, str]) -> None:
    environment[QUICK] = "5"
    keep_compiled()
    assert environment[QUICK] == "5"


def test_off(environment: dict[str, str], tmp_path: Path) -> None:
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    assert keep_compiled() is None
    assert FOLDER not in environment
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_made(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert keep_compiled() is None
    assert FOLDER not in environment
    assert keep_compiled(tmp_path / "other") == tmp_path / "other"


@pytest.mark.slow
def test_a_second_process_is_quick(tmp_path: Path) -> None:
    """Pocket from the command line in under 4 CPU seconds, the import of jax apart, once programs are on disk."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "PYTHONDONT"))
    }
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode")}
    environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    environment["JAX_PLATFORMS"] = "cpu"
    command = [
        sys.executable, "-m", "jaxinterp.cli.main", "trace", "--model", "pocket", "--dictionary", "pocket", "--quiet",
        "--prompt", "emma stewart met paul reed , paul reed met emma",
    ]  # fmt: skip

    def seconds(arguments: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(arguments, env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    first = seconds(command)
    assert list(tmp_path.glob("jaxinterp/*/*"))
    second = min(seconds(command) for _ in range(2))
    assert second - seconds([sys.executable, "-c", "import jax"]) < 4
    assert second < first
