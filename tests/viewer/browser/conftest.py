"""One browser a test process, windows that are checked when a test ends, and the real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.viewer.browser.chromium import Browser, Page, demand


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; the test is skipped, or fails where it is required, if there is none."""
    demand()
    found = Browser()
    yield found
    found.close()


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens windows. When the test ends, none of them may have complained, breached its policy or left the machine.

    expected=("...",): parts of complaints that this window may make, such as that of a refused request.
    """
    opened: list[tuple[Page, tuple[str, ...]]] = []

    def open_one(url: str | None = None, *, expected: tuple[str, ...] = (), **settings: Any) -> Page:
        page = browser.page(**settings)
        opened.append((page, expected))
        if url is not None:
            page.goto(url)
        return page

    yield open_one
    wrong = []
    for page, expected in opened:
        wrong += [p for p in page.problems() if not any(part in p["text"] for part in expected)]
        page.close()
    assert not wrong, "\n".join(f"{p['kind']}: {p['text']} {p['where']}" for p in wrong)
