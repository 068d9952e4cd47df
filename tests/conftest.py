"""Every test runs on 8 virtual devices with strict dtype and rank promotion."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one worker, or a program that a test starts, has compiled the others load. The first process makes the
    # folder and removes it; workers find it in their environment.
    _cache = tempfile.mkdtemp(prefix="jaxinterp-compiled-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test with 64-bit types on."""
    with jax.enable_x64(True):
        yield


MAPS = Path("/proc/self/maps")
MOST_MAPS = 25_000


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps() -> Iterator[None]:
    """Forget compiled programs when there are many: each takes memory maps, of which Linux gives a process 65,530.

    Without it a worker that has run most of the suite is ended by a segmentation fault inside the compiler.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


NEED = "tests of the page need more: "  # how tests/viewer/browser/chromium.py begins to say what is missing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not tested because there is no browser."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    missing = {text.split(NEED, 1)[1].rstrip("')") for text in reasons if NEED in text}
    if missing:
        count = sum(NEED in text for text in reasons)
        terminalreporter.write_line(
            f"{count} tests of the viewer's page skipped: {'; '.join(sorted(missing))}"
        )
