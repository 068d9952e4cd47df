"""What readers and writers change in passing, in words: a conversion prints it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_NOTES: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Say that something that a file says was put in another way; once, however often it is said."""
    found = _NOTES.get()
    if found is not None and text not in found:
        found.append(text)


@contextmanager
def collected() -> Iterator[list[str]]:
    """The notes made in the body, in their order."""
    found: list[str] = []
    token = _NOTES.set(found)
    try:
        yield found
    finally:
        _NOTES.reset(token)
