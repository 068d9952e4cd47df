"""Every test runs on 8 virtual devices with strict dtype and rank promotion."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests share compiled programs through jax's own cache folder when the caller sets one.

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64() -> Iterator[None]:
    """Run the test with 64-bit types on."""
    with jax.enable_x64(True):
        yield
