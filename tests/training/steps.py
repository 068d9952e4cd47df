"""Compiled starts and steps, so that tests of one run in one process share them."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from jaxinterp.training import dictionary as D

_COMPILED: dict[str, tuple[Any, Any]] = {}


def compiled(run: D.DictionaryRun, config: Any) -> tuple[Any, Any]:
    """``init(key, x, y)`` and ``step(state, (x, y))`` of a run on one device."""
    name = repr((run, config))
    if name not in _COMPILED:
        _COMPILED[name] = jax.jit(partial(D.init, run, config)), jax.jit(partial(D.step, run, config))
    return _COMPILED[name]
