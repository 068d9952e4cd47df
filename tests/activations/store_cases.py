"""A tiny model, its text and stores of it, for the tests of this room."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from jaxinterp.activations.collect import CollectConfig, collect
from jaxinterp.activations.store_reader import Store
from jaxinterp.activations.text import TextConfig
from tests.activations.test_text import model

SITES = ("mlp_in", "mlp_out")
TEXT = TextConfig(source="tests.activations.test_text:documents", length=12, batch=8)


def config(**changes: Any) -> CollectConfig:
    """Ten batches of 96 tokens, in shards of three: the last one is shorter."""
    return CollectConfig(
        **{"batches": 10, "sites": SITES, "text": TEXT, "microbatch": 4, "shard_batches": 3, **changes}
    )


def make_store(folder: Path, **changes: Any) -> Store:
    """A finished store of the tiny model."""
    return collect(model(), config(**changes), folder)


def content(folder: Path) -> dict[str, str]:
    """Every file of a folder and the digest of its bytes."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
