"""How fast the viewer's page is, in a real Chromium, on graphs of several sizes.

    python -m tests.benchmarks.bench_viewer [--folder FOLDER] [--graph FILE]... [--openings 5] [--clicks 20]

For each graph a fresh `jaxinterp view` is started and printed are: ms from the start of navigation to the first
drawing (median, best and worst of several windows), ms from the click to the drawing that follows it (random nodes,
then the node with most edges), bytes of JavaScript's heap and of typed arrays after collecting garbage, and seconds
from the start of the process until a graph is drawn. Without --graph: the real graph of about 500 nodes of the
optional test material where it is, one of pocket's size, and 10,000 nodes with 1,000,000 links, as our native file
and as 84 MB of circuit-tracer's JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from tests.support import ROOT
from tests.viewer.browser.chromium import Browser, Page, absent
from tests.viewer.browser.served import Server
from tests.viewer.synthetic import document, synthetic, write_json

REAL = ROOT.parent / "shared/cases/graphs/mit-gemma2-2b-clthp-night.json"
DRAWN = "performance.getEntriesByName('jaxinterp:first-drawing')[0]"
# The time stamp of the click itself, made where the browser receives it.
LISTEN = "addEventListener('click', (e) => { window.__at = e.timeStamp; }, true)"
CLICKED = "(performance.getEntriesByName('jaxinterp:click-drawn').at(-1)?.startTime ?? 0)"


def graphs(folder: Path) -> list[Path]:
    """The graphs to be measured, made where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    small, large, text = folder / "small.jigraph", folder / "large.jigraph", folder / "large.json"
    if not small.exists():
        synthetic(500, 6000).save(small)
    if not (large.exists() and text.exists()):
        graph = synthetic(10_000, 1_000_000, layers=26, tokens=40, targets=10)
        graph.save(large)
        write_json(text, document(graph))
    return [*([REAL] if REAL.exists() else []), small, large, text]


def first_drawing(browser: Browser, server: Server) -> tuple[Page, float]:
    """A new window and ms from the start of its navigation to the first drawing."""
    page = browser.page(watch=False)
    page.goto(server.url, until="commit")
    page.wait(f"{DRAWN} !== undefined", 120)
    return page, page.js(f"{DRAWN}.startTime")


def click(page: Page, node: int) -> float | None:
    """ms from a click on a node's glyph to the drawing; None where another node lies above it, or none is there."""
    place = page.js(f"window.jaxinterp.places.graph({node})")
    if place is None:
        return None
    page.js("performance.clearMarks('jaxinterp:click-drawn')")
    page.mouse(place, click=False)
    before = page.js("window.jaxinterp.session.clicked.value")
    page.mouse(place)
    if page.js("window.jaxinterp.session.clicked.value") == before:
        return None
    return page.wait(f"{CLICKED} && {CLICKED} - window.__at", 20)


def clicks(page: Page, count: int) -> None:
    """Click random nodes and the one with most edges; print ms."""
    page.js(LISTEN)
    size = page.js("window.jaxinterp.session.graph.value.n")
    order = np.random.default_rng(0).permutation(size).tolist()
    found: list[float] = []
    while order and len(found) < count:
        took = click(page, order.pop())
        if took is not None:
            found.append(took)
    middle, worst = statistics.median(found), max(found)
    print(f"  click to drawing, {len(found)} random nodes: median {middle:.1f} ms, worst {worst:.1f} ms")
    page.js(
        "window.__busy = (() => { const g = window.jaxinterp.session.graph.value; const d = (i) => g.inStart[i + 1]"
        " - g.inStart[i] + g.outStart[i + 1] - g.outStart[i];"
        " return [...Array(g.n).keys()].sort((a, b) => d(b) - d(a)).slice(0, 40).map((i) => [i, d(i)]); })()"
    )
    busiest: list[float] = []
    for node, degree in page.js("window.__busy"):
        took = click(page, node)
        if took is None or page.js("window.jaxinterp.session.clicked.value") != node:
            continue
        busiest.append(took)
        print(f"  click to drawing, node with {degree} edges: {took:.1f} ms")
        if len(busiest) == 3:
            break


def memory(page: Page) -> None:
    """Print what the page's scripts hold."""
    found = page.ask("heap")
    objects, buffers = found["usedSize"], found.get("backingStorageSize", 0)
    print(
        f"  heap: {(objects + buffers) / 1e6:.1f} MB ({objects / 1e6:.1f} objects, {buffers / 1e6:.1f} typed arrays)"
    )
    measured = page.js(
        "(async () => window.crossOriginIsolated ? (await Promise.race([performance.measureUserAgentSpecificMemory(),"
        " new Promise((done) => setTimeout(() => done({bytes: null}), 25000))])).bytes : null)()"
    )
    if measured is not None:
        print(f"  performance.measureUserAgentSpecificMemory: {measured / 1e6:.1f} MB")


def measure(file: Path, openings: int, count: int) -> None:
    """All figures of one graph."""
    print(f"{file.name}: {file.stat().st_size} bytes", flush=True)
    browser = Browser(["--enable-blink-features=ForceEagerMeasureMemory"])
    try:
        with Server(file) as server:
            page, took = first_drawing(browser, server)
            since = page.js(f"(performance.timeOrigin + {DRAWN}.startTime) / 1000") - server.started
            graph = "window.jaxinterp.session.graph.value"
            print(f"  {page.js(f'{graph}.n')} nodes, {page.js(f'{graph}.header.n_edges')} links")
            print(f"  from the process's start: server ready {server.seconds:.2f} s, drawn {since:.2f} s")
            times = [took]
            for _ in range(openings - 1):
                page.close()
                page, took = first_drawing(browser, server)
                times.append(took)
            print(
                f"  navigation to first drawing: first {times[0]:.0f} ms, then median"
                f" {statistics.median(times[1:] or times):.0f} ms, best {min(times):.0f} ms, worst {max(times):.0f} ms"
            )
            page.wait("window.jaxinterp.session.report.value !== null", 120)
            time.sleep(1)
            clicks(page, count)
            memory(page)
    finally:
        browser.close()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where the graphs are kept (default: a temporary folder)")
    parser.add_argument("--graph", type=Path, action="append", help="measure this graph instead")
    parser.add_argument("--openings", type=int, default=5)
    parser.add_argument("--clicks", type=int, default=20)
    options = parser.parse_args()
    missing = absent()
    if missing:
        raise SystemExit(missing)
    warnings.simplefilter("ignore")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        for file in options.graph or graphs(options.folder or Path(temporary)):
            measure(file, options.openings, options.clicks)


if __name__ == "__main__":
    main()
