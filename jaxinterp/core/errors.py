"""Errors that say what was wrong, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JaxinterpError(Exception):
    """Base class of every error this package raises on purpose; ``exit_code`` is the command line's."""

    exit_code = 2


class InputError(JaxinterpError, ValueError):
    """Something a user gave does not fit. One line; the command line prints it and exits with 2."""


def near(name: object, known: Iterable[object]) -> str:
    """A hint naming the known names closest to ``name``; empty when none is close.

    >>> near("hidden_sise", ["hidden_size", "num_layers"])
    ' (did you mean hidden_size?)'
    """
    matches = difflib.get_close_matches(str(name), [str(k) for k in known], n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""
