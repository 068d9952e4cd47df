"""The page that is shipped is the page that its sources make; its types and its own unit tests hold."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.viewer.browser.chromium import ROOT, WEB, demand

ASSETS = ROOT / "jaxinterp/viewer/assets"
LIMIT = 400_000  # bytes, compressed


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """node and the page's packages."""
    demand(browser=False)


def run(*command: str) -> str:
    """What a tool of the page's packages prints; fails with it where the tool fails."""
    environment = {**os.environ, "NO_COLOR": "1", "CI": "1"}
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_shipped_page_is_what_its_sources_make(tmp_path: Path) -> None:
    run("npm", "run", "--silent", "build", "--", "--outDir", str(tmp_path / "assets"), "--emptyOutDir")
    made, shipped = contents(tmp_path / "assets"), contents(ASSETS)
    assert sorted(made) == sorted(shipped)
    differing = [name for name in made if made[name] != shipped[name]]
    assert not differing, f"{differing} are not what `npm run build` in jaxinterp/viewer/web makes"


def test_shipped_page_is_small_and_refers_to_nothing_elsewhere() -> None:
    shipped = contents(ASSETS)
    assert {"index.html", "page.js", "page.css"} == set(shipped)
    assert len(shipped["page.js"]) > 10_000
    assert sum(len(gzip.compress(data, 9)) for data in shipped.values()) < LIMIT
    for name in ("index.html", "page.css"):
        assert b"//" not in shipped[name].replace(b"http://www.w3.org/", b""), name


def test_unit_tests_of_the_page(tmp_path: Path) -> None:
    found = list((WEB / "src").rglob("*.test.ts")) + list((WEB / "src").rglob("*.test.tsx"))
    assert found, "the page has no unit test"
    text = run("npx", "--no-install", "vitest", "run", "--cache=false")
    assert "passed" in text and "failed" not in text


def test_lock_file_names_no_address_and_packages_are_the_locked_ones() -> None:
    assert "resolved" not in (WEB / "package-lock.json").read_text()
    assert "omit-lockfile-registry-resolved" in (WEB / ".npmrc").read_text()
    assert shutil.which("npm") is not None
    run("npm", "ls", "--all", "--silent")
