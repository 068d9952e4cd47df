"""The pictures of the page in the README and in docs/, made by driving the page.

    python -m tests.benchmarks.screenshots [--out docs/images] [--graph FILE] [--other FILE]

Without --graph, pocket's two-hop question is traced, and a second one to compare it with.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support import ROOT
from tests.viewer.browser.chromium import Browser, Page, absent
from tests.viewer.browser.flows import SESSION, ready
from tests.viewer.browser.served import Server

LIMIT = 350_000  # bytes of a picture
OTHER = "the capital of the state containing saint bridge is"


def traced(folder: Path) -> tuple[Path, Path]:
    """Two graphs of pocket: the demo's question, and the same about another city."""
    found = folder / "two_hop.jigraph", folder / "other_city.jigraph"
    command = [sys.executable, "-m", "jaxinterp.cli.main", "demo", "--quiet", "--out"]
    subprocess.run([*command, str(found[0])], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    subprocess.run(
        [*command, str(found[1]), "--prompt", OTHER], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    return found


def smaller(path: Path) -> None:
    """Pack a picture as well as PNG can; one that stays too large gets 256 colours."""
    from PIL import Image

    with Image.open(path) as picture:
        plain = picture.convert("RGB")
    plain.save(path, optimize=True)
    if path.stat().st_size > LIMIT:
        plain.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
    if path.stat().st_size > LIMIT:
        raise SystemExit(f"{path} has {path.stat().st_size} bytes, over {LIMIT}")


def best_feature(page: Page) -> None:
    """Open the feature of most influence that has a label, or any."""
    page.js(
        f"(() => {{ const s = {SESSION}; const g = s.graph.value; const order = [...Array(g.n).keys()]"
        ".filter((i) => g.kind[i] === 0).sort((a, b) => g.influence[b] - g.influence[a]);"
        " s.click(order.find((i) => s.label(i)) ?? order[0]); })()"
    )
    page.ask("mouse", x=2, y=2, click=False)
    page.wait(f"{SESSION}.loading.value === null")
    page.js("new Promise((done) => setTimeout(done, 700))")


def shots(out: Path, graph: Path, other: Path) -> None:
    """All pictures."""
    out.mkdir(parents=True, exist_ok=True)
    browser = Browser()

    def shot(page: Page, name: str, selector: str | None = None) -> None:
        page.js("new Promise((done) => setTimeout(done, 500))")
        page.screenshot(out / f"{name}.png", selector)
        smaller(out / f"{name}.png")
        print(f"{name}.png", (out / f"{name}.png").stat().st_size, "bytes")

    def after(action: Callable[[], None], page: Page) -> None:
        action()
        page.wait("document.querySelector('dialog[open]') !== null")

    try:
        with Server(graph, other) as server:
            for scheme in ("light", "dark"):
                page = browser.page(scheme=scheme)
                page.goto(server.url)
                ready(page)
                best_feature(page)
                shot(page, f"viewer-{scheme}")
                if scheme == "light":
                    shot(page, "viewer-subgraph", "#pane-subgraph")
                    page.ask("resize", width=900, height=700)
                    page.click("#pane-feature [data-action=maximise]")
                    shot(page, "viewer-feature", "#pane-feature")
                    page.press("Escape")
                    page.ask("resize", width=1440, height=1080)
                    after(lambda page=page: page.click("[data-action=trust]"), page)
                    shot(page, "viewer-trust", "dialog[open]")
                    page.press("Escape")
                    page.ask("resize", width=1440, height=900)
                    page.click("[data-action=compare]")
                    page.click("[data-compare]")
                    page.wait(f"{SESSION}.other.value !== null")
                    shot(page, "viewer-compare")
                bad = [p for p in page.problems() if p["kind"] != "console warning"]
                if bad:
                    raise SystemExit(f"the page complained: {bad}")
                page.close()
    finally:
        browser.close()


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images")
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--other", type=Path)
    options = parser.parse_args()
    missing = absent()
    if missing:
        raise SystemExit(missing)
    if options.graph and options.other:
        shots(options.out, options.graph, options.other)
        return
    with tempfile.TemporaryDirectory() as temporary:
        shots(options.out, *traced(Path(temporary)))


if __name__ == "__main__":
    main()
