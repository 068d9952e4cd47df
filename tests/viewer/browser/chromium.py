"""A real browser for tests: Debian's Chromium, driven through driver.mjs by one JSON object a line.

Needs node, the viewer's node_modules (`npm ci` in jaxinterp/viewer/web) and Chromium. `absent()` says what is not
there. With JAXINTERP_BROWSER=required nothing may be absent; with JAXINTERP_BROWSER=off the browser is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
WEB = ROOT / "jaxinterp/viewer/web"
DRIVER = Path(__file__).with_name("driver.mjs")
NAMES = ("chromium", "chromium-browser", "google-chrome")
VARIABLE = "JAXINTERP_BROWSER"
PATIENCE = 60.0  # seconds until an order that has not been answered counts as stuck


def binary() -> str | None:
    """Where Chromium is: $CHROMIUM, else on the path."""
    return next((found for found in (os.environ.get("CHROMIUM"), *map(shutil.which, NAMES)) if found), None)


def absent(browser: bool = True) -> str | None:
    """What is missing for the page's own tools (node and packages) and, if asked, for the browser; None if nothing."""
    if os.environ.get(VARIABLE) == "off":
        return f"{VARIABLE}=off"
    if shutil.which("node") is None:
        return "node is not installed"
    if not (WEB / "node_modules/playwright-core").exists():
        return "the page's packages are not installed: run `npm ci` in jaxinterp/viewer/web"
    if browser and binary() is None:
        return "chromium is not installed"
    return None


def demand(browser: bool = True) -> None:
    """Skip the test, and say why, where something is missing; fail where JAXINTERP_BROWSER=required."""
    missing = absent(browser)
    if missing is None:
        return
    if os.environ.get(VARIABLE) == "required":
        pytest.fail(f"{missing}, and {VARIABLE}=required")
    pytest.skip(f"tests of the page need more: {missing}")


class Failure(Exception):
    """The browser could not do what was asked."""


class Browser:
    """One Chromium. flags: further ones of its command line."""

    def __init__(self, flags: Iterable[str] = ()) -> None:
        command = ["node", str(DRIVER), str(WEB), str(binary()), *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.number = 0

    def ask(self, op: str, patience: float = PATIENCE, **values: Any) -> Any:
        """Give one order and wait for its answer. Raises Failure."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.number += 1
        order = {"number": self.number, "op": op, **{k: v for k, v in values.items() if v is not None}}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        alarm = threading.Timer(patience, self.process.kill)
        alarm.start()
        line = self.process.stdout.readline()
        alarm.cancel()
        if not line:
            raise Failure(f"the browser's driver ended, or took more than {patience:.0f} s, at {op} {values}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(f"{op} {values}: {answer['error']}")
        return answer["value"]

    def page(self, **settings: Any) -> Page:
        """A new window; settings as in driver.mjs `open` (width, height, scheme, offline, watch, shares)."""
        return Page(self, self.ask("open", **settings))

    def close(self) -> None:
        """End the browser."""
        if self.process.poll() is None:
            try:
                self.ask("quit", 10)
                self.process.wait(10)
            except (Failure, OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()


class Page:
    """One window of a browser."""

    def __init__(self, browser: Browser, number: int) -> None:
        self.browser, self.number = browser, number
        self.seen: list[dict[str, str]] = []

    def ask(self, op: str, **values: Any) -> Any:
        """An order for this window; see driver.mjs. patience: seconds."""
        return self.browser.ask(op, page=self.number, **values)

    def goto(self, url: str, until: str = "load") -> dict[str, Any]:
        """Open an address: {"status", "headers"}."""
        return self.ask("goto", url=url, until=until)

    def open_file(self, path: Path) -> None:
        """Open a file of this machine, as a double click does."""
        self.ask("goto", file=str(path))

    def js(self, code: str, frame: int = 0) -> Any:
        """The value of an expression in the page."""
        return self.ask("js", code=code, frame=frame)

    def wait(self, code: str, seconds: float = 15, frame: int = 0) -> Any:
        """Wait until an expression is true; its value."""
        return self.ask("wait", code=code, seconds=seconds, frame=frame, patience=seconds + 30)

    def click(self, selector: str, **values: Any) -> None:
        """Click on the first element of a selector, as soon as it can be clicked."""
        self.ask("click", selector=selector, **values)

    def fill(self, selector: str, text: str) -> None:
        """Put text into a field."""
        self.ask("fill", selector=selector, text=text)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key, such as "Control+z"."""
        self.ask("press", key=key, times=times)

    def mouse(self, place: Sequence[float], **values: Any) -> None:
        """Click (or with click=False move to) a place of the window."""
        self.ask("mouse", x=place[0], y=place[1], **values)

    def count(self, selector: str) -> int:
        """How many elements there are."""
        return self.ask("count", selector=selector)

    def text(self, selector: str) -> str:
        """The text of the first element of a selector, as shown."""
        return self.ask("text", selector=selector)

    def download(self, selector: str, to: Path) -> str:
        """Click and keep the download; the name it was given."""
        return self.ask("download", selector=selector, path=str(to))["name"]

    def screenshot(self, to: Path, selector: str | None = None) -> None:
        """A picture of the window or of one element."""
        self.ask("screenshot", path=str(to), selector=selector)

    def problems(self) -> list[dict[str, str]]:
        """All that went wrong in this window so far: errors, breaches of its policy, requests outside."""
        self.seen += self.ask("problems")
        return self.seen

    def close(self) -> None:
        """Close the window."""
        self.ask("close")
