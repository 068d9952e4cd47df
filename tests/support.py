"""Helpers that tests share: where optional material is, tiny models, tiny dictionaries."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared(name: str) -> Path:
    """A file or folder of the optional test material beside the repository; skips where it is absent."""
    path = ROOT.parent / "shared" / name
    if not path.exists():
        pytest.skip(f"optional test material {name} is not here")
    return path
